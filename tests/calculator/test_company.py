"""The ASE calculator beside others: copies, threads and settings of torch, its backends, and ASE's own tools."""

from __future__ import annotations

import copy
import hashlib
import os
import pickle
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.db import connect
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from mdpot import Graph, MaskedGNNCalculator, load_potential
from mdpot.modelfile import save_ensemble

from .conftest import CUTOFF, attach, results, save

# ---- copies and company ----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "padded", "torchscript"])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
def test_copies_give_the_same_and_stand_alone(tmp_path: Path, liquid: Atoms, backend: str, duplicate) -> None:
    file = save(tmp_path / "potential.safetensors")
    atoms = attach(liquid, file, backend=backend, dtype="float64")
    expected = results(atoms)
    twin = liquid.copy()
    twin.calc = duplicate(atoms.calc)
    twin.positions[0] += 0.3
    assert twin.get_potential_energy() != expected[0]
    np.testing.assert_array_equal(results(atoms), expected)
    twin.positions[0] -= 0.3
    np.testing.assert_allclose(results(twin), expected, rtol=0, atol=1e-12)


def test_a_copy_does_not_give_its_results_for_those_of_another_structure(file: Path, liquid: Atoms) -> None:
    """Energies of two structures by a calculator and its shallow copy, as for the images of a band."""
    moved = liquid.copy()
    moved.positions[0] += 0.3
    here, there = (attach(atoms, file).get_potential_energy() for atoms in (liquid, moved))
    calculator = attach(liquid, file).calc
    assert calculator.get_potential_energy(liquid) == here
    assert copy.copy(calculator).get_potential_energy(moved) == there
    assert calculator.get_potential_energy(moved) == there
    assert calculator.get_potential_energy(liquid) == here


