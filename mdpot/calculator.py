"""The ASE calculator."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, Parameters, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress

from mdpot.autograd import exact_gradients
from mdpot.captured import FixedSlots, find_fixed_slots
from mdpot.device import check_device, pick_device
from mdpot.electrons import NOTHING_SAID, Electrons, or_else, stated_electrons
from mdpot.errors import MdpotError, name_elements, unknown
from mdpot.evaluator import usual_outputs
from mdpot.exported import TITLES, format_of, plain_refusals
from mdpot.forcefields import NOT_DESCRIBED, Structure, find_forcefield
from mdpot.heads import AnyPotential, PotentialEnsemble
from mdpot.heads.ensemble import SPREADS
from mdpot.kernels import Kernel, Native, find_kernel, make_kernel
from mdpot.modelfile import ModelFile, open_model
from mdpot.modelformat import as_dtype
from mdpot.neighbors import VerletList, check_skin
from mdpot.structures import refuse_placeholder
from mdpot.threads import Turns
from mdpot.zoo import ZOO

BACKENDS = ("auto", "native", "torch", "eager", "padded", "torchscript", "compile")
ARGUMENTS = ("ckpt", "device", "dtype", "skin", "backend")
WHOLE = ("energy", "interaction", "stress", "energy_std")  # one for each structure
ASE_ARGUMENTS = {"atoms", "label", "directory"}
FLAT = 1e-3  # Å^3; a cell of less has no volume


class MaskedGNNCalculator(Calculator):
    """Energies, forces and stress of a trained potential, for ASE.

    >>> atoms.calc = MaskedGNNCalculator("runs/water-rpbe-quick-seed0/potential.safetensors")

    Any cell and any mix of periodic directions, positions wrapped or not. A neighbor list with a skin is kept
    between calls. Several structures and several threads may share a calculator; threads take turns. Copies and
    pickles stand alone. (ASE's writer of extended XYZ is not made for shared calculators: it gives all frames the
    results that were computed last.) Neither torch's default dtype nor its threads are touched; set those in the
    script.

    Properties: energy and free_energy (eV), energies (eV, per atom), forces (eV/Å), stress (Voigt order, eV/Å^3,
    positive under tension, per volume of the cell; only with three lattice vectors, periodic or not: of a slab it has
    the vacuum in it, and a barostat would scale that). For an ensemble
    these are means, and its spread is there too, as energy_std (eV/atom) and forces_std (eV/Å, per component). A
    potential that corrects a force field is computed together with it; then there are energy, free_energy and forces
    alone. `parameters`, which ASE's trajectories and databases keep with the results, say which file computed them.

    Args:
        ckpt: a potential file, the folder of a run, a file of `mdpot export`, or a name in `mdpot.zoo.ZOO`.
        device: torch device; None takes a CUDA GPU where there is one, else the CPU.
        dtype: "float32", "float64" or the torch dtype; None is the dtype of the file. float64 is for vibrations and
            tight relaxations, float32 for dynamics.
        skin: Å, beyond the cutoff, of the neighbor list.
        backend: who computes. "auto" takes the fused kernels for a Tide on a CPU, where they are compiled, fixed slots
            in a CUDA graph on a GPU, else torch; "native" insists on the kernels. torch runs the network as it is
            ("torch" or "eager"), with fixed slots ("padded", on a GPU in a CUDA graph), "torchscript" (scripted in
            memory) or "compile" (torch.compile of the backbone). `engine` says who it is.
        kwargs: atoms, label and directory of ASE's `Calculator`.

    Raises:
        MdpotError: a file that cannot be used, an unknown argument, backend or dtype, "native" where there are no
            kernels for it; on use, an element the potential was not trained for, or atoms that the force field which
            it corrects does not describe.
    """

    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012

    def __init__(
        self,
        ckpt: str | Path | ModelFile,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        skin: float = 0.5,
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        if strange := sorted(kwargs.keys() - ASE_ARGUMENTS):
            raise unknown("argument of MaskedGNNCalculator", strange[0], (*ARGUMENTS, *ASE_ARGUMENTS))
        self._turns = Turns()
        super().__init__(**kwargs)
        if backend not in BACKENDS:
            raise unknown("backend", backend, BACKENDS)
        self.backend, self.skin = backend, check_skin(skin)
        self.dtype = None if dtype is None else as_dtype(dtype)
        check_device(device)
        model = open_model(ckpt).require("potential")
        self.device = pick_device(device or model.device)
        self.path, self.metadata = model.path, model.header
        name = ckpt if isinstance(ckpt, str) and ckpt in ZOO else str(model.path)
        said = {} if self.dtype is None else {"dtype": str(self.dtype).removeprefix("torch.")}
        self.parameters = Parameters(ckpt=name, sha256=model.sha256, **said)
        self._kept: Atoms | None = None
        self._baseline = None if model.baseline is None else find_forcefield(model.baseline)
        self._electrons = model.electrons
        self._stated = NOTHING_SAID
        self._stress_asked = False  # of the structure that was computed last
        self.evaluate = self._load(model)
        if model.kind == "ensemble" and not model.exported:
            self.implemented_properties = [*self.implemented_properties, *SPREADS]
        if self._baseline is not None:
            self.implemented_properties = ["energy", "free_energy", "forces"]
        for caution in model.cautions:
            warnings.warn(f"{self.path}: {caution}", stacklevel=2)

    def __copy__(self) -> MaskedGNNCalculator:
        # A shallow copy would share the neighbor list and the structure that the results are told to belong to.
        return copy.deepcopy(self)

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuses: what a calculator was made with stays."""
        if kwargs:
            raise MdpotError(f"set: {', '.join(kwargs)} cannot be changed later; make another MaskedGNNCalculator.")
        return {}

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """One of the properties, computed where it is not known yet; see ASE's `Calculator`."""
        with self._turns:  # what is kept between calls belongs to one structure at a time
            value = super().get_property(name, atoms, allow_calculation)
            # Writers of trajectories ask for whatever is known already, which says nothing of what is needed.
            self._stress_asked = self._stress_asked or (name == "stress" and allow_calculation)
            return value

    def export_properties(self) -> Properties:
        """The results that ASE has names for, which `Atoms.get_properties` returns; not the spread of an ensemble."""
        return Properties({name: value for name, value in self.results.items() if name in all_outputs})

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Computes energy, energies and forces, and the stress where asked; see `ase.calculators.calculator`.

        A structure after one whose stress was asked for gets it, too: dynamics at constant pressure asks for the forces
        first, and would otherwise have everything computed twice.
        """
        if system_changes:  # whatever interrupts this: no structure is left with the results of another
            self.results = {}
        if atoms is None and self.atoms is None:
            raise MdpotError("atoms: there are none yet; give them, or atoms.calc = calculator and ask the atoms.")
        if atoms is not None:
            self._remember(atoms)
            self._stated = self._states(atoms)
        atoms = cast(Atoms, self.atoms)
        if len(atoms) == 0:
            raise MdpotError("atoms: the structure holds none.")
        wants_stress = self._wants_stress(atoms, "stress" in properties)
        out = self.evaluate(atoms, wants_stress)
        forces = out["forces"]
        if not np.isfinite(forces).all():
            raise MdpotError("the potential gave forces that are not finite; look for atoms on top of each other.")
        energy = float(out["energy"])
        self.results = {"energy": energy, "free_energy": energy, "energies": out["energies"], "forces": forces}
        self.results |= {name: out[name] for name in SPREADS if name in out}
        if self._baseline is not None:
            self.results = self._with_baseline(atoms, energy, forces)
        if wants_stress:
            self.results["stress"] = full_3x3_to_voigt_6_stress(out["stress"])

    def _wants_stress(self, atoms: Atoms, asked: bool) -> bool:
        """Whether to compute the stress: asked for now, or of the structure before where there is one.

        Raises:
            PropertyNotImplementedError: it is asked for, and there is none.
        """
        along, self._stress_asked = self._stress_asked, False
        if not (asked or along):
            return False
        refusal = None
        if not self.metadata["conservative"]:
            refusal = "this potential is force-centric; its energy has no strain gradient."
        elif self._baseline is not None:
            refusal = f"this potential corrects {self.metadata['baseline']}, whose stress is not computed."
        elif atoms.cell.rank < 3 or atoms.cell.volume < FLAT:
            refusal = f"it needs a cell of three lattice vectors; got {atoms.cell.array.tolist()}."
        if asked and refusal:
            raise PropertyNotImplementedError(f"stress: {refusal}")
        return refusal is None

    def _with_baseline(self, atoms: Atoms, energy: float, forces: np.ndarray) -> dict[str, Any]:
        """The results of the force field and its correction together."""
        assert self._baseline is not None
        labels = self._baseline.label(Structure.of(atoms, or_else(self._stated, self._electrons)))
        if labels is None:
            raise MdpotError(f"{self.path}: {NOT_DESCRIBED.format(baseline=self.metadata['baseline'])}")
        energy, forces = energy + float(labels[0]), forces + np.asarray(labels[1])
        return {"energy": energy, "free_energy": energy, "forces": forces}

    @property
    def engine(self) -> str:
        """Who computes, in a few words: "fused kernels (avx2)", or "torch" and how."""
        with_it = "" if self._baseline is None else f" and {self.metadata['baseline']}"
        return f"{self.evaluate.description}{with_it}"

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation, of all that matters to a potential; dynamics asks at every step."""
        old = self.atoms
        if old is None or self._states(atoms) != self._stated:
            return list(all_changes)
        return self._differs(old, atoms, ("positions", "numbers", "cell", "pbc"))

    def _states(self, atoms: Atoms) -> Electrons:
        """What the atoms say of their electrons, which matters to a force field alone."""
        return NOTHING_SAID if self._baseline is None else stated_electrons(atoms)

    @staticmethod
    def _differs(old: Atoms, atoms: Atoms, names: Sequence[str]) -> list[str]:
        """Those of the names in which the two differ, of a potential's view of them."""

        def value(which: Atoms, name: str) -> np.ndarray:
            return which.cell.array if name == "cell" else which.pbc if name == "pbc" else which.arrays[name]

        def same(a: np.ndarray, b: np.ndarray) -> bool:
            # By their bytes: `array_equal` takes several times as long for a small box, and is asked a dozen times a
            # step. Of another dtype are arrays that somebody put into atoms.arrays.
            return a.tobytes() == b.tobytes() or (a.dtype != b.dtype and np.array_equal(a, b))

        return [name for name in names if not same(value(old, name), value(atoms, name))]

    def _remember(self, atoms: Atoms) -> None:
        """Keeps what `check_state` compares; of a structure that only moved, positions and cell alone are copied.

        A copy of all of it takes a tenth of the time that the kernels need for a small box.
        """
        kept = self._kept
        if kept is None or self._differs(kept, atoms, ("numbers", "pbc")):
            self._check_elements(atoms.numbers)
            refuse_placeholder(atoms, "atoms")
            self._kept = kept = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        else:
            kept.arrays["positions"][:] = atoms.positions
            kept.cell.array[:] = atoms.cell.array
        self.atoms = kept

    def _load(self, model: ModelFile) -> _Exported | _Fused | _Padded | _Loaded:
        """What evaluates a model: (atoms, wants_stress) to the results as arrays."""
        if model.exported:
            if self.backend in ("native", "padded", "compile") or self.dtype is not None:
                raise MdpotError(f"{str(self.path)!r} is an exported file: its backend and dtype cannot be changed.")
            return _Exported(model, self.device)
        potential = model.potential(self.device, self.dtype, correction=True)
        kernel = None
        if self.backend == "native":
            if self.device.type != "cpu":
                raise MdpotError(f"backend 'native' computes on a CPU; got device {str(self.device)!r}.")
            kernel = make_kernel(potential)
        elif self.backend == "auto" and self.device.type == "cpu":
            kernel = find_kernel(potential)
        if kernel is not None:
            return _Fused(kernel, self.skin)
        fixed = None
        if self.backend == "padded":
            fixed = FixedSlots(potential, self.skin)
        elif self.backend == "auto" and self.device.type == "cuda":
            fixed = find_fixed_slots(potential, self.skin)
        if fixed is not None:
            return _Padded(fixed)
        return _Loaded(potential, self.backend, self.skin, self.device)

    def _check_elements(self, numbers: np.ndarray) -> None:
        strange = sorted(set(numbers.tolist()) - set(self.metadata["elements"]))
        if strange:
            raise MdpotError(
                f"atoms hold {name_elements(strange)}, which {self.path} was not trained for; it knows "
                f"{name_elements(self.metadata['elements'])}."
            )


