"""Pages that take over finished runs of an earlier page, whose folders are gone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mdpot import MdpotError
from mdpot.training.reproduce import Selection
from mdpot.training.reproduce.grid import Work
from mdpot.training.reproduce.plan import plan
from mdpot.training.reproduce.recorded import read_recorded

from .conftest import Fake, write

SOME = Selection(seeds=2, models=("cgcnn",), datasets=("matbench-jdft2d",), arms=("1:1:1",))
MORE = replace(SOME, arms=("0:1:0", "1:1:1"))
NAME = "derivative-table2"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """The JSON of a page of two finished ways to train, two seeds each."""
    write(NAME, tmp_path / "earlier", SOME)
    return tmp_path / "earlier" / f"{NAME}.json"


def test_only_what_is_missing_runs(tmp_path: Path, earlier: Path) -> None:
    fake = Fake()
    write(NAME, tmp_path / "now", MORE, fake, earlier=[earlier])
    assert len(fake.begun) == 3
    assert all("labels-0-1-0" in folder for folder in fake.begun)
    # Nor does a second call run anything.
    again = Fake()
    write(NAME, tmp_path / "now", MORE, again, earlier=[earlier])
    assert again.begun == []


def test_the_page_is_that_of_one_go(tmp_path: Path, earlier: Path) -> None:
    write(NAME, tmp_path / "now", MORE, earlier=[earlier])
    write(NAME, tmp_path / "whole", MORE)
    pages = [(tmp_path / folder / f"{NAME}.md").read_text() for folder in ("now", "whole")]
    assert pages[0] == pages[1]
    there, whole = (json.loads((tmp_path / folder / f"{NAME}.json").read_text()) for folder in ("now", "whole"))
    assert there["processes"] == whole["processes"]
    assert there["data"] == whole["data"]
    assert [cell["test"] for cell in there["cells"]] == [cell["test"] for cell in whole["cells"]]
    assert {cell["frames_trained_on"] for cell in there["cells"]} == {100.0}


@pytest.mark.parametrize("name", ["regime", "convergence", "table1", "learning-curve", "masking-ratio", "pooling"])
def test_pages_do_without_the_curves_of_earlier_runs(tmp_path: Path, name: str) -> None:
    data = "matbench-jdft2d" if name == "pooling" else "water-rpbe"
    models = ("cgcnn",) if name == "pooling" else ("egnn",)
    some = Selection(seeds=1, models=models, datasets=(data,))
    write(name, tmp_path / "earlier", some)
    more = replace(some, seeds=2)
    write(name, tmp_path / "now", more, earlier=[tmp_path / "earlier" / f"{name}.json"])
    write(name, tmp_path / "alone", some, earlier=[tmp_path / "earlier" / f"{name}.json"], tables_only=True)
    for folder in ("now", "alone"):
        assert "Unfinished" not in (tmp_path / folder / f"{name}.md").read_text()


def test_a_page_can_be_made_of_earlier_ones_alone(tmp_path: Path, earlier: Path) -> None:
    write(NAME, tmp_path / "now", SOME, earlier=[earlier], tables_only=True)
    text = (tmp_path / "now" / f"{NAME}.md").read_text()
    assert "Unfinished" not in text
    assert "| 1:1:1 | 102.0 ± 2.0 |" in text


def test_runs_of_other_experiments_are_known_by_their_folder(tmp_path: Path, earlier: Path) -> None:
    fake = Fake()
    write("pooling", tmp_path / "now", SOME, fake, earlier=[earlier])
    assert {folder.split("/")[2].endswith("-mean") for folder in fake.begun if "pretrain-" not in folder} == {True}


@pytest.mark.parametrize(
    "other",
    [
        replace(SOME, overrides=("finetune.lr=1e-4",)),
        replace(SOME, overrides=("pretrain.max_steps=100",)),
        replace(SOME, models=("tide",)),
    ],
)
def test_runs_of_other_settings_are_not_taken(tmp_path: Path, earlier: Path, other: Selection) -> None:
    fake = Fake()
    write(NAME, tmp_path / "now", other, fake, earlier=[earlier])
    assert len(fake.begun) == 5


@pytest.mark.parametrize(
    ("key", "value"), [("cutoff", 6.0), ("finetuning", "300 steps"), ("hyperparameters", {"width": 32})]
)
def test_a_cell_made_otherwise_is_not_taken(tmp_path: Path, earlier: Path, key: str, value: object) -> None:
    content = json.loads(earlier.read_text())
    content["cells"][0][key] = value
    earlier.write_text(json.dumps(content))
    fake = Fake()
    write(NAME, tmp_path / "now", SOME, fake, earlier=[earlier])
    assert fake.begun == [f"matbench-jdft2d/cgcnn/scratch/seed{seed}" for seed in (0, 1)]


def test_runs_that_did_not_finish_are_done(tmp_path: Path) -> None:
    half = Fake(status=lambda run: "failed" if run.folder.endswith("scratch/seed1") else "finished")
    write(NAME, tmp_path / "earlier", SOME, half)
    fake = Fake()
    write(NAME, tmp_path / "now", SOME, fake, earlier=[tmp_path / "earlier" / f"{NAME}.json"])
    assert fake.begun == ["matbench-jdft2d/cgcnn/scratch/seed1"]


def test_files_that_are_no_pages_are_refused(tmp_path: Path) -> None:
    strange = tmp_path / "strange.json"
    for text, message in (("{", "is no JSON"), ("[]", "is not the JSON of a page"), ('{"cells": []}', "not the JSON")):
        strange.write_text(text)
        with pytest.raises(MdpotError, match=message):
            write(NAME, tmp_path / "now", SOME, earlier=[strange])
    with pytest.raises(MdpotError, match="cannot read"):
        write(NAME, tmp_path / "now", SOME, earlier=[tmp_path / "nowhere.json"])


def test_a_page_that_takes_over_from_itself_counts_nothing_twice(tmp_path: Path) -> None:
    write(NAME, tmp_path, SOME)
    page = tmp_path / f"{NAME}.json"
    before = json.loads(page.read_text())["processes"]
    write(NAME, tmp_path, SOME, earlier=[page], tables_only=True)
    assert json.loads(page.read_text())["processes"] == before


def test_a_page_counts_where_a_run_of_it_is_asked(tmp_path: Path, earlier: Path) -> None:
    cells = plan(NAME, SOME)
    recorded = read_recorded([earlier], cells, SOME)
    asked = [run for cell in cells for run in cell.runs]
    assert [there["runs"] for there in recorded.processes_of(asked)] == [5]
    assert recorded.processes_of(run for run in asked if run.folder not in recorded.outcomes) == []


def test_own_data_and_earlier_pages_are_refused_together(tmp_path: Path, earlier: Path) -> None:
    with pytest.raises(MdpotError, match="give --earlier or --data, not both"):
        write(NAME, tmp_path, SOME, work=Work(data=tmp_path / "own.xyz"), earlier=[earlier])
