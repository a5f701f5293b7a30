"""The ASE calculator against the bare potential, finite differences, and what ASE's own tools expect of one."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress

from mdpot import MODELS, Graph, MaskedGNNCalculator, MdpotError, load_potential
from mdpot.models.activation import SiLU
from mdpot.models.backbone import Backbone

from .conftest import CUTOFF, attach, results, save

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


@pytest.mark.parametrize(("name", "dtype"), [("positions", np.float32), ("positions", ">f8"), ("numbers", np.int32)])
def test_arrays_of_other_types_are_no_change(file: Path, liquid: Atoms, name: str, dtype: Any) -> None:
    """A writer of trajectories takes what is known of a structure, and nothing of one that changed."""
    atoms = attach(liquid, file)
    atoms.arrays[name] = atoms.arrays[name].astype(dtype)
    energy = atoms.get_potential_energy()
    assert atoms.calc.get_property("energy", atoms, allow_calculation=False) == energy
    atoms.arrays[name][0] += 1
    assert atoms.calc.get_property("energy", atoms, allow_calculation=False) is None


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


def test_dynamics_at_constant_pressure_evaluate_a_structure_once(
    file: Path, liquid: Atoms, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They ask for the forces first, then for the stress."""
    atoms, plain = attach(liquid, file), attach(liquid, file)
    calls = []
    original = atoms.calc.calculate
    monkeypatch.setattr(atoms.calc, "calculate", lambda *args: (calls.append(1), original(*args)))
    atoms.get_forces()
    atoms.get_stress()
    calls.clear()
    for _ in range(3):
        atoms.positions[0] += 0.01
        forces, stress = atoms.get_forces(), atoms.get_stress()
    assert len(calls) == 3
    plain.positions = atoms.positions
    np.testing.assert_array_equal(forces, plain.get_forces())
    np.testing.assert_array_equal(stress, plain.get_stress())
    for _ in range(2):
        atoms.positions[0] += 0.01
        atoms.get_forces()
        atoms.calc.get_property("stress", atoms, allow_calculation=False)  # as the writers of trajectories
    assert "stress" not in atoms.calc.results  # that nobody needs any more


@pytest.mark.parametrize("properties", [["energy"], ["stress"]])
def test_a_calculation_that_fails_leaves_no_results_of_another_structure(
    file: Path, liquid: Atoms, properties: list[str]
) -> None:
    """What wraps a calculator may call `calculate` itself, and go on when it fails."""
    calculator = attach(liquid, file).calc
    energy = calculator.get_potential_energy(liquid)
    broken = Atoms("OO", [[0, 0, 0], [0, 0, 0.9]])  # no stress
    if properties == ["energy"]:
        broken.positions[1, 2] = np.nan
    with pytest.raises((MdpotError, PropertyNotImplementedError)):
        calculator.calculate(broken, properties)
    assert not calculator.results
    assert calculator.get_property("energy", broken, allow_calculation=False) is None
    assert calculator.get_potential_energy(liquid) == energy


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


def test_stress_needs_three_lattice_vectors(file: Path, liquid: Atoms) -> None:
    atoms = attach(liquid, file)
    atoms.pbc = (True, True, False)
    atoms.cell[2] = 0.0
    energy = atoms.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="needs a cell of three lattice vectors; got"):
        atoms.get_stress()
    assert atoms.get_potential_energy() == energy


@pytest.mark.parametrize(
    "cell", [np.zeros((3, 3)), np.array([[9.0, 0, 0], [9, 0, 0], [0, 0, 9]])], ids=["none", "flat"]
)
def test_a_stress_that_there_is_not_costs_no_other_result(file: Path, liquid: Atoms, cell: np.ndarray) -> None:
    liquid = Atoms(liquid.numbers, liquid.positions, cell=cell, pbc=False)
    liquid.calc = MaskedGNNCalculator(file, device="cpu")
    energy = liquid.get_potential_energy()
    with pytest.raises(PropertyNotImplementedError, match="three lattice vectors"):
        liquid.get_stress()
    assert liquid.calc.get_property("energy", liquid, allow_calculation=False) == energy


