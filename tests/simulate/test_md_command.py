"""`mdpot md`: the command line around a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from click.testing import CliRunner, Result

from mdpot import build_potential, save_potential
from mdpot.cli import main
from mdpot.simulate.driver import Driver
from mdpot.simulate.log import read_log


def run(*args: object) -> Result:
    return CliRunner().invoke(main, ["md", *map(str, args)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nearly flat potential for water: its molecules fly apart, but not within a few steps."""
    path = tmp_path_factory.mktemp("model") / "potential.safetensors"
    potential = build_potential("egnn", {"cutoff": 3.0, "width": 8, "layers": 1}, [1, 8], [-1.0, -2.0], 0.01)
    save_potential(path, potential, {"min_distances": {"H-H": 1.2, "H-O": 0.8, "O-O": 2.2}})
    return path


def test_run_and_resume(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("water:8", "--model", model, "--out", out, "--steps", 20, "--every", 5, "--seed", 3)
    assert result.exit_code == 0, result.output
    assert "20 steps, 0.01 ps" in result.stdout
    assert "temperature" in result.stdout
    assert "O–O first peak" in result.stdout
    assert "step 20 of 20: 0.01 ps" in result.stderr
    result = run("--resume", "--out", out, "--steps", 30)
    assert result.exit_code == 0, result.output
    assert read_log(out / "log.csv")["step"].tolist() == [0, 5, 10, 15, 20, 25, 30]
    settings = json.loads((out / "run.json").read_text())["settings"]
    assert (settings["start"], settings["seed"], settings["every"]) == ("water:8", 3, 5)


def test_the_folder_of_a_training_is_a_model(model: Path, tmp_path: Path) -> None:
    result = run("water:1", "--model", model.parent, "--out", tmp_path / "out", "--steps", 1)
    assert result.exit_code == 0, result.output


def test_nve_reports_drift(model: Path, tmp_path: Path) -> None:
    args = ("--ensemble", "nve", "--steps", 20, "--every", 5, "--dtype", "float64", "--minimize")
    result = run("water:4", "--model", model, "--out", tmp_path / "out", *args)
    assert result.exit_code == 0, result.output
    assert "energy drift" in result.stdout
    assert "meV/atom/ps" in result.stdout


def test_a_strike_is_exit_code_1_and_one_line(model: Path, tmp_path: Path) -> None:
    """The smallest distances of the training set decide what is too close."""
    grid = np.stack(np.meshgrid(*[[0.0, 2.0, 4.0]] * 3), axis=-1).reshape(-1, 3)
    write(tmp_path / "gas.xyz", Atoms("H27", grid, cell=[6, 6, 6], pbc=True))
    args = ("--model", model, "--steps", 200, "--every", 2, "--temperature", 3000)
    result = run(tmp_path / "gas.xyz", *args, "--out", tmp_path / "out")
    assert result.exit_code == 1, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("stopped at step")
    assert " Å apart, closer than 0.60 Å" in line
    assert line.endswith("last_good.xyz")


def test_ctrl_c_says_how_to_go_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, count = Driver._record, [0]

    def record_and_stop(self: Driver, *args: Any) -> None:
        record(self, *args)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Driver, "_record", record_and_stop)
    out = tmp_path / "out"
    result = run("water:2", "--model", model, "--out", out, "--steps", 20, "--every", 5)
    assert result.exit_code == 130
    remedy = f"interrupted after step 5. Go on with: mdpot md --resume --out {out}"
    assert result.stderr.strip().splitlines()[-1] == remedy
    assert run("--resume", "--out", out).exit_code == 0
    assert read_log(out / "log.csv")["step"].tolist() == [0, 5, 10, 15, 20]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "MODEL", "--out", "OUT"], "START is missing"),
        (["water:2", "--out", "OUT"], "--model is missing"),
        (["water:2", "--model", "MODEL", "--out", ""], "Invalid value for '--out': the path is empty"),
        (["water:2", "--model", "gone", "--out", "OUT"], "'gone' is not there"),
        (["gone.xyz", "--model", "MODEL", "--out", "OUT"], "'gone.xyz' is not there"),
        (["water:2", "--model", "MODEL", "--out", "OUT", "--engine", "lammps"], "'lammps' is not one of"),
        (["water:2", "--model", "MODEL", "--out", "OUT", "--backend", "jax"], "unknown backend 'jax'"),
        (["argon.xyz", "--model", "MODEL", "--out", "OUT"], "START holds Ar, but the model knows only H, O"),
        (["drop.xyz", "--model", "MODEL", "--out", "OUT", "--ensemble", "npt"], "npt needs a cell"),
        (["water:2", "--model", "argon.xyz", "--out", "OUT"], "model file 'argon.xyz' is damaged"),
        (["--resume", "--out", "OUT"], "holds no run to resume"),
    ],
)
def test_one_line_for_what_goes_wrong(
    args: list[str], message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("argon.xyz", Atoms("Ar", cell=[5, 5, 5], pbc=True))
    write("drop.xyz", Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [0, 0.96, 0]]))
    result = run(*[{"MODEL": str(model), "OUT": "out"}.get(arg, arg) for arg in args])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_resume_refuses_other_settings(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("water:2", "--model", model, "--out", out, "--steps", 2).exit_code == 0
    result = run("--resume", "--out", out, "--steps", 4, "--dt", 1.0)
    assert result.exit_code == 2
    assert "has dt = 0.5, not 1.0" in result.stderr
    copy = tmp_path / "copy.safetensors"
    copy.write_bytes(model.read_bytes())
    (out / "run.json").write_text((out / "run.json").read_text().replace(str(model), str(copy)))
    potential = build_potential("egnn", {"cutoff": 3.0, "width": 8, "layers": 1}, [1, 8], [-1.0, -2.5], 0.01)
    save_potential(copy, potential)
    result = run("--resume", "--out", out, "--steps", 4)
    assert result.exit_code == 2
    assert "is not the one that the run in" in result.stderr
