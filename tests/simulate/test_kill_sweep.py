"""Runs that are killed or interrupted at any moment, and resumed: the same files as without, to the last bit."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpot import build_potential, save_potential
from mdpot.simulate import Limits, Settings, Summary, resume_md, run_md

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
KILLS = int(os.environ.get("MDPOT_KILLS", "3"))  # of each combination; a larger sweep is made by hand
LOOSE = Limits(distance=0.0, hot=1e9, temperature=1e9, volume=1e9)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "potential.safetensors"
    save_potential(path, build_potential("egnn", {"cutoff": 3.0, "width": 8, "layers": 2}, [1, 8], [-1.0, -2.0], 0.05))
    return str(path)


def go(settings: Settings | None, out: Path) -> Summary:
    """Begins a run, or goes on with it; on one thread, for sums depend on how many there are."""
    import torch

    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server that forks us ignores it
    begun = (out / "restart.npz").exists()
    if begun or settings is None:
        return resume_md(out, limits=LOOSE)
    return run_md(settings, out, limits=LOOSE)


def outcome(out: Path, trajectory: str) -> dict[str, Any]:
    """All that a run leaves, but for the clock and OpenMM's checkpoint, which holds what does not matter."""
    with (out / "log.csv").open(newline="") as file:
        found: dict[str, Any] = {"log": [row[:-1] for row in csv.reader(file)]}
    content = (out / f"trajectory.{trajectory}").read_bytes()
    found["trajectory"] = content if trajectory == "xyz" else content[:92] + content[264:]  # the rest holds the date
    with np.load(out / "restart.npz") as file:
        found.update({name: file[name].tobytes() for name in file.files if name not in ("engine.checkpoint", "header")})
        header = json.loads(str(file["header"]))
    del header["sizes"]["log.csv"]  # the log's column of speed, which the clock decides, is of this or that width
    found["header"] = header
    return found


@pytest.mark.slow
@pytest.mark.parametrize("trajectory", ["xyz", "dcd"])
@pytest.mark.parametrize("ensemble", ["nvt", "npt"])
@pytest.mark.parametrize("engine", ["ase", "openmm"])
def test_killed_at_any_time(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, ensemble: str, trajectory: str
) -> None:
    if engine == "openmm" or trajectory == "dcd":
        pytest.importorskip("openmm")
    if trajectory == "dcd" and (engine, ensemble) != ("openmm", "nvt") and KILLS < 4:
        pytest.skip("in the large sweep only")
    s = Settings(
        "water:8", model, engine, ensemble, dt=1.0, steps=80, every=5, friction=20.0, trajectory=trajectory,
        backend="python" if engine == "openmm" else None, device="cpu",
    )  # fmt: skip
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # `pytest` alone has not put it there; a process gets it
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["mdpot.simulate.engine_ase", "mdpot.simulate.engine_openmm", "mdpot.simulate.plots"])
    whole = server.Process(target=go, args=(s, tmp_path / "whole"))
    begin = time.monotonic()
    whole.start()
    whole.join()
    seconds = time.monotonic() - begin
    assert whole.exitcode == 0
    expected = outcome(tmp_path / "whole", trajectory)
    rng = np.random.default_rng([ord(c) for c in engine + ensemble + trajectory])
    out = tmp_path / "parts"
    hit = []
    for k in range(KILLS):
        process = server.Process(target=go, args=(s, out))
        process.start()
        time.sleep(rng.uniform(0.3, 1.0) * seconds / (1 if k else 1.5))
        if process.is_alive():
            os.kill(process.pid, SIGNALS[k % len(SIGNALS)])  # type: ignore[arg-type]
        process.join()
        hit.append(process.exitcode)
        if (out / "summary.json").exists() and outcome(out, trajectory)["log"] == expected["log"]:
            assert outcome(out, trajectory) == expected, hit
            out = tmp_path / f"parts-{k}"  # it came to its end: the next one is killed
    last = server.Process(target=go, args=(s, out))
    last.start()
    last.join()
    if last.exitcode != 0:  # all was done
        with pytest.raises(Exception, match="already has 80 steps"):
            resume_md(out, limits=LOOSE)
    assert outcome(out, trajectory) == expected, hit
    assert (out / "summary.json").exists()
