"""The same numbers from a batch, in either precision, and from TorchScript, ASE and OpenMM."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from ase import Atoms, units

from mdpot import MaskedGNNCalculator, save_potential
from mdpot.export import export_torchscript
from mdpot.graph import Graph
from mdpot.heads import Potential
from mdpot.models import MODELS
from mdpot.training.data.frames import Frame

from .conftest import CUTOFF, SYSTEMS, WITH_VECTOR, assert_equal, build, compute, everything, waters


def test_a_batch_gives_what_each_gives_alone(potential: Potential, sample: list[Frame]) -> None:
    structures = [make(sample) for make in SYSTEMS.values()]
    together = compute(potential, structures, outputs=WITH_VECTOR)
    start = 0
    for k, atoms in enumerate(structures):
        alone, own = compute(potential, atoms, outputs=WITH_VECTOR), slice(start, start + len(atoms))
        assert_equal(together["energy"][k : k + 1], alone["energy"], "energy", 1e-13)
        assert_equal(together["interaction"][k : k + 1], alone["interaction"], "interaction", 1e-12)
        for key in ("energies", "forces", "vector"):
            assert_equal(together[key][own], alone[key], key, 1e-12)
        start += len(atoms)
    periodic = [atoms for atoms in structures if atoms.pbc.all()]
    stresses = compute(potential, periodic, outputs=["stress"])["stress"]
    for stress, atoms in zip(stresses, periodic, strict=True):
        assert_equal(stress, compute(potential, atoms, outputs=["stress"])["stress"][0], "stress", 1e-12)


def test_single_precision(kind: tuple[str, bool], potential: Potential, atoms: Atoms) -> None:
    expected = compute(potential, atoms, outputs=WITH_VECTOR)
    single = build(kind[0], dtype=torch.float32, wall=potential.has_wall)
    for dtype in (torch.float32, torch.float64):
        found = compute(single, atoms, dtype=dtype, outputs=WITH_VECTOR)
        assert found["energy"].dtype == torch.float64
        assert found["forces"].dtype == dtype
        for key in ("interaction", "forces", "vector", "energies"):
            assert_equal(found[key].double(), expected[key], key, 1e-4)


def test_large_references_cost_a_float32_network_nothing(kind: tuple[str, bool], potential: Potential) -> None:
    """Energy differences of a big system are exact although its total energy has more digits than float32."""
    single = build(kind[0], dtype=torch.float32)
    atoms = waters(40, np.eye(3) * 11, (True, True, True))
    moved = atoms.copy()
    moved.positions[3] += 0.01
    out = [compute(single, a) for a in (atoms, moved)]
    total, interaction = (out[1][k].double() - out[0][k].double() for k in ("energy", "interaction"))
    assert abs(float(out[0]["energy"])) > 8e4
    assert float(total) == pytest.approx(float(interaction), abs=2e-4)


@pytest.mark.filterwarnings("ignore:.*not the gradient of its energy")
@pytest.mark.parametrize("name", MODELS)
def test_ase_and_openmm_give_the_same(name: str, sample: list[Frame], tmp_path) -> None:
    atoms = SYSTEMS["water"](sample)
    potential = build(name)
    expected = compute(potential, atoms)
    save_potential(tmp_path / "potential.safetensors", potential)
    export_torchscript(potential, tmp_path / "model.pt", units="ase", dtype="float64")

    def check(energy: float, forces: np.ndarray, what: str) -> None:
        assert energy == pytest.approx(float(expected["energy"]), abs=1e-8), what
        assert_equal(torch.tensor(forces), expected["forces"], what, 1e-9)

    for file in ("potential.safetensors", "model.pt"):
        atoms.calc = MaskedGNNCalculator(tmp_path / file, device="cpu")
        check(atoms.get_potential_energy(), atoms.get_forces(), file)

    openmm = pytest.importorskip("openmm")
    from mdpot.openmm import create_force
    from mdpot.openmm.backends import obstacle

    for backend in ("python", "torchforce"):
        if obstacle(backend):
            continue
        system = openmm.System()
        for mass in atoms.get_masses():
            system.addParticle(mass)
        system.addForce(create_force(potential, atoms.numbers.tolist(), backend, periodic=True, check=False))
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
        context.setPeriodicBoxVectors(*(atoms.cell.array / 10))
        context.setPositions(atoms.positions / 10)
        state = context.getState(getEnergy=True, getForces=True)
        unit = units.kJ / units.mol
        check(state.getPotentialEnergy()._value * unit, state.getForces(asNumpy=True)._value * unit / 10, backend)


# TorchScript is deprecated in newer torch; and torch 2.13 warns of an attribute that no script uses.
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_eager_and_torchscript_agree(
    kind: tuple[str, bool], potential: Potential, sample: list[Frame], dtype: torch.dtype
) -> None:
    relative = 1e-10 if dtype == torch.float64 else 1e-5
    model = build(kind[0], dtype=dtype, wall=potential.has_wall)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(model)
    for name in ("water", "flattest real cell", "molecule", "atom", "slab", "water"):
        atoms = SYSTEMS[name](sample)
        chosen = everything(potential, atoms)
        graph = Graph.from_atoms(atoms, CUTOFF, dtype)
        eager, script = model(*graph.inputs(), outputs=chosen), scripted(*graph.inputs(), outputs=chosen)
        assert eager.keys() == script.keys()
        for key in eager:
            assert eager[key].dtype == script[key].dtype
            assert_equal(script[key], eager[key], f"{name}: {key}", relative)
