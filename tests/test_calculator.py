"""The ASE calculator against the bare potential, finite differences, and what ASE's own tools expect of one."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.filters import FrechetCellFilter
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS
from ase.vibrations import Vibrations

from mdpot import MODELS, Graph, MaskedGNNCalculator, MdpotError, build_potential, load_potential, save_potential
from mdpot.models.activation import SiLU
from mdpot.models.backbone import Backbone

CUTOFF = 3.4


def save(
    path: Path, model: str = "egnn", seed: int = 0, elements: tuple[int, ...] = (1, 6, 8), **metadata: Any
) -> Path:
    torch.manual_seed(seed)
    sizes = {"width": 16, "layers": 2} if model != "tide" else {}
    shift = [-100.0 * z for z in elements]
    potential = build_potential(model, {"cutoff": CUTOFF, **sizes}, elements, shift, 1.0)
    save_potential(path, potential, {"provenance": {"seed": seed}, **metadata})
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("potential") / "potential.safetensors")


@pytest.fixture
def liquid() -> Atoms:
    """Four molecules in a slanted cell whose heights are near the cutoff."""
    rng = np.random.default_rng(3)
    cell = np.array([[5.5, 0, 0], [1.6, 5.1, 0], [-0.8, 1.2, 4.9]])
    atoms = Atoms(cell=cell, pbc=True)
    for place in ((0.1, 0.1, 0.1), (0.6, 0.5, 0.1), (0.1, 0.6, 0.6), (0.6, 0.05, 0.6)):
        water = molecule("H2O")
        water.rotate(rng.uniform(0, 360), rng.normal(size=3))
        water.positions += np.array(place) @ cell
        atoms += water
    return atoms


def attach(structure: Atoms, file: Path, **settings: Any) -> Any:
    atoms = structure.copy()
    atoms.calc = MaskedGNNCalculator(file, device="cpu", **settings)
    return atoms


def results(atoms: Atoms) -> np.ndarray:
    """Energy, forces and, where there is one, stress, in one row."""
    stress = atoms.get_stress() if atoms.pbc.all() else []
    return np.concatenate([[atoms.get_potential_energy()], atoms.get_forces().ravel(), stress])


# ---- numbers ---------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*not the gradient of its energy")
@pytest.mark.parametrize("dtype", ["float32", "float64", torch.float64, None])
@pytest.mark.parametrize("model", MODELS)
def test_the_numbers_are_those_of_the_potential(tmp_path: Path, liquid: Atoms, model: str, dtype) -> None:
    file = save(tmp_path / "potential.safetensors", model)
    potential = load_potential(file)[0].double()
    expected = potential(
        *Graph.from_atoms(liquid, CUTOFF, torch.float64).inputs(),
        outputs=["forces", *(["stress"] if potential.conservative else [])],
    )
    atoms = attach(liquid, file, dtype=dtype)
    tolerance = 1e-10 if dtype in ("float64", torch.float64) else 1e-4
    forces, energies = atoms.get_forces(), atoms.get_potential_energies()
    np.testing.assert_allclose(forces, expected["forces"], atol=tolerance * np.abs(expected["forces"].numpy()).max())
    np.testing.assert_allclose(energies, expected["energies"], rtol=0, atol=tolerance)
    assert forces.dtype == energies.dtype == np.float64
    assert (forces.shape, energies.shape) == ((12, 3), (12,))
    energy = atoms.get_potential_energy()
    assert isinstance(energy, float)
    assert energy == pytest.approx(float(expected["energy"]), abs=10 * tolerance)
    assert energy == pytest.approx(energies.sum(), abs=1e-9)
    assert atoms.get_potential_energy(force_consistent=True) == energy
    assert atoms.calc.results["free_energy"] == energy
    if potential.conservative:
        stress = expected["stress"][0].numpy()
        voigt = [stress[0, 0], stress[1, 1], stress[2, 2], stress[1, 2], stress[0, 2], stress[0, 1]]
        np.testing.assert_allclose(atoms.get_stress(), voigt, atol=tolerance * np.abs(stress).max())


def test_forces_and_stress_by_the_finite_differences_of_ase(file: Path, liquid: Atoms) -> None:
    atoms = attach(liquid, file, dtype="float64")
    forces = calculate_numerical_forces(atoms, eps=1e-4, iatoms=[0, 4, 11])
    np.testing.assert_allclose(atoms.get_forces()[[0, 4, 11]], forces, atol=1e-5 * np.abs(forces).max())
    stress = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), stress, atol=1e-5 * np.abs(stress).max())
    np.testing.assert_allclose(atoms.get_stress(voigt=False)[0, 1], stress[5], atol=1e-5 * np.abs(stress).max())


def test_stress_is_positive_where_the_energy_rises_under_stretch(file: Path, liquid: Atoms) -> None:
    """For each Voigt component: a strain of that kind changes the energy by volume · stress · strain."""
    atoms = attach(liquid, file, dtype="float64")
    stress, energy, volume = atoms.get_stress(), atoms.get_potential_energy(), atoms.get_volume()
    assert np.abs(stress).min() > 1e-6
    for k, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strain = np.eye(3)
        strain[a, b] += 1e-6
        stretched = attach(liquid, file, dtype="float64")
        stretched.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        change = (stretched.get_potential_energy() - energy) / volume / 1e-6
        assert change == pytest.approx(stress[k], abs=2e-3 * np.abs(stress).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_unwrapped_positions_far_away_cost_nothing(file: Path, liquid: Atoms, dtype: str) -> None:
    near = attach(liquid, file, dtype=dtype)
    far = attach(liquid, file, dtype=dtype)
    far.positions += np.random.default_rng(0).integers(-300, 300, (12, 3)) @ liquid.cell.array
    far.positions += [1e4, -2e4, 3e3]
    np.testing.assert_allclose(results(far), results(near), rtol=0, atol=1e-7 if dtype == "float64" else 2e-5)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False), (True, False, True), (False,) * 3])
def test_mixed_periodic_directions(file: Path, liquid: Atoms, pbc: tuple[bool, ...]) -> None:
    """The same as a cell that is periodic everywhere, with vacuum along the other directions."""
    vacuum = attach(liquid, file, dtype="float64")
    mixed = attach(liquid, file, dtype="float64")
    mixed.pbc = pbc
    cell = liquid.cell.array.copy()
    for axis in np.flatnonzero(~np.array(pbc)):
        cell[axis] *= 10
    vacuum.set_cell(cell)
    expected = vacuum.get_forces()
    np.testing.assert_allclose(mixed.get_forces(), expected, atol=1e-11)
    assert mixed.get_potential_energy() == pytest.approx(vacuum.get_potential_energy(), abs=1e-10)
    # A lattice vector in an aperiodic direction means nothing, and may be missing.
    cell[~np.array(pbc)] = 0
    mixed.set_cell(cell)
    np.testing.assert_allclose(mixed.get_forces(), expected, atol=1e-11)


def test_the_skin_changes_nothing(file: Path, liquid: Atoms) -> None:
    several = [attach(liquid, file, dtype="float64", skin=skin) for skin in (0.0, 0.3, 2.0)]
    rng = np.random.default_rng(1)
    for step in range(40):
        shift = rng.normal(scale=0.02, size=(12, 3))
        for atoms in several:
            atoms.positions += shift
            if step % 15 == 14:
                atoms.set_cell(atoms.cell.array * 1.01, scale_atoms=True)
        expected = results(several[0])
        for atoms in several[1:]:
            np.testing.assert_allclose(results(atoms), expected, rtol=0, atol=1e-10)


def test_one_calculator_goes_from_structure_to_structure(file: Path, liquid: Atoms) -> None:
    calculator = MaskedGNNCalculator(file, device="cpu", dtype="float64")
    slab = liquid.copy()
    slab.pbc = (True, True, False)
    swapped = liquid.copy()
    swapped.numbers[[0, 1]] = swapped.numbers[[1, 0]]
    for atoms in (liquid, molecule("CH3CH2OH"), slab, Atoms("O"), swapped, liquid[:6], liquid):
        fresh = attach(atoms, file, dtype="float64")
        atoms = atoms.copy()
        atoms.calc = calculator
        np.testing.assert_array_equal(results(atoms), results(fresh))


def test_changes_in_place_are_seen(file: Path, liquid: Atoms) -> None:
    atoms = attach(liquid, file, dtype="float64")
    seen = [atoms.get_potential_energy()]
    for change in ("positions", "cell", "numbers", "pbc"):
        if change == "positions":
            atoms.positions[3] += [0.05, 0.02, 0.01]
        elif change == "cell":
            atoms.cell[0, 0] += 0.2
        elif change == "numbers":
            atoms.numbers[0] = 6
        else:
            atoms.pbc[2] = False
        assert atoms.get_potential_energy() == attach(atoms, file, dtype="float64").get_potential_energy()
        seen.append(atoms.get_potential_energy())
    assert len(set(seen)) == 5


def test_a_structure_is_evaluated_once(file: Path, liquid: Atoms, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = attach(liquid, file)
    calls = []
    original = atoms.calc.calculate
    monkeypatch.setattr(atoms.calc, "calculate", lambda *args: (calls.append(1), original(*args)))
    atoms.get_stress()
    atoms.get_potential_energy()
    first = atoms.get_forces()
    atoms.get_potential_energies()
    assert len(calls) == 1
    first[:] = 0.0  # What a caller does to its copy is its own affair.
    assert np.abs(atoms.get_forces()).max() > 0


# ---- refusals --------------------------------------------------------------------------


def test_an_unknown_element_before_any_number(file: Path, liquid: Atoms) -> None:
    atoms = attach(liquid, file)
    atoms.get_potential_energy()
    atoms.numbers[2] = 7
    for ask in (atoms.get_potential_energy, atoms.get_forces, atoms.get_stress):
        with pytest.raises(MdpotError, match=r"atoms hold N, which .* was not trained for; it knows H, C, O"):
            ask()
        assert atoms.calc.results == {}
    atoms.numbers[2] = 1
    assert np.isfinite(atoms.get_potential_energy())


def test_stress_needs_three_periodic_directions(file: Path, liquid: Atoms) -> None:
    for pbc in ((True, True, False), (False, False, False)):
        atoms = attach(liquid, file)
        atoms.pbc = pbc
        energy = atoms.get_potential_energy()
        with pytest.raises(PropertyNotImplementedError, match="three periodic directions"):
            atoms.get_stress()
        assert atoms.get_potential_energy() == energy


def test_structures_that_make_no_sense(file: Path, liquid: Atoms) -> None:
    atoms = attach(liquid, file)
    atoms.set_cell(np.zeros((3, 3)))
    with pytest.raises(MdpotError, match="no lattice vector in a periodic direction"):
        atoms.get_forces()
    atoms = attach(liquid, file)
    atoms.positions[1, 1] = np.nan
    with pytest.raises(MdpotError, match="positions must be finite"):
        atoms.get_forces()
    atoms = attach(liquid, file)
    atoms.cell[1, 1] = np.nan
    with pytest.raises(MdpotError, match="must be finite"):
        atoms.get_forces()


def test_settings_that_make_no_sense(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"unknown backend 'torchscrip'\. Did you mean 'torchscript'"):
        MaskedGNNCalculator(file, backend="torchscrip")
    with pytest.raises(MdpotError, match=r"unknown dtype 'float46'\. Did you mean"):
        MaskedGNNCalculator(file, dtype="float46")
    with pytest.raises(MdpotError, match="skin must not be negative"):
        MaskedGNNCalculator(file, skin=-1.0)
    with pytest.raises(MdpotError, match=r"unknown argument of \w+ 'default_dtype'\. Did you mean 'dtype'"):
        MaskedGNNCalculator(file, default_dtype="float64")
    assert MaskedGNNCalculator(file, label="water").label == "water"
    with pytest.raises(MdpotError, match="is not there"):
        MaskedGNNCalculator(tmp_path / "nowhere.safetensors")
    (tmp_path / "run").mkdir()
    with pytest.raises(MdpotError, match=r"potential\.safetensors"):
        MaskedGNNCalculator(tmp_path / "run")


def test_the_folder_of_a_run(file: Path, liquid: Atoms) -> None:
    expected = attach(liquid, file).get_potential_energy()
    assert attach(liquid, file.parent).get_potential_energy() == expected


class Direct(Backbone):
    """A force-centric toy: forces are a sum over neighbors that is the gradient of nothing."""

    conservative = False

    def __init__(self, cutoff: float, width: int = 4) -> None:
        super().__init__()
        self.cutoff, self.n_features = cutoff, width
        self.activation = SiLU()

    def forward(self, h, species, edge_index, vectors, direct):
        vector = vectors.new_zeros([len(species), 3]).index_add(0, edge_index[0], vectors)
        return h, vector


def test_force_centric_potentials_warn_once_and_have_no_stress(
    tmp_path: Path, liquid: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MODELS, "direct", Direct)  # type: ignore[arg-type]
    file = save(tmp_path / "potential.safetensors", "direct")
    with pytest.warns(UserWarning, match=r"predicted directly.*not conserved") as seen:
        atoms = attach(liquid, file, dtype="float64")
    assert len(seen) == 1
    assert seen[0].filename == __file__
    graph = Graph.from_atoms(liquid, CUTOFF, torch.float64)
    assert np.abs(atoms.get_forces()).max() > 0
    with pytest.raises(PropertyNotImplementedError, match="force-centric"):
        atoms.get_stress()
    assert graph.n_edges > 0
    again = copy.deepcopy(atoms)  # without a second warning, which would be an error here
    again.positions[0] += 0.1
    assert np.isfinite(again.get_forces()).all()


def test_what_the_trainer_had_to_say_is_a_warning(tmp_path: Path, liquid: Atoms) -> None:
    file = save(tmp_path / "potential.safetensors", caution="it learned rigid molecules.")
    with pytest.warns(UserWarning, match="it learned rigid molecules") as seen:
        attach(liquid, file)
    assert len(seen) == 1


# ---- copies and company ----------------------------------------------------------------


@pytest.mark.parametrize("backend", ["eager", "torchscript"])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda calc: pickle.loads(pickle.dumps(calc))])
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


@pytest.mark.parametrize("backend", ["eager", "torchscript"])
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
def test_inside_blocks_that_forbid_gradients(file: Path, liquid: Atoms, around) -> None:
    expected = results(attach(liquid, file))
    with around():
        atoms = attach(liquid, file)
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
