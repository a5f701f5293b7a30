"""Reading recipes: a file, a preset and single keys become one checked `Recipe`; and writing them.

What a recipe may hold is in `mdpot.training.schema`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mdpot.errors import MdpotError, unknown
from mdpot.training.complaints import one_line
from mdpot.training.recipes import shipped_recipes
from mdpot.training.schema import (
    EXCLUSIVE,
    STAGES,
    DataConfig,
    FinetuneConfig,
    LabelStage,
    ModelConfig,
    PretrainConfig,
    Recipe,
    Section,
    Stage,
    section_of,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]

__all__ = [
    "DataConfig",
    "FinetuneConfig",
    "ModelConfig",
    "PretrainConfig",
    "Recipe",
    "Stage",
    "asks_for_network",
    "list_presets",
    "list_recipes",
    "load_recipe",
    "recipe_to_dict",
    "recipe_to_toml",
    "with_network_of",
]

DEFAULT_PRESET = "quick"


def list_recipes() -> dict[str, str]:
    """The shipped recipes: name to the line that describes it."""
    return {name: _read_recipe(name).get("description", "") for name in sorted(shipped_recipes())}


def list_presets(name_or_path: str | Path) -> list[str]:
    """The presets that a recipe holds, in the order of its file.

    Args:
        name_or_path: a shipped name or a TOML file.

    Raises:
        MdpotError: there is no such recipe, or it is not TOML.
    """
    return list(_read_recipe(name_or_path).get("presets", {}))


def load_recipe(
    name_or_path: str | Path,
    preset: str | None = None,
    overrides: Sequence[str] = (),
    model: str | None = None,
) -> Recipe:
    """Read a recipe, apply a preset and then single keys, and check all of it.

    The layers are, each over the one before: the recipe, what it has for the network under `[models.NAME]`, the preset,
    what that has for the network under `[presets.PRESET.models.NAME]`, and the single keys.

    A later value takes the place of an earlier one. Two rules keep the overriding simple: a key that excludes
    another (`max_steps` and `epochs`, `batch_atoms` and `batch_frames`) removes it, and where another network is
    asked for than a layer was written for, that layer's hyperparameters do not count.

    Args:
        name_or_path: a shipped name (`list_recipes`) or a TOML file.
        preset: a preset of the recipe, or "plain" for none; without it "quick", where the recipe has that.
        overrides: "key=value" each, e.g. "finetune.lr=1e-3"; the value is read as TOML or, failing that, as
            text.
        model: the network, a key of `mdpot.MODELS`; that of the recipe without it.

    Returns:
        The recipe, with the name of its preset in it.

    Raises:
        MdpotError: an unknown recipe, preset, key or hyperparameter, or a value that breaks a rule.
    """
    if isinstance(overrides, str | Mapping):
        raise MdpotError(f"overrides must be a list such as ['finetune.lr=1e-3']; got {overrides!r}.")
    values = _read_recipe(name_or_path)
    presets = values.pop("presets", {})
    where = f"recipe {values['name']!r}"
    if preset is None:
        preset = DEFAULT_PRESET if DEFAULT_PRESET in presets else str(values.get("preset", "plain"))
    if preset != "plain" and preset not in presets and preset != values.get("preset"):
        raise unknown("preset", preset, [*presets, "plain"])
    layer = presets.get(preset, {})
    changes = [_parse_override(text) for text in overrides]
    if model is not None:
        changes.insert(0, {"model": {"name": model}})
    network = _network([values, layer, *changes])
    for part, place in ((values, ""), (layer, f"presets.{preset}.")):
        _refuse_unknown({k: v for k, v in part.items() if k != "models"}, Recipe, place.rstrip("."))
        _refuse_unknown_models(part.get("models", {}), place)
    merged: dict[str, Any] = {}
    for part in (values, layer):
        own = _network([values, part])
        merged = _merge(merged, _for_network({k: v for k, v in part.items() if k != "models"}, own, network))
        merged = _merge(merged, part.get("models", {}).get(network, {}))
    for change in changes:
        merged = _merge(merged, change)
    values = {**merged, "preset": preset}
    _refuse_unknown(values, Recipe, "")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise MdpotError(f"{where}: {one_line(error)}") from error
    hyperparameters = _check_hyperparameters(recipe.model)
    _refuse_stress(recipe)
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"hyperparameters": hyperparameters})})


def asks_for_network(overrides: Sequence[str]) -> bool:
    """Whether some of the single keys that `load_recipe` takes say which network it is."""
    changes = [change["model"] for change in map(_parse_override, overrides) if "model" in change]
    return any(not isinstance(c, Mapping) or c.keys() & {"name", "cutoff", "hyperparameters"} for c in changes)


def with_network_of(header: Mapping[str, Any], recipe: Recipe) -> Recipe:
    """The recipe with the network of a model file, for a run that begins from its weights.

    Args:
        header: of the file; a number that was measured on its data comes along with the weights, and what a potential
            corrects stays what it is.
        recipe: for the same architecture.
    """
    from mdpot.models.hyperparameters import MEASURED

    kept = {k: v for k, v in header["hyperparameters"].items() if k not in ("cutoff", MEASURED)}
    network = {"cutoff": header["cutoff"], "hyperparameters": kept}
    update: dict[str, Any] = {}
    if header.get("baseline") and recipe.property is None:
        network["baseline"] = header["baseline"]
        update["pretrain"] = recipe.pretrain.model_copy(update={"objective": "none"})  # that is over
    return recipe.model_copy(update={"model": recipe.model.model_copy(update=network), **update})


def recipe_to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values, ready for JSON.

    Every key is there, the ones that were never written too; a missing value is None.
    """
    return recipe.model_dump(mode="json")


