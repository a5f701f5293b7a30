"""Recipes: all shipped ones load, what is written reads back, and what is wrong is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mdpot import MODELS, MdpotError
from mdpot.heads.build import build_network
from mdpot.training.config import (
    Recipe,
    list_presets,
    list_recipes,
    load_recipe,
    recipe_to_dict,
    recipe_to_toml,
)
from mdpot.training.data.rmd17 import MOLECULES
from mdpot.training.recipes import RECIPES
from mdpot.training.schema import Section

SHIPPED = [(name, preset) for name in list_recipes() for preset in [*list_presets(name), "plain", None]]

MINIMAL = """
[data]
source = "custom"
[finetune]
max_steps = 10
batch_frames = 2
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    return path


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_shipped_recipe_loads_and_reads_back(name: str, preset: str | None, tmp_path: Path) -> None:
    recipe = load_recipe(name, preset)
    assert recipe.name == name
    assert recipe.preset == (preset or "quick")
    assert recipe.description
    for comments in (False, True):
        copy = tmp_path / "recipe.toml"
        copy.write_text(recipe_to_toml(recipe, comments), encoding="utf-8")
        assert load_recipe(copy) == recipe
    assert Recipe.model_validate(json.loads(json.dumps(recipe_to_dict(recipe)))) == recipe


@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_shipped_recipe_builds_its_network(name: str, preset: str | None) -> None:
    model = load_recipe(name, preset).model
    _, backbone, _ = build_network(model.name, model.arguments, n_elements=2)
    assert backbone.cutoff == model.cutoff


def test_water_has_the_presets_of_the_command_line() -> None:
    assert {"quick", "full", "paper"} <= set(list_presets("water-rpbe"))
    assert {"quick", "full"} <= set(list_presets("custom"))


def test_paper_preset_has_the_numbers_of_the_paper() -> None:
    recipe = load_recipe("water-rpbe", "paper")
    assert (recipe.model.name, recipe.model.cutoff) == ("egnn", 3.4)
    assert recipe.model.hyperparameters == {"width": 128, "layers": 5}
    assert recipe.data.fractions == (0.81, 0.09, 0.10)
    for stage, epochs in ((recipe.pretrain, 100), (recipe.finetune, 300)):
        assert (stage.optimizer, stage.lr, stage.lr_min, stage.weight_decay) == ("adamw", 1e-4, 1e-7, 1e-4)
        assert (stage.epochs, stage.max_steps, stage.batch_frames) == (epochs, None, 16)
        assert (stage.warmup_steps, stage.clip_norm, stage.ema_decay) == (0, None, None)
    assert (recipe.pretrain.objective, recipe.pretrain.ratio) == ("mask", 0.25)
    assert (recipe.finetune.loss, recipe.finetune.energy_weight, recipe.finetune.force_weight) == (
        "l1",
        1,
        500,
    )
    assert (recipe.finetune.second_energy_weight, recipe.finetune.energy_per) == (None, "structure")
    assert recipe.pretrain.eval_every is recipe.finetune.eval_every is None


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("name", "preset"), SHIPPED)
def test_shipped_recipes_take_every_model(name: str, preset: str, model: str) -> None:
    recipe = load_recipe(name, preset, model=model)
    assert recipe.model.name == model
    if not MODELS[model].conservative:
        assert recipe.finetune.stress_weight == 0
        # Labels are learned by the forces that a model has, which here are the vector.
        assert recipe.pretrain.vector == "direct" or recipe.pretrain.objective in ("none", "labels")


@pytest.mark.parametrize("model", ["gns", "forcenet"])
@pytest.mark.parametrize("name", ["water-rpbe", "water-tip3p", "rmd17-uracil"])
def test_paper_preset_masks_half_by_the_vector_head_of_force_centric_networks(name: str, model: str) -> None:
    stage = load_recipe(name, "paper", model=model).pretrain
    assert (stage.objective, stage.ratio, stage.vector) == ("mask", 0.5, "direct")


def test_quick_preset_never_asks_the_network_for_data() -> None:
    assert not load_recipe("water-rpbe", "quick").data.download
    assert load_recipe("water-rpbe", "full").data.download


def test_a_file_needs_little(minimal: Path) -> None:
    recipe = load_recipe(minimal)
    assert (recipe.name, recipe.preset) == ("mine", "plain")
    assert recipe.pretrain.objective == "none"


def test_overrides_come_last_and_are_toml_or_text() -> None:
    recipe = load_recipe(
        "water-rpbe",
        "quick",
        [
            "finetune.lr = 5e-3",
            "finetune.lr=1",
            "data.fractions=[0.5, 0.25, 0.25]",
            "finetune.loss=huber",
            'pretrain.vector="direct"',
            "finetune.clip_norm=none",
            "model.hyperparameters.width=48",
        ],
    )
    assert recipe.finetune.lr == 1.0
    assert recipe.data.fractions == (0.5, 0.25, 0.25)
    assert recipe.finetune.loss == "huber"
    assert recipe.pretrain.vector == "direct"
    assert recipe.finetune.clip_norm is None
    assert recipe.model.hyperparameters["width"] == 48
    assert recipe.model.hyperparameters["size"] == "small"


