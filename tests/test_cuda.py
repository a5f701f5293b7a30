"""A GPU gives what the CPU gives; skipped where there is none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from mdpot import MaskedGNNCalculator, build_potential, save_potential
from mdpot.export import export_torchscript
from mdpot.export_aoti import export_aoti
from mdpot.models import MODELS
from mdpot.simulate import water_box
from mdpot.training.config import load_recipe
from mdpot.training.run import run_train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")


@pytest.fixture
def water() -> Atoms:
    atoms = water_box(16, np.random.default_rng(0))
    atoms.set_cell(atoms.cell.array + np.array([[0, 0, 0], [1.5, 0, 0], [-0.7, 0.9, 0]]))
    return atoms


def save(name: str, path: Path) -> Path:
    torch.manual_seed(0)
    save_potential(path, build_potential(name, {"cutoff": 3.5}, [1, 8], [-13.6, -2041.3], 1.0), {})
    return path


def compute(atoms: Atoms, file: Path, device: str, **options: Any) -> tuple[float, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = MaskedGNNCalculator(file, device=device, **options)
    atoms.get_potential_energy()
    atoms.positions += 0.01  # the neighbor list is kept
    return atoms.get_potential_energy(), atoms.get_forces()


@pytest.mark.filterwarnings("ignore:.*the forces of this")
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("backend", ["auto", "eager", "padded", "torchscript", "exported"])
def test_the_calculator(name: str, backend: str, water: Atoms, tmp_path: Path) -> None:
    file = save(name, tmp_path / "p.safetensors")
    expected = compute(water, file, "cpu", dtype="float64")
    if backend == "exported":
        export_torchscript(file, tmp_path / "p.pt", dtype="float64", units="ase", check=False)
        found = compute(water, tmp_path / "p.pt", "cuda")
    else:
        found = compute(water, file, "cuda", dtype="float64", backend=backend)
    assert found[0] == pytest.approx(expected[0], rel=1e-10)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-8)


@pytest.mark.filterwarnings("ignore:.*the forces of this")
@pytest.mark.parametrize("name", MODELS)
def test_a_captured_graph_is_played_again(name: str, water: Atoms, tmp_path: Path) -> None:
    """Moved atoms, a new list in the same slots, and one that overflows them, each as without a graph."""
    file = save(name, tmp_path / "p.safetensors")
    graph: Any = MaskedGNNCalculator(file, device="cuda", dtype="float64", backend="padded")
    eager: Any = MaskedGNNCalculator(file, device="cuda", dtype="float64", backend="torch")
    assert graph.engine == "torch (CUDA graph)"
    captured = set()
    for factor in (1.0, 1.0, 1.001, 0.85):
        water.rattle(0.02, rng=np.random.default_rng(0))
        water.set_cell(factor * water.cell.array, scale_atoms=True)
        expected = eager.get_forces(water)
        np.testing.assert_allclose(graph.get_forces(water), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
        captured.add(graph.evaluate.fixed._run)
    assert len(captured) == 2


@pytest.mark.parametrize("name", ["tide", "egnn"])
def test_a_compiled_file(name: str, water: Atoms, tmp_path: Path) -> None:
    file = save(name, tmp_path / "p.safetensors")
    export_aoti(file, tmp_path / "p.pt2", dtype="float64", device="cuda")
    expected = compute(water, file, "cpu", dtype="float64")
    found = compute(water, tmp_path / "p.pt2", "cuda")
    assert found[0] == pytest.approx(expected[0], rel=1e-10)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=1e-8)


@pytest.mark.parametrize("objective", ["mask", "denoise", "forcefield"])
def test_training(objective: str, tmp_path: Path) -> None:
    """The first losses are those of the CPU."""
    keys = [
        f"pretrain.objective={objective}",
        *(f"{stage}.max_steps=6" for stage in ("pretrain", "finetune")),
        *(f"{stage}.eval_every=3" for stage in ("pretrain", "finetune")),
        "data.max_train_frames=20",
    ]
    recipe = load_recipe("water-rpbe", "quick", keys)
    errors = [
        run_train(recipe, data=None, out=tmp_path / d, device=d)["errors"]["test"]["force_rmse"]
        for d in ("cpu", "cuda")
    ]
    # Masks and noise are drawn on the device, so the two pretrain alike and not the same.
    assert errors[1] == pytest.approx(errors[0], rel=0.2)


def test_openmm(water: Atoms, tmp_path: Path) -> None:
    openmm = pytest.importorskip("openmm")
    from mdpot.openmm import create_system
    from mdpot.simulate.engine_openmm import make_topology

    platforms = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    if "CUDA" not in platforms:
        pytest.skip("OpenMM has no CUDA")
    file = save("tide", tmp_path / "p.safetensors")
    water.set_cell(np.diag(water.cell.lengths()))
    system = create_system(make_topology(water), file)
    forces = []
    for platform in ("Reference", "CUDA"):
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform(platform))
        context.setPositions(water.positions / 10)
        forces.append(context.getState(getForces=True).getForces(asNumpy=True)._value)
    np.testing.assert_allclose(forces[1], forces[0], rtol=0, atol=1e-3 * np.abs(forces[0]).max())
