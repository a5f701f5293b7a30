"""QCSchema: the json of QCEngine, QCArchive, and Psi4, with molecules, energies, and gradients in atomic units."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.packed import has_ending, head
from mdpot.structures import decode, read_bytes

#: Bytes in which a file says what it is.
_START = 50_000
_NAMED = re.compile(rb"qc_?schema")
#: What a molecule has, for files that do not name their schema.
_MOLECULE = (b'"molecule"', b'"symbols"', b'"geometry"')
#: Steps of an optimization, in versions 1 and 2.
_STEPS = ("trajectory", "trajectory_results")


def is_qcschema(path: Path) -> bool:
    if not has_ending(path, ".json"):
        return False
    start = head(path, _START)
    return _NAMED.search(start) is not None or all(word in start for word in _MOLECULE)


def read_qcschema(path: Path) -> tuple[list[Atoms], list[str]]:
    """The molecules of all results in a file, at any depth, in bohr, with energies in Hartree and forces, the negative
    gradients, in Hartree/bohr; and notes. The steps of an optimization are of one trajectory.

    Raises:
        MdpotError: no json, no result with its molecule, ghost atoms, or a gradient of another length.
    """
    try:
        content = json.loads(decode(read_bytes(path)))
        if isinstance(content, str):  # the json of json, as Psi4's samples write it
            content = json.loads(content)
    except ValueError as error:
        raise MdpotError(f"{path}: no json, truncated or damaged ({error}). Copy it again.") from None
    found = list(_calculations(content))
    results = [result for calculation in found for result in calculation]
    done = [[result for result in calculation if result.get("success") is not False] for calculation in found]
    structures = []
    for n, calculation in enumerate(done):
        for result in calculation:
            structures.append(_structure(f"{path}, result {len(structures)}", result))
            if len(calculation) > 1:
                structures[-1].info["trajectory"] = str(n)
    if not structures:
        raise MdpotError(
            f"{path}: it is QCSchema, and has no successful result with its molecule beside it. Inputs and molecules "
            "have no labels, and records of QCArchive may name their molecule by its number: write whole results."
        )
    notes = []
    if n_failed := len(results) - len(structures):
        notes.append(f"results that were not successful are left out: {n_failed} of {len(results)}.")
    methods = list(dict.fromkeys(_method(result) for calculation in done for result in calculation))
    if len(methods) > 1:
        notes.append(
            f"the results are of several methods: {', '.join(methods[:4])}{', …' if len(methods) > 4 else ''}. Their "
            "energies do not go together: take the results of one."
        )
    return structures, notes


def _calculations(content: Any) -> Iterator[list[Mapping[str, Any]]]:
    """The results in json: each alone, and those of an optimization together."""
    if isinstance(content, list):
        for part in content:
            yield from _calculations(part)
    elif isinstance(content, dict):
        steps = next((content[key] for key in _STEPS if isinstance(content.get(key), list)), None)
        if steps is not None:
            yield [step for step in steps if isinstance(step, dict) and _is_result(step)]
        elif _is_result(content):
            yield [content]
        else:
            for part in content.values():
                yield from _calculations(part)


def _is_result(content: Mapping[str, Any]) -> bool:
    has_labels = isinstance(content.get("molecule"), dict) and not {"return_result", "properties"}.isdisjoint(content)
    return has_labels or content.get("success") is False


def _structure(at: str, result: Mapping[str, Any]) -> Atoms:
    """A molecule in bohr with its energy and forces in atomic units, as far as they are there."""
    molecule, properties = result["molecule"], result.get("properties") or {}
    value, driver = result.get("return_result"), _specified(result, "driver")
    real = molecule.get("real") or ()
    if not isinstance(properties, dict) or not isinstance(real, (list, tuple)):
        raise MdpotError(f"{at}: no QCSchema: `properties` must be an object, and `real` of its molecule a list.")
    energy = value if driver == "energy" else properties.get("return_energy")
    gradient = value if driver == "gradient" else properties.get("return_gradient")
    if not all(real):
        raise MdpotError(f"{at}: some of its atoms are ghosts, which no potential knows. Take the result out.")
    try:
        numbers = [atomic_numbers[symbol.capitalize()] for symbol in molecule["symbols"]]
        atoms = Atoms(numbers, np.array(molecule["geometry"], np.float64).reshape(len(numbers), 3))
        labels: dict[str, Any] = {} if energy is None else {"energy": float(energy)}
        if gradient is not None:
            labels["forces"] = -np.array(gradient, np.float64).reshape(len(numbers), 3)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MdpotError(f"{at}: no molecule of QCSchema with its labels ({type(error).__name__}: {error}).") from None
    atoms.calc = SinglePointCalculator(atoms, **labels)
    for key in ("charge", "multiplicity"):
        if (said := molecule.get(f"molecular_{key}")) is not None:
            atoms.info[key] = said
    return atoms


def _method(result: Mapping[str, Any]) -> str:
    """Method and basis of a result; "" of one that does not say them."""
    model = _specified(result, "model")
    said = [model.get("method"), model.get("basis")] if isinstance(model, dict) else []
    return "/".join(str(word) for word in said if isinstance(word, str)).lower()


def _specified(result: Mapping[str, Any], key: str) -> Any:
    """What a result says of its calculation; version 2 of the schema has it under its input."""
    inputs = result.get("input_data")
    specification = inputs.get("specification") if isinstance(inputs, dict) else None
    return result.get(key, specification.get(key) if isinstance(specification, dict) else None)
