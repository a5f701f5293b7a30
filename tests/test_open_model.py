"""One door for all engines: a name is resolved once, a file read once, TorchScript saved and loaded once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.io import write

from mdpot import MaskedGNNCalculator, MdpotError, modelfile, open_model
from mdpot.export import export_torchscript
from mdpot.modelfile import save_ensemble, save_model

from .test_modelfile import make

WATER = [8, 1, 1]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run, which is a name of its file."""
    save_model(tmp_path / "run" / "potential.safetensors", make(width=8, layers=1))
    return tmp_path / "run"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often a name is resolved, a file unpacked, and TorchScript saved or loaded."""
    counts: Counter[str] = Counter()

    def count(where: Any, name: str) -> None:
        original = getattr(where, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            counts[name] += 1
            return original(*args, **options)

        monkeypatch.setattr(where, name, wrapped)

    count(modelfile, "find_model")
    count(modelfile, "unpack")
    count(modelfile, "read_exported")
    count(torch.jit, "save")
    count(torch.jit, "load")
    return counts


def test_the_calculator_reads_once(run: Path, counted: Counter[str]) -> None:
    atoms = molecule("H2O")
    atoms.calc = MaskedGNNCalculator(run)
    atoms.get_forces()
    assert counted == {"find_model": 1, "unpack": 1}


def test_an_exported_file_is_loaded_once(run: Path, counted: Counter[str]) -> None:
    export_torchscript(run, run.parent / "m.pt", units="ase", check=False)
    assert counted == {"find_model": 1, "unpack": 1, "save": 1}
    counted.clear()
    MaskedGNNCalculator(run.parent / "m.pt")
    assert counted == {"find_model": 1, "read_exported": 1, "load": 1}
    counted.clear()
    assert open_model(run.parent / "m.pt").header["elements"] == [1, 6, 8]
    assert counted["load"] == 0


def test_dynamics_reads_once(run: Path, counted: Counter[str]) -> None:
    from mdpot.simulate import Settings, run_md

    write(run.parent / "water.xyz", molecule("H2O"))
    settings = Settings(str(run.parent / "water.xyz"), str(run), ensemble="nve", steps=2, every=1, minimize=False)
    run_md(settings, run.parent / "md")
    assert counted == {"find_model": 1, "unpack": 1}


def test_openmm_reads_once(run: Path, counted: Counter[str]) -> None:
    pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    create_force(run, WATER, "python", periodic=False)
    assert counted == {"find_model": 1, "unpack": 1}


def test_torchforce_is_saved_once(run: Path, counted: Counter[str]) -> None:
    pytest.importorskip("openmmtorch")
    from mdpot.openmm import create_force

    create_force(run, WATER, "torchforce", periodic=False)
    assert counted == {"find_model": 1, "unpack": 1, "save": 1, "load": 1}  # the load is that of the check
    counted.clear()
    create_force(run, WATER, "torchforce", periodic=False, check=False)
    assert counted["load"] == 0


@pytest.mark.parametrize("backend", ["python", "torchforce"])
def test_openmm_runs_an_ensemble(run: Path, backend: str) -> None:
    openmm = pytest.importorskip("openmm")
    if backend == "torchforce":
        pytest.importorskip("openmmtorch")
    from mdpot.openmm import create_force

    save_model(run.parent / "other.safetensors", make(width=8, layers=1, cutoff=3.0))
    save_ensemble(run.parent / "both.safetensors", [run, run.parent / "other.safetensors"])
    atoms = molecule("H2O")
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(float(mass))
    system.addForce(create_force(run.parent / "both.safetensors", WATER, backend, periodic=False, dtype="float64"))
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatform("Reference"))
    context.setPositions(atoms.positions / 10.0)
    found = context.getState(getForces=True).getForces(asNumpy=True)._value / 964.853321
    atoms.calc = MaskedGNNCalculator(run.parent / "both.safetensors", dtype="float64", device="cpu")
    np.testing.assert_allclose(found, atoms.get_forces(), atol=1e-6)


def test_what_is_open_stays_open(run: Path) -> None:
    model = open_model(run)
    assert open_model(model) is model
    (run / "potential.safetensors").unlink()  # all of it was read
    atoms = molecule("H2O")
    atoms.calc = MaskedGNNCalculator(model)
    assert np.isfinite(atoms.get_forces()).all()
    with pytest.raises(MdpotError, match="is not an exported file"):
        model.module()


def test_a_network_is_what_its_file_would_be(run: Path) -> None:
    potential = make(width=8, layers=1)
    assert open_model(potential).header == open_model(run).header
    again = open_model(potential).potential()
    assert again is not potential
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), potential.parameters(), strict=True))


@pytest.mark.parametrize("name", ["nowhere.safetensors", "water-rpbe-smal"])
def test_a_name_of_nothing(name: str) -> None:
    with pytest.raises(MdpotError, match="is not there"):
        open_model(name)