def recipe_to_toml(recipe: Recipe, comments: bool = False) -> str:
    """The recipe as a TOML file that `load_recipe` reads back to the same recipe.

    Args:
        recipe: the recipe.
        comments: write above each key what it means.

    Returns:
        The text of the file.
    """
    return "\n".join(_toml_lines(recipe, "", comments)).strip() + "\n"


def _toml_lines(section: Section, path: str, comments: bool) -> list[str]:
    lines, tables = [], []
    for key, field in type(section).model_fields.items():
        value = getattr(section, key)
        name = f"{path}.{key}" if path else key
        note = [f"# {field.description}".replace("\n", " ")] if comments and field.description else []
        if isinstance(value, Section):
            tables += ["", *note, f"[{name}]", *_toml_lines(value, name, comments)]
        elif isinstance(value, dict):
            entries = [f"{k} = {_toml_value(v)}" for k, v in value.items()]
            if comments and isinstance(section, ModelConfig):
                entries = _explained(section)
            tables += ["", *note, f"[{name}]", *entries]
        else:
            lines += [*note, f"{key} = {_toml_value(value)}"]
    return lines + tables


def _explained(model: ModelConfig) -> list[str]:
    """The hyperparameters of a network, each with what it means; those that are left out are commented out."""
    from mdpot.models import MODELS
    from mdpot.models.hyperparameters import MEASURED, hyperparameters_of

    lines = []
    for name, one in hyperparameters_of(MODELS[model.name]).items():
        if name in model.hyperparameters:
            lines += [f"# {one.describe(name)}", f"{name} = {_toml_value(model.hyperparameters[name])}"]
        elif name != "cutoff":
            own = "..." if one.default is None or name == MEASURED else _toml_value(one.default)
            lines += [f"# {one.describe(name)}", f"# {name} = {own}"]
    return lines


def _toml_value(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value)


def _read_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """The tables of a recipe. That of a member takes the data source of the same name."""
    shipped, path = shipped_recipes(), Path(name_or_path)
    name = str(name_or_path)
    if name in shipped:
        values = _read(shipped[name])
        if values.pop("members", None):
            description = f"{values.get('description', '')}: {name.removeprefix(shipped[name].stem + '-')}"
            values = _merge(values, {"name": name, "description": description, "data": {"source": name}})
    elif path.is_file():
        values = _read(path)
        values.pop("members", None)
    elif path.suffix == ".toml" or path.is_dir() or len(path.parts) > 1:
        reason = "is a folder" if path.is_dir() else "is not there"
        raise MdpotError(f"the recipe file {str(path)!r} {reason}. Shipped recipes: {', '.join(sorted(shipped))}.")
    else:
        raise unknown("recipe", name, shipped)
    values.setdefault("name", path.stem)
    return values


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # the second and more: numbers of many digits, deep nesting
        hint = "" if path.suffix == ".toml" else f" If it holds your frames: mdpot train custom --data {path}"
        raise MdpotError(f"{str(path)!r} is not a recipe in TOML: {error}.{hint}") from error
    except OSError as error:
        raise MdpotError(f"cannot read the recipe {str(path)!r}: {error.strerror}") from error


