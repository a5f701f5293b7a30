"""What `speed.py` says of its numbers: statistics, the machine, tables."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from start import DT

OUR_PACKAGES = ("mdpot", "torch", "numpy", "ase", "vesin", "openmm", "openmmtorch")
PEER_PACKAGES = ("mace-torch", "e3nn", "torchmd-net", "schnetpack", "matscipy")
NS_PER_DAY = 86400e3 * DT * 1e-6  # times steps per millisecond
LIMIT = 15.0  # percent: what an engine may cost over the bare potential
# The calculator as it is by default, which the peers are compared with; the second where that does not work.
OURS = {"cpu": ("ase native", "ase eager"), "cuda": ("ase padded", "ase eager")}


def describe_machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Processor, GPU, threads, load, versions and commit."""
    import torch

    versions = {}
    for name in (*OUR_PACKAGES, *PEER_PACKAGES):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "gpu": None if device == "cpu" else _gpu(),
        "threads": threads,
        "torch_threads": torch.get_num_threads(),
        "load_average_before": list(os.getloadavg()),
        "real_time": _is_real_time(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _commit(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _gpu() -> str:
    """Name, memory, CUDA of torch, and driver."""
    import torch

    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        driver = subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        driver = "unknown"
    return f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB (CUDA {torch.version.cuda}, driver {driver})"


def _is_real_time() -> bool:
    """Whether this runs at real-time priority (`chrt -f 1`), so that ordinary programs wait for it."""
    return hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) in (os.SCHED_FIFO, os.SCHED_RR)


def _commit() -> str | None:
    """The commit of this checkout, with "+" where tracked files differ from it."""

    def git(*words: str) -> str:
        folder = Path(__file__).resolve().parent
        return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no").strip()
        return git("rev-parse", "--short=12", "HEAD").strip() + ("+" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def summarize(model: Path, machine: dict[str, Any], sizes: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Adds to every contender its median and quartiles, its ns/day, its overhead and its ratio to ours.

    Overhead and ratio are taken within each round, of contenders timed seconds apart, before their median.
    """
    from mdpot import load_potential

    potential, header = load_potential(model, "cpu")
    for size in sizes:
        blocks = {c["name"]: np.array(c["ms"]) for c in size["contenders"]}
        for c in size["contenders"]:
            ms = blocks[c["name"]]
            c["median_ms"], c["quartiles_ms"] = _middle(ms)
            c["ns_per_day"] = NS_PER_DAY / c["median_ms"]
            if c["bare"] in blocks:
                c["overhead_percent"], c["overhead_quartiles"] = _middle(100 * (ms / blocks[c["bare"]] - 1))
            if ours := next((name for name in _ours(machine) if name in blocks), None):
                c["ratio"], c["ratio_quartiles"] = _middle(ms / blocks[ours])
    return {
        "machine": machine,
        "model": {
            "sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
            "model": header["model"],
            "hyperparameters": header["hyperparameters"],
            "cutoff": header["cutoff"],
            "dtype": header["dtype"],
            "n_parameters": sum(p.numel() for p in potential.parameters()),
        },
        "seed": seed,
        "dt_fs": DT,
        "sizes": sizes,
    }


def _ours(machine: dict[str, Any]) -> tuple[str, ...]:
    return OURS["cuda" if machine["gpu"] else "cpu"]


def _middle(values: np.ndarray) -> tuple[float, list[float]]:
    low, median, high = np.percentile(values, [25, 50, 75]).tolist()
    return median, [low, high]


def to_markdown(result: dict[str, Any]) -> str:
    """The tables as a page."""
    machine, model = result["machine"], result["model"]
    settings = ", ".join(f"{k} {_short(v)}" for k, v in model["hyperparameters"].items())
    load = " → ".join(f"{machine[f'load_average_{when}'][0]:.1f}" for when in ("before", "after"))
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    threads, cores = _count(machine["threads"], "thread"), _count(machine["cores"], "core")
    gpu = f") and {machine['gpu']}" if machine["gpu"] else ")"
    disturbed = f"more than {machine['threads']} means that others disturbed it"
    if machine.get("real_time"):
        disturbed = "this ran at real-time priority, so others waited"
    lines = [
        "# Speed",
        "",
        "Energy and forces at new positions in every call, water at 1 g/cm³, float32, one run on one machine, all",
        f"contenders in turn, {threads} on {machine['cpu']} ({cores}{gpu}.",
        f"Load of the machine in the minute before and at the end: {load} ({disturbed}).",
        "",
        f"mdpot: `{model['model']}` ({settings}), cutoff {model['cutoff']:g} Å, {model['n_parameters']} parameters,",
        f"commit {machine['commit']}.",
        "",
        f"Versions: {versions}, Python {machine['python']}.",
        "",
        "Median of blocks of calls, quartiles in brackets. ns/day is what the calls leave at 0.5 fs a step.",
        "",
    ]
    for size in result["sizes"]:
        lines += _tables(size, _ours(machine))
    lines += ["`python benchmarks/speed.py` writes this page; what it measures: `benchmarks/README.md`.", ""]
    return "\n".join(lines)


def _tables(size: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    own = [c for c in size["contenders"] if c["group"] != "peer"]
    peers = [c for c in size["contenders"] if c["group"] == "peer"]
    lines = [
        f"## {size['n_waters']} waters, {size['n_atoms']} atoms",
        "",
        "| mdpot | ms per energy and forces | ns/day | over the bare potential |",
        "|---|---:|---:|---:|",
    ]
    for c in own:
        over = "" if "overhead_percent" not in c else _overhead(c)
        lines.append(f"| {c['label']} | {_time(c)} | {_short(c['ns_per_day'])} | {over} |")
    lines.append("")
    if peers:
        ours = next((c for name in names for c in own if c["name"] == name), None)
        head = "times mdpot's" if ours else ""
        lines.append(f"| ASE calculator | cutoff | ms per energy and forces | ns/day | {head} |")
        lines.append("|---|---:|---:|---:|---:|")
        for c in ([ours] if ours else []) + sorted(peers, key=lambda c: c["median_ms"]):
            label = f"mdpot, {c['label'].split(', ')[1]}" if c is ours else c["label"]
            ratio = _short(c["ratio"]) if ours else ""
            lines.append(f"| {label} | {c['cutoff']:g} Å | {_time(c)} | {_short(c['ns_per_day'])} | {ratio} |")
        lines.append("")
    if size["missing"]:
        lines += [f"- Skipped: {name}: {reason}" for name, reason in size["missing"].items()] + [""]
    return lines


def _time(c: dict[str, Any]) -> str:
    low, high = c["quartiles_ms"]
    return f"{_short(c['median_ms'])} ({_short(low)}–{_short(high)})"


def _overhead(c: dict[str, Any]) -> str:
    low, high = c["overhead_quartiles"]
    mark = " **over the limit**" if c["overhead_percent"] > LIMIT else ""
    return f"{c['overhead_percent']:+.1f} % ({low:+.1f} to {high:+.1f}){mark}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _short(value: Any) -> str:
    """A number with three digits."""
    if not isinstance(value, float):
        return str(value)
    if value >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
