"""Which runs an experiment asks for, and what the paper and the budgets say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mdpot import MdpotError
from mdpot.training.config import list_recipes
from mdpot.training.reproduce import EXPERIMENTS, Selection
from mdpot.training.reproduce.grid import with_parents
from mdpot.training.reproduce.papers import derivative, masked
from mdpot.training.reproduce.papers.masked import published as paper
from mdpot.training.reproduce.papers.masked.budgets import BUDGETS
from mdpot.training.reproduce.plan import plan

from .conftest import ONE


def test_names_are_told_apart() -> None:
    """A second paper's experiment would replace one of the same name in silence."""
    assert EXPERIMENTS.keys() == {experiment.name for experiment in EXPERIMENTS.values()}
    assert len(EXPERIMENTS) == len(masked.EXPERIMENTS) + len(derivative.EXPERIMENTS)


def test_the_kit_names_no_paper_and_no_data_set(checkout: Path) -> None:
    """What belongs to one paper is in its folder; the kit also does not know by name how it pretrains."""
    kinds = {arm.kind for e in EXPERIMENTS.values() for data in e.datasets for arm in e.arms(data) if arm.pretrain}
    words = {name.split("-")[0] + "-" for name in list_recipes() if "-" in name} | {f'"{kind}"' for kind in kinds}
    words -= {'"labels"'}  # also what run.json calls the source of the labels
    assert {"rmd17-", "water-", "matbench-", '"mask"', '"denoise"'} <= words
    for path in (checkout / "training" / "reproduce").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not [word for word in [*words, "papers.masked", "papers.derivative"] if word in text], path


def test_papers_tables_agree_with_the_percentages_it_prints() -> None:
    """Each change that table 1 and 2 print follows from their errors, so no number was mistyped."""
    printed = {
        ("water-rpbe", "egnn"): (-58.9, -42.2),
        ("water-rpbe", "gns"): (-51.8, 20.3),
        ("water-tip3p", "egnn"): (-36.1, -64.7),
        ("water-tip3p", "gns"): (-5.6, -15.3),
        ("rmd17-uracil", "egnn"): (-13.6, -9.3),
        ("rmd17-benzene", "egnn"): (-47.3, 14.8),
        ("rmd17-naphthalene", "egnn"): (26.7, -51.5),
        ("rmd17-aspirin", "egnn"): (-36.8, -36.5),
        ("rmd17-malonaldehyde", "egnn"): (-64.4, -42.4),
        ("rmd17-ethanol", "egnn"): (-36.3, -46.6),
        ("rmd17-toluene", "egnn"): (-32.4, -25.5),
        ("rmd17-salicylic", "egnn"): (-36.0, -49.0),
    }
    for (dataset, model), changes in printed.items():
        before, after = (paper.find_row(dataset, model, arm) for arm in ("scratch", "mask"))
        assert before
        assert after
        for of, change in zip(("force", "energy"), changes, strict=True):
            ratio = getattr(after, of).mean / getattr(before, of).mean
            assert 100 * (ratio - 1) == pytest.approx(change, abs=0.11), (dataset, model, of)
    missing = [key for key, row in paper.TABLE_1.items() if key[:2] not in printed and row.energy]
    assert not missing


def test_budgets_mask_at_the_papers_ratios() -> None:
    for (dataset, model), ratio in paper.TABLE_1_RATIOS.items():
        for budget in BUDGETS.values():
            chosen = [text for text in budget.overrides(dataset, model) if text.startswith("pretrain.ratio=")]
            assert chosen[-1] == f"pretrain.ratio={ratio:g}", (dataset, model)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_planned(name: str) -> None:
    """Its recipes, networks and keys are all there; each cell has its seeds and a folder of its own."""
    cells = plan(name, Selection())
    assert {len(cell.runs) for cell in cells} == {EXPERIMENTS[name].seeds}
    folders = [run.folder for cell in cells for run in cell.runs]
    assert len(folders) == len(set(folders))
    for cell in cells:
        first = cell.runs[0].parent
        assert (first is None) == (cell.arm.kind in ("scratch", "longer"))
        assert first is None or first.recipe.pretrain.objective == cell.arm.kind


