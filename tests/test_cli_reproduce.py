"""`mdpot reproduce`: what it hands on, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mdpot.cli import main
from mdpot.training import reproduce as package
from mdpot.training.reproduce import EXPERIMENTS, Selection, Work
from mdpot.training.reproduce.plan import plan


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[tuple[str, ...], Selection, dict[str, Any]]]:
    """Puts a recorder in the place of the experiments, and changes to a folder of its own."""
    recorded: list[tuple[tuple[str, ...], Selection, dict[str, Any]]] = []

    def record(names: tuple[str, ...], settings: Selection, **keywords: Any) -> list[Any]:
        recorded.append((names, settings, keywords))
        return []

    monkeypatch.setattr(package, "reproduce", record)
    monkeypatch.chdir(tmp_path)
    return recorded


def run(*args: str) -> Result:
    return CliRunner().invoke(main, ["reproduce", *args])


def test_everything_is_handed_on(calls: list) -> None:
    result = run(
        *["table1", "cost", "--budget", "paper", "--seeds", "3", "--models", "egnn, tide", "--datasets", "water-rpbe"],
        *["--equal", "total", "--set", "finetune.lr=1e-3", "--set", "data.molecule=none", "--data", "frames.xyz"],
        *["--out", "here", "--jobs", "2", "--threads", "1", "--device", "cpu", "--tables-only"],
    )
    assert result.exit_code == 0, result.output
    ((names, settings, keywords),) = calls
    assert names == ("table1", "cost")
    changes = ("finetune.lr=1e-3", "data.molecule=none")
    assert settings == Selection("paper", 3, ("egnn", "tide"), ("water-rpbe",), (), "total", changes)
    assert keywords["out"] == Path("here")
    assert keywords["work"] == Work(2, 1, "cpu", Path("frames.xyz"))
    assert keywords["tables_only"]
    assert keywords["command"].startswith("mdpot")


def test_defaults(calls: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdpot.threads.n_cores", lambda: 8)
    assert run("learning-curve", "--frames", "10,30,all", "--jobs", "3").exit_code == 0
    ((_, settings, keywords),) = calls
    assert settings == Selection(frames=(10, 30, None))
    assert keywords["out"] == Path("runs/reproduce-small")
    assert keywords["work"] == Work(jobs=3, threads=2)
    assert not keywords["tables_only"]


@pytest.mark.parametrize(
    ("cores", "device", "jobs", "threads"), [(2, "cpu", 2, 1), (64, "cpu", 8, 8), (16, "cuda:0", 1, 16)]
)
def test_as_many_runs_at_a_time_as_cores(
    calls: list, monkeypatch: pytest.MonkeyPatch, cores: int, device: str, jobs: int, threads: int
) -> None:
    monkeypatch.setattr("mdpot.threads.n_cores", lambda: cores)
    monkeypatch.setattr("mdpot.cli.reproduce.check_device", lambda device: None)
    assert run("table1", "--device", device).exit_code == 0
    assert calls[0][2]["work"] == Work(jobs, threads, device)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "Missing argument"),
        (("tabel1",), "Did you mean 'table1'?"),
        (("table1", "--models", "egnn,,tide"), "--models takes names with commas between them, got 'egnn,,tide'"),
        (("table1", "--models", "eggn", "--datasets", "water-rpbe"), "unknown model 'eggn'. Did you mean 'egnn'?"),
        (("learning-curve", "--frames", "10,few"), "--frames takes positive numbers, or all"),
        (("table1", "--frames", "10"), "--frames is for learning-curve and objectives"),
        (("table1", "--data", "x.xyz"), "--data is for one recipe; 2 are asked for"),
        (("table1", "--datasets", "custom"), "recipe custom is for frames of your own. Name their file by --data"),
        (("table1", "--tables-only"), "holds no runs"),
    ],
)
def test_refusals_are_one_line(
    args: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*args)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_failed_runs_show_in_the_exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = plan("table1", Selection(models=("egnn",), datasets=("water-rpbe",)))[0].runs[:1]
    monkeypatch.setattr(package, "reproduce", lambda *_, **__: list(failed))
    result = run("table1", "--out", str(tmp_path))
    assert result.exit_code == 1
    assert "1 runs failed" in result.output
    assert f"{failed[0].folder}.log" in result.output


def test_help_names_every_experiment() -> None:
    text = run("--help").output
    assert all(name in text for name in EXPERIMENTS)
