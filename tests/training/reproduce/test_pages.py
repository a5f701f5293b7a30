"""What tables and pages say of fake trainings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from mdpot import MdpotError
from mdpot.training.reproduce import EXPERIMENTS, Selection, Work
from mdpot.training.reproduce.budgets import Budget
from mdpot.training.reproduce.experiments import SCRATCH, Arm, Experiment, Paper
from mdpot.training.reproduce.grid import State
from mdpot.training.reproduce.plan import plan
from mdpot.training.reproduce.results import Outcome, Result, Value, collect
from mdpot.training.reproduce.tables import by_cell, error

from .conftest import ONE, Fake, write


def test_tables_only_needs_runs(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="holds no runs"):
        write("table1", tmp_path / "nothing", tables_only=True)


def test_means_errors_and_the_papers_numbers(tmp_path: Path) -> None:
    write("table1", tmp_path)
    text = (tmp_path / "table1.md").read_text()
    scratch, masked = (line for line in text.splitlines() if line.startswith(("| from scratch", "| masked")))
    cells = [cell.strip() for cell in masked.strip("|").split("|")]
    # Two seeds, 100 and 104: a mean of 102 and a standard error of 2; the difference is the same for both.
    assert cells[1:3] == ["102.0 ± 2.0", "90.9 ± 8.3"]
    assert cells[3:5] == ["510.0 ± 10.0", "907.6 ± 96.1"]
    assert cells[5:7] == ["-60.0 ± 0.0 (-37.0 %)", "-58.9 %"]
    assert "162.0 ± 2.0 | 221.0 ± 81.3" in scratch
    assert "labeled by the RPBE-D3 network potential (not DFT)" in text
    assert "6 runs, 0.1 h in all; threads of each: 1; device: default; torch 2; commit abc." in text
    content = json.loads((tmp_path / "table1.json").read_text())
    ours = next(cell for cell in content["cells"] if cell["kind"] == "mask")
    assert ours["test"]["force_rmse"] == {"mean": 102.0, "standard_error": pytest.approx(2.0), "n": 2}
    assert ours["paper"]["force"] == {"mean": 90.9, "standard_error": 8.3}
    assert [run["errors"]["test"]["force_rmse"] for run in ours["runs"]] == [100.0, 104.0]
    assert content["command"] == "mdpot reproduce table1"
    # What no page shows is left out: other errors, training frames, recipes.
    assert ours["pretraining"] == "500 steps of about 200 atoms, soap, learning rate 0.004"
    assert all("train" not in run["errors"] and "n_atoms" not in run["errors"]["test"] for run in ours["runs"])
    for part in (text, (tmp_path / "table1.json").read_text()):
        assert str(tmp_path) not in part


def test_convergence_finds_the_step(tmp_path: Path) -> None:
    """Scratch ends at 160 · 4/3 = 213; the pretrained one, 100 · (1 + 500/step), is at 200 from step 500 on."""
    write("convergence", tmp_path)
    row = (tmp_path / "convergence.md").read_text().split("---:|\n")[1].splitlines()[0]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:2] == ["water-rpbe", "egnn"]
    assert cells[2].startswith("216.0 ±")
    assert cells[3:] == ["1,500 ± 0", "500 ± 0", "600", "2 of 2"]


def test_the_regime_shows_what_outliers_decide_less(tmp_path: Path) -> None:
    """Scratch and masked, RMSE, MAE, and where the one reaches the other."""
    write("regime", tmp_path, Selection(seeds=2, models=("egnn",), datasets=("water-rpbe",)))
    text = (tmp_path / "regime.md").read_text()
    assert [line.split("|")[1].strip() for line in text.split("force MAE")[1].splitlines()[2:6]] == [
        *("from scratch", "from scratch, longer", "masked", "denoised")
    ]
    assert "| water-rpbe | egnn | 216.0 ±" in text
    rows = text.split("on the way")[1].split("---:|\n")[1].splitlines()
    way = {cells[1].strip(): [cell.strip() for cell in cells[2:-1]] for cells in (row.split("|") for row in rows[:4])}
    # Half of 160 · (1 + 500/step) and of 100 · (1 + 500/step), at the last step of 1,500.
    assert way["from scratch"][-2].startswith("108.0 ±")
    assert way["masked"][-2].startswith("68.0 ±")
    assert way["masked"][-1] == "2"


def test_masking_is_compared_with_both_lengths_from_scratch(tmp_path: Path) -> None:
    """As figure 2 of the paper, whose numbers are known for the regular length alone."""
    write("extended-epochs", tmp_path)
    text = (tmp_path / "extended-epochs.md").read_text()
    assert "| water-rpbe | egnn | from scratch | -60.0 ± 0.0 (-37.0 %) | -58.9 % |" in text
    assert "| water-rpbe | egnn | from scratch, longer | -60.0 ± 0.0 (-37.0 %) | figure only |" in text


def test_how_many_labels_a_pretraining_saves(tmp_path: Path) -> None:
    """From scratch 200 at 10 frames and 50 at 100; masked 100, in the middle of the two on a logarithmic scale."""
    settings = Selection(seeds=1, models=("egnn",), datasets=("water-rpbe",), frames=(10, None))
    write("learning-curve", tmp_path, settings)
    for folder, force in (("scratch-10frames+500steps", 200.0), ("scratch+500steps", 50.0)):
        path = tmp_path / "runs" / "water-rpbe" / "egnn" / folder / "seed0" / "metrics.json"
        path.write_text(path.read_text().replace('"force_rmse": 160.0', f'"force_rmse": {force}'))
    write("learning-curve", tmp_path, settings, tables_only=True)
    needed = (
        (tmp_path / "learning-curve.md")
        .read_text()
        .split("needs for the same force RMSE:")[1]
        .split("force MAE")[0]
        .splitlines()
    )
    assert "| 10 | 32 | 32 | 32 |" in needed
    assert "| all | 32 | 32 | 32 |" in needed
    path = tmp_path / "runs" / "water-rpbe" / "egnn" / "scratch+500steps" / "seed0" / "metrics.json"
    path.write_text(path.read_text().replace('"force_rmse": 50.0', '"force_rmse": 101.0'))
    write("learning-curve", tmp_path, settings, tables_only=True)
    assert "| 10 | > 100 | > 100 | > 100 |" in (tmp_path / "learning-curve.md").read_text()


def test_cost_times_dynamics_after_all_else(tmp_path: Path) -> None:
    fake = Fake(turns=2)
    write("cost", tmp_path, Selection(seeds=1, models=("egnn",), datasets=("water-rpbe",)), fake, work=Work(jobs=2))
    kinds = ["dynamics" in folder for folder in fake.begun]
    assert kinds == sorted(kinds)
    assert kinds.count(True) == 2
    text = (tmp_path / "cost.md").read_text()
    # 600 steps in 30 s, 40 steps to an epoch; the paper: 0.57 h for 100 epochs.
    assert "| water-rpbe | egnn | pretraining | 600 | 30.0 | 50 | 2 | 20.5 | 0.57 |" in text
    assert "| water-rpbe | egnn | 64 waters | 192 | 8.00 ± 0.00 | 1 |" in text


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_page_is_written_whole_and_in_part(name: str, tmp_path: Path) -> None:
    """With all runs, and with only the first: no number, no error."""
    frames = (10, None) if name == "learning-curve" else ()
    settings = Selection(seeds=2, models=("egnn", "tide"), datasets=("water-rpbe",), frames=frames)
    fake = Fake(status=lambda run: "finished" if run.folder.endswith("scratch/seed0") else "failed")
    write(name, tmp_path, settings, fake)
    for whole in (False, True):
        if whole:
            write(name, tmp_path, settings)
        text = (tmp_path / f"{name}.md").read_text()
        assert ("Unfinished" in text) != whole
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        tables = re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)
        assert tables
        for block in tables:
            assert len({row.count("|") for row in block.strip().splitlines()}) == 1
        cells = json.loads((tmp_path / f"{name}.json").read_text())["cells"]
        assert {(cell["data"], cell["model"]) for cell in cells} == {("water-rpbe", "egnn"), ("water-rpbe", "tide")}


def test_runs_of_other_data_are_pointed_out(tmp_path: Path) -> None:
    write("table1", tmp_path)
    assert "differ in their data" not in (tmp_path / "table1.md").read_text()
    path = next(tmp_path.glob("runs/*/egnn/scratch/seed0/run.json"))
    path.write_text(path.read_text().replace("f" * 64, "e" * 64))
    write("table1", tmp_path, tables_only=True)
    assert "differ in their data" in (tmp_path / "table1.md").read_text()


def test_errors_that_are_no_numbers_count_as_diverged(tmp_path: Path) -> None:
    write("table1", tmp_path)
    path = next(tmp_path.glob("runs/*/egnn/scratch/seed0/metrics.json"))
    path.write_text(path.read_text().replace("160.0", "NaN"))
    scratch = collect(plan("table1", ONE), tmp_path)[0]
    assert [o.status for o in scratch.outcomes] == ["diverged", "finished"]
    mean = scratch.mean("force_rmse")
    assert mean
    assert (mean.mean, mean.standard_error, mean.n) == (164.0, None, 1)


def test_molecules_are_compared_by_the_errors_that_the_paper_has(tmp_path: Path) -> None:
    write("masking-ratio", tmp_path, Selection(seeds=1, models=("egnn",), datasets=("rmd17-uracil",)))
    text = (tmp_path / "masking-ratio.md").read_text()
    assert "force MAE (meV/Å)" in text
    assert "force RMSE" not in text
    row = next(line for line in text.splitlines() if line.startswith("| masked, ratio 0.5 "))
    assert "| 19.0 |" in row


SHIPPED = (
    "table1",
    "table2",
    "denoising",
    "masking-ratio",
    "learning-curve",
    "objectives",
    "pooling",
    "derivative-table2",
    "derivative-table3",
)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_numbers_give_the_tables_of_their_page(name: str, checkout: Path) -> None:
    """To the letter: the JSON holds what the page shows, and the code still makes the same of it."""
    folder = checkout / "docs" / "results"
    content = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    asked: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content["settings"].items()}
    settings = Selection(**asked)
    results = []
    for cell, there in zip(plan(name, settings), content["cells"], strict=True):
        assert (cell.dataset, cell.model, cell.arm.title) == (there["data"], there["model"], there["training"])
        outcomes = []
        for run, kept in zip(cell.runs, there["runs"], strict=True):
            errors = {"train": {"n_frames": there["frames_trained_on"]}, **kept["errors"]}
            state = State(kept["status"], kept["message"], {})
            outcomes.append(Outcome(run, state, None, {"errors": errors}, {}, {}))
        result = Result(cell, tuple(outcomes), ())
        results.append(result)
        for key, mean in there["test"].items():
            found = result.mean(key)
            assert found
            assert (found.mean, found.n) == (pytest.approx(mean["mean"], rel=1e-5), mean["n"])
    assert EXPERIMENTS[name].table(results) in (folder / f"{name}.md").read_text(encoding="utf-8")


def test_a_second_paper_needs_nothing_of_the_kit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A paper of its own words, budget, table and published numbers goes from its name to its page."""
    noisy = Arm("noise", "with noise", "C3", ("objective=denoise", "sigma=0.1"), note="The noise is small.")
    paper = Paper(
        {"tiny": Budget("quick", (("*", "*", ("finetune.max_steps=7", "pretrain.max_steps=3")),))},
        published=lambda result: Value(7.5) if result.cell.arm == noisy else None,
        pretraining_name=lambda stage: f"noise-{stage.sigma:g}",
    )
    other = Experiment(
        name="other-table1", paper=paper, title="Another", question="And this one?", source="table 1",
        arms=lambda dataset: (SCRATCH, noisy), datasets=("water-rpbe",), models=("egnn",), seeds=2,
        table=lambda results: by_cell(results, [("force MAE", lambda r: error(r, "force_mae"))]),
        figure=lambda results: pytest.fail("pages of these tests are without figures"),
    )  # fmt: skip
    monkeypatch.setitem(EXPERIMENTS, other.name, other)
    fake = Fake()
    assert write(other.name, tmp_path, Selection("tiny"), fake) == []
    assert "water-rpbe/egnn/pretrain-noise-0.1/seed1" in fake.begun
    text = (tmp_path / "other-table1.md").read_text()
    assert "| from scratch | 81.0 ± 1.0 |\n| with noise | 51.0 ± 1.0 |" in text
    assert "- The noise is small." in text
    assert "finetuning 7 steps" in text
    cells = json.loads((tmp_path / "other-table1.json").read_text())["cells"]
    assert [cell["paper"] for cell in cells] == [None, {"mean": 7.5, "standard_error": None}]
    with pytest.raises(MdpotError, match="unknown budget 'small'"):
        write(other.name, tmp_path, Selection("small"))
