"""The folder of a run: what it holds, and that two runs never share one."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError

import mdpot
from mdpot.errors import MdpotError
from mdpot.files import LEFTOVER, locked, remove_leftovers, write_text
from mdpot.training.config import recipe_to_dict, recipe_to_toml
from mdpot.training.schema import STAGES, Recipe
from mdpot.training.state import LOG

RUN, RECIPE, SPLITS, METRICS = "run.json", "recipe.toml", "splits.json", "metrics.json"
POTENTIAL, PRETRAINED = "potential.safetensors", "pretrained.safetensors"
LOCK = ".lock"
BEFORE_A_STATE = {RUN, RECIPE, SPLITS, LOCK, LOG}
"""All that a run has written before its first validation: nothing that would be missed."""
BEGIN_ANEW = "Remove the folder and start again."


@contextmanager
def claimed(path: Path, resume: bool) -> Iterator[None]:
    """The folder of a run, for this process alone while the block runs; one that stays empty is removed again.

    Args:
        path: the folder.
        resume: whether to go on with what it holds.

    Raises:
        MdpotError: another process runs there, it holds something else, or nothing can be written there.
    """
    if not resume or not (path / RUN).is_file():
        check_new(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        with locked(path / LOCK, wait=False) as ours:
            if not ours:
                raise MdpotError(f"another process runs in {str(path)!r}. Wait for it, or choose another --out.")
            remove_leftovers(path)
            try:
                yield
            finally:
                (path / LOCK).unlink(missing_ok=True)
    except OSError as error:
        if str(error.filename) not in (str(path), str(path / LOCK), *map(str, missing)):
            raise
        raise MdpotError(f"cannot write to the folder {str(path)!r}: {error.strerror}. Choose another --out.") from None
    finally:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()


def check_new(path: Path) -> None:
    """Refuses a folder that a new run cannot have.

    Raises:
        MdpotError: it holds a run with something to lose, or other files, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise MdpotError(f"--out must be a folder; {str(path)!r} is a file.")
    if not path.is_dir() or barely_begun(path):
        return
    if (path / RUN).is_file():
        raise MdpotError(
            f"output folder {str(path)!r} already holds a run. Go on with it by --resume, or choose another --out."
        )
    raise MdpotError(f"output folder {str(path)!r} is not empty and holds no run of mdpot. Choose another --out.")


def barely_begun(path: Path) -> bool:
    """Whether a folder is empty, or holds a run that ended before it had saved a state: then it may begin anew."""
    found = [file for file in path.rglob("*") if not file.is_dir()]
    strange = [f for f in found if f.name not in BEFORE_A_STATE and not LEFTOVER.fullmatch(f.name)]
    if strange or not (path / RUN).is_file():
        return not [file for file in found if file.name != LOCK and not LEFTOVER.fullmatch(file.name)]
    try:
        read_run(path / RUN)
    except MdpotError:
        return False
    return True


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
        run = read_run(path / RUN)
        there = {**run, "recipe": up_to_date(run["recipe"])}
        different = [
            f"{key} differs{_changes(there.get(key), value)}"
            for key, value in wanted.items()
            if there.get(key) != value
        ]
        if not different:
            return run
        if not barely_begun(path):
            raise MdpotError(
                f"output folder {str(path)!r} holds another run: its {' and its '.join(different)}. "
                "Choose another --out, or give the same arguments again."
            )
    run = {**wanted, "versions": versions()}
    # First of all files, for it says whose the others are.
    write_json(path / RUN, run)
    for name in (SPLITS, *(f"{stage}/{LOG}" for stage in STAGES)):
        (path / name).unlink(missing_ok=True)
    write_text(path / RECIPE, recipe_to_toml(recipe))
    return run


def _changes(there: Any, asked: Any) -> str:
    """The keys in which two recipes differ, three at most: " (finetune.lr is 0.01 there, 0.1 was asked for)"."""
    found = [f"{key} is {old} there, {new} was asked for" for key, old, new in _leaves_apart(there, asked, "")]
    more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
    return f" ({'; '.join(found[:3])}{more})"


def _leaves_apart(there: Any, asked: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(there, Mapping) and isinstance(asked, Mapping):
        for key in dict.fromkeys((*asked, *there)):
            yield from _leaves_apart(there.get(key), asked.get(key), f"{path}.{key}".lstrip("."))
    elif there != asked:
        yield path or "it", "none" if there is None else there, "none" if asked is None else asked


def write_splits(path: Path, splits: Mapping[str, Iterable[Any]]) -> str:
    """Writes the frames of each split; returns the checksum by which `read_splits` knows them."""
    plain = {name: [int(i) for i in indices] for name, indices in splits.items()}
    write_json(path, plain)
    return _digest(plain)


def read_splits(path: Path, checksum: str | None) -> dict[str, list[int]] | None:
    """What `write_splits` wrote; None where there is no such file.

    Args:
        path: the file.
        checksum: of what it held; None where a run of an earlier mdpot kept none.

    Raises:
        MdpotError: the file was changed since.
    """
    if not path.is_file():
        return None
    splits = _read(path)
    whole = all(isinstance(v, list) and all(type(i) is int and i >= 0 for i in v) for v in splits.values())
    if not whole or "train" not in splits or checksum not in (None, _digest(splits)):
        raise MdpotError(f"{str(path)!r} was changed since it was written. {BEGIN_ANEW}")
    return splits


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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


def read_run(path: Path) -> dict[str, Any]:
    """What a run.json holds: kind, seed, device and recipe and, once they are known, data.

    Raises:
        MdpotError: it is damaged.
    """
    run = _read(path)
    data = run.get("data", {"fingerprint": ""})
    types = {"kind": str, "seed": int, "recipe": dict}
    whole = all(isinstance(run.get(key), kind) for key, kind in types.items()) and isinstance(data, dict)
    whole = whole and _is_device(run.get("device", "cpu"))  # folders of earlier versions lack it
    if not whole or not isinstance(data.get("fingerprint"), str):
        raise MdpotError(f"{str(path)!r} is damaged: it does not hold what mdpot wrote. {BEGIN_ANEW}")
    return run


def _is_device(name: Any) -> bool:
    try:
        return isinstance(name, str) and bool(torch.device(name))
    except RuntimeError:
        return False


def _read(path: Path) -> dict[str, Any]:
    """A JSON file with a table."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise MdpotError(f"{str(path)!r} is damaged: {error}. {BEGIN_ANEW}") from None
    if not isinstance(content, dict):
        raise MdpotError(f"{str(path)!r} is damaged: it does not hold what mdpot wrote. {BEGIN_ANEW}")
    return content
