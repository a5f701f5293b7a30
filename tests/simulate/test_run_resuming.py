"""Runs that go on: the same as uninterrupted ones, also from what was damaged, killed, or is in use."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from mdpot.errors import MdpotError
from mdpot.simulate import Settings, read_trajectory, resume_md, run_md
from mdpot.simulate.log import Row, read_log
from mdpot.simulate.trajectory import TRAJECTORIES

from .conftest import Interrupter, log_without_speed

Make = Callable[..., Any]


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
