"""The second paper: its numbers, which runs its experiments ask for, and what their pages say of fake trainings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mdpot import MdpotError
from mdpot.training.reproduce import Selection
from mdpot.training.reproduce.grid import with_parents
from mdpot.training.reproduce.papers.derivative import published
from mdpot.training.reproduce.papers.derivative.experiments import ARMS, PROPERTIES
from mdpot.training.reproduce.plan import plan

from .conftest import Fake, write

TWO = Selection(seeds=2, models=("cgcnn",), datasets=("matbench-jdft2d", "matbench-phonons"))


@pytest.mark.parametrize("name", published.AVERAGE_GAIN)
def test_the_papers_tables_agree_with_the_averages_it_prints(name: str) -> None:
    """The last column of tables 2 to 4 follows from the others, so no number was mistyped."""
    table, printed = published.AVERAGE_GAIN[name]
    assert printed.keys() == table.keys() - {"from scratch"}
    for title, gain in printed.items():
        change = np.array(table[title]) / np.array(table["from scratch"]) - 1
        assert len(change) == len(published.COLUMNS)
        assert -100 * change.mean() == pytest.approx(gain, abs=0.051), title


def test_the_papers_numbers_are_found_by_what_a_cell_is() -> None:
    def found(*key: str, length: float = 1.0) -> float | None:
        value = published.find_error(*key, length=length)
        return value and value.mean

    assert found("matbench-jdft2d", "cgcnn", "sum", "from scratch") == 62.6
    assert found("matbench-phonons", "cgcnn", "mean", "1:1:1") == 41.7
    assert found("2d-workfunction", "et", "sum", "head denoising") == 0.194
    assert found("matbench-jdft2d", "cgcnn", "sum", "1:500:500", length=2.0) == 38.1
    assert found("matbench-jdft2d", "cgcnn", "mean", "head denoising") is None
    assert found("matbench-jdft2d", "tide", "sum", "1:1:1") is None
    assert found("water-rpbe", "cgcnn", "sum", "1:1:1") is None
    assert found("matbench-jdft2d", "cgcnn", "mean", "1:500:500", length=2.0) is None


def test_every_way_to_train_has_the_papers_numbers() -> None:
    titles = [arm.title for arm in ARMS]
    assert set(titles) == published.TABLE_2.keys() == published.TABLE_3.keys()
    for cell in plan("derivative-table2", Selection(models=("cgcnn",))):
        assert published.find_error(cell.dataset, cell.model, "sum", cell.arm.title), cell.arm.title


def test_one_pretraining_is_behind_all_seeds_and_properties() -> None:
    cells = plan("derivative-table2", TWO)
    runs = with_parents(run for cell in cells for run in cell.runs)
    pretrainings = [run for run in runs if run.kind == "pretrain"]
    assert len(pretrainings) == len(ARMS) - 1
    assert {run.seed for run in pretrainings} == {0}
    assert len(runs) == len(pretrainings) + 2 * 2 * len(ARMS)
    # What is said of the finetuning and its data does not reach it.
    for run in pretrainings:
        assert (run.recipe.name, run.recipe.property, run.recipe.data.max_frames) == ("crystals", None, None)
    at_rest = {(run.recipe.pretrain.objective, run.recipe.data.max_force) for run in pretrainings}
    assert at_rest == {("labels", None), ("denoise", 0.05)}
    large = plan("derivative-table2", Selection("paper", models=("cgcnn",), datasets=TWO.datasets))
    assert {run.parent.recipe.data.source for cell in large for run in cell.runs if run.parent} == {"mpf-2021"}


def test_only_the_asked_pretrainings_run() -> None:
    chosen = plan("derivative-table2", Selection(models=("cgcnn",), arms=("1:1:1",)))
    assert [cell.arm.title for cell in chosen] == ["from scratch", "1:1:1"] * len(PROPERTIES)
    with pytest.raises(MdpotError, match=r"unknown way to train '1:1:2'\. Did you mean '1:1:1'"):
        plan("derivative-table2", Selection(arms=("1:1:2",)))


def test_pooling_shares_the_sums_with_table_2_and_compares_means_with_means(tmp_path: Path) -> None:
    sums = {run.folder for cell in plan("derivative-table2", TWO) for run in cell.runs}
    cells = plan("pooling", TWO)
    by_variant = {cell.variant.title: {run.folder for run in cell.runs} for cell in cells}
    assert by_variant["sum"] <= sums
    assert not by_variant["mean"] & sums
    assert {c.recipe.property and c.recipe.property.pooling for c in cells if c.variant.title == "mean"} == {"mean"}
    write("pooling", tmp_path, TWO)
    text = (tmp_path / "pooling.md").read_text()
    assert "### cgcnn, sum" in text
    mean = text.split("### cgcnn, mean")[1]
    # Seeds 0 and 1: from scratch 160 and 164, pretrained 100 and 104.
    assert "| from scratch | 162.0 ± 2.0 | 62.3 | 162.0 ± 2.0 | 59.5 | 2 |" in mean
    assert "| 1:1:1 | 102.0 ± 2.0 | 46.9 | 102.0 ± 2.0 | 41.7 | 2 |" in mean
    assert "| 1:1:1 | -37.0 ± 0.0 % | -24.7 % | -37.0 ± 0.0 % | -29.9 % | -37.0 % | -27.3 % |" in mean
    assert "| the mean of the training targets | 324.0 ± 4.0 |  |" in mean
    variants = [cell["variant"] for cell in json.loads((tmp_path / "pooling.json").read_text())["cells"]]
    assert set(variants) == {"sum", "mean"}


def test_lengths_are_shares_of_the_budgets() -> None:
    for budget, usual in (("small", 1500), ("paper", 100)):
        cells = plan("pretrain-epochs", Selection(budget, models=("cgcnn",), datasets=("matbench-jdft2d",)))
        stages = [cell.pretraining for cell in cells if cell.pretraining]
        lengths = [stage.max_steps or stage.epochs for stage in stages]
        assert lengths == [round(usual * share) for share in (0.12, 0.25, 0.5, 1, 2)] * 2


def test_what_is_missing_is_a_dash(tmp_path: Path) -> None:
    """One seed of one property, and nothing of the other: a number, no mean over the properties."""
    fake = Fake(status=lambda run: "finished" if "phonons" not in run.folder and run.seed == 0 else "failed")
    write("derivative-table3", tmp_path, Selection(seeds=2, datasets=TWO.datasets), fake)
    text = (tmp_path / "derivative-table3.md").read_text()
    assert "Unfinished" in text
    assert "| 1:1:1 | 100.0 | 50.9 | failed | 105.0 | 0–1 |" in text
    assert "| 1:1:1 | -37.5 % | -8.6 % | – | -10.3 % | – | -9.4 % |" in text


def test_a_part_of_a_data_set_is_said_to_be_one(tmp_path: Path) -> None:
    write("derivative-table3", tmp_path, Selection(seeds=1, datasets=("matbench-perovskites",), arms=("1:1:1",)))
    text = (tmp_path / "derivative-table3.md").read_text()
    assert "frames, of which 1,500 are drawn for each seed, labeled by" in text
    assert "pretraining on `crystals` 1,000 steps of about 100 atoms" in text
