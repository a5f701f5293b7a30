"""The ASE calculator."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mdpot.checkpoint import load_potential
from mdpot.errors import MdpotError, unknown
from mdpot.neighbors import VerletList

BACKENDS = ("eager", "torchscript", "compile")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class MaskedGNNCalculator(Calculator):
    """Energies, forces and stress of a trained potential, for ASE.

    >>> atoms.calc = MaskedGNNCalculator("runs/water-rpbe-quick-seed0/potential.safetensors")

    Any cell and any mix of periodic directions, positions wrapped or not. A neighbor list with a skin is kept
    between calls. Neither torch's default dtype nor its threads are touched; set those in the script.

    Properties: energy and free_energy (eV), energies (eV, per atom), forces (eV/Å), stress (Voigt order, eV/Å^3, positive
    under tension; only with three periodic directions).

    Args:
        ckpt: a potential file, or the folder of a run.
        device: torch device; None takes a CUDA GPU where there is one, else the CPU.
        dtype: "float32", "float64" or the torch dtype; None is the dtype of the file. float64 is for vibrations and tight
            relaxations, float32 for dynamics.
        skin: Å, beyond the cutoff, of the neighbor list.
        backend: "eager", "torchscript" (scripted in memory) or "compile" (torch.compile of the backbone).

    Raises:
        MdpotError: a file that cannot be used, an unknown backend or dtype; on use, an element the potential was not
            trained for.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        ckpt: str | Path,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        backend: str = "eager",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if backend not in BACKENDS:
            raise unknown("backend", backend, BACKENDS)
        self.ckpt, self.backend = Path(ckpt), backend
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        path = self.ckpt / "potential.safetensors" if self.ckpt.is_dir() else self.ckpt
        self.potential, self.metadata = load_potential(path, self.device, _dtype(dtype))
        self.dtype = next(self.potential.parameters()).dtype
        self.neighbors = VerletList(self.potential.cutoff, skin)
        self._evaluate = self._build()
        if not self.potential.conservative:
            warnings.warn(
                f"{self.ckpt}: the forces of this {self.potential.model!r} potential are predicted directly, not the gradient "
                "of its energy. Energy is not conserved in dynamics, and there is no stress.",
                stacklevel=2,
            )

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Computes energy, energies and forces, and the stress where asked; see `ase.calculators.calculator`."""
        super().calculate(atoms, list(properties), list(system_changes))
        atoms = self.atoms
        self._check_elements(atoms.numbers)
        wants_stress = "stress" in properties
        if wants_stress and not self.potential.conservative:
            raise PropertyNotImplementedError("stress: this potential is force-centric; its energy has no strain gradient.")
        if wants_stress and not atoms.pbc.all():
            raise PropertyNotImplementedError(
                f"stress needs three periodic directions; pbc is {atoms.pbc.tolist()}."
            )
        out = self._evaluate(*self._inputs(atoms), None, wants_stress)
        forces = out["forces"].double().cpu().numpy()
        if not np.isfinite(forces).all():
            raise MdpotError("the potential gave forces that are not finite; look for atoms on top of each other.")
        energy = float(out["energy"])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "energies": out["energies"].cpu().numpy(),
            "forces": forces,
        }
        if wants_stress:
            self.results["stress"] = full_3x3_to_voigt_6_stress(out["stress"][0].double().cpu().numpy())

    def _inputs(self, atoms: Atoms) -> tuple[torch.Tensor, ...]:
        """The tensors of `Potential.forward`, for one structure."""
        edge_index, shifts = self.neighbors.update(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        floats = {"dtype": self.dtype, "device": self.device}
        return (
            torch.as_tensor(atoms.numbers, dtype=torch.int64, device=self.device),
            torch.tensor(atoms.positions, **floats),
            torch.tensor(atoms.cell.array[None], **floats),
            torch.zeros(len(atoms), dtype=torch.int64, device=self.device),
            torch.as_tensor(edge_index, device=self.device),
            torch.tensor(shifts, **floats),
        )

    def _check_elements(self, numbers: np.ndarray) -> None:
        strange = sorted(set(numbers.tolist()) - set(self.potential.elements))
        if strange:
            from ase.data import chemical_symbols

            name = [chemical_symbols[z] for z in strange]
            known = [chemical_symbols[z] for z in self.potential.elements]
            raise MdpotError(
                f"atoms hold {', '.join(name)}, which {self.ckpt} was not trained for; it knows {', '.join(known)}."
            )

    def _build(self) -> Any:
        """What evaluates the potential: itself, scripted or compiled."""
        if self.backend == "torchscript":
            return torch.jit.script(self.potential)
        if self.backend == "compile":
            self.potential.backbone.compile(dynamic=True)
        return self.potential

    def __getstate__(self) -> dict[str, Any]:
        # A scripted module does not pickle; it is made again from the potential.
        return {k: v for k, v in self.__dict__.items() if k != "_evaluate"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._evaluate = self._build()


def _dtype(name: str | torch.dtype | None) -> torch.dtype | None:
    if name is None or isinstance(name, torch.dtype):
        return name
    if name not in DTYPES:
        raise unknown("dtype", name, DTYPES)
    return DTYPES[name]