class _Fused:
    """A potential in fused kernels."""

    def __init__(self, kernel: Kernel, skin: float) -> None:
        self.native = Native(kernel, skin)
        self.description = self.native.description

    def __call__(self, atoms: Atoms, wants_stress: bool) -> dict[str, Any]:
        found = self.native(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, wants_stress)
        return {"energy": found.energy, "energies": found.energies, "forces": found.forces, "stress": found.stress}


class _Padded:
    """A potential in torch with fixed slots for its neighbors."""

    def __init__(self, fixed: FixedSlots) -> None:
        self.fixed = fixed
        self.description = f"torch ({'CUDA graph' if fixed.device.type == 'cuda' else 'fixed slots'})"

    def __call__(self, atoms: Atoms, wants_stress: bool) -> dict[str, Any]:
        found = self.fixed(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
        results = {"energy": found.energies.sum(), "energies": found.energies, "forces": found.forces}
        return results | ({"stress": found.virial / atoms.get_volume()} if wants_stress else {})


class _Loaded:
    """A potential in torch, with a neighbor list around it."""

    def __init__(self, potential: AnyPotential, backend: str, skin: float, device: torch.device) -> None:
        self.potential, self.backend, self.device = potential, backend, device
        self.description = "torch" if backend in ("auto", "torch", "eager") else f"torch ({backend})"
        self.neighbors = VerletList(potential.cutoff, skin)
        self._build()

    def _build(self) -> None:
        self._forward: Any = self.potential
        if self.backend == "torchscript":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # torch announces the end of TorchScript
                self._forward = torch.jit.script(self.potential)
        elif self.backend == "compile":
            members: Any = self.potential.members if isinstance(self.potential, PotentialEnsemble) else [self.potential]
            for potential in members:
                potential.backbone.compile(dynamic=True)

    def __getstate__(self) -> dict[str, Any]:
        # What is scripted or compiled does not pickle; a copy makes it again.
        return {k: v for k, v in self.__dict__.items() if k != "_forward"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._build()

    def __call__(self, atoms: Atoms, wants_stress: bool) -> dict[str, np.ndarray]:
        cell = atoms.cell.array
        edge_index, shifts = self.neighbors.update(atoms.numbers, atoms.positions, cell, atoms.pbc)
        # Positions stay in float64: a float32 network takes the edge vectors of them, exact far from the origin.
        float64 = {"dtype": torch.float64, "device": self.device}
        with exact_gradients(), plain_refusals():
            out = self._forward(
                torch.as_tensor(atoms.numbers, dtype=torch.int64, device=self.device),
                torch.tensor(atoms.positions, **float64),
                torch.tensor(cell[None], **float64),
                torch.zeros(len(atoms), dtype=torch.int64, device=self.device),
                torch.as_tensor(edge_index, device=self.device),
                torch.tensor(shifts, **float64),
                None,
                self._outputs(wants_stress),
            )
        return _arrays(out)

    def _outputs(self, wants_stress: bool) -> list[str]:
        """What is asked of the network: of an ensemble its spread, too."""
        spreads = (name for name in SPREADS if name in self.potential.known_outputs)
        return [*usual_outputs(wants_stress), *spreads]


class _Exported:
    """An exported file, which has its neighbor list inside."""

    def __init__(self, model: ModelFile, device: torch.device) -> None:
        self.model, self.device = model, device
        self.description = f"{TITLES[format_of(model.header)]} (exported file)"
        self.module: Any = model.module(device)

    def __reduce__(self) -> tuple[Any, ...]:
        # Scripted and compiled modules do not pickle: a copy loads the content again.
        return _Exported, (self.model, self.device)

    def __call__(self, atoms: Atoms, wants_stress: bool) -> dict[str, np.ndarray]:
        with exact_gradients(), plain_refusals():
            out = self.module.evaluate(
                torch.as_tensor(atoms.numbers, dtype=torch.int64),
                torch.tensor(atoms.positions),
                torch.tensor(atoms.cell.array),
                torch.tensor(atoms.pbc),
                wants_stress,
            )
        return _arrays(out)


def _arrays(out: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """The results of one structure in float64; those of the whole structure without an axis for it."""
    found = {name: tensor.double().cpu().numpy() for name, tensor in out.items()}
    return {name: value[0] if name in WHOLE else value for name, value in found.items()}