@pytest.mark.parametrize(
    ("key", "gone"),
    [
        ("finetune.epochs", "max_steps"),
        ("finetune.max_steps", "epochs"),
        ("pretrain.batch_frames", "batch_atoms"),
        ("pretrain.batch_atoms", "batch_frames"),
    ],
)
@pytest.mark.parametrize("preset", ["quick", "paper"])
def test_an_override_takes_the_place_of_the_key_it_excludes(key: str, gone: str, preset: str) -> None:
    recipe = load_recipe("water-rpbe", preset, [f"{key}=7"])
    section, name = key.split(".")
    assert getattr(getattr(recipe, section), name) == 7
    assert getattr(getattr(recipe, section), gone) is None


def test_another_model_drops_the_hyperparameters_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __init__(self, n_elements: int, cutoff: float, depth: int = 1, share: float = 0.5) -> None: ...

    monkeypatch.setitem(MODELS, "other", Other)  # type: ignore[arg-type]
    recipe = load_recipe("water-rpbe", "quick", ["model.name=other", "model.hyperparameters.depth=3"])
    assert recipe.model.hyperparameters == {"depth": 3}
    assert load_recipe("water-rpbe", "quick", ["model.name=egnn"]).model.hyperparameters["width"] > 0
    with pytest.raises(MdpotError, match=r"hyperparameter depth must be a whole number; got 1\.5"):
        load_recipe("water-rpbe", None, ["model.name=other", "model.hyperparameters.depth=1.5"])


def test_a_required_hyperparameter_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        def __init__(self, n_elements: int, cutoff: float, depth: int) -> None: ...

    monkeypatch.setitem(MODELS, "other", Other)  # type: ignore[arg-type]
    with pytest.raises(MdpotError, match="other lacks depth"):
        load_recipe("water-rpbe", None, ["model.name=other"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("finetune.lrr=3", r"unknown key of \[finetune\] 'lrr'\. Did you mean 'lr'\?"),
        ("finetun.lr=3", r"'finetun'\. Did you mean 'finetune'\?"),
        ("lr=3", r"unknown key 'lr'\. Did you mean pretrain\.lr or finetune\.lr\?"),
        ("model.cutof=3", r"'cutof'\. Did you mean 'cutoff'\?"),
        ("model.width=3", r"model\.hyperparameters\.width="),
        ("model.hyperparameters.widht=3", r"hyperparameter of tide 'widht'\. Did you mean 'width'\?"),
        ("model.hyperparameters.cutoff=3.0", r"goes in model\.cutoff"),
        ("model.hyperparameters.width=3.5", "hyperparameter width must be a whole number; got 3.5"),
        ("model.name=egn", r"unknown model 'egn'\. Did you mean 'egnn'\?"),
        ("data=3", r"\[data\] must be a table, got 3"),
        ("finetune.lr=-3", r"finetune\.lr: input should be greater than 0, got -3"),
        ("finetune.lr=abc", r"finetune\.lr: input should be a valid number, got 'abc'"),
        (
            "finetune.energy_weight=Auto",
            r"finetune\.energy_weight: input should be a valid number or 'auto', got 'Auto'",
        ),
        ("finetune.energy_weight=-1", r"finetune\.energy_weight: .*than or equal to 0 or 'auto', got -1"),
        ("data.fractions=[0.8, 'a', 0.1]", r"data\.fractions\.1: input should be a valid number"),
        ("finetune.lr=nan", r"finetune\.lr: .* finite number"),
        ("finetune.max_steps=true", r"finetune\.max_steps: .*integer, got True"),
        ("finetune.max_steps=1.5", r"finetune\.max_steps: .*integer"),
        ("finetune.loss=l3", r"finetune\.loss: input should be 'l1', 'l2' or 'huber', got 'l3'"),
        ("finetune.lr_min=1", r"in \[finetune\]: lr_min must be at most lr"),
        ("finetune.epochs=none", r"in \[finetune\]: give either epochs or max_steps"),
        ("data.fractions=[0.5,0.6,0.1]", r"add up to 1, got \[0\.5, 0\.6, 0\.1\]"),
        ("data.fractions=[0,0.5,0.5]", r"leave frames for training"),
        ("data.fractions=[1,2]", r"data\.fractions\.2 is missing"),
        ("data.molecule=Hx9", r"must be a chemical formula, got 'Hx9'"),
        ("pretrain.element=Hx", r"must be a chemical symbol, got 'Hx'"),
        ("pretrain.ratio=1.5", r"pretrain\.ratio: .*less than or equal to 1"),
        ("preset=full", r"--set cannot change 'preset'"),
        ("finetune.lr", r"--set takes key=value"),
        ("=3", r"--set takes key=value"),
    ],
)
def test_a_wrong_key_or_value_is_named_in_one_line(override: str, message: str) -> None:
    with pytest.raises(MdpotError, match=message) as caught:
        load_recipe("water-rpbe", "quick", [override])
    assert "\n" not in str(caught.value)


