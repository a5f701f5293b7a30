"""Systems and models for the tests of OpenMM forces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.kernels import NoKernel, make_kernel

WATER = [1, 8]
TRICLINIC = np.array([[5.2, 0.0, 0.0], [1.7, 5.0, 0.0], [-1.1, 2.2, 5.4]])  # Å, in the form that OpenMM asks for


def make_potential(seed: int = 0) -> Potential:
    torch.manual_seed(seed)
    return build_potential("egnn", {"width": 16, "layers": 2}, WATER, [-13.6, -2041.3], 2.0).eval()


def make_tide(backend: str) -> Potential:
    """One with random weights that a backend runs; the test is skipped where that is "native" and has no kernels."""
    potential = build_potential("tide", {}, WATER, [-13.6, -2041.3], 1.0).eval()
    if backend == "native":
        try:
            make_kernel(potential)
        except NoKernel as error:
            pytest.skip(str(error))
    return potential


def make_atoms(kind: str) -> Atoms:
    """Atoms on a jittered grid, each in its own site; "unwrapped" has them scattered over periodic images."""
    rng = np.random.default_rng(3)
    sites = np.stack(np.meshgrid(*[np.arange(3)] * 3), axis=-1).reshape(-1, 3) / 3
    sites = sites + rng.uniform(-0.04, 0.04, sites.shape)
    cell = np.diag([4.9, 5.3, 5.7]) if kind == "orthorhombic" else TRICLINIC
    if kind == "unwrapped":
        sites = sites + rng.integers(-3, 4, sites.shape)
    numbers = rng.permutation([8] * 9 + [1] * 18)
    periodic = kind != "cluster"
    return Atoms(numbers, sites @ cell, cell=cell if periodic else None, pbc=periodic)


def topology_of(atoms: Atoms) -> Any:
    from openmm import Vec3, app
    from openmm.unit import nanometers  # type: ignore[attr-defined]

    topology = app.Topology()
    chain = topology.addChain()
    for number in atoms.numbers:
        residue = topology.addResidue("ATM", chain)
        topology.addAtom("X", app.Element.getByAtomicNumber(int(number)), residue)
    if atoms.pbc.all():
        topology.setPeriodicBoxVectors([Vec3(*row) for row in atoms.cell.array / 10] * nanometers)
    return topology


def reference(potential: Potential, atoms: Atoms) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å, by vesin's neighbor list and the eager potential."""
    graph = Graph.from_atoms(atoms, potential.cutoff, torch.float64)
    out = potential(*graph.inputs())
    return float(out["energy"]), out["forces"].detach().numpy()


def make_context(system: Any, positions: np.ndarray, platform: str = "Reference", integrator: Any = None) -> Any:
    import openmm

    integrator = integrator or openmm.VerletIntegrator(0.0005)
    properties = {"Precision": "double"} if platform == "CUDA" else {}
    context = openmm.Context(system, integrator, openmm.Platform.getPlatform(platform), properties)
    context.setPositions(positions / 10)
    return context


def results(context: Any, **options: Any) -> tuple[float, np.ndarray]:
    """Energy, eV, and forces, eV/Å, of a context."""
    from ase import units

    state = context.getState(getEnergy=True, getForces=True, **options)
    kj_per_mol = units.kJ / units.mol
    return (
        state.getPotentialEnergy()._value * kj_per_mol,
        state.getForces(asNumpy=True)._value * kj_per_mol / 10,
    )


@pytest.fixture(params=["python", "torchforce"])
def backend(request: pytest.FixtureRequest, recwarn: pytest.WarningsRecorder) -> str:
    """A backend that works here; `recwarn` lets the warning about OpenMM 8.6 pass."""
    pytest.importorskip("openmm")
    from mdpot.openmm.backends import obstacle

    reason = obstacle(request.param)
    if reason:
        pytest.skip(reason)
    return request.param


@pytest.fixture
def platforms() -> list[str]:
    """The platforms that OpenMM has here, as far as a TorchForce runs on them."""
    openmm = pytest.importorskip("openmm")
    names = [openmm.Platform.getPlatform(i).getName() for i in range(openmm.Platform.getNumPlatforms())]
    return [name for name in names if name in ("Reference", "CPU", "CUDA")]


@pytest.fixture
def alone() -> Callable[..., str]:
    """Runs a Python program in a new process and returns what it printed."""
    import subprocess
    import sys

    def run(program: str, *arguments: str) -> str:
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