def test_pretrainings_are_shared_and_come_first() -> None:
    settings = Selection(seeds=2, models=("egnn",), frames=(10, 30, None))
    cells = [cell for cell in plan("learning-curve", settings) if cell.arm.kind in ("longer", "mask")]
    runs = with_parents(run for cell in cells for run in cell.runs)
    folders = [run.folder for run in runs]
    assert len(folders) == len(set(folders)) == 2 * (3 + 3 + 1)
    for run in runs:
        if run.parent:
            assert folders.index(run.parent.folder) < folders.index(run.folder)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    pretrainings = [run for run in runs if run.kind == "pretrain"]
    assert [run.seed for run in pretrainings] == [0, 1]
    # All training structures go into the pretraining; the finetuning has the first few.
    assert {run.recipe.data.max_train_frames for run in pretrainings} == {None}
    assert {run.recipe.data.max_train_frames for run in runs if run.kind == "finetune"} == {10, 30, None}


def test_what_scratch_has_in_common_with_the_others() -> None:
    def steps(name: str, equal: Any) -> dict[str, tuple[int | None, int | None]]:
        cells = plan(name, Selection(seeds=1, models=("egnn",), datasets=("water-rpbe",), equal=equal))
        found = {}
        for cell in cells:
            first = cell.runs[0].parent
            found[cell.arm.kind] = (first and first.recipe.pretrain.max_steps, cell.recipe.finetune.max_steps)
        return found

    alike = steps("table1", None)
    first, second = alike["mask"]
    assert first
    assert second
    assert alike == {"scratch": (None, second), "mask": (first, second)}
    assert steps("table1", "total") == {"longer": (None, first + second), "mask": (first, second)}
    assert steps("learning-curve", None)["longer"] == (None, first + second)
    assert steps("learning-curve", "finetune")["scratch"] == (None, second)
    assert steps("extended-epochs", None) == {
        "scratch": (None, second),
        "longer": (None, first + second),
        "mask": (first, second),
    }


def test_all_frames_are_all_of_them() -> None:
    """Also where the recipe finetunes on few."""
    chosen = Selection(seeds=1, datasets=("water-scan",), frames=(10, None))
    found = [cell.recipe.data.max_train_frames for cell in plan("learning-curve", chosen)]
    assert set(found[: len(found) // 2]) == {10}
    assert set(found[len(found) // 2 :]) == {None}
    few = plan("table1", Selection(seeds=1, datasets=("water-scan",), models=("tide",)))
    assert few[0].recipe.data.max_train_frames == 100
    # They are not kept in the folders of those.
    both = [cell.runs[0].folder for cell in (*plan("learning-curve", chosen), *few)]
    assert len(set(both)) == len(both)


def test_molecules_share_the_pretraining_of_all() -> None:
    cells = plan("table2", Selection(seeds=1, datasets=("rmd17-ethanol", "rmd17-aspirin")))
    masked = [cell.runs[0] for cell in cells if cell.arm.kind == "mask"]
    parents = [run.parent for run in masked if run.parent]
    assert [run.recipe.data.source for run in masked] == ["rmd17-ethanol", "rmd17-aspirin"]
    assert [p.recipe.data.source for p in parents] == ["rmd17-all"] * 2
    assert len(with_parents(masked)) == 3
    for name in ("masking-ratio", "cost"):
        cells = plan(name, Selection(seeds=1, models=("egnn",), datasets=("rmd17-uracil",)))
        parents = [run.parent for cell in cells for run in cell.runs if run.parent]
        assert {p.recipe.data.source for p in parents} == {"rmd17-all"}


def test_paper_budget_counts_in_epochs() -> None:
    """400 epochs from scratch against 100 + 300, as in figure 2; but epochs over fewer frames are no longer alike."""
    paper_like = Selection(budget="paper", seeds=1, models=("egnn",), datasets=("water-rpbe",))
    longer = plan("extended-epochs", paper_like)[1]
    assert longer.recipe.finetune.epochs == 400
    assert "+100epochs" in longer.runs[0].folder
    with pytest.raises(MdpotError, match="needs both lengths in steps"):
        plan("objectives", paper_like)
    # Molecules are pretrained on other frames than they are finetuned on.
    with pytest.raises(MdpotError, match="needs both lengths in steps"):
        plan("extended-epochs", replace(paper_like, datasets=("rmd17-uracil",)))


def test_refused_settings() -> None:
    with pytest.raises(MdpotError, match=r"unknown experiment 'tabel1'\. Did you mean 'table1'"):
        plan("tabel1", ONE)
    with pytest.raises(MdpotError, match="unknown budget"):
        plan("table1", Selection(budget="huge"))
    with pytest.raises(MdpotError, match="unknown recipe"):
        plan("table1", Selection(datasets=("water",)))
    with pytest.raises(MdpotError, match="--frames is for learning-curve"):
        plan("table1", Selection(frames=(10,)))
    with pytest.raises(MdpotError, match="unknown key"):
        plan("table1", Selection(models=("egnn",), datasets=("water-rpbe",), overrides=("finetune.speed=1",)))
