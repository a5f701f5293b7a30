"""Whole runs: files, resuming, refusals."""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import iread, read, write

from mdpot.errors import MdpotError
from mdpot.simulate import Limits, Settings, read_trajectory, resume_md, run_md
from mdpot.simulate.engines import ModelFacts
from mdpot.simulate.log import Row, read_log
from mdpot.simulate.run import check_structure
from mdpot.simulate.trajectory import TRAJECTORIES

Make = Callable[..., Any]


def log_without_speed(out: Path) -> list[list[str]]:
    with (out / "log.csv").open(newline="") as file:
        return [row[:-1] for row in csv.reader(file)]


class Interrupter:
    """An observer that presses Ctrl-C after some lines of the log."""

    def __init__(self, after: int) -> None:
        self.left = after

    def phase(self, text: str) -> None:
        pass

    def row(self, row: Row, n_steps: int) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


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


def test_the_seed_decides(gas_file: str, constant: Make, tmp_path: Path) -> None:
    logs = []
    for index, seed in enumerate((1, 1, 2)):
        s = Settings(gas_file, "-", steps=20, every=10, seed=seed)
        run_md(s, tmp_path / str(index), forces=constant())
        logs.append(log_without_speed(tmp_path / str(index)))
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]


@pytest.mark.parametrize("trajectory", ["xyz", "dcd"])
@pytest.mark.parametrize("engine", ["ase", "openmm"])
@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_resumed_is_uninterrupted(
    ensemble: str,
    engine: str,
    trajectory: str,
    argon: Atoms,
    constant: Make,
    lennard_jones: Make,
    lennard_jones_system: Make,
    ideal_gas_system: Make,
    tmp_path: Path,
) -> None:
    """Stopped in the middle, with garbage behind the restart point, and resumed: the same files."""
    if trajectory == "dcd" or engine == "openmm":
        pytest.importorskip("openmm")
    argon.set_cell([16.0, 16.0, 16.0])
    argon.pbc = ensemble == "npt"
    if ensemble != "npt":
        argon.set_cell(None)
    write(tmp_path / "argon.xyz", argon)
    if engine == "ase":
        forces = constant(push=0.01) if ensemble == "npt" else lennard_jones()
    else:
        forces = ideal_gas_system if ensemble == "npt" else lennard_jones_system
    s = Settings(
        str(tmp_path / "argon.xyz"),
        "-",
        engine=engine,
        ensemble=ensemble,
        temperature=20.0,
        pressure=10.0,
        dt=4.0,
        steps=200,
        every=25,
        trajectory=trajectory,
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run_md(s, whole, forces=forces)
    stopped = run_md(s, parts, forces=forces, observer=Interrupter(5))
    assert stopped.interrupted
    assert stopped.stopped == "interrupted after step 100"
    with (parts / "log.csv").open("a") as file:
        file.write("125,half a li")
    with (parts / f"trajectory.{trajectory}").open("ab") as file:
        file.write(b"\x01" * 77)
    summary = resume_md(parts, forces=forces)
    assert summary.steps == 200
    assert not summary.interrupted
    assert log_without_speed(parts) == log_without_speed(whole)
    one, two = (p / f"trajectory.{trajectory}" for p in (whole, parts))
    if trajectory == "xyz":
        assert one.read_bytes() == two.read_bytes()
    else:
        # Bytes 100 to 260 hold the date.
        assert one.read_bytes()[:92] == two.read_bytes()[:92]
        assert one.read_bytes()[264:] == two.read_bytes()[264:]
    frames = list(read_trajectory(two, argon))
    assert len(frames) == 9


def test_resume_with_more_steps(gas_file: str, constant: Make, tmp_path: Path) -> None:
    s = Settings(gas_file, "-", steps=20, every=10)
    run_md(s, tmp_path / "out", forces=constant())
    summary = resume_md(tmp_path / "out", {"steps": 40}, forces=constant())
    assert summary.steps == 40
    assert read_log(tmp_path / "out" / "log.csv")["step"].tolist() == [0, 10, 20, 30, 40]
    assert json.loads((tmp_path / "out" / "run.json").read_text())["settings"]["steps"] == 40


def test_resume_refuses(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(MdpotError, match="holds no run to resume"):
        resume_md(out, forces=constant())
    run_md(Settings(gas_file, "-", steps=20, every=10), out, forces=constant())
    with pytest.raises(MdpotError, match="already has 20 steps"):
        resume_md(out, forces=constant())
    with pytest.raises(MdpotError, match=r"has temperature = 300\.0, not 310"):
        resume_md(out, {"temperature": 310.0, "steps": 30}, forces=constant())
    (out / "log.csv").write_text("step\n")
    with pytest.raises(MdpotError, match="not as the restart file left it"):
        resume_md(out, {"steps": 30}, forces=constant())
    (out / "restart.npz").write_bytes(b"rubbish")
    with pytest.raises(MdpotError, match="is damaged"):
        resume_md(out, {"steps": 30}, forces=constant())


def rewrite(path: Path, **changes: Any) -> None:
    """A restart file with other arrays in it; None takes one out."""
    with np.load(path) as file:
        arrays = {**{name: file[name] for name in file.files}, **changes}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def header_of(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return json.loads(str(file["header"]))


def test_a_restart_file_names_no_other_files(gas_file: str, constant: Make, tmp_path: Path) -> None:
    out, precious = tmp_path / "out", tmp_path / "precious.txt"
    precious.write_text("precious")
    run_md(Settings(gas_file, "-", steps=20, every=10), out, forces=constant())
    header = header_of(out / "restart.npz")
    for name in ("../precious.txt", str(precious), "run.json"):
        sizes = json.dumps({**header, "sizes": {**header["sizes"], name: 0}})
        rewrite(out / "restart.npz", header=np.array(sizes))
        with pytest.raises(MdpotError, match=r"restart\.npz in .* is damaged .*is no file of this run"):
            resume_md(out, {"steps": 30}, forces=constant())
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    "changes",
    [
        {"header": None},
        {"header": np.array("{}")},
        {"header": np.array("[1]")},
        {"numbers": np.zeros((3, 3))},
        {"masses": None},
        {"pbc": np.ones(2, bool)},
        {"start_positions": np.full((20, 3), np.nan)},
        {"engine.step": None},
        {"engine.step": np.array(-3)},
        {"engine.positions": np.zeros((2, 3))},
        {"engine.momenta": None},
        {"engine.rng": np.array("no json")},
        {"more": np.zeros(3)},
    ],
)
def test_a_damaged_restart_file_is_one_line(
    gas_file: str, constant: Make, tmp_path: Path, changes: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    run_md(Settings(gas_file, "-", steps=20, every=10), out, forces=constant())
    rewrite(out / "restart.npz", **changes)
    with pytest.raises(MdpotError, match=r"restart\.npz in .* is damaged") as error:
        resume_md(out, {"steps": 30}, forces=constant())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", '{"settings": {}}'),
        ("run.json", '{"settings": {"start": "a", "model": "b", "steps": "many"}, "model_sha256": null}'),
        ("log.csv", "x" * 5000),
        ("trajectory.xyz", "x" * 50000),
    ],
)
def test_other_damaged_files_are_one_line(
    gas_file: str, constant: Make, tmp_path: Path, name: str, content: str
) -> None:
    out = tmp_path / "out"
    run_md(Settings(gas_file, "-", steps=20, every=10), out, forces=constant())
    (out / name).write_text(content)
    with pytest.raises(MdpotError, match=r"damaged|steps must") as error:
        resume_md(out, {"steps": 30}, forces=constant())
    assert "\n" not in str(error.value)


def test_a_run_that_lacks_only_its_summary(gas_file: str, constant: Make, tmp_path: Path) -> None:
    """Killed after its last restart file."""
    out = tmp_path / "out"
    summary = run_md(Settings(gas_file, "-", steps=20, every=10), out, forces=constant())
    for content in (None, "{", "[]", json.dumps({"steps": 10, "stopped": None})):
        (out / "summary.json").unlink()
        if content is not None:
            (out / "summary.json").write_text(content)
        assert resume_md(out, forces=constant()) == summary
        assert json.loads((out / "summary.json").read_text())["steps"] == 20
    with pytest.raises(MdpotError, match="already has 20 steps"):
        resume_md(out, forces=constant())


def test_two_runs_do_not_share_a_folder(gas_file: str, constant: Make, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    s = Settings(gas_file, "-", steps=20, every=10)
    refused: list[str] = []

    class Second(Interrupter):
        """Tries to take the folder while the first run is at work."""

        def row(self, row: Row, n_steps: int) -> None:
            for attempt in (
                lambda: run_md(s, tmp_path / "out", forces=constant()),
                lambda: resume_md(tmp_path / "out"),
            ):
                with pytest.raises(MdpotError, match=r"in use by another run|holds another run") as error:
                    attempt()
                refused.append(str(error.value))

    run_md(s, tmp_path / "out", forces=constant(), observer=Second(0))
    assert len(refused) == 6
    assert all("in use" in text for text in refused[1::2])
    assert resume_md(tmp_path / "out", {"steps": 30}, forces=constant()).steps == 30


def test_the_folder_of_a_training_run_is_refused(gas_file: str, constant: Make, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text('name = "mine"')
    (tmp_path / "run.json").write_text('{"kind": "train"}')
    with pytest.raises(MdpotError, match="holds a training run"):
        run_md(Settings(gas_file, "-", steps=20, every=10), tmp_path, forces=constant())
    with pytest.raises(MdpotError, match="holds a training run"):
        resume_md(tmp_path, forces=constant())
    assert (tmp_path / "run.json").read_text() == '{"kind": "train"}'


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


@pytest.mark.parametrize(("trajectory", "name"), [("xyz", "trajectory.xyz"), ("dcd", "trajectory.dcd")])
def test_a_full_disk_names_the_file_and_loses_nothing(
    trajectory: str, name: str, gas_file: str, constant: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if trajectory == "dcd":
        pytest.importorskip("openmm")
    out = tmp_path / "out"
    s = Settings(gas_file, "-", steps=50, every=10, trajectory=trajectory)
    kind, frames = TRAJECTORIES[trajectory], [0]
    write_frame = kind.write

    def full(self: Any, state: Any) -> None:
        frames[0] += 1
        if frames[0] == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_frame(self, state)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "write", full)
        with pytest.raises(MdpotError, match=rf"cannot write '.*{name}': No space left on device"):
            run_md(s, out, forces=constant())
    resume_md(out, forces=constant())
    assert read_log(out / "log.csv")["step"].tolist() == [0, 10, 20, 30, 40, 50]
    start = read(out / "start.xyz")
    assert isinstance(start, Atoms)
    assert len(list(read_trajectory(out / name, start))) == 6


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
