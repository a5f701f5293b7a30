"""Whole runs: what they leave, what they refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import iread, write

from mdpot.errors import MdpotError
from mdpot.simulate import Limits, Settings, resume_md, run_md
from mdpot.simulate.engines import ModelFacts
from mdpot.simulate.log import Row, read_log
from mdpot.simulate.run import check_structure

from .conftest import log_without_speed

Make = Callable[..., Any]


def test_a_run_leaves_its_files(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    seen: list[int] = []

    class Observer:
        def phase(self, text: str) -> None:
            assert text in ("loading", "running", "analyzing")

        def row(self, row: Row, n_steps: int) -> None:
            assert n_steps == 250
            seen.append(row.step)

    s = Settings(gas_file, "-", ensemble="nve", steps=250, every=100, dt=2.0)
    summary = run_md(s, out, forces=constant(), limits=Limits(distance=0.0), observer=Observer())
    assert {p.name for p in out.iterdir()} == {
        ".lock",
        "run.json",
        "start.xyz",
        "log.csv",
        "trajectory.xyz",
        "restart.npz",
        "summary.json",
        "rdf.csv",
        "rdf.png",
        "thermodynamics.png",
    }
    assert seen == [0, 100, 200, 250]
    columns = read_log(out / "log.csv")
    assert columns["step"].tolist() == seen
    assert columns["time_ps"] == pytest.approx([0, 0.2, 0.4, 0.5])
    assert columns["total_eV"] == pytest.approx(columns["total_eV"][0])
    assert columns["density_g_cm3"] == pytest.approx(20 * 39.948 * 1.66053907 / 12**3, rel=1e-5)
    frames: list[Any] = list(iread(out / "trajectory.xyz"))
    began: Any = next(iread(gas_file))
    assert [frame.info["step"] for frame in frames] == seen
    assert frames[0].positions == pytest.approx(began.positions, abs=1e-6)
    assert json.loads((out / "summary.json").read_text())["steps"] == summary.steps == 250
    assert summary.stopped is None
    assert summary.drift == pytest.approx(0, abs=1e-6)
    assert summary.mean_temperature == pytest.approx(columns["temperature_K"][0], rel=1e-4)
    assert json.loads((out / "run.json").read_text())["settings"]["steps"] == 250


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False)])
def test_a_box_around_what_is_not_periodic_gives_no_density(
    argon: Atoms, constant: Make, tmp_path: Path, pbc: tuple[bool, ...]
) -> None:
    argon.set_cell([30.0] * 3)
    argon.pbc = pbc
    write(tmp_path / "slab.xyz", argon, format="extxyz")
    s = Settings(str(tmp_path / "slab.xyz"), "-", ensemble="nve", steps=2, every=1)
    summary = run_md(s, tmp_path / "run", forces=constant(), limits=Limits(distance=0.0))
    assert summary.mean_density is None
    assert np.isnan(read_log(tmp_path / "run" / "log.csv")["density_g_cm3"]).all()


def test_the_seed_decides(gas_file: str, constant: Make, tmp_path: Path) -> None:
    logs = []
    for index, seed in enumerate((1, 1, 2)):
        s = Settings(gas_file, "-", steps=20, every=10, seed=seed)
        run_md(s, tmp_path / str(index), forces=constant())
        logs.append(log_without_speed(tmp_path / str(index)))
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]


def test_a_run_does_not_overwrite(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    s = Settings(gas_file, "-", steps=10, every=10)
    run_md(s, out, forces=constant())
    with pytest.raises(MdpotError, match="holds another run"):
        run_md(s, out, forces=constant())
    (out / "restart.npz").unlink()  # as if it had been killed before its first step
    run_md(s, out, forces=constant())
    assert read_log(out / "log.csv")["step"].tolist() == [0, 10]

    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "log.csv").write_text("precious")
    with pytest.raises(MdpotError, match="holds another run"):
        run_md(s, tmp_path / "mine", forces=constant())
    assert (tmp_path / "mine" / "log.csv").read_text() == "precious"
    (tmp_path / "file").touch()
    with pytest.raises(MdpotError, match="is a file"):
        run_md(s, tmp_path / "file", forces=constant())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"engine": "openm"}, "unknown engine 'openm'. Did you mean 'openmm'"),
        ({"ensemble": "nph"}, "unknown ensemble 'nph'"),
        ({"trajectory": "pdb"}, "unknown trajectory"),
        ({"dtype": "float16"}, "unknown dtype"),
        ({"dt": 0.0}, "dt must be from 1e-06 to 100.0 fs; got 0"),
        ({"steps": -5}, "steps must be from 1 to .*; got -5"),
        ({"every": 0}, "every must be from 1 to"),
        ({"temperature": 0.0}, "temperature must be positive; got 0 K"),
        ({"temperature": float("nan")}, "temperature must be from 0.0 to 100000.0 K; got nan"),
        ({"seed": -1}, "seed must be from 0 to"),
        ({"steps": 10**30}, "steps must be from 1 to"),
        ({"steps": 1e4}, "steps must be a number without a fraction; got 10000.0"),
        ({"every": 2**31}, "every must be from 1 to"),
        ({"seed": 10**30}, "seed must be from 0 to"),
        ({"dt": float("inf")}, "dt must be from"),
        ({"dt": "1"}, "dt must be a number; got '1'"),
        ({"temperature": 1e9}, "temperature must be from"),
        ({"pressure": float("-inf")}, "pressure must be from"),
        ({"friction": float("nan")}, "friction must be from"),
        ({"friction": 1e30}, "friction must be from"),
        ({"hydrogen_mass": 1e9}, "hydrogen_mass must be from"),
        ({"start": "gone.xyz"}, "is not there"),
        ({"ensemble": "npt", "start": "ARGON"}, "npt needs a cell that is periodic"),
    ],
)
def test_run_refuses(
    change: dict[str, Any], message: str, gas_file: str, argon_file: str, constant: Make, tmp_path: Path
) -> None:
    values: dict[str, Any] = {"start": gas_file, "model": "-"} | change
    if values["start"] == "ARGON":
        values["start"] = argon_file
    with pytest.raises(MdpotError, match=message):
        run_md(Settings(**values), tmp_path / "out", forces=constant())
    assert not (tmp_path / "out").exists()


def test_structure_and_model_must_fit(argon: Atoms) -> None:
    s = Settings("x", "y", ensemble="npt")
    with pytest.raises(MdpotError, match="START holds Ar, but the model knows only H, O"):
        check_structure(argon, s, ModelFacts(elements=[1, 8]))
    argon.set_cell([9, 9, 9])
    argon.pbc = True
    check_structure(argon, s, ModelFacts(elements=[18]))
    with pytest.raises(MdpotError, match="predicts forces directly"):
        check_structure(argon, s, ModelFacts(elements=[18], conservative=False))


@pytest.mark.parametrize("mass", [0.0, -1.0, np.nan, np.inf])
def test_masses_must_be_positive(argon: Atoms, mass: float) -> None:
    masses = argon.get_masses()
    masses[2] = mass
    argon.set_array("masses", masses, float, ())
    with pytest.raises(MdpotError, match=rf"atom 2 \(Ar\) a mass of {mass:g} u; it must be positive"):
        check_structure(argon, Settings("x", "y"), ModelFacts())


@pytest.mark.parametrize("cell", [np.zeros(3), [9, 0, 9], [[9, 0, 0], [9, 0, 0], [0, 0, 9]], [9, np.nan, 9]])
@pytest.mark.parametrize("engine", ["ase", "openmm"])
def test_a_periodic_structure_has_a_cell(argon: Atoms, engine: str, cell: Any, tmp_path: Path) -> None:
    argon.set_cell(cell)
    check_structure(argon, Settings("x", "y", engine=engine), ModelFacts())
    argon.pbc = True
    with pytest.raises(MdpotError, match=r"START is periodic, .* has no lattice vectors for that"):
        check_structure(argon, Settings("x", "y", engine=engine), ModelFacts())
    argon.pbc = [True, False, False]
    if np.any(argon.cell.array[0]):
        check_structure(argon, Settings("x", "y", engine=engine), ModelFacts())


def test_forces_must_fit_the_engine(gas_file: str, constant: Make, tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="takes an ASE calculator"):
        run_md(Settings(gas_file, "-"), tmp_path / "out", forces=lambda topology: None)
    pytest.importorskip("openmm")
    with pytest.raises(MdpotError, match="takes a function that makes a system"):
        run_md(Settings(gas_file, "-", engine="openmm"), tmp_path / "out", forces=constant())


def test_stopped_before_the_first_step(constant: Make, tmp_path: Path) -> None:
    write(tmp_path / "pair.xyz", Atoms("Ar2", [[0, 0, 0], [0.1, 0, 0]]))
    summary = run_md(Settings(str(tmp_path / "pair.xyz"), "-"), tmp_path / "out", forces=constant())
    assert summary.steps == 0
    assert summary.stopped is not None
    assert "stopped at step 0" in summary.stopped


def test_minimize_and_hydrogen_mass(constant: Make, tmp_path: Path) -> None:
    s = Settings("water:4", "-", minimize=True, hydrogen_mass=3.0, steps=10, every=10, trajectory="xyz")
    run_md(s, tmp_path / "out", forces=constant())
    with np.load(tmp_path / "out" / "restart.npz") as restart:
        assert restart["masses"][:3] == pytest.approx([15.999 - 2 * (3 - 1.008), 3, 3])
    resume_md(tmp_path / "out", {"steps": 20}, forces=constant())
