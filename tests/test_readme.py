"""What the README tells a user to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

from mdpot.cli import main

README = Path("README.md")
GUIDES = [
    Path("docs") / name for name in ("guide.md", "own-data.md", "properties.md", "engine.md", "results/README.md")
]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("page", [README, *GUIDES], ids=str)
def test_commands_are_understood(checkout: Path, page: Path) -> None:
    """Every `mdpot` line parses, its recipe loads; the commands that compute are run elsewhere."""
    lines = [line for block in blocks(checkout / page, "bash") for line in block.replace("\\\n", "").splitlines()]
    commands = [
        line.partition("mdpot ")[2] for line in lines if re.match(r"(pip install .* && |\w+=\w+ )?mdpot ", line)
    ]
    assert commands
    for command in commands:
        words = shlex.split(command, comments=True)
        check = "--print-recipe" if words[0] == "train" else "--help"
        result = CliRunner().invoke(main, [*words, check])
        assert result.exit_code == 0, (command, result.output)


def test_links_lead_somewhere(checkout: Path) -> None:
    pages = [*checkout.glob("*.md"), *(checkout / "docs").rglob("*.md"), checkout / "benchmarks" / "README.md"]
    links = [(page, link) for page in pages for link in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8"))]
    local = [(page, link) for page, link in links if "://" not in link]
    assert len(local) > 5
    assert [f"{page.name}: {link}" for page, link in local if not (page.parent / link).exists()] == []


def test_anchors_are_headings(checkout: Path) -> None:
    """The part of a link after # is a heading of the page, spelled as GitHub does."""
    pages = [*checkout.glob("*.md"), *(checkout / "docs").rglob("*.md")]
    anchors = {page.resolve(): {slug(line) for line in page.read_text(encoding="utf-8").splitlines()} for page in pages}
    links = [(page, *m) for page in pages for m in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text("utf-8"))]
    assert len(links) > 10
    missing = [
        (p.name, file, part)
        for p, file, part in links
        if part not in anchors[(p.parent / file).resolve() if file else p.resolve()]
    ]
    assert missing == []


def slug(line: str) -> str | None:
    """The anchor of a heading; None for any other line."""
    if not line.startswith("#"):
        return None
    return re.sub(r"[^\w\- ]", "", line.lstrip("#").strip().lower()).replace(" ", "-")


def test_snippets_run(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks, with the shipped potential where they name a run, and a topology where they need one."""
    openmm = pytest.importorskip("openmm")
    import numpy as np

    from mdpot.simulate import water_box
    from mdpot.simulate.engine_openmm import make_topology

    names = {"topology": make_topology(water_box(8, np.random.default_rng(0)))}
    snippets = blocks(checkout / README, "python")
    assert len(snippets) >= 2
    for snippet in snippets:
        exec(snippet.replace("runs/water", "water-rpbe-small"), names)
    assert isinstance(names["system"], openmm.System)


def test_frames_to_label_next(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guide's snippet finds the frame on which the committee disagrees most."""
    import numpy as np
    from ase.build import molecule
    from ase.io import iread, write

    from mdpot.modelfile import save_ensemble
    from mdpot.zoo import find_model

    monkeypatch.chdir(tmp_path)
    (folder := tmp_path / "runs" / "mine-300K").mkdir(parents=True)
    frames = [molecule("CH3CH2OH") for _ in range(21)]
    frames[7].set_distance(0, 1, 2.2, fix=1)
    write(folder / "trajectory.xyz", frames, format="extxyz")
    save_ensemble(tmp_path / "committee.safetensors", [find_model(name) for name in ("rmd17-ethanol", "rmd17-aspirin")])
    (snippet,) = blocks(checkout / "docs" / "guide.md", "python")
    exec(snippet, {})
    chosen = list(iread(tmp_path / "to-label.xyz"))
    assert len(chosen) == 20
    assert np.linalg.norm(np.diff(chosen[-1].positions[:2], axis=0)) == pytest.approx(2.2)
