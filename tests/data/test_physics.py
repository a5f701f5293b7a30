"""What the comparisons with physics rest on, and the units they name where others than ASE's were taken."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.io import write
from scipy.spatial.transform import Rotation

from mdpot.training.data.comparisons import bonds_to_hydrogen, fit_pairs, pair_energies, sums
from mdpot.training.data.frames import Frame
from mdpot.training.data.physics import contradictions
from mdpot.training.data.readers import read_file
from mdpot.training.data.units import Units
from mdpot.units import BAR, BOHR, GPA, HARTREE

KBAR = 1e3 * BAR
NAMES = {"energy": "energy", "forces": "forces", "stress": "stress"}


@pytest.fixture(scope="module")
def copper() -> list[Frame]:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(40):
        atoms = bulk("Cu", cubic=True).repeat((2, 1, 1))
        atoms.set_cell(atoms.cell @ (np.eye(3) + rng.normal(scale=0.03, size=(3, 3))), scale_atoms=True)
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        atoms.calc = EMT()
        labels = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
        frames.append(Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, *labels))
    return frames


@pytest.mark.parametrize(
    ("taken", "true"), [("GPa", "eV/Å³"), ("kbar", "GPa"), ("-kbar", "kbar"), ("eV/Å³", "-GPa"), ("-GPa", "-kbar")]
)
def test_the_unit_of_the_stress_is_named_whatever_it_was_taken_for(copper: list[Frame], taken: str, true: str) -> None:
    """Of the numbers in the file, not of what the wrong unit made of them."""
    wrong, right = Units(stress=taken), Units(stress=true)
    factor = wrong.to_ev_per_cubic_angstrom / right.to_ev_per_cubic_angstrom
    frames = [replace(frame, stress=frame.stress * factor) for frame in copper]  # type: ignore[operator]
    assert not contradictions(copper, NAMES)
    (said,) = contradictions(frames, NAMES, wrong)
    assert f"--units stress={true}." in said


def test_the_unit_of_a_virial_is_named_whatever_it_was_taken_for(copper: list[Frame]) -> None:
    wrong = Units(virial="kJ/mol")
    frames = [replace(frame, stress=frame.stress * wrong.virial_to_ev) for frame in copper]  # type: ignore[operator]
    (said,) = contradictions(frames, {**NAMES, "stress": "virial"}, wrong)
    assert "--units virial=eV." in said


@pytest.fixture(scope="module")
def ethanols() -> list[Frame]:
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(20):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        labels = atoms.get_potential_energy(), atoms.get_forces()
        frames.append(Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, *labels))
    return frames


TURNED = Rotation.from_euler("xyz", [0.5, 1.0, 0.3]).as_matrix()
SAID = "the forces in 'forces' do not belong to the positions beside them"


@pytest.mark.parametrize("wrong", ["order", "orientation"])
def test_forces_in_another_order_or_orientation_than_the_positions(ethanols: list[Frame], wrong: str) -> None:
    """As of a file sorted by elements beside one that is not, or of Gaussian's two orientations."""
    assert not any(SAID in said for said in contradictions(ethanols, NAMES))
    order = np.argsort(ethanols[0].numbers, kind="stable")
    frames = [
        replace(frame, forces=frame.forces[order] if wrong == "order" else frame.forces @ TURNED)  # type: ignore[index]
        for frame in ethanols
    ]
    assert any(SAID in said for said in contradictions(frames, NAMES))


def test_forces_of_another_frame_where_frames_share_a_calculator(tmp_path: Path, copper: list[Frame]) -> None:
    """ASE's writer of extended XYZ takes what the calculator computed last, whatever for."""
    shared, frames = EMT(), []
    for frame in copper[:6]:
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, calculator=shared)
        atoms.get_forces()
        frames.append(atoms)
    write(tmp_path / "shared.extxyz", frames)
    said = read_file(tmp_path / "shared.extxyz").doubts()
    assert any(f"{SAID}: in 5 of 6 frames" in doubt and "share a calculator" in doubt for doubt in said)