def _parse_override(text: str) -> dict[str, Any]:
    """ "a.b=1" as {"a": {"b": 1}}."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise MdpotError(f"--set takes key=value, e.g. finetune.lr=1e-3, got {text!r}")
    if parts in (["name"], ["preset"]):
        raise MdpotError(f"--set cannot change {key!r}, which says where the recipe came from")
    if len(parts) == 1 and parts[0] not in Recipe.model_fields:
        homes = [f"{s}.{parts[0]}" for s in Recipe.model_fields if parts[0] in _fields_of(s)]
        if homes:
            raise MdpotError(f"unknown key {parts[0]!r}. Did you mean {' or '.join(homes)}?")
    try:
        parsed = tomllib.loads(f"value = {value}")
        result: Any = parsed["value"] if len(parsed) == 1 else value.strip()
    except (ValueError, RecursionError):
        result = value.strip()
    for part in reversed(parts):
        result = {part: result}
    return result


def _network(layers: Iterable[Mapping[str, Any]]) -> str:
    """The model that the last of some layers to name one names."""
    name = ModelConfig.model_fields["name"].default
    for layer in layers:
        table = layer.get("model", {})
        name = table.get("name", name) if isinstance(table, Mapping) else name
    return str(name)


def _for_network(part: Mapping[str, Any], own: str, network: str) -> Mapping[str, Any]:
    """A layer written for the network `own`, without its hyperparameters where `network` is another."""
    if own == network or not isinstance(part.get("model"), Mapping):
        return part
    table = {k: v for k, v in part["model"].items() if k not in ("name", "hyperparameters")}
    return {**part, "model": {**table, "name": network}}


def _refuse_unknown_models(tables: Any, place: str) -> None:
    """Raise for a table `[models.NAME]` of no network, or with a key that a recipe does not have."""
    from mdpot.models import MODELS

    if not isinstance(tables, Mapping):
        raise MdpotError(f"[{place}models] must be a table, got {tables!r}")
    for name, table in tables.items():
        if name not in MODELS:
            raise unknown(f"model in [{place}models]", str(name), MODELS)
        _refuse_unknown(table, Recipe, f"{place}models.{name}")


def _fields_of(section: str) -> Iterable[str]:
    kind = section_of(Recipe.model_fields[section].annotation)
    return () if kind is None else kind.model_fields


def _merge(base: Mapping[str, Any], over: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """`base` with the keys of `over`, table by table, by the two rules of `load_recipe`."""
    merged = dict(base)
    if path in STAGES:
        for pair in EXCLUSIVE:
            if set(pair) & set(over):
                merged = {k: v for k, v in merged.items() if k not in pair}
    for key, value in over.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = _merge(old, value, f"{path}.{key}".lstrip("."))
        merged[key] = value
    return merged


def _refuse_unknown(values: Any, section: type[Section], path: str) -> None:
    """Raise for a key that the section does not have, with the closest one it has."""
    if not isinstance(values, Mapping):
        raise MdpotError(f"[{path}] must be a table, got {values!r}")
    for key, value in values.items():
        if key not in section.model_fields:
            where = f"key of [{path}]" if path else "table or key"
            hint = _hyperparameter_hint(key) if section is ModelConfig else ""
            if hint:
                raise MdpotError(f"unknown {where} {key!r}. {hint}")
            raise unknown(where, str(key), section.model_fields)
        kind = section_of(section.model_fields[key].annotation)
        if kind is not None and value not in (None, "none"):
            _refuse_unknown(value, kind, f"{path}.{key}".lstrip("."))


def _hyperparameter_hint(key: str) -> str:
    if get_close_matches(key, ModelConfig.model_fields, n=1, cutoff=0.75):
        return ""
    return f"What the architecture takes goes in model.hyperparameters, e.g. model.hyperparameters.{key}=..."


def _refuse_stress(recipe: Recipe) -> None:
    """Refuses a stress in the loss of a force-centric model, which has none."""
    from mdpot.models import MODELS

    stages: dict[str, LabelStage] = {} if recipe.property else {"finetune": recipe.finetune}
    if recipe.pretrain.objective == "labels":
        stages["pretrain"] = recipe.pretrain
    for stage, config in stages.items():
        if config.stress_weight == 0 or MODELS[recipe.model.name].conservative:
            continue
        raise MdpotError(
            f"{stage}.stress_weight must be 0 with {recipe.model.name!r}, for a force-centric model has no stress; "
            f"got {config.stress_weight:g}"
        )


def _check_hyperparameters(model: ModelConfig) -> dict[str, Any]:
    """The hyperparameters, checked against what the architecture takes."""
    from mdpot.models import MODELS
    from mdpot.models.hyperparameters import check_hyperparameters

    if model.name not in MODELS:
        raise unknown("model", model.name, MODELS)
    if "cutoff" in model.hyperparameters:
        raise MdpotError("the cutoff goes in model.cutoff, not in model.hyperparameters")
    checked = check_hyperparameters(model.name, MODELS[model.name], model.arguments)
    return {key: value for key, value in checked.items() if key != "cutoff"}
