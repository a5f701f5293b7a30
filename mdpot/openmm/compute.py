"""What OpenMM's Python forces call: picklable, so that a System that holds one can be written as XML.

The pickle carries the model file itself; a System read back on another machine needs mdpot there, but no
file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from mdpot.autograd import exact_gradients
from mdpot.device import pick_device
from mdpot.electrons import Electrons
from mdpot.errors import MdpotError
from mdpot.evaluator import Evaluator, ForOpenMM, Particles
from mdpot.exported import plain_refusals
from mdpot.forcefields import NOT_DESCRIBED, Structure, find_forcefield
from mdpot.kernels import Native, find_kernel, make_kernel
from mdpot.modelfile import read_model
from mdpot.openmm.backends import ready_for_arrays
from mdpot.threads import Turns
from mdpot.units import KJ_PER_MOL, NM

MODEL = Path("model of an OpenMM force")  # how errors call it
NO_BOX, PERIODIC, APERIODIC = np.zeros((3, 3)), np.ones(3, dtype=bool), np.zeros(3, dtype=bool)


class Compute:
    """Energy and forces of an OpenMM State. Contexts of one System, in threads of their own perhaps, take turns.

    Args:
        content: bytes of a model file, or of a file exported for OpenMM.
        particles: the atoms among what OpenMM passes.
        periodic: whether the atoms live in the periodic box of the State.
        dtype: of the network, "float32" or "float64"; None is that of the file.
        device: torch device; None takes a CUDA GPU where there is one, else the CPU.
        skin: Å, of the neighbor list.
    """

    def __init__(
        self,
        content: bytes,
        particles: Particles,
        periodic: bool,
        dtype: str | None,
        device: str | None,
        skin: float,
    ):
        self.content, self.particles, self.periodic = content, particles, periodic
        self.dtype, self.device, self.skin = dtype, device, skin
        self.module: Any = None
        self.turns = Turns()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "module": None, "turns": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, turns=Turns())  # a System in XML of before has none

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        """Energy, kJ/mol, and forces [n, 3], kJ/mol/nm, for the positions and the box of the State."""
        positions = torch.from_numpy(np.asarray(state.getPositions(asNumpy=True)._value, dtype=np.float64))
        energy, forces = self.evaluate(state, positions)
        return float(energy), forces.cpu().numpy()

    def evaluate(self, state: Any, positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Energy [], kJ/mol, and forces [n, 3], kJ/mol/nm, at positions [n, 3], nm, in the State's box."""
        box = None
        if self.periodic:
            box = torch.from_numpy(_box(state))
        # Whatever the thread that OpenMM calls from was doing with gradients or precision.
        with self.turns, exact_gradients(), plain_refusals():
            _require_count(self.particles, len(positions))
            if self.module is None:
                self.module = self._load()
            energy, forces = self.module(positions, box)
        return energy.detach(), forces.detach()

    def _load(self) -> Any:
        ready_for_arrays()
        model = read_model(self.content, MODEL)
        device = pick_device(self.device or model.device)
        if model.exported:
            module: Any = model.module(device)
        else:
            module = ForOpenMM(Evaluator(model.potential(device, self.dtype, correction=True), self.skin), "{}").to(
                device
            )
        self.particles.enter(module)
        return module