def test_a_frame_that_is_there_again_elsewhere_is_no_mistake(copper: list[Frame]) -> None:
    """Translated, and wrapped into the cell."""
    moved = [replace(frame, positions=frame.positions + [3.0, 0.5, 0.0] + frame.cell[1]) for frame in copper]
    assert not contradictions([*copper, *moved], NAMES)


@pytest.fixture(scope="module")
def waters(sample_frames: list[Frame]) -> list[Frame]:
    return [frame for frame in sample_frames if frame.forces is not None][:60]


def test_forces_in_another_order_in_periodic_systems(waters: list[Frame]) -> None:
    """As of a file sorted by elements beside one that is not, or of steps that are off by one."""
    assert not any(SAID in said for said in contradictions(waters, NAMES))
    rng = np.random.default_rng(0)
    frames = []
    for frame in waters:
        order, hydrogen = np.arange(len(frame)), np.flatnonzero(frame.numbers == 1)
        order[hydrogen] = rng.permutation(hydrogen)
        frames.append(replace(frame, forces=frame.forces[order]))  # type: ignore[index]
    assert any(f"{SAID}: the force on hydrogen" in said for said in contradictions(frames, NAMES))


def test_forces_that_were_set_to_zero_are_no_mistake(waters: list[Frame]) -> None:
    """As of a shell of frozen molecules."""
    frames = []
    for frame in waters:
        forces = frame.labels["forces"].copy()
        forces[frame.positions[:, 0] > np.quantile(frame.positions[:, 0], 0.2)] = 0.0
        frames.append(replace(frame, forces=forces))
    assert not any(SAID in said for said in contradictions(frames, NAMES))


def test_protons_that_molecules_share_are_no_mistake() -> None:
    """Between two oxygens a proton rests at lengths of its own."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(60):
        # Four of O-H at rest at 0.97 Å, and two O-H-O at rest at 1.05 and 1.2 Å from the nearer of their oxygens.
        places, forces = [], []
        for k, (rest, other) in enumerate([(0.97, None)] * 4 + [(1.05, 2.5), (1.2, 2.4)]):
            stretch = 0.02 * rng.normal()
            rows = [[0.0, 0.0, 0.0], [0.0, 0.0, rest + stretch]] + ([] if other is None else [[0.0, 0.0, other]])
            pull = -35.0 * stretch
            places += [[6.0 * k, y, z] for _, y, z in rows]
            forces += [[0, 0, -pull], [0, 0, pull], *([] if other is None else [[0.0, 0.0, 0.0]])]
        numbers = np.array([8, 1] * 4 + [8, 1, 8] * 2)
        frames.append(Frame(numbers, np.array(places), np.zeros((3, 3)), np.zeros(3, bool), -1.0, np.array(forces)))
    x, y = bonds_to_hydrogen(frames)
    assert np.corrcoef(x, y)[0, 1] < 0.5
    assert not any(SAID in said for said in contradictions(frames, NAMES))


def test_gradients_are_told_from_forces_in_another_order(waters: list[Frame]) -> None:
    frames = [replace(frame, forces=-frame.forces) for frame in waters]  # type: ignore[operator]
    (said,) = contradictions(frames, NAMES)
    assert "have the wrong sign" in said


def test_forces_of_a_field_are_no_mistake(ethanols: list[Frame]) -> None:
    """Charges around a molecule push and turn it."""
    rng = np.random.default_rng(0)
    frames = [replace(f, forces=f.forces + rng.normal(size=(len(f), 3))) for f in ethanols]  # type: ignore[operator]
    assert not any(SAID in said for said in contradictions(frames, NAMES))


def test_sums_over_edges_are_those_of_a_loop() -> None:
    rng = np.random.default_rng(0)
    i = np.sort(rng.integers(0, 6, 40))
    i[i == 2] = 3  # an atom without edges
    values = rng.normal(size=(40, 3, 5))
    expected = np.zeros((7, 3, 5))
    for edge, atom in enumerate(i):
        expected[atom] += values[edge]
    np.testing.assert_allclose(sums(i, 7, values), expected, atol=1e-13)


def test_the_stress_of_the_pair_energy_is_near_that_of_a_pair_potential(copper: list[Frame]) -> None:
    predicted = fit_pairs(copper).virials
    labels = np.array([frame.stress * abs(np.linalg.det(frame.cell)) for frame in copper])  # type: ignore[operator]
    found, expected = (x[:, [0, 0, 1], [1, 2, 2]].ravel() for x in (predicted, labels))
    assert np.corrcoef(found, expected)[0, 1] > 0.8


def test_energies_and_virials_of_a_pair_potential() -> None:
    """Of Morse's, whose forces the fit gives."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(30):
        atoms = bulk("Cu", cubic=True).repeat((2, 2, 2))
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = MorsePotential(epsilon=0.3, r0=2.6, rho0=4.0, rcut1=4.5, rcut2=5.8)
        labels = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress(voigt=False)
        frames.append(Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, *labels))
    fit = fit_pairs(frames)
    assert fit.explained > 0.99
    energies = np.array([frame.energy for frame in frames])
    np.testing.assert_allclose(
        fit.energies - fit.energies.mean(), energies - energies.mean(), atol=0.1 * energies.std()
    )
    virials = np.array([frame.stress * atoms.get_volume() for frame in frames])  # type: ignore[operator]
    off = fit.virials - virials
    np.testing.assert_allclose(off - off.mean(axis=0), 0, atol=0.2 * virials.std())
    line = pair_energies(frames)
    assert line.slope == pytest.approx(1.0, abs=0.1)
    assert line.correlation > 0.99


