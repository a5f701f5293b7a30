"""How long a step of molecular dynamics takes: by size, engine and number of threads, and where the time goes."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from mdpot.calculator import MaskedGNNCalculator
from mdpot.errors import MdpotError
from mdpot.kernels import NoKernel
from mdpot.simulate.box import count_waters, read_start, water_box
from mdpot.simulate.engine import Dynamics, maxwell_boltzmann
from mdpot.simulate.engine_ase import AseEngine

WATERS = (64, 258, 1_000, 4_000, 16_000)
ENGINES = ("native", "torch")
DT, TEMPERATURE = 0.5, 300.0  # fs, K
MINIMIZE_STEPS = 60  # enough that a fresh box does not burst
LARGEST_FRESH = 1_000  # waters; larger boxes are tiled from smaller ones
WARM_UP, BLOCKS = 3, 5
PARTS = ("list", "filter", "network", "rest")


@dataclass(frozen=True)
class Timing:
    """One line of the table.

    Attributes:
        structure: what was moved.
        n_atoms: how many.
        engine: who computed, e.g. "fused kernels (avx2)".
        threads: how many.
        ms: milliseconds a step of NVE, everything included; None where it was not timed.
        ns_per_day: nanoseconds a day, at `DT`.
        parts: milliseconds a step of each of `PARTS`: searching neighbors and seeing that it need not be done; choosing
            the pairs within the cutoff; the network; calculator and integrator. The kernels choose by themselves.
        note: why it was not timed.
    """

    structure: str
    n_atoms: int
    engine: str
    threads: int
    ms: float | None = None
    ns_per_day: float | None = None
    parts: dict[str, float] | None = None
    note: str | None = None


def bench(
    model: Path | str,
    structures: Sequence[str] = (),
    engines: Sequence[str] = ENGINES,
    threads: Sequence[int] = (),
    seconds: float = 2.0,
    dtype: str | None = None,
) -> Iterator[Timing]:
    """Times a potential on the CPU, one line after the other.

    Args:
        model: as `ckpt` of `MaskedGNNCalculator`.
        structures: each as `read_start` takes it; none: `WATERS`.
        engines: of `ENGINES`.
        threads: numbers of threads; none: one, and as many as torch takes.
        seconds: for each line. What is expected to take longer than that for one step is left out.
        dtype: of the network, "float32" or "float64"; None is that of the file.

    Raises:
        MdpotError: a file that cannot be used, or no structures for a potential that does not know water, or that
            corrects a force field.
    """
    names = list(structures) or [f"water:{n}" for n in WATERS]
    numbers = sorted(set(threads) or {1, torch.get_num_threads()})
    header = MaskedGNNCalculator(model, device="cpu", dtype=dtype).metadata
    if not structures and not {1, 8} <= set(header["elements"]):
        raise MdpotError("this potential does not know water; name a structure to time it on: --structure FILE.")
    if not structures and header.get("baseline"):
        raise MdpotError(
            f"this potential corrects {header['baseline']}, which takes minutes for boxes of water; name a structure "
            "to time it on: --structure FILE."
        )
    per_atom: dict[tuple[str, int], float] = {}  # ms, of the size before
    for name in names:
        start = _prepare(model, name)
        for engine in engines:
            for n in numbers:
                expected = per_atom.get((engine, n), 0.0) * len(start)
                if expected > 1e3 * seconds:
                    note = f"left out: a step would take about {expected / 1e3:.1f} s"
                    yield Timing(name, len(start), engine, n, note=note)
                    continue
                timing = _time(model, name, start, engine, n, seconds, dtype)
                per_atom[engine, n] = (timing.ms or 0.0) / len(start)
                yield timing


def machine() -> dict[str, Any]:
    """What it was timed on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(models) or None,
        "torch": torch.__version__,
    }


def _prepare(model: Path | str, name: str) -> Atoms:
    """A structure at rest, with velocities of `TEMPERATURE`."""
    rng = np.random.default_rng(0)
    count, tiles = count_waters(name), 0
    while count > LARGEST_FRESH and count % 8 == 0:
        count, tiles = count // 8, tiles + 1
    atoms = water_box(count, rng) if tiles else read_start(name, rng)
    engine = AseEngine(atoms, MaskedGNNCalculator(model, device="cpu"), Dynamics("nve", dt=DT))
    engine.minimize(MINIMIZE_STEPS)
    atoms.positions = engine.state().positions
    atoms = atoms.repeat(2**tiles)
    atoms.set_array("velocities", maxwell_boltzmann(atoms.get_masses(), TEMPERATURE, rng))
    return atoms


def _time(
    model: Path | str, name: str, start: Atoms, engine: str, threads: int, seconds: float, dtype: str | None
) -> Timing:
    with _threads(threads):
        try:
            calculator = MaskedGNNCalculator(model, device="cpu", dtype=dtype, backend=engine)
        except NoKernel as error:
            return Timing(name, len(start), engine, threads, note=str(error))
        dynamics = AseEngine(start, calculator, Dynamics("nve", dt=DT))
        dynamics.set_velocities(start.arrays["velocities"])
        dynamics.step(WARM_UP)
        clock = time.perf_counter()
        dynamics.step(1)
        once = time.perf_counter() - clock
        n_steps = max(1, round(seconds / BLOCKS / once))
        spent = _watch(calculator)
        blocks = []
        for _ in range(BLOCKS):
            clock = time.perf_counter()
            dynamics.step(n_steps)
            blocks.append(1e3 * (time.perf_counter() - clock) / n_steps)
    ms = float(np.median(blocks))
    share = {part: 1e3 * seconds / (n_steps * sum(blocks)) for part, seconds in spent().items()}
    parts = {part: ms * share[part] for part in share}
    parts["rest"] = ms - sum(parts.values())
    return Timing(name, len(start), calculator.engine, threads, ms, 1e-6 * DT * 86400e3 / ms, parts)


def _watch(calculator: MaskedGNNCalculator) -> Callable[[], dict[str, float]]:
    """From now on, clocks what a calculator does; the function returns the seconds spent by part."""
    spent = {"candidates": 0.0, "update": 0.0, "network": 0.0}

    def clocked(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent[part] += time.perf_counter() - begin

        return call

    evaluate: Any = calculator.evaluate
    owner, network = (evaluate.native, "kernel") if hasattr(evaluate, "native") else (evaluate, "_forward")
    setattr(owner, network, clocked("network", getattr(owner, network)))
    for part in ("candidates", "update"):
        setattr(owner.neighbors, part, clocked(part, getattr(owner.neighbors, part)))

    def parts() -> dict[str, float]:
        chosen = max(spent["update"] - spent["candidates"], 0.0)
        return {"list": spent["candidates"], "filter": chosen, "network": spent["network"]}

    return parts


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
