"""What the README tells a user to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdpot.cli import main


def blocks(checkout: Path, language: str) -> list[str]:
    text = (checkout / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_commands_are_understood(checkout: Path) -> None:
    """Every `mdpot` line parses, its recipe loads; the commands that compute are run elsewhere."""
    lines = [line for block in blocks(checkout, "bash") for line in block.splitlines()]
    commands = [line.partition("mdpot ")[2] for line in lines if re.match(r"(pip install .* && )?mdpot ", line)]
    assert len(commands) >= 5
    for command in commands:
        words = shlex.split(command)
        check = "--print-recipe" if words[0] == "train" else "--help"
        result = CliRunner().invoke(main, [*words, check])
        assert result.exit_code == 0, (command, result.output)


def test_links_lead_somewhere(checkout: Path) -> None:
    pages = [*checkout.glob("*.md"), *(checkout / "docs").rglob("*.md"), checkout / "benchmarks" / "README.md"]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))]
    local = [(page, link) for page, link in links if "://" not in link]
    assert len(local) > 5
    assert [f"{page.name}: {link}" for page, link in local if not (page.parent / link).exists()] == []


def test_snippets_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks, with the shipped potential where they name a run, and a topology where they need one."""
    openmm = pytest.importorskip("openmm")
    import numpy as np

    from mdpot.simulate import water_box
    from mdpot.simulate.engine_openmm import make_topology

    names = {"topology": make_topology(water_box(8, np.random.default_rng(0)))}
    snippets = blocks(checkout, "python")
    assert len(snippets) >= 2
    for snippet in snippets:
        exec(snippet.replace("runs/water", "water-rpbe-small"), names)
    assert isinstance(names["system"], openmm.System)
