"""The folder of a run: what it holds, and that two runs never share one."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

import mdpot
from mdpot.errors import MdpotError
from mdpot.files import write_text
from mdpot.training.config import recipe_to_dict, recipe_to_toml
from mdpot.training.schema import Recipe

RUN, RECIPE, SPLITS, METRICS = "run.json", "recipe.toml", "splits.json", "metrics.json"
POTENTIAL, PRETRAINED = "potential.safetensors", "pretrained.safetensors"


def check_new(path: Path) -> None:
    """Refuses a folder that a new run cannot have.

    Raises:
        MdpotError: it holds a run or other files, or is a file.
    """
    if (path / RUN).is_file():
        raise MdpotError(
            f"output folder {str(path)!r} already holds a run. Go on with it by --resume, or choose another --out."
        )
    if path.exists() and not path.is_dir():
        raise MdpotError(f"--out must be a folder; {str(path)!r} is a file.")
    if path.is_dir() and any(path.iterdir()):
        raise MdpotError(f"output folder {str(path)!r} is not empty and holds no run of mdpot. Choose another --out.")


def open_folder(path: Path, recipe: Recipe, seed: int, kind: str, resume: bool) -> dict[str, Any]:
    """Makes the folder of a new run, or finds the run to go on with.

    Args:
        path: the folder.
        recipe: of the run.
        seed: of the run.
        kind: train, pretrain, finetune or compare.
        resume: whether to go on with what the folder holds; where that is nothing, the run begins.

    Returns:
        What run.json holds: empty of data for a new run.

    Raises:
        MdpotError: the folder holds another run or other files.
    """
    wanted = {"kind": kind, "seed": seed, "recipe": recipe_to_dict(recipe)}
    if not resume or not (path / RUN).is_file():
        check_new(path)
    else:
        run = _read(path / RUN)
        there = {**run, "recipe": up_to_date(run.get("recipe"))}
        different = [key for key, value in wanted.items() if there.get(key) != value]
        if different:
            raise MdpotError(
                f"output folder {str(path)!r} holds another run: its {', '.join(different)} differs from what was "
                "asked. Choose another --out, or give the same arguments again."
            )
        return run
    path.mkdir(parents=True, exist_ok=True)
    write_text(path / RECIPE, recipe_to_toml(recipe))
    run = {**wanted, "versions": versions()}
    write_json(path / RUN, run)
    return run


def up_to_date(recipe: Any) -> Any:
    """A recipe as run.json has it, with the defaults of the keys that came into the schema since then."""
    try:
        return recipe_to_dict(Recipe.model_validate(recipe))
    except ValidationError:
        return recipe


def versions() -> dict[str, str]:
    """The software that matters for reproducing a run."""
    return {
        "mdpot": mdpot.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(terse=True),
    }


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, atomically."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MdpotError(f"{str(path)!r} is damaged: {error}. Remove the folder and start again.") from None