class TensorCompute(Compute):
    """The same for openmmtorch's PythonTorchForce, which passes positions as a tensor and takes tensors."""

    def __call__(  # type: ignore[override]
        self, state: Any, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        energy, forces = self.evaluate(state, positions)
        return energy, forces.to(positions.device)


class NativeCompute:
    """The same in fused kernels, without torch's tensors on the way.

    Args:
        content: bytes of a model file that is not exported.
        particles, periodic, dtype, skin: as in `Compute`.
    """

    def __init__(self, content: bytes, particles: Particles, periodic: bool, dtype: str | None, skin: float):
        self.content, self.particles, self.periodic = content, particles, periodic
        self.dtype, self.skin = dtype, skin
        self.numbers = np.array(particles.numbers, dtype=np.int64)
        self.atoms = None if particles.atoms is None else np.array(particles.atoms, dtype=np.int64)
        self.native: Native | None = None
        self.torch: Compute | None = None
        self.turns = Turns()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "native": None, "torch": None, "turns": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, turns=Turns())

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        """Energy, kJ/mol, and forces [n, 3], kJ/mol/nm, for the positions and the box of the State."""
        with self.turns:
            if self.native is None and self.torch is None:
                self.load()
        if self.native is None:
            assert self.torch is not None
            return self.torch(state)
        positions = state.getPositions(asNumpy=True)._value * NM
        _require_count(self.particles, len(positions))
        if self.atoms is not None:
            positions = positions[self.atoms]
        cell, pbc = NO_BOX, APERIODIC
        if self.periodic:
            cell, pbc = _box(state) * NM, PERIODIC
        with self.turns:
            found = self.native(self.numbers, positions, cell, pbc)
        forces = found.forces * (NM / KJ_PER_MOL)
        if self.atoms is not None:
            everywhere = np.zeros((self.particles.count, 3))
            everywhere[self.atoms] = forces
            forces = everywhere
        return found.energy / KJ_PER_MOL, forces

    def load(self, required: bool = False) -> bool:
        """Makes the kernels of the file; where there are none, as for a System from another machine, torch computes it.

        Args:
            required: whether that is an error.

        Returns:
            Whether there are kernels.

        Raises:
            NoKernel: there are none and they are required.
        """
        ready_for_arrays()
        potential = read_model(self.content, MODEL).potential("cpu", self.dtype, correction=True)
        kernel = make_kernel(potential) if required else find_kernel(potential)
        if kernel is not None:
            self.native = Native(kernel, self.skin)
        else:
            self.torch = Compute(self.content, self.particles, self.periodic, self.dtype, "cpu", self.skin)
        return kernel is not None


class Corrected:
    """The same of a potential that corrects a force field: of both together.

    Args:
        network: what computes the correction.
        baseline: name of the force field.
        particles, periodic: as in `Compute`; the force field sees the same atoms.
        electrons: of these atoms.
    """

    def __init__(
        self,
        network: Compute | NativeCompute,
        baseline: str,
        particles: Particles,
        periodic: bool,
        electrons: Electrons,
    ):
        self.network, self.baseline, self.periodic, self.electrons = network, baseline, periodic, electrons
        self.particles, self.numbers = particles, np.array(particles.numbers, dtype=np.int64)

    def __call__(self, state: Any) -> tuple[float, np.ndarray]:
        """Energy, kJ/mol, and forces [n, 3], kJ/mol/nm, for the positions and the box of the State.

        Raises:
            MdpotError: the force field does not describe the atoms.
        """
        energy, forces = self.network(state)
        positions = state.getPositions(asNumpy=True)._value * NM
        chosen = slice(None) if self.particles.atoms is None else self.particles.atoms
        cell, pbc = (_box(state) * NM, PERIODIC) if self.periodic else (NO_BOX, APERIODIC)
        atoms = Structure(self.numbers, positions[chosen], cell, pbc, self.electrons)
        labels = find_forcefield(self.baseline).label(atoms)
        if labels is None:
            raise MdpotError(NOT_DESCRIBED.format(baseline=self.baseline))
        forces = np.array(forces, dtype=np.float64)
        forces[chosen] += labels[1] * (NM / KJ_PER_MOL)
        return energy + labels[0] / KJ_PER_MOL, forces


def _require_count(particles: Particles, count: int) -> None:
    """Refuses a System of another number of particles than those that the force was made for."""
    if count != particles.count:
        raise MdpotError(
            f"this force was made for {particles.count} particles, and OpenMM passes {count}. Make it for all "
            "particles of the System: by a topology with all of them, or by their atomic numbers, 0 for what is no "
            "atom, and atoms=, the indices of those that the potential is for."
        )


def _box(state: Any) -> np.ndarray:
    """The box vectors [3, 3] of a State, nm."""
    vectors = state.getPeriodicBoxVectors(asNumpy=True)
    if vectors is None:
        raise MdpotError("the force is periodic, but OpenMM passes no box.")
    return np.asarray(vectors._value, dtype=np.float64)
