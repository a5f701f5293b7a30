"""The core by itself: from a network to numbers with the core dependencies alone, whatever torch there is.

`.ci/run` runs this folder in an environment without the extras and with another torch; MDPOT_LIGHT tells so.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

import mdpot

light = pytest.mark.skipif("MDPOT_LIGHT" not in os.environ, reason="for the light environment of .ci/run")


@light
def test_this_is_the_light_environment() -> None:
    assert torch.__version__.startswith("2.13")
    for extra in ("openmm", "openmmtorch", "openmmml", "tensorboard"):
        assert find_spec(extra) is None
    assert "site-packages" in mdpot.__file__


@light
def test_recipes_and_data_are_installed() -> None:
    from mdpot.training.config import list_recipes
    from mdpot.training.data.sources import load_dataset

    assert {"water-rpbe", "custom"} <= set(list_recipes())
    assert len(load_dataset("water-rpbe")) == 1000


@pytest.fixture
def water() -> Atoms:
    """Two water molecules in a small, skewed, periodic cell."""
    atoms = molecule("H2O")
    other = atoms.copy()
    other.rotate(70, (1, 2, 3))
    other.translate((2.4, 0.9, 1.1))
    atoms += other
    atoms.set_cell([[4.5, 0.0, 0.0], [0.9, 4.4, 0.0], [-0.6, 0.5, 4.6]])
    atoms.pbc = True
    return atoms


@pytest.fixture
def potential_file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    potential = mdpot.build_potential("egnn", {"cutoff": 3.4, "width": 16, "layers": 2}, [1, 8], [-10.0, -400.0], 0.5)
    mdpot.save_potential(tmp_path / "potential.safetensors", potential, {})
    return tmp_path / "potential.safetensors"


def test_the_calculator_gives_a_gradient(potential_file: Path, water: Atoms) -> None:
    water.calc = mdpot.MaskedGNNCalculator(potential_file, device="cpu", dtype=torch.float64)
    forces = water.get_forces()
    assert forces.shape == (6, 3)
    assert np.abs(forces).max() > 1e-3
    step = 1e-4
    for atom, axis in ((0, 0), (4, 2)):
        energies = []
        for sign in (1, -1):
            moved = water.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = water.calc
            energies.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx((energies[1] - energies[0]) / (2 * step), rel=1e-5, abs=1e-7)


# The attribute it warns of is used by no script.
@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
def test_every_model_scripts(water: Atoms) -> None:
    graph = mdpot.Graph.from_atoms(water, 3.4, torch.float64)
    for name, model in mdpot.MODELS.items():
        torch.manual_seed(0)
        potential = mdpot.build_potential(name, {"cutoff": 3.4}, [1, 8], [0.0, 0.0], 1.0).double().eval()
        scripted = torch.jit.script(potential)
        eager, script = potential(*graph.inputs()), scripted(*graph.inputs())
        for key in ("energy", "forces"):
            torch.testing.assert_close(script[key], eager[key], rtol=1e-10, atol=1e-12, msg=f"{name}: {model}")


def test_the_command_runs(potential_file: Path) -> None:
    command = [sys.executable, "-m", "mdpot", "info", str(potential_file)]
    # Not in the checkout, whose mdpot/ would shadow the installed one.
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=potential_file.parent)
    assert done.returncode == 0, done.stderr
    assert "egnn" in done.stdout