def rattled() -> list[Frame]:
    """Copper in one cell, by EMT, so hot that no two frames are similar."""
    rng, frames = np.random.default_rng(0), []
    for _ in range(40):
        atoms = bulk("Cu", cubic=True).repeat((2, 2, 1))
        atoms.positions += rng.normal(scale=0.2, size=atoms.positions.shape)
        atoms.calc = EMT()
        labels = atoms.get_potential_energy(), atoms.get_forces()
        frames.append(Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, *labels))
    return frames


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: replace(frame, energy=frame.energy / len(frame)), "--units energy=eV/atom"),
        (lambda frame: replace(frame, energy=frame.energy / HARTREE), "--units energy=Hartree"),
        (lambda frame: replace(frame, energy=1e3 * frame.energy), "--units energy=meV"),
        (lambda frame: replace(frame, forces=-frame.forces), "--units force=-eV/Å"),
    ],
)
def test_energies_and_forces_where_no_two_frames_are_alike(change: Callable[[Frame], Frame], said: str) -> None:
    """Crystals in one cell."""
    frames = rattled()
    assert not contradictions(frames, NAMES)
    (doubt,) = contradictions([change(frame) for frame in frames], NAMES)
    assert "between frames of one composition" in doubt
    assert said in doubt


def test_two_phases_differ_by_more_than_pairs() -> None:
    """Each alone says what it said; that one lies elsewhere says nothing, nor do frames in several volumes."""
    frames = rattled()
    other = [replace(f, energy=f.energy + 50.0) if n % 2 else f for n, f in enumerate(frames)]  # type: ignore[operator]
    assert pair_energies(other).slope == pytest.approx(pair_energies(frames).slope, rel=0.1)
    assert not contradictions(other, NAMES)
    swollen = [replace(f, cell=(1 + 0.001 * n) * f.cell, energy=-f.energy) for n, f in enumerate(frames)]  # type: ignore[operator]
    assert pair_energies(swollen).n_points == 0


def test_a_pair_energy_that_does_not_describe_the_forces_tells_nothing() -> None:
    rng, frames = np.random.default_rng(1), rattled()
    noise = [replace(frame, forces=rng.normal(size=frame.positions.shape)) for frame in frames]
    assert pair_energies(noise).n_points == 0
    assert pair_energies(frames[:3]).n_points == 0