def test_no_weights_at_all_is_an_error() -> None:
    zero = [f"finetune.{name}_weight=0" for name in ("energy", "force", "stress")]
    with pytest.raises(MdpotError, match="must be above 0"):
        load_recipe("water-rpbe", "quick", zero)


def test_unknown_recipes_and_presets_are_named() -> None:
    with pytest.raises(MdpotError, match=r"unknown recipe 'water-rpb'\. Did you mean 'water-rpbe'\?"):
        load_recipe("water-rpb")
    with pytest.raises(MdpotError, match=r"unknown preset 'quik'\. Did you mean 'quick'\?"):
        load_recipe("water-rpbe", "quik")


def test_files_that_are_no_recipes(tmp_path: Path, minimal: Path) -> None:
    with pytest.raises(MdpotError, match=r"'nowhere\.toml' is not there"):
        load_recipe("nowhere.toml")
    with pytest.raises(MdpotError, match="is a folder"):
        load_recipe(tmp_path)
    broken = tmp_path / "broken.toml"
    broken.write_text("a = ")
    with pytest.raises(MdpotError, match="not a recipe in TOML"):
        load_recipe(broken)
    frames = tmp_path / "frames.extxyz"
    frames.write_text("1\n\nH 0 0 0\n")
    with pytest.raises(MdpotError, match=r"If it holds your frames: mdpot train custom --data .*frames\.extxyz"):
        load_recipe(frames)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MdpotError, match="not a recipe in TOML"):
        load_recipe(broken)
    broken.write_text('[data]\nsource = "custom"\n')
    with pytest.raises(MdpotError, match="finetune is missing"):
        load_recipe(broken)
    broken.write_text(MINIMAL + "[presets.big.finetun]\nlr = 1\n")
    with pytest.raises(MdpotError, match=r"\[presets\.big\] 'finetun'\. Did you mean 'finetune'\?"):
        load_recipe(broken, "big")
    with pytest.raises(MdpotError, match=r"unknown preset 'quick'\. Known: plain"):
        load_recipe(minimal, "quick")


def _sections(kind: type[Section]) -> list[type[Section]]:
    inner = [f.annotation for f in kind.model_fields.values()]
    found = [s for s in inner if isinstance(s, type) and issubclass(s, Section)]
    return [kind, *(deeper for section in found for deeper in _sections(section))]


@pytest.mark.parametrize("section", _sections(Recipe), ids=lambda s: s.__name__)
def test_every_key_says_what_it_means(section: type[Section]) -> None:
    for key, field in section.model_fields.items():
        assert field.description, f"{section.__name__}.{key} has no docstring"


def test_a_stress_in_the_loss_of_a_force_centric_model() -> None:
    with pytest.raises(MdpotError, match=r"finetune.stress_weight must be 0 with 'gns'.*got 0.1"):
        load_recipe("water-rpbe", "quick", ["finetune.stress_weight=0.1"], "gns")
    assert load_recipe("water-rpbe", "quick", ["finetune.stress_weight=0.1"]).finetune.stress_weight == 0.1


def test_each_molecule_of_rmd17_is_a_recipe(tmp_path: Path) -> None:
    recipe = load_recipe("rmd17-ethanol")
    assert (recipe.name, recipe.data.source) == ("rmd17-ethanol", "rmd17-ethanol")
    assert recipe.description.endswith(": ethanol")
    assert list_presets("rmd17-uracil") == list_presets("rmd17-ethanol")
    assert "rmd17" not in list_recipes()
    assert {f"rmd17-{name}" for name in MOLECULES} <= set(list_recipes())
    # The file itself, copied and changed, is a recipe for what it says.
    copy = tmp_path / "mine.toml"
    copy.write_text((RECIPES / "rmd17.toml").read_text())
    assert load_recipe(copy).data.source == "rmd17-aspirin"


@pytest.mark.parametrize("overrides", ["finetune.lr=1e-3", {"finetune.lr": 1e-3}])
def test_overrides_are_a_list(overrides: Any) -> None:
    with pytest.raises(MdpotError, match=r"overrides must be a list such as \['finetune\.lr=1e-3'\]; got"):
        load_recipe("custom", "quick", overrides)
