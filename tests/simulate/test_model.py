"""A potential through both engines: the same way, in the same file formats."""

from __future__ import annotations

import gc
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from mdpot import build_potential, save_potential
from mdpot.errors import MdpotError
from mdpot.modelfile import open_model
from mdpot.simulate import Limits, Settings, resume_md, run_md, water_box
from mdpot.simulate.engine import maxwell_boltzmann
from mdpot.simulate.engines import make_ase, make_openmm, openmm_platform, read_facts
from mdpot.simulate.log import Row, read_log


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "potential.safetensors"
    potential = build_potential("egnn", {"cutoff": 3.0, "width": 8, "layers": 2}, [1, 8], [-1.0, -2.0], 0.05)
    save_potential(path, potential, {"min_distances": {"H-O": 0.8}})
    return str(path)


@pytest.fixture
def skewed(tmp_path: Path) -> str:
    """Water in a cell that OpenMM takes only after turning it and choosing other lattice vectors."""
    water = water_box(8, np.random.default_rng(0))
    length = water.cell.array[0, 0]
    water.set_cell(length * np.array([[1.0, 0, 0], [1.0, 1.0, 0], [0, -1.0, 1.0]]))
    water.rotate(50, (1, 2, 3), rotate_cell=True)
    write(tmp_path / "skewed.xyz", water)
    return str(tmp_path / "skewed.xyz")


def test_both_engines_go_the_same_way(model: str, skewed: str) -> None:
    pytest.importorskip("openmm")

    atoms = read(skewed)
    assert not isinstance(atoms, list)
    s = Settings(skewed, model, ensemble="nve", dtype="float64", device="cpu")
    ase = make_ase(atoms, s, 1, open_model(model))
    openmm = make_openmm(
        atoms, Settings(**{**s.to_dict(), "engine": "openmm", "backend": "python"}), 1, open_model(model)
    )
    assert openmm.description == "OpenMM on CPU, VerletIntegrator, mdpot python"
    velocities = maxwell_boltzmann(atoms.get_masses(), 300.0, np.random.default_rng(0))
    turn = np.linalg.lstsq(ase.atoms.positions, openmm.atoms.positions, rcond=None)[0]
    assert turn @ turn.T == pytest.approx(np.eye(3), abs=1e-9)
    ase.set_velocities(velocities)
    openmm.set_velocities(velocities @ turn)
    for _ in range(3):
        one, two = ase.state(), openmm.state()
        assert two.potential == pytest.approx(one.potential, abs=1e-7)
        assert two.kinetic == pytest.approx(one.kinetic, abs=1e-7)
        assert two.positions == pytest.approx(one.positions @ turn, abs=1e-6)
        ase.step(20)
        openmm.step(20)


@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
def test_openmm_runs_and_resumes(model: str, skewed: str, tmp_path: Path, ensemble: str) -> None:
    pytest.importorskip("openmm")
    out = tmp_path / "out"
    s = Settings(skewed, model, engine="openmm", backend="python", ensemble=ensemble, steps=50, every=10)
    summary = run_md(s, out)
    assert summary.stopped is None
    assert summary.mean_density == pytest.approx(1.0, abs=1e-3 if ensemble == "nvt" else 0.2)
    assert resume_md(out, {"steps": 60}).steps == 60
    assert len(read_log(out / "log.csv")["step"]) == 7


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
@pytest.mark.parametrize("engine", ["ase", "openmm"])
def test_a_start_that_the_potential_refuses(skewed: str, tmp_path: Path, engine: str, ensemble: str) -> None:
    """Two atoms at the same place: one line, and the folder is free for the next try."""
    if engine == "openmm":
        pytest.importorskip("openmm")
    atoms = read(skewed)
    assert isinstance(atoms, Atoms)
    atoms.positions[1] = atoms.positions[0]
    write(tmp_path / "clash.xyz", atoms)
    s = Settings(str(tmp_path / "clash.xyz"), "water-rpbe-small", engine=engine, ensemble=ensemble, steps=5)
    with pytest.raises(MdpotError, match="atoms on top of each other"):
        run_md(s, tmp_path / "out")
    assert run_md(replace(s, start=skewed), tmp_path / "out").steps == 5


def test_facts(model: str, tmp_path: Path) -> None:
    facts = read_facts(open_model(model))
    assert facts.elements == [1, 8]
    assert facts.min_distances == {"H-O": 0.8}
    assert facts.conservative
    assert read_facts(open_model(Path(model).parent)) == facts
    with pytest.raises(MdpotError, match=r"is not there|no potential"):
        open_model(tmp_path)


def test_facts_of_an_exported_file(model: str, tmp_path: Path) -> None:
    export = pytest.importorskip("mdpot.export")
    export.export_torchscript(model, tmp_path / "model.pt", units="ase", check=False)
    assert read_facts(open_model(tmp_path / "model.pt")) == read_facts(open_model(model))


def test_platforms() -> None:
    assert openmm_platform(None) == (None, {})
    assert openmm_platform("cpu") == ("CPU", {})
    assert openmm_platform("cuda:1") == ("CUDA", {"DeviceIndex": "1"})
    with pytest.raises(MdpotError, match="runs on device cpu or cuda; got 'mps'"):
        openmm_platform("mps")


def test_a_platform_that_is_not_there(model: str, skewed: str, tmp_path: Path) -> None:
    openmm = pytest.importorskip("openmm")
    names = [openmm.Platform.getPlatform(k).getName() for k in range(openmm.Platform.getNumPlatforms())]
    if "CUDA" in names:
        pytest.skip("OpenMM has CUDA here")
    s = Settings(skewed, model, engine="openmm", backend="python", device="cuda")
    with pytest.raises(MdpotError, match=r"(platform CUDA|device 'cuda') cannot be used here: "):
        run_md(s, tmp_path / "out")


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # between `open` and `with`
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("engine", "backend"), [("ase", "eager"), ("openmm", "python")])
def test_a_signal_at_any_time(
    model: str, skewed: str, tmp_path: Path, engine: str, backend: str, number: signal.Signals
) -> None:
    """Also while OpenMM calls Python, where the exception is lost on its way through C++."""
    if engine == "openmm":
        pytest.importorskip("openmm")
    steps = [0]

    class Observer:
        def phase(self, text: str) -> None:
            pass

        def row(self, row: Row, n_steps: int) -> None:
            steps[0] += 1
            if steps[0] == 2:
                threading.Timer(0.2, os.kill, (os.getpid(), number)).start()

    before = signal.getsignal(number)
    s = Settings(skewed, model, engine=engine, backend=backend, steps=10**6, every=10, temperature=1.0)
    limits = Limits(distance=0.0, hot=1e9, temperature=1e9)
    summary = run_md(s, tmp_path / "out", limits=limits, observer=Observer())
    gc.collect()
    assert summary.interrupted
    assert summary.stopped is not None
    assert summary.stopped.startswith("interrupted after step")
    assert signal.getsignal(number) is before
