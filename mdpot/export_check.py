"""Whether an exported file gives the energies and forces of the potential it came from."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mdpot.errors import MdpotError
from mdpot.evaluator import usual_outputs
from mdpot.graph import Graph
from mdpot.heads import AnyPotential
from mdpot.units import KJ_PER_MOL, NM

if TYPE_CHECKING:
    from ase import Atoms

PARITY = {"float32": 1e-5, "float64": 1e-10}  # relative
GRADIENT = {"float32": 1e-3, "float64": 1e-6}  # relative
STEP = 5e-4  # Å, of the finite differences
MOVE = 0.05  # Å, so that the file's neighbor list is used once fresh and once kept


@dataclass(frozen=True)
class ExportReport:
    """How well an exported file agrees with the potential it came from.

    Attributes:
        path: the file.
        units: "openmm", "ase", or "any" where it has both.
        dtype: "float32" or "float64".
        n_frames: number of structures compared; 0 where the check was switched off.
        energy_error: largest difference in energy, relative to the sum of the atoms' interaction energies.
        force_error: largest difference in a force component, relative to the largest force.
        stress_error: largest difference in a component of the stress, relative to the largest component and what the
            largest force on every atom would make over the cutoff; None for potentials that have none.
        gradient_error: largest difference of the forces from finite differences of the energy, relative to
            the largest force; None for potentials whose forces are not a gradient.
    """

    path: Path
    units: str
    dtype: str
    n_frames: int = 0
    energy_error: float = 0.0
    force_error: float = 0.0
    stress_error: float | None = None
    gradient_error: float | None = None


def compare(module: Any, report: ExportReport, potential: AnyPotential, frames: Sequence[Atoms] = ()) -> ExportReport:
    """Fills in a report on an exported file.

    Every structure is evaluated twice, the second time with the atoms moved a little. The potential gets
    its edges from another neighbor list. For conservative potentials the forces are compared with
    central differences of fourth order of the energy, which is taken in float64.

    Args:
        module: of the file.
        report: what is known of it.
        potential: that it came from, in the same dtype, on the CPU.
        frames: structures; none takes `example_structures`.

    Raises:
        MdpotError: the file does not agree with the potential.
    """
    structures = list(frames) or example_structures(potential.elements)
    precise = copy.deepcopy(potential).double()
    rng = np.random.default_rng(0)
    energy_error = force_error = stress_error = gradient_error = 0.0
    for atoms in structures:
        for moved in _twice(atoms, rng):
            outputs = usual_outputs(_has_stress(potential, moved))
            graph = Graph.from_atoms(moved, potential.cutoff, torch.float64)
            expected = potential(*graph.inputs(), outputs=outputs)
            species = torch.searchsorted(torch.tensor(potential.elements), torch.tensor(moved.numbers))
            scale = (expected["energies"] - potential.shift[species]).abs().sum()
            largest = float(expected["forces"].abs().max())
            for energy, forces in _results(module, moved, report.units):
                energy_error = _worst(energy_error, abs(energy - float(expected["energy"])), float(scale) + 1e-6)
                difference = (forces - expected["forces"]).abs().max()
                force_error = _worst(force_error, float(difference), largest + 1e-6)
            if "stress" in outputs:
                found = module.evaluate(*_arguments(moved), True)["stress"].cpu()
                pull = largest * len(moved) * potential.cutoff / float(moved.get_volume())
                scale = float(expected["stress"].abs().max()) + pull + 1e-9
                difference = (found - expected["stress"]).abs().max()
                stress_error = _worst(stress_error, float(difference), scale)
        if potential.conservative:
            difference = _gradient_difference(precise, moved, expected["forces"], rng)
            gradient_error = _worst(gradient_error, difference, largest + 1e-6)
    report = replace(
        report,
        n_frames=len(structures),
        energy_error=energy_error,
        force_error=force_error,
        stress_error=stress_error if potential.conservative else None,
        gradient_error=gradient_error if potential.conservative else None,
    )
    _judge(report)
    return report


def _worst(so_far: float, difference: float, scale: float) -> float:
    relative = difference / scale
    return relative if not relative <= so_far else so_far  # a NaN stays


def _judge(report: ExportReport) -> None:
    limit = PARITY[report.dtype]
    found = {
        "its energies differ from the potential's": (report.energy_error, limit),
        "its forces differ from the potential's": (report.force_error, limit),
        "its stress differs from the potential's": (report.stress_error or 0.0, limit),
        "its forces are not the gradient of the energy": (
            report.gradient_error or 0.0,
            GRADIENT[report.dtype],
        ),
    }
    for what, (error, allowed) in found.items():
        if not error <= allowed:
            raise MdpotError(
                f"the exported file is wrong and was not kept: {what} by {error:.1e} relative; "
                f"{allowed:.0e} is allowed in {report.dtype}."
            )


def _twice(atoms: Atoms, rng: np.random.Generator) -> Iterator[Atoms]:
    yield atoms
    moved = atoms.copy()
    moved.positions += rng.uniform(-MOVE, MOVE, moved.positions.shape)
    yield moved


def _results(module: Any, atoms: Atoms, units: str) -> Iterator[tuple[float, torch.Tensor]]:
    """Energy, eV, and forces [n_atoms, 3], eV/Å, of the file by each way it can be called."""
    numbers, positions, cell, pbc = _arguments(atoms)
    out = module.evaluate(numbers, positions, cell, pbc)
    yield float(out["energy"]), out["forces"].cpu()
    if units == "ase":
        out = module(numbers, positions, cell, pbc)
        yield float(out["energy"]), out["forces"].cpu()
    elif atoms.pbc.all() or not atoms.pbc.any():
        module.set_atoms(numbers)
        energy, forces = module(positions / NM, cell / NM if atoms.pbc.all() else None)
        yield float(energy) * KJ_PER_MOL, forces.cpu() * (KJ_PER_MOL / NM)


def _arguments(atoms: Atoms) -> tuple[torch.Tensor, ...]:
    """Numbers, positions, cell and periodic directions, as a file takes them."""
    numbers = torch.tensor(atoms.numbers, dtype=torch.int64)
    return numbers, torch.tensor(atoms.positions), torch.tensor(atoms.cell.array), torch.tensor(atoms.pbc)


def _has_stress(potential: AnyPotential, atoms: Atoms) -> bool:
    return potential.conservative and bool(atoms.pbc.all())


def _gradient_difference(precise: AnyPotential, atoms: Atoms, forces: torch.Tensor, rng: np.random.Generator) -> float:
    """How far forces [n_atoms, 3], eV/Å, are from the slope of the energy along two unit vectors."""
    along = forces.numpy() / (np.linalg.norm(forces.numpy()) + 1e-12)
    random = rng.normal(size=forces.shape)
    worst = 0.0
    for direction in (along, random / np.linalg.norm(random)):
        energies = {}
        for steps in (-2, -1, 1, 2):
            moved = atoms.copy()
            moved.positions += steps * STEP * direction
            graph = Graph.from_atoms(moved, precise.cutoff, torch.float64)
            energies[steps] = float(precise(*graph.inputs())["interaction"])
        slope = (8 * (energies[1] - energies[-1]) - (energies[2] - energies[-2])) / (12 * STEP)
        worst = max(worst, abs(slope + float((forces.numpy() * direction).sum())))
    return worst


def example_structures(elements: Sequence[int], seed: int = 0) -> list[Atoms]:
    """Made-up structures of the elements at chemical distances: a cluster, a small triclinic cell, a box.

    Args:
        elements: atomic numbers.
        seed: of the generator that draws them.
    """
    from ase import Atoms
    from ase.data import covalent_radii

    rng = np.random.default_rng(seed)
    spacing = 2.2 * max(float(covalent_radii[z]) for z in elements)
    structures = []
    for size, periodic, shear in ((3, False, 0.0), (2, True, 0.4), (4, True, 0.0)):
        grid = np.stack(np.meshgrid(*[np.arange(size)] * 3), axis=-1).reshape(-1, 3)
        positions = spacing * (grid + rng.uniform(-0.15, 0.15, grid.shape))
        cell = spacing * size * np.array([[1, 0, 0], [shear, 1, 0], [-shear, shear, 1]])
        if periodic:
            positions = positions / (spacing * size) @ cell
        numbers = rng.choice(np.asarray(elements), len(positions))
        structures.append(Atoms(numbers, positions, cell=cell if periodic else None, pbc=periodic))
    return structures