@pytest.mark.parametrize("factor", [-1.0, 1 / GPA, -1 / KBAR])
@pytest.mark.parametrize("told_by", ["kind", "file", "place"])
def test_a_stress_in_another_unit_in_some_of_the_frames(copper: list[Frame], factor: float, told_by: str) -> None:
    """As where two files are joined: the frames that are right may outweigh those that are not."""
    frames = [replace(frame, index=n) for n, frame in enumerate(copper)]
    strange = [n for n in range(40) if (n >= 30 if told_by == "place" else n % 4 == 0)]
    for n in strange:
        frames[n].stress = frames[n].stress * factor  # type: ignore[operator]
    if told_by != "place":
        frames = [replace(frame, **{told_by: "new" if n in strange else "old"}) for n, frame in enumerate(frames)]
    (said,) = contradictions(frames, NAMES)
    which = "from frame 30 to frame 39" if told_by == "place" else "in the 10 frames of new"
    assert said.startswith(f"{which}: stress (stress) and forces contradict each other")
    assert "Mend these alone" in said


def test_forces_in_another_unit_in_some_of_the_frames(waters: list[Frame]) -> None:
    frames = [replace(frame, index=n) for n, frame in enumerate(waters)]
    assert not contradictions(frames, NAMES)
    for frame in frames[15:30]:
        frame.forces = frame.forces * BOHR / HARTREE  # type: ignore[operator]
    (said,) = contradictions(frames, NAMES)
    assert said.startswith("from frame 15 to frame 29: the forces in 'forces' are not in eV/Å")
    assert "force=Hartree/bohr" in said


@pytest.mark.parametrize(
    "changed", [lambda energy: energy / HARTREE, lambda energy: energy / 8, lambda energy: energy - 900]
)
def test_energies_of_one_composition_on_two_levels(copper: list[Frame], changed: Callable[[float], float]) -> None:
    """In two units, per atom, or of two programs."""
    frames = [replace(frame, energy=frame.energy - 800, index=n) for n, frame in enumerate(copper)]  # type: ignore[operator]
    assert not contradictions(frames, NAMES)
    for frame in frames[::8]:
        frame.energy = changed(frame.energy)  # type: ignore[arg-type]
    (said,) = contradictions(frames, NAMES)
    assert "energies (energy) of Cu8 lie on two levels" in said


@pytest.mark.parametrize("n", [9, 25, 60])
def test_a_steep_wall_is_no_level(n: int) -> None:
    """Of symmetric ones the forces are zero, however far they are compressed."""
    cell = bulk("Ta", cubic=True).cell.array
    energies = [*np.linspace(-22.0, -21.0, n), *(-21.0 + 3.0 * 1.9 ** np.arange(n // 3))]
    frames = [
        Frame(np.array([73]).repeat(2), np.array([[0, 0, 0], [1.65, 1.65, 1.65]]), cell, np.ones(3, bool), energy)
        for energy in energies
    ]
    assert not contradictions(frames, {"energy": "energy"})


@pytest.mark.parametrize("spread", [0.0, 0.2])
def test_relaxations_of_a_few_steps_are_no_contradiction(spread: float, tmp_path: Path) -> None:
    """Their steps are long, so that half the sum of the forces at both ends is far from their mean."""
    frames = []
    for seed, file in enumerate("abc"):
        atoms = bulk(("Cu", "Ag", "Al")[seed], cubic=True) * (2, 1, 1)
        atoms.rattle(0.15 + spread, seed=seed)
        atoms.calc = EMT()
        for step in range(8):
            energy, forces = atoms.get_potential_energy(), atoms.get_forces()
            frame = Frame(atoms.numbers, atoms.positions.copy(), atoms.cell.array, atoms.pbc, energy, forces)
            frames.append(replace(frame, file=f"{file}.xyz", index=step))
            atoms.positions += (0.06 if step % 2 else 0.01) * forces
    assert not contradictions(frames, NAMES)
