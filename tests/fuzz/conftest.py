"""Running the command line in this process on damaged inputs, and what is asked of how it ends."""

from __future__ import annotations

import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import CliRunner

from mdpot.cli import main
from mdpot.cli.failure import BAD_INPUT
from mdpot.cli.md import STOPPED
from mdpot.heads import build_potential

LONGEST = 60  # seconds; what takes longer hangs

GARBAGE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"),
    "", " ", "none", "nan", "1e999", "9" * 40, "ü Å 水", "\u202e", "a" * 300, "../..", "/", "{", "[]", "\\", "%s",
    "0x10", [], {}, [[]], [1, "a"], {"a": 1}, [None], [1e300] * 3,
)  # fmt: skip
"""Values that have broken programs."""
WORDS = tuple(str(value) for value in GARBAGE if str(value))


@dataclass
class Judge:
    """Runs commands and collects what went wrong."""

    folder: Path
    problems: list[str] = field(default_factory=list)
    codes: dict[int, int] = field(default_factory=dict)

    def run(self, *words: object, env: dict[str, str] | None = None, charset: str = "utf-8") -> int:
        """The exit code of a command; a problem is noted."""
        args = [str(word) for word in words]
        before = signal.signal(signal.SIGALRM, _too_long)
        signal.alarm(LONGEST)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, which stop no user's command
                result = CliRunner(charset=charset).invoke(main, args, env=env)
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        code = result.exit_code
        self.codes[code] = self.codes.get(code, 0) + 1
        if problem := self._problem(code, args, result.stderr, result.output):
            self.problems.append(f"mdpot {' '.join(args)[:300]}\n  exit code {code}: {problem}")
        return code

    def _problem(self, code: int, args: list[str], stderr: str, output: str) -> str:
        allowed = (0, BAD_INPUT, STOPPED) if args and args[0] == "md" else (0, BAD_INPUT)
        errors = [line for line in stderr.splitlines() if line.startswith("error: ")]
        if code not in allowed:
            traces = [path.read_text(encoding="utf-8") for path in self.folder.glob("mdpot-error-*.txt")]
            for path in self.folder.glob("mdpot-error-*.txt"):
                path.unlink()
            return f"{errors}\n" + "".join(trace[-1800:] for trace in traces)
        if "Traceback" in output:
            return f"a traceback: {output[-1500:]}"
        if code == BAD_INPUT and (len(errors) != 1 or not stderr.rstrip("\n").endswith(errors[0])):
            return f"not one last line with an error: {stderr[-800:]!r}"
        if left := list(self.folder.rglob(".*.part*")):
            for path in left:
                path.unlink()
            return f"half-written files were left: {left}"
        return ""

    def verdict(self) -> None:
        assert not self.problems, f"{len(self.problems)} problems, exit codes {self.codes}:\n" + "\n".join(
            self.problems
        )


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError(f"took longer than {LONGEST} s")


@pytest.fixture
def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    threads = torch.get_num_threads()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = Judge(tmp_path)
    yield made
    torch.set_num_threads(threads)


def mutate_bytes(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with a flipped bit, a piece gone, doubled, zeroed or random, or something at an end."""
    if not content:
        return b"\xff"
    data = bytearray(content)
    start = int(rng.integers(len(data)))
    stop = min(len(data), start + int(rng.integers(1, max(2, len(data) // 4))))
    match rng.integers(8):
        case 0 | 1:
            data[start] ^= 1 << int(rng.integers(8))
        case 2:
            del data[start:]
        case 3:
            del data[start:stop]
        case 4:
            data[start:start] = data[start:stop]
        case 5:
            data[start:stop] = bytes(stop - start)
        case 6:
            data[start : start + 8] = rng.bytes(8)
        case _:
            data += rng.bytes(int(rng.integers(1, 40)))
    return bytes(data)


def mutate_text(text: str, rng: np.random.Generator) -> str:
    """The text with a word or a line replaced, left out, doubled or moved."""
    lines = text.split("\n")
    n = int(rng.integers(len(lines)))
    words = lines[n].split(" ")
    word = int(rng.integers(len(words)))
    match rng.integers(6):
        case 0 | 1:
            words[word] = str(rng.choice(WORDS))
            lines[n] = " ".join(words)
        case 2:
            del words[word]
            lines[n] = " ".join(words)
        case 3:
            del lines[n]
        case 4:
            lines.insert(n, lines[int(rng.integers(len(lines)))])
        case _:
            key, _, _ = words[word].partition("=")
            words[word] = f"{key}={rng.choice(WORDS)}"
            lines[n] = " ".join(words)
    return "\n".join(lines)


def mutate_json(value: Any, rng: np.random.Generator) -> Any:
    """The structure with one node, at any depth, left out or replaced by garbage."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    if not items or rng.random() < 0.15:
        return GARBAGE[int(rng.integers(len(GARBAGE)))]
    key, inner = items[int(rng.integers(len(items)))]
    changed = dict(value) if isinstance(value, dict) else list(value)
    if rng.random() < 0.2:
        del changed[key]
    else:
        changed[key] = mutate_json(inner, rng)
    return changed


# ---- inputs that are right -------------------------------------------------------------


def make_frames() -> list[Atoms]:
    """Eight pairs of waters with made-up labels."""
    rng = np.random.default_rng(5)
    frames = []
    for k in range(8):
        atoms = molecule("H2O")
        atoms += Atoms(atoms.numbers, atoms.positions + np.array([0, 0, 3.0]))
        atoms.rattle(0.03, seed=k)
        atoms.cell, atoms.pbc = np.diag([6.0, 6.5, 7.0]), True
        labels = {"energy": float(rng.normal(-930, 0.1)), "forces": rng.normal(0, 0.5, atoms.positions.shape)}
        labels["stress"] = rng.normal(0, 0.005, 6)
        atoms.calc = SinglePointCalculator(atoms, **labels)
        frames.append(atoms)
    return frames


@pytest.fixture(scope="session")
def extxyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fuzz") / "frames.extxyz"
    write(path, make_frames())
    return path


@pytest.fixture(scope="session")
def potential(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mdpot.modelfile import save_potential

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("fuzz") / "tiny.safetensors"
    sizes = {"cutoff": 3.0, "width": 4, "channels": 2, "layers": 1, "n_radial": 2, "hidden": 4}
    save_potential(path, build_potential("tide", sizes, [1, 8], [-13.6, -440.0], 0.5), {"provenance": {"seed": 1}})
    return path


Command = Callable[..., list[object]]

TINY = [
    word
    for key in (
        "model.hyperparameters.width=4", "model.hyperparameters.channels=2", "model.hyperparameters.layers=1",
        "model.hyperparameters.n_radial=2", "model.hyperparameters.hidden=4", "model.pair=false",
        "pretrain.max_steps=1", "pretrain.batch_frames=2", "finetune.max_steps=1", "finetune.batch_frames=2",
        "finetune.optimizer=adamw", "pretrain.optimizer=adamw", "data.split_by=frame", "data.check=off",
        "data.fractions=[0.5,0.25,0.25]",
    )
    for word in ("--set", key)
]  # fmt: skip
"""Keys with which a whole run takes a second."""
