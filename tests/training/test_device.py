"""Where a recipe trains when nobody says where."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mdpot.kernels import library
from mdpot.training.config import load_recipe
from mdpot.training.device import SMALL, choose_device
from mdpot.training.folder import RUN
from mdpot.training.listener import Listener
from mdpot.training.run import _begin
from mdpot.training.together import SOLO


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


def chosen(*keys: str, model: str = "tide", recipe: str = "water-rpbe", name: str | None = None, alone=True) -> str:
    return str(choose_device(name, load_recipe(recipe, "quick", list(keys), model), alone))


@pytest.mark.skipif(not library.supported(), reason="the kernels are not compiled")
def test_the_cpu_for_what_its_kernels_train() -> None:
    assert chosen() == "cpu"
    assert chosen("pretrain.objective=none", f"finetune.batch_atoms={SMALL}") == "cpu"
    # What the pretraining would do does not matter where there is none.
    assert chosen("pretrain.objective=none", "pretrain.vector=direct") == "cpu"


@pytest.mark.parametrize(
    "keys",
    [
        (f"finetune.batch_atoms={SMALL + 1}",),
        ("finetune.batch_atoms=none", "finetune.batch_frames=2"),
        ("finetune.engine=torch",),
        ("pretrain.engine=torch",),
        ("pretrain.vector=direct",),
    ],
)
def test_a_gpu_for_what_torch_trains_or_is_large(keys: tuple[str, ...]) -> None:
    assert chosen(*keys) == "cuda"


def test_a_gpu_for_other_networks_properties_and_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen(model="egnn") == "cuda"
    assert chosen(recipe="matbench-jdft2d") == "cuda"
    assert chosen(alone=False) == "cuda"
    monkeypatch.setenv(library.VARIABLE, "off")
    assert chosen() == "cuda"


@pytest.mark.skipif(not library.supported(), reason="the kernels are not compiled")
def test_a_run_goes_on_where_it_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of before there was this, on a GPU, too: its noise is drawn there."""
    (tmp_path / RUN).write_text('{"kind": "train", "seed": 0, "recipe": {}, "device": "cuda"}')
    recipe, rest = load_recipe("water-rpbe", "quick"), (Listener(), SOLO)
    assert str(_begin("train", recipe, tmp_path, 0, None, True, *rest).device) == "cuda"
    assert str(_begin("train", recipe, tmp_path, 0, "cpu", True, *rest).device) == "cpu"
    assert str(_begin("train", recipe, tmp_path, 0, None, False, *rest).device) == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert str(_begin("train", recipe, tmp_path, 0, None, True, *rest).device) == "cpu"


def test_what_is_asked_for_is_taken() -> None:
    assert chosen(name="cuda:1") == "cuda:1"
    assert chosen(model="egnn", name="cpu") == "cpu"