@pytest.mark.parametrize("model", ["egnn", "tide"])
def test_threads_share_a_calculator(tmp_path: Path, liquid: Atoms, model: str) -> None:
    structures = [liquid.copy() for _ in range(4)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.05 * seed, seed=seed)
    file = save(tmp_path / "potential.safetensors", model)
    expected = [attach(atoms, file).get_potential_energy() for atoms in structures]
    calculator = attach(liquid, file).calc
    found: list[list[float]] = [[] for _ in structures]

    def work(k: int) -> None:
        found[k] = [calculator.get_potential_energy(structures[k]) for _ in range(5)]

    threads = [threading.Thread(target=work, args=[k]) for k in range(len(structures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(found, np.repeat(expected, 5).reshape(-1, 5), rtol=0, atol=1e-9)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # Python 3.12 warns of threads beside a fork
def test_a_process_that_is_forked_while_a_thread_computes(file: Path, liquid: Atoms) -> None:
    """As DataLoader's workers and multiprocessing do: the thread that computes is not in the child."""
    atoms = attach(liquid, file)
    expected = atoms.get_potential_energy()
    begun, end = threading.Event(), threading.Event()
    evaluate = atoms.calc.evaluate

    def slow(*arguments: Any) -> Any:
        begun.set()
        end.wait(20)
        return evaluate(*arguments)

    moved = attach(liquid, file)
    moved.calc = atoms.calc
    moved.positions[0] += 0.3
    atoms.calc.evaluate = slow
    thread = threading.Thread(target=moved.get_potential_energy)
    thread.start()
    assert begun.wait(20)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            atoms.calc.evaluate = evaluate
            status = 0 if atoms.get_potential_energy() == expected else 2
        finally:
            os._exit(status)
    end.set()
    thread.join()
    deadline = time.monotonic() + 20
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    if found[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert found == (child, 0)


def test_copies_are_of_the_potential_that_was_loaded(
    tmp_path: Path, liquid: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of its file: moved, or written anew by another training; whatever the folder one is in."""
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "potential.safetensors")
    atoms = attach(liquid, Path("potential.safetensors"))
    expected = atoms.get_potential_energy()
    packed = pickle.dumps(atoms.calc)
    save(tmp_path / "potential.safetensors", seed=1)
    monkeypatch.chdir("/")
    for calculator in (copy.deepcopy(atoms.calc), pickle.loads(packed)):
        calculator.reset()
        twin = liquid.copy()
        twin.calc = calculator
        assert twin.get_potential_energy() == expected


def test_two_calculators_in_one_process(tmp_path: Path, liquid: Atoms) -> None:
    first, second = (save(tmp_path / f"{n}.safetensors", seed=n) for n in range(2))
    gas = molecule("CH3CH2OH")
    expected = [results(attach(liquid, first)), results(attach(gas, second, dtype="float64"))]
    a, b = attach(liquid, first), attach(gas, second, dtype="float64")
    for _ in range(3):
        a.calc.reset()
        b.calc.reset()
        np.testing.assert_array_equal(results(a), expected[0])
        np.testing.assert_array_equal(results(b), expected[1])


@pytest.mark.parametrize("backend", ["eager", "padded", "torchscript"])
def test_globals_of_torch_stay_as_they_are(file: Path, liquid: Atoms, backend: str) -> None:
    expected = results(attach(liquid, file, backend=backend))
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        atoms = attach(liquid, file, backend=backend)
        found = results(atoms)
        assert torch.get_default_dtype() == torch.float64
        # The network stays as precise as its file says.
        np.testing.assert_array_equal(found, expected)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert generator.shape == torch.get_rng_state().shape


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("backend", ["torch", "padded"])
def test_inside_blocks_that_forbid_gradients(file: Path, liquid: Atoms, around, backend: str) -> None:
    expected = results(attach(liquid, file, backend=backend))
    with around():
        atoms = attach(liquid, file, backend=backend)
        np.testing.assert_array_equal(results(atoms), expected)
        assert not torch.is_grad_enabled()
    atoms.positions += 0.1
    np.testing.assert_allclose(results(atoms), expected, atol=1e-4)


# TorchScript is deprecated in newer torch; and torch 2.13 warns of an attribute that no script uses.
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-10), ("float32", 1e-5)])
def test_torchscript_agrees(file: Path, liquid: Atoms, dtype: str, tolerance: float) -> None:
    eager = attach(liquid, file, dtype=dtype)
    script = attach(liquid, file, dtype=dtype, backend="torchscript")
    for _ in range(3):
        expected = results(eager)
        np.testing.assert_allclose(
            results(script)[1:], expected[1:], rtol=0, atol=tolerance * np.abs(expected[1:]).max()
        )
        assert script.get_potential_energy() == pytest.approx(expected[0], abs=20 * tolerance)
        for atoms in (eager, script):
            atoms.rattle(0.02, seed=1)


@pytest.mark.slow
def test_compile_agrees(file: Path, liquid: Atoms) -> None:
    eager = attach(liquid, file, dtype="float64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler has much to say about itself
        compiled = attach(liquid, file, dtype="float64", backend="compile")
        for _ in range(3):
            expected = results(eager)
            np.testing.assert_allclose(results(compiled), expected, rtol=0, atol=1e-9 * np.abs(expected[1:]).max())
            for atoms in (eager, compiled):
                atoms.rattle(0.05, seed=2)
        twin = copy.deepcopy(compiled)
        np.testing.assert_allclose(results(twin), results(eager), rtol=0, atol=1e-9)


# ---- ASE's tools -----------------------------------------------------------------------


def test_properties_by_their_names(file: Path, tmp_path: Path, liquid: Atoms) -> None:
    """Also of an ensemble, whose spread is nothing that ASE knows."""
    other = save(tmp_path / "other.safetensors", seed=1)
    save_ensemble(tmp_path / "ensemble.safetensors", [file, other])
    for model in (file, tmp_path / "ensemble.safetensors"):
        atoms = attach(liquid, model, dtype="float64")
        found = atoms.get_properties(["energy", "forces", "stress"])
        row = np.concatenate([[found["energy"]], np.ravel(found["forces"]), found["stress"]])
        np.testing.assert_array_equal(row, results(atoms))
    assert atoms.calc.get_property("energy_std", atoms) > 0


def test_optimizer(file: Path, liquid: Atoms) -> None:
    atoms = attach(liquid, file, dtype="float64")
    energy, force = atoms.get_potential_energy(), np.abs(atoms.get_forces()).max()
    BFGS(atoms, logfile=None, maxstep=0.05).run(fmax=0.01, steps=25)
    assert atoms.get_potential_energy() < energy
    assert np.abs(atoms.get_forces()).max() < force


def test_cell_filter(file: Path, liquid: Atoms) -> None:
    """The filter's forces are the gradient of its energy, and an optimizer runs down along them."""
    atoms = attach(liquid, file, dtype="float64")
    cell = atoms.cell.array.copy()
    filtered: Any = FrechetCellFilter(atoms, scalar_pressure=0.01)
    forces, start = filtered.get_forces(), filtered.get_positions()
    direction = np.random.default_rng(0).normal(size=forces.shape)
    energies = []
    for step in (-1e-4, 1e-4):
        filtered.set_positions(start + step * direction)
        energies.append(filtered.get_potential_energy())
    slope = (energies[1] - energies[0]) / 2e-4
    assert -slope == pytest.approx((forces * direction).sum(), rel=1e-5)
    filtered.set_positions(start)
    energy = filtered.get_potential_energy()
    BFGS(filtered, logfile=None, maxstep=0.05).run(fmax=0.01, steps=10)
    assert filtered.get_potential_energy() < energy
    assert not np.allclose(atoms.cell.array, cell, atol=1e-3)


def test_vibrations(file: Path, tmp_path: Path) -> None:
    atoms = attach(molecule("H2O"), file, dtype="float64")
    vibrations = Vibrations(atoms, name=str(tmp_path / "vib"), delta=1e-3, nfree=4)
    vibrations.run()
    hessian = vibrations.get_vibrations().get_hessian_2d()
    # By the derivatives of the forces, in one batch of the bare potential.
    potential = load_potential(file, dtype=torch.float64)[0]
    graph = Graph.from_atoms(atoms, 2 * CUTOFF, torch.float64)
    positions = graph.positions.requires_grad_()
    forces = potential(*graph.replace(positions=positions).inputs())["forces"].flatten()
    rows = [torch.autograd.grad(-f, positions, retain_graph=True)[0].flatten() for f in forces]
    np.testing.assert_allclose(hessian, torch.stack(rows), atol=1e-4 * float(torch.stack(rows).abs().max()))
    np.testing.assert_allclose(hessian.reshape(9, 3, 3).sum(1), 0, atol=1e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_nudged_elastic_band(file: Path, shared: bool) -> None:
    start, end = molecule("H2O"), molecule("H2O")
    end.rotate(40, "x")
    images = [start, *(start.copy() for _ in range(3)), end]
    one = MaskedGNNCalculator(file, device="cpu", dtype="float64")
    for image in images:
        image.calc = one if shared else MaskedGNNCalculator(file, device="cpu", dtype="float64")
    band: Any = NEB(images, climb=True, method="improvedtangent", allow_shared_calculator=shared)
    band.interpolate()
    BFGS(band, logfile=None, maxstep=0.02).run(fmax=1e-3, steps=3)
    forces = band.get_forces()
    alone = [attach(image, file, dtype="float64").get_potential_energy() for image in images[1:-1]]
    np.testing.assert_allclose(band.energies[1:-1], alone, rtol=0, atol=1e-10)
    assert np.isfinite(forces).all()


def test_dynamics_conserve_energy(file: Path, liquid: Atoms) -> None:
    """Velocity Verlet: the wobble of the total energy goes with the square of the time step, and does not drift."""
    from ase import units

    wobble = {}
    for step in (0.05, 0.1):
        atoms = attach(liquid, file, dtype="float64")
        dynamics = VelocityVerlet(atoms, step * units.fs)
        energies = []
        for _ in range(round(4 / step)):
            dynamics.run(1)
            energies.append(atoms.get_total_energy())
        wobble[step] = np.ptp(energies)
        assert atoms.get_kinetic_energy() > 100 * wobble[step]
    assert wobble[0.1] == pytest.approx(4 * wobble[0.05], rel=0.2)


def test_trajectories_hold_the_results(file: Path, liquid: Atoms, tmp_path: Path) -> None:
    from ase.io import read, write

    atoms = attach(liquid, file)
    expected = results(atoms)
    write(tmp_path / "frames.traj", atoms)
    write(tmp_path / "frames.extxyz", atoms)
    for name in ("frames.traj", "frames.extxyz"):
        again = read(tmp_path / name)
        assert isinstance(again, Atoms)
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-7)
        assert again.get_potential_energy() == pytest.approx(expected[0], abs=1e-6)


def test_databases_hold_the_results_and_say_of_which_potential(file: Path, liquid: Atoms, tmp_path: Path) -> None:
    other = save(tmp_path / "other.safetensors", seed=1)
    database: Any = connect(tmp_path / "frames.db")
    several = [attach(liquid, file), attach(liquid, other, dtype="float64")]
    for atoms in several:
        results(atoms)
        database.write(atoms)
    parameters = [row.calculator_parameters for row in database.select()]
    assert [p["ckpt"] for p in parameters] == [str(file), str(other)]
    assert parameters[0]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest() != parameters[1]["sha256"]
    assert [p.get("dtype") for p in parameters] == [None, "float64"]
    assert MaskedGNNCalculator("water-rpbe-small").parameters.ckpt == "water-rpbe-small"
    for row, atoms in zip(database.select(), several, strict=True):
        np.testing.assert_array_equal(results(row.toatoms()), results(atoms))
