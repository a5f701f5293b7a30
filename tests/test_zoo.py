"""The potentials that come with the package are those of their reports, and fit for dynamics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS

from mdpot import MaskedGNNCalculator, load_potential
from mdpot.simulate import water_box
from mdpot.simulate.engine import maxwell_boltzmann
from mdpot.training.data.catalog import SAMPLE
from mdpot.training.run import run_evaluate
from mdpot.zoo import ZOO, find_model

WATER = [name for name in ZOO if name.startswith("water")]
MOLECULES = [name for name in ZOO if name.startswith("rmd17")]


@pytest.mark.parametrize("name", ZOO)
def test_it_is_the_one_of_its_report(name: str) -> None:
    _, metadata = load_potential(find_model(name))
    report = find_model(name).with_suffix(".md").read_text(encoding="utf-8")
    assert f"| {metadata['provenance']['metrics']['test']['force_rmse']:.1f} |" in report


@pytest.mark.parametrize("name", WATER)
def test_it_has_the_errors_of_its_report(name: str) -> None:
    """The sample holds frames of every split."""
    check_errors(name, SAMPLE)


@pytest.mark.parametrize("name", MOLECULES)
def test_it_has_its_errors_on_its_molecule(name: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPOT_DATA", str(data_folder))
    check_errors(name, "rmd17-paracetamol" if name == "rmd17" else name)  # of the ten, one of typical errors


def check_errors(name: str, frames: Path | str) -> None:
    """Errors on frames of every split lie between those of the splits."""
    reported = load_potential(find_model(name))[1]["provenance"]["metrics"]
    found = next(t for t in run_evaluate(find_model(name), frames, device="cpu").values() if isinstance(t, dict))
    for key in ("force_rmse", "energy_rmse"):
        assert 0.7 * reported["train"][key] < found[key] < 1.3 * reported["test"][key]


@pytest.mark.parametrize("name", ZOO)
def test_dynamics_conserve_energy(name: str) -> None:
    """0.1 ps near a minimum: the total energy stays within 0.05 meV/atom."""
    rng = np.random.default_rng(1)
    atoms = water_box(32, rng) if name in WATER else held_out(name)
    atoms.calc = MaskedGNNCalculator(name, device="cpu")
    BFGS(atoms, logfile=None).run(fmax=1.0, steps=40)
    atoms.set_velocities(maxwell_boltzmann(atoms.get_masses(), 300.0, rng) / units.fs)
    energies: list[float] = []
    dynamics = VelocityVerlet(atoms, 0.25 * units.fs)
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=4)
    dynamics.run(400)
    kinetic = atoms.get_kinetic_energy() / len(atoms)
    assert kinetic > 0.01
    assert 1e3 * np.std(energies[2:]) / len(atoms) < 0.05


def held_out(name: str) -> Atoms:
    """The largest structure that the potential's file brings along; of a crystal eight cells."""
    structures = load_potential(find_model(name))[1]["structures"]
    atoms = Atoms(**max(structures, key=lambda structure: len(structure["numbers"])))
    return atoms * (2, 2, 2) if atoms.pbc.all() else atoms
