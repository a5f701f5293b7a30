"""`data.max_train_frames`: few labels for finetuning, all structures for pretraining."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from mdpot.training.config import load_recipe
from mdpot.training.prepare import prepare, structures_to_pretrain

CPU = torch.device("cpu")


def test_pretraining_has_all_structures_and_finetuning_a_few() -> None:
    recipe = load_recipe("water-rpbe", "quick", ["model.cutoff=2.0"])
    everything = prepare(recipe, None, 0, CPU, need_labels=False)
    assert structures_to_pretrain(recipe, everything) is everything
    assert set(everything.splits) == {"train", "validation", "test"}
    recipe = load_recipe("water-rpbe", "quick", ["model.cutoff=2.0", "data.max_train_frames=20"])
    few = prepare(recipe, None, 0, CPU, need_labels=False)
    whole = structures_to_pretrain(recipe, few)
    assert whole is not None
    assert len(few.train) == len(few.splits["train"]) == 20
    assert set(few.splits["train"]) < set(few.splits["pretrain"])
    np.testing.assert_array_equal(np.sort(few.splits["pretrain"]), everything.splits["train"])
    assert len(whole.train) == len(whole.splits["train"]) == len(everything.train)
    assert whole.validation is few.validation
    torch.testing.assert_close(whole.train.molecule, everything.train.molecule)
    # Only what is reported has a store from the start.
    assert set(few.stores) == {"train", "validation", "test"}
    # A run that goes on reads its splits from JSON.
    kept = json.loads(json.dumps({name: part.tolist() for name, part in few.splits.items()}))
    again = prepare(recipe, None, 0, CPU, kept, need_labels=False)
    assert len(again.train) == 20
    once_more = structures_to_pretrain(recipe, again)
    assert once_more is not None
    assert len(once_more.train) == len(everything.train)


@pytest.mark.parametrize("name", ["water-scan", "water-blypd3"])
@pytest.mark.parametrize("preset", ["quick", "full"])
def test_recipes_of_few_labels_pretrain(name: str, preset: str) -> None:
    recipe = load_recipe(name, preset)
    assert recipe.data.source == name
    assert recipe.data.max_train_frames == 100
    assert recipe.pretrain.objective == "denoise"
