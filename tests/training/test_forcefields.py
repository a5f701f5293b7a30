"""Labels of force fields: against OpenMM's engine, Ewald sums, finite differences, replicated cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.forcefields import FORCE_FIELDS, SPCFw, find_forcefield
from mdpot.simulate.box import water_box
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.runner import read_runner

KCAL = 4.184  # kJ
EV = 96.48533212  # kJ/mol
WATER = Frame(
    numbers=np.array([1, 8, 1]),
    positions=np.array([[0.96, 0.0, 0.1], [0.0, 0.0, 0.0], [-0.24, 0.95, 0.0]]),
    cell=np.zeros((3, 3)),
    pbc=np.zeros(3, dtype=bool),
)


def relabel(frames: Sequence[Frame], name: str) -> list[Frame]:
    """The frames that a force field describes, with its labels."""
    found = [(frame, find_forcefield(name).label(frame)) for frame in frames]
    return [replace(frame, energy=labels[0], forces=labels[1]) for frame, labels in found if labels is not None]


@pytest.fixture(scope="module")
def box() -> Frame:
    """Sixty-four waters in 12.4 Å, every atom off its place in the molecule."""
    rng = np.random.default_rng(1)
    atoms = water_box(64, rng)
    positions = atoms.positions + rng.normal(scale=0.03, size=atoms.positions.shape)
    return Frame(atoms.numbers, positions, atoms.cell.array, np.ones(3, dtype=bool))


@pytest.fixture(scope="module")
def small() -> list[Frame]:
    """Frames of the sample with the flattest cells, which SPC/Fw describes."""
    frames = sorted(read_runner(SAMPLE), key=lambda f: 1 / np.linalg.norm(np.linalg.inv(f.cell), axis=0).max())
    return relabel(frames[:60], "spcfw")[:3]


def _openmm(frame: Frame, field: SPCFw, ewald: bool) -> tuple[float, np.ndarray]:
    """SPC/Fw of molecules O, H, H by OpenMM, with PME or with the damped and shifted sum; eV and eV/Å."""
    mm = pytest.importorskip("openmm")
    system = mm.System()
    system.setDefaultPeriodicBoxVectors(*frame.cell * 0.1)
    bond, angle = mm.HarmonicBondForce(), mm.HarmonicAngleForce()
    nonbonded, inside = _pairs(mm, field, ewald)
    for z in frame.numbers:
        system.addParticle(1.0)
        charge, epsilon = (-0.82, 0.1554253 * KCAL) if z == 8 else (0.41, 0.0)
        nonbonded.addParticle(*([charge, 0.3165492, epsilon] if ewald else [[charge, epsilon]]))
    for o in range(0, len(frame), 3):
        for h in (o + 1, o + 2):
            bond.addBond(o, h, 0.1012, 1059.162 * KCAL * 100)
        angle.addAngle(o + 1, o, o + 2, np.deg2rad(113.24), 75.90 * KCAL)
        for a, b in ((o, o + 1), (o, o + 2), (o + 1, o + 2)):
            if ewald:
                nonbonded.addException(a, b, 0.0, 1.0, 0.0)
            else:
                inside.addBond(a, b, [(0.41 if a > o else -0.82) * 0.41])
    for force in (bond, angle, nonbonded, *([] if ewald else [inside])):
        system.addForce(force)
    platform = mm.Platform.getPlatformByName("Reference")
    context = mm.Context(system, mm.VerletIntegrator(0.001), platform)
    context.setPositions(frame.positions * 0.1)
    state = context.getState(energy=True, forces=True)
    return state.getPotentialEnergy()._value / EV, state.getForces(asNumpy=True)._value / (10 * EV)


def _pairs(mm: Any, field: SPCFw, ewald: bool) -> tuple[Any, Any]:
    cutoff = field.cutoff / 10
    if ewald:
        force = mm.NonbondedForce()
        force.setNonbondedMethod(force.PME)
        force.setEwaldErrorTolerance(1e-5)
        force.setUseDispersionCorrection(False)
        force.setCutoffDistance(0.6)
        return force, None
    shift = "({0}) - ({1}) - ({2})*(r-R)"
    coulomb = shift.format("erfc(a*r)/r", "erfc(a*R)/R", "-erfc(a*R)/R^2 - 2*a/sqrt(3.141592653589793)*exp(-(a*R)^2)/R")
    lennard = shift.format("(s/r)^12 - (s/r)^6", "(s/R)^12 - (s/R)^6", "-12*s^12/R^13 + 6*s^6/R^7")
    k = 138.935457644  # kJ nm/mol/e^2
    force = mm.CustomNonbondedForce(f"{k}*q1*q2*({coulomb}) + 4*sqrt(e1*e2)*({lennard})")
    inside = mm.CustomBondForce(f"-{k}*qq/r")
    for name, value in (("a", 10 * field.damping), ("R", cutoff), ("s", 0.3165492)):
        force.addGlobalParameter(name, value)
    force.addPerParticleParameter("q")
    force.addPerParticleParameter("e")
    force.setNonbondedMethod(force.CutoffPeriodic)
    force.setCutoffDistance(cutoff)
    inside.addPerBondParameter("qq")
    inside.setUsesPeriodicBoundaryConditions(True)
    return force, inside


def test_spcfw_is_what_openmm_computes_with_the_same_formula(box: Frame) -> None:
    field = SPCFw(cutoff=6.0)
    labels = field.label(box)
    assert labels is not None
    energy, forces = _openmm(box, field, ewald=False)
    np.testing.assert_allclose(labels[1], forces, atol=1e-5)
    # OpenMM's pair sum does not know the constant of charges alone.
    charges = np.where(box.numbers == 8, -0.82, 0.41)
    from scipy.special import erfc

    constant = 14.399645 * (charges**2).sum() * (erfc(1.2) / 12 + 0.2 / np.sqrt(np.pi))
    assert labels[0] == pytest.approx(energy - constant, abs=1e-3)


def test_spcfw_comes_near_the_ewald_sum(box: Frame) -> None:
    field = SPCFw()
    labels = field.label(box)
    assert labels is not None
    energy, forces = _openmm(box, field, ewald=True)
    assert np.sqrt(np.mean((labels[1] - forces) ** 2)) < 0.05 * np.sqrt(np.mean(forces**2))
    assert abs(labels[0] - energy) / len(box) < 0.05


def test_forces_are_the_gradient_in_small_cells(small: list[Frame]) -> None:
    assert min(1 / np.linalg.norm(np.linalg.inv(f.cell), axis=0).max() for f in small) < 4.0
    for frame in small:
        assert frame.forces is not None
        np.testing.assert_allclose(frame.forces.sum(0), 0, atol=1e-9)
        _check_gradient(frame, "spcfw", [(0, 0), (len(frame) // 2, 1), (len(frame) - 1, 2)], 1e-6)


def _check_gradient(frame: Frame, name: str, components: list[tuple[int, int]], tolerance: float) -> None:
    step = 1e-4
    for atom, axis in components:
        ends = []
        for sign in (1, -1):
            positions = frame.positions.copy()
            positions[atom, axis] += sign * step
            ends.append(relabel([replace(frame, positions=positions)], name)[0].energy)
        assert frame.forces is not None
        assert -(ends[0] - ends[1]) / (2 * step) == pytest.approx(frame.forces[atom, axis], abs=tolerance)


def test_a_replicated_cell_gives_the_same(small: list[Frame]) -> None:
    for frame in small:
        assert frame.energy is not None
        corners = np.stack(np.meshgrid(*[range(2)] * 3, indexing="ij"), -1).reshape(-1, 1, 3) @ frame.cell
        larger = replace(
            frame,
            numbers=np.tile(frame.numbers, 8),
            positions=(frame.positions + corners).reshape(-1, 3),
            cell=2 * frame.cell,
        )
        (labelled,) = relabel([larger], "spcfw")
        assert labelled.forces is not None
        assert frame.forces is not None
        assert labelled.energy == pytest.approx(8 * frame.energy, abs=1e-7)
        np.testing.assert_allclose(labelled.forces, np.tile(frame.forces, (8, 1)), atol=1e-8)


def test_order_of_atoms_and_broken_molecules_do_not_matter(small: list[Frame]) -> None:
    rng = np.random.default_rng(0)
    for frame in small:
        assert frame.forces is not None
        order = rng.permutation(len(frame))
        moved = frame.positions[order] + rng.integers(-1, 2, size=(len(frame), 3)) @ frame.cell
        (labelled,) = relabel([replace(frame, numbers=frame.numbers[order], positions=moved)], "spcfw")
        assert labelled.forces is not None
        assert labelled.energy == pytest.approx(frame.energy, abs=1e-8)
        np.testing.assert_allclose(labelled.forces, frame.forces[order], atol=1e-8)


def test_what_it_cannot_describe_is_left_out() -> None:
    hydroxide = replace(WATER, numbers=WATER.numbers[:2], positions=WATER.positions[:2])
    peroxide = replace(WATER, numbers=np.array([8, 8, 1, 1]), positions=np.array([*WATER.positions, [1.5, 0.5, 0.0]]))
    ammonia = replace(WATER, numbers=np.array([1, 7, 1]))
    labelled = relabel([hydroxide, replace(WATER, group="a"), peroxide, ammonia, WATER], "spcfw")
    assert [frame.group for frame in labelled] == ["a", ""]


def test_an_unknown_force_field_is_named() -> None:
    with pytest.raises(MdpotError, match=r"unknown force field 'spc-fw'\. Did you mean 'spcfw'"):
        relabel([WATER], "spc-fw")
    assert all("\n" not in field.description for field in FORCE_FIELDS.values())


def test_gfn2_xtb() -> None:
    pytest.importorskip("tblite")
    (molecule,) = relabel([WATER], "gfn2-xtb")
    # The method's energy of water is -5.0705 Hartree at its own geometry.
    assert molecule.energy == pytest.approx(-5.0705 * 27.2114, abs=0.1)
    _check_gradient(molecule, "gfn2-xtb", [(0, 0), (1, 1), (2, 2)], 1e-3)
    # Inside the cell: where an atom crosses its boundary, tblite's energy jumps by some μeV.
    ice = replace(WATER, positions=WATER.positions + 2.0, cell=np.eye(3) * 5.0, pbc=np.ones(3, dtype=bool))
    (periodic,) = relabel([ice, replace(ice, pbc=np.array([True, True, False]))], "gfn2-xtb")
    assert periodic.energy != pytest.approx(molecule.energy, abs=1e-3)
    _check_gradient(periodic, "gfn2-xtb", [(1, 1)], 1e-3)


def test_steps_of_a_trajectory_have_the_labels_of_gfn2_xtb() -> None:
    """Each begins with the electrons of the one before; a step that fails, of atoms in one place, leaves no trace."""
    pytest.importorskip("tblite")
    field = find_forcefield("gfn2-xtb")
    follow = field.labels_of_steps()
    moves = 0.05 * np.random.default_rng(0).normal(size=(4, 3, 3))
    steps = [replace(WATER, positions=WATER.positions + move) for move in moves]
    for step in [*steps[:2], replace(WATER, positions=np.zeros((3, 3))), *steps[2:]]:
        alone, followed = field.label(step), follow(step)
        assert (alone is None) == (followed is None)
        if alone is not None and followed is not None:
            assert followed[0] == pytest.approx(alone[0], abs=1e-5)
            np.testing.assert_allclose(followed[1], alone[1], atol=1e-3)
            # It went on from the step before, so it is not the same to the bit.
            assert (followed[0] == alone[0]) == (step is steps[0] or step is steps[2])


def test_gfn2_xtb_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("tblite.interface", "tblite.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MdpotError, match=r"pip install 'mdpot\[xtb\]'"):
        relabel([WATER], "gfn2-xtb")