@pytest.mark.parametrize("backend", ["auto", "eager", "padded"])
@pytest.mark.parametrize("pbc", [(True, True, False), (False, True, False), (False, False, False)])
def test_stress_of_layers_wires_and_molecules_in_a_box(
    tmp_path: Path, liquid: Atoms, pbc: tuple[bool, ...], backend: str
) -> None:
    atoms = attach(liquid, save(tmp_path / "tide.safetensors", "tide"), dtype="float64", backend=backend)
    atoms.pbc = pbc
    expected = calculate_numerical_stress(atoms, eps=1e-5)
    np.testing.assert_allclose(atoms.get_stress(), expected, rtol=1e-6, atol=1e-8)
    assert np.abs(expected).max() > 1e-4


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
    atoms = attach(liquid, file)
    atoms.set_cell(np.eye(3))
    with pytest.raises(MdpotError, match=r"the cell is a cube of 1 Å, with which PDB files .* atoms\.pbc = False"):
        atoms.get_forces()
    atoms.pbc = False
    assert np.isfinite(atoms.get_forces()).all()


@pytest.mark.parametrize("backend", ["auto", "torch", "padded"])
def test_no_atoms(tmp_path: Path, backend: str) -> None:
    file = save(tmp_path / "potential.safetensors", "tide")
    for atoms in (Atoms(), Atoms(cell=[5, 5, 5], pbc=True)):
        with pytest.raises(MdpotError, match="atoms: the structure holds none"):
            attach(atoms, file, backend=backend).get_forces()
    with pytest.raises(MdpotError, match="atoms: there are none yet"):
        attach(Atoms(), file).calc.get_potential_energy()


@pytest.mark.parametrize("number", [-1, 119, 200])
def test_what_is_no_atomic_number(file: Path, number: int) -> None:
    with pytest.raises(MdpotError, match=f"atoms hold {number}, which .* it knows H, C, O"):
        attach(Atoms([number]), file).get_potential_energy()


def test_settings_that_make_no_sense(file: Path, tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"unknown backend 'torchscrip'\. Did you mean 'torchscript'"):
        MaskedGNNCalculator(file, backend="torchscrip")
    with pytest.raises(MdpotError, match=r"unknown dtype 'float46'\. Did you mean"):
        MaskedGNNCalculator(file, dtype="float46")
    with pytest.raises(MdpotError, match="skin must not be negative"):
        MaskedGNNCalculator(file, skin=-1.0)
    with pytest.raises(MdpotError, match="skin must be finite; got nan"):
        MaskedGNNCalculator(file, skin=float("nan"))
    with pytest.raises(MdpotError, match="skin must be a number, Å; got None"):
        MaskedGNNCalculator(file, skin=cast(Any, None))
    with pytest.raises(MdpotError, match="unknown backend None"):
        MaskedGNNCalculator(file, backend=cast(Any, None))
    with pytest.raises(MdpotError, match="device 'meta' cannot be used here"):
        MaskedGNNCalculator(file, device="meta")
    with pytest.raises(MdpotError, match="device 'gpu9' cannot be used here"):
        MaskedGNNCalculator(file, device="gpu9")
    with pytest.raises(MdpotError, match="model must be a path, or a name of the zoo; got None"):
        MaskedGNNCalculator(cast(Any, None))
    with pytest.raises(MdpotError, match="set: dtype cannot be changed later"):
        MaskedGNNCalculator(file).set(dtype="float64")
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
    seen = [each for each in seen if "predicted directly" in str(each.message)]
    assert len(seen) == 1
    assert Path(seen[0].filename).name == "conftest.py"  # where `attach` makes it: the line of the caller
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
    assert len([each for each in seen if "rigid molecules" in str(each.message)]) == 1
