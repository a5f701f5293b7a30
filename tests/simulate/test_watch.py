"""The watch: each reason to strike, made to happen; and no strike where there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.data import covalent_radii
from ase.io import read, write

from mdpot.errors import MdpotError
from mdpot.simulate import Limits, Settings, State, Summary, run_md
from mdpot.simulate.engine import degrees_of_freedom
from mdpot.simulate.watch import Strike, Watch, canonical_range, shortest_distances
from mdpot.units import BOLTZMANN

Make = Callable[..., Any]


def state(atoms: Atoms, step: int = 0, potential: float = 0.0, temperature: float = 300.0) -> State:
    kinetic = 0.5 * degrees_of_freedom(len(atoms)) * BOLTZMANN * temperature
    positions = atoms.get_positions()
    return State(step, 1.0 * step, positions, 0 * positions, atoms.cell.array, potential, kinetic)


@pytest.fixture
def water() -> Atoms:
    positions = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]
    return Atoms("OHH", positions, cell=[4, 5, 6], pbc=True)


def test_shortest_distances() -> None:
    numbers = np.array([8, 1, 1, 6])
    table = shortest_distances(numbers, {"O-H": 0.8, "H-H": 1.3, "Cu-Cu": 2.0})
    assert table[1, 8] == table[8, 1] == 0.8
    assert table[1, 1] == 1.3
    assert table[8, 8] == pytest.approx(2 * covalent_radii[8])
    assert table[6, 8] == table[8, 6] == pytest.approx(covalent_radii[8] + covalent_radii[6])
    assert table[29, 29] == 0, "not in this structure"
    with pytest.raises(MdpotError, match="'O_H'; a key is a pair of elements"):
        shortest_distances(numbers, {"O_H": 0.8})


def test_lets_pass_what_makes_sense(water: Atoms) -> None:
    for ensemble in ("nve", "nvt", "npt"):
        watch = Watch(water, ensemble, 300.0, {"O-H": 0.8})
        for step in range(0, 20_000, 1000):
            watch.look(state(water, step, potential=1e-4 * np.sin(step), temperature=300 + 100 * np.sin(step)))


@pytest.mark.parametrize("name", ["positions", "cell", "potential", "kinetic"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_a_number(water: Atoms, name: str, value: float) -> None:
    good = state(water, step=7)
    bad = np.full((3, 3), value) if name in ("positions", "cell") else value
    with pytest.raises(Strike, match=r"^stopped at step 7 \(0\.007 ps\): not a number in the"):
        Watch(water, "nvt", 300.0).look(replace(good, **{name: bad}))


def test_too_close(water: Atoms) -> None:
    watch = Watch(water, "nvt", 300.0, {"O-H": 0.8})
    water.positions[1] = [0.41, 0, 0]
    watch.look(state(water))
    water.positions[1] = [0.39, 0, 0]
    with pytest.raises(Strike, match=r"O0 and H1 are 0\.39 Å apart, closer than 0\.40 Å"):
        watch.look(state(water, step=3))


def test_too_close_across_the_boundary(water: Atoms) -> None:
    water.positions[1] = [3.7, 5.0, -6.0]
    with pytest.raises(Strike, match=r"O0 and H1 are 0\.30 Å apart"):
        Watch(water, "nvt", 300.0, {"O-H": 0.8}).look(state(water))


def test_too_close_to_its_own_image() -> None:
    lone = Atoms("Ar", cell=[1.0, 9, 9], pbc=True)
    with pytest.raises(Strike, match=r"Ar0 and Ar0 are 1\.00 Å apart"):
        Watch(lone, "nvt", 300.0).look(state(lone))


def test_too_hot_at_once() -> None:
    gas = Atoms("Ar400", np.random.default_rng(0).uniform(0, 1e4, (400, 3)))
    for ensemble in ("nve", "nvt"):
        Watch(gas, ensemble, 300.0).look(state(gas, temperature=1490.0))
        with pytest.raises(Strike, match="temperature is 1510 K, target 300 K"):
            Watch(gas, ensemble, 300.0).look(state(gas, temperature=1510.0))


@pytest.mark.parametrize("n_atoms", [1, 2, 3, 10])
def test_the_scatter_of_few_degrees_of_freedom_is_right(n_atoms: int) -> None:
    """χ², drawn a million times; ten times what it reaches is wrong."""
    atoms = Atoms(f"Ar{n_atoms}", 9.0 * np.arange(3 * n_atoms).reshape(-1, 3))
    n_dof = degrees_of_freedom(n_atoms)
    hottest = 300 * np.random.default_rng(0).chisquare(n_dof, 10**6).max() / n_dof
    Watch(atoms, "nvt", 300.0).look(state(atoms, temperature=max(hottest, 1400.0)))
    with pytest.raises(Strike, match="temperature is"):
        Watch(atoms, "nvt", 300.0).look(state(atoms, temperature=max(2 * hottest, 1600.0)))


def test_canonical_range() -> None:
    """For many degrees of freedom that of a normal distribution: six standard deviations."""
    low, high = canonical_range(3 * 10**6)
    assert [low - 1, high - 1] == pytest.approx([-6 * np.sqrt(2 / 3e6), 6 * np.sqrt(2 / 3e6)], rel=0.01)


@pytest.mark.parametrize("temperature", [150.0, 450.0])
def test_mean_temperature_only_counts_later(temperature: float) -> None:
    gas = Atoms("Ar400", np.random.default_rng(0).uniform(0, 1e4, (400, 3)))
    watch = Watch(gas, "nvt", 300.0, limits=Limits(equilibration=2.0))
    for step in range(0, 2000, 500):
        watch.look(state(gas, step, temperature=temperature))
    with pytest.raises(Strike, match=f"step 2000 .* mean temperature is {temperature:.0f} K, target 300 K"):
        watch.look(state(gas, 2000, temperature=temperature))


def test_drift(water: Atoms) -> None:
    watch = Watch(water, "nve", 300.0, limits=Limits(drift=0.010, drift_rate=0.001))
    watch.look(state(water))
    watch.look(state(water, 1000, potential=3 * 0.0109))
    with pytest.raises(Strike, match=r"total energy has drifted by -11\.1 meV/atom"):
        watch.look(state(water, 1000, potential=-3 * 0.0111))


def test_volume(water: Atoms) -> None:
    watch = Watch(water, "npt", 300.0)
    watch.look(state(water))
    water.set_cell([8.2, 5, 6])
    with pytest.raises(Strike, match=r"volume is 2\.05 times that of the start"):
        watch.look(state(water, 10))


def test_memory_carries_on(water: Atoms) -> None:
    one, two = Watch(water, "nve", 300.0), Watch(water, "nve", 300.0)
    one.look(state(water, potential=1.0))
    two.recall(one.memory())
    with pytest.raises(Strike, match="drifted"):
        two.look(state(water, 10, potential=2.0))


# From here on: whole runs that go wrong.


def check_stopped(summary: Summary, out: Path, reason: str) -> None:
    assert summary.stopped is not None
    assert reason in summary.stopped
    assert "\n" not in summary.stopped
    last = read(out / "last_good.xyz")
    assert isinstance(last, Atoms)
    assert np.isfinite(last.positions).all()
    assert last.info["step"] == summary.steps
    with np.load(out / "restart.npz", allow_pickle=False) as restart:
        assert np.isfinite(restart["engine.positions"]).all()
        assert restart["engine.step"] == summary.steps
    assert summary.steps > 0
    assert (out / "summary.json").exists()


def test_run_into_nan(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    s = Settings(gas_file, "-", steps=100, every=10, dt=2.0)
    summary = run_md(s, out, forces=constant(rotten=42))
    check_stopped(summary, out, "not a number")
    assert summary.steps == 40


def test_run_into_a_refusal(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    refusing = constant(fails=43, error=MdpotError("atoms on top of each other."))
    summary = run_md(Settings(gas_file, "-", steps=100, every=10), out, forces=refusing)
    check_stopped(summary, out, "stopped within 10 steps of step 40 (0.020 ps): atoms on top")


def test_a_broken_calculator_is_not_a_strike(gas_file: str, constant: Make, tmp_path: Path) -> None:
    broken = constant(fails=5, error=KeyError("a bug"))
    with pytest.raises(KeyError, match="a bug"):
        run_md(Settings(gas_file, "-", steps=100, every=10), tmp_path / "out", forces=broken)


def test_run_into_a_collision(constant: Make, tmp_path: Path) -> None:
    pair = Atoms("Ar2", [[0, 0, 0], [4.0, 0, 0]])
    write(tmp_path / "pair.xyz", pair)
    out = tmp_path / "out"
    s = Settings(str(tmp_path / "pair.xyz"), "-", ensemble="nve", temperature=0.0, dt=2.0, steps=2000, every=4)
    loose = Limits(hot=1e9, drift=1e9)
    summary = run_md(s, out, forces=constant(push=0.01), limits=loose)
    check_stopped(summary, out, "Ar0 and Ar1 are")
    assert (out / "struck.xyz").exists()


def test_run_too_hot(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    s = Settings(gas_file, "-", ensemble="nvt", dt=2.0, steps=2000, every=10)
    summary = run_md(s, out, forces=constant(push=0.2), limits=Limits(distance=0.01))
    check_stopped(summary, out, "the temperature is")


def test_run_with_a_wrong_mean_temperature(gas_file: str, constant: Make, tmp_path: Path) -> None:
    """A steady push against strong friction: some hundred K too much, for good."""
    out = tmp_path / "out"
    s = Settings(gas_file, "-", ensemble="nvt", dt=2.0, steps=2000, every=10, friction=10.0)
    limits = Limits(distance=0.0, hot=1e9, equilibration=0.5, averaging=0.1)
    summary = run_md(s, out, forces=constant(push=0.2), limits=limits)
    check_stopped(summary, out, "the mean temperature is")
    assert summary.time_ps >= 0.4


def test_run_that_leaks_energy(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    s = Settings(gas_file, "-", ensemble="nve", steps=2000, every=10)
    summary = run_md(s, out, forces=constant(leak=-0.002))  # 20 atoms: -0.1 meV/atom a step
    check_stopped(summary, out, "the total energy has drifted by -1")
    assert summary.steps == 100
    assert summary.drift == pytest.approx(-0.1 / 0.0005, rel=1e-3)


def test_run_that_boils(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    s = Settings(gas_file, "-", ensemble="npt", pressure=1.0, dt=2.0, steps=20_000, every=50)
    summary = run_md(s, out, forces=constant(), limits=Limits(distance=0.0))
    check_stopped(summary, out, "times that of the start")


def test_openmm_into_nan(argon_file: str, tmp_path: Path) -> None:
    openmm = pytest.importorskip("openmm")

    def explode(topology: Any) -> Any:
        system = openmm.System()
        force = openmm.CustomExternalForce("-1000*x*p + 0.001*sqrt(3-x)")
        force.addPerParticleParameter("p")
        for index, _ in enumerate(topology.atoms()):
            system.addParticle(1.0)
            force.addParticle(index, [(-1) ** index])
        system.addForce(force)
        return system

    out = tmp_path / "out"
    s = Settings(argon_file, "-", engine="openmm", ensemble="nve", steps=5000, every=2, dt=2.0)
    summary = run_md(s, out, forces=explode, limits=Limits(hot=1e30, drift=1e30, distance=0.0))
    assert summary.stopped is not None
    assert "not a number" in summary.stopped or "NaN" in summary.stopped
    assert (out / "last_good.xyz").exists()
