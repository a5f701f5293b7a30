"""Damaged files and senseless options end in one line: no traceback, nothing half-written, whatever is damaged.

The inputs are drawn from seeds, so that a failure repeats. MDPOT_FUZZ multiplies how many there are.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpot.models import MODELS
from mdpot.training.config import load_recipe, recipe_to_toml

from .conftest import GARBAGE, TINY, WORDS, Judge, make_frames, mutate_bytes, mutate_json, mutate_text

MORE = int(os.environ.get("MDPOT_FUZZ", "1"))


def generator(name: str) -> np.random.Generator:
    return np.random.default_rng([ord(letter) for letter in name])


def train(data: Path, out: Path, *words: object) -> list[object]:
    return ["train", "custom", "--preset", "plain", "--data", data, "--device", "cpu", "--out", out, *TINY, *words]


# ---- files of mdpot --------------------------------------------------------------------


@pytest.mark.parametrize("command", ["info", "evaluate", "export", "md", "finetune"])
def test_potential_files(judge: Judge, potential: Path, extxyz: Path, command: str) -> None:
    rng, before = generator(command), potential.read_bytes()
    file = judge.folder / "changed.safetensors"
    for k in range((40 if command == "info" else 6) * MORE):
        content = mutate_bytes(before, rng)
        if k % 2:
            # In the header, where there is more to go wrong than a checksum.
            length = int.from_bytes(before[:8], "little")
            content = before[:8] + mutate_bytes(before[8 : 8 + length], rng) + before[8 + length :]
        file.write_bytes(content)
        words = {
            "info": [file],
            "evaluate": [file, extxyz],
            "export": [file, "-o", judge.folder / "out.pt"],
            "md": [extxyz, "--model", file, "--out", judge.folder / f"md{k}", "--steps", 1],
            "finetune": ["custom", "--from", file, "--data", extxyz, "--out", judge.folder / f"run{k}", *TINY],
        }[command]
        if judge.run(command, *words) == 2:
            assert not (judge.folder / "out.pt").exists()
            assert not (judge.folder / f"md{k}").exists()
            assert not (judge.folder / f"run{k}").exists()
    judge.verdict()


@pytest.mark.parametrize("name", ["run.json", "splits.json", "recipe.toml", "finetune/last.pt", "finetune/best.pt"])
def test_folder_of_a_run(judge: Judge, extxyz: Path, name: str) -> None:
    rng, whole = generator(name), judge.folder / "whole"
    assert judge.run(*train(extxyz, whole, "--set", "pretrain.objective=none")) == 0, judge.problems
    before = (whole / name).read_bytes()
    run = judge.folder / "run"
    for k in range(10 * MORE):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(whole, run)
        content = mutate_bytes(before, rng)
        if name.endswith(".json") and k % 3:
            content = json.dumps(mutate_json(json.loads(before), rng)).encode()
        (run / name).write_bytes(content)
        files = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
        if judge.run(*train(extxyz, run, "--set", "pretrain.objective=none", "--resume")) == 2:
            assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == files
    judge.verdict()


def test_recipes(judge: Judge) -> None:
    rng, text = generator("recipes"), recipe_to_toml(load_recipe("custom", "quick"))
    file = judge.folder / "recipe.toml"
    for k in range(60 * MORE):
        if k % 2:
            file.write_text(mutate_text(text, rng), encoding="utf-8", errors="surrogatepass")
        else:
            file.write_bytes(mutate_bytes(text.encode(), rng))
        judge.run("train", file, "--print-recipe")
    for bad in (
        "a = " + "9" * 5000,
        "a = " + "[" * 3000,
        "\0",
        "[data]\nsource = 3",
        "finetune = []",
        "[presets]\nx = 1",
    ):
        file.write_text(bad)
        assert judge.run("train", file, "--print-recipe") == 2
    judge.verdict()


# ---- data ------------------------------------------------------------------------------


def as_npz(path: Path, **changes: Any) -> None:
    frames = make_frames()
    arrays: dict[str, Any] = {
        "numbers": np.array([frame.numbers for frame in frames]),
        "positions": np.array([frame.positions for frame in frames]),
        "cells": np.array([frame.cell.array for frame in frames]),
        "energies": np.array([frame.get_potential_energy() for frame in frames]),
        "forces": np.array([frame.get_forces() for frame in frames]),
    }
    np.savez(path, **{key: value for key, value in {**arrays, **changes}.items() if value is not None})


def as_runner(frames: list[Any]) -> str:
    lines = []
    for frame in frames:
        lines += ["begin", "comment one"]
        lines += ["lattice " + " ".join(f"{x:.6f}" for x in row) for row in frame.cell.array]
        for symbol, x, f in zip(frame.symbols, frame.positions, frame.get_forces(), strict=True):
            lines.append(
                "atom " + " ".join(f"{v:.6f}" for v in x) + f" {symbol} 0.0 0.0 " + " ".join(f"{v:.6f}" for v in f)
            )
        lines += [f"energy {frame.get_potential_energy():.6f}", "charge 0.0", "end"]
    return "\n".join(lines) + "\n"


def read_it(judge: Judge, potential: Path, file: Path, k: int) -> None:
    """A file with frames, given to one of the commands that take such."""
    before = file.read_bytes()
    match k % 4:
        case 0 | 1:
            judge.run("data", "inspect", file)
        case 2:
            judge.run("evaluate", potential, file)
        case _:
            out = judge.folder / f"run{k}"
            if judge.run(*train(file, out, "--set", "pretrain.objective=none")) == 2:
                assert not out.exists() or not any(out.rglob("*.pt"))
    assert file.read_bytes() == before


def test_npz_of_wrong_shapes_and_types(judge: Judge, potential: Path) -> None:
    rng, file = generator("npz"), judge.folder / "frames.npz"
    as_npz(file)
    with np.load(file) as right:
        arrays = dict(right)
    changes: list[Callable[[np.ndarray], Any]] = [
        lambda a: None, lambda a: a[:-1], lambda a: a[..., :-1], lambda a: a[None], lambda a: a.ravel(),
        lambda a: a[:0],
        lambda a: np.array(3.0), lambda a: a.astype("U8"), lambda a: a.astype(object), lambda a: a.astype(complex),
        lambda a: a.astype(bool), lambda a: a * np.nan, lambda a: a + np.inf, lambda a: -a, lambda a: a * 1e30,
        lambda a: a.astype(np.float16), lambda a: a.astype("M8[s]"), lambda a: a.T, lambda a: a * 0,
        lambda a: np.concatenate([a, a]), lambda a: a.astype(np.int8), lambda a: a.astype(np.uint64),
    ]  # fmt: skip
    cases = [(key, change) for key in arrays for change in changes]
    for k in rng.permutation(len(cases))[: 60 * MORE].tolist():
        key, change = cases[k]
        with np.errstate(all="ignore"):
            try:
                changed = change(arrays[key])
            except (TypeError, ValueError):
                continue
        as_npz(file, **{key: changed})
        read_it(judge, potential, file, k)
    judge.verdict()


@pytest.mark.parametrize("kind", ["extxyz", "data", "npz", "extxyz.gz", "json", "traj"])
def test_damaged_frames(judge: Judge, potential: Path, extxyz: Path, kind: str) -> None:
    rng, file = generator(kind), judge.folder / f"frames.{kind}"
    if kind == "data":
        before = as_runner(make_frames()).encode()
    elif kind == "npz":
        as_npz(file)
        before = file.read_bytes()
    elif kind in ("json", "traj"):
        from ase.io import write

        write(file, make_frames())
        before = file.read_bytes()
    else:
        before = extxyz.read_bytes()
    for k in range(16 * MORE):
        text = kind in ("extxyz", "data", "extxyz.gz")
        content = mutate_text(before.decode(), rng).encode() if text and k % 4 else mutate_bytes(before, rng)
        if kind.endswith("gz"):
            content = gzip.compress(content)
            content = content if k % 2 else mutate_bytes(content, rng)
        file.write_bytes(content)
        read_it(judge, potential, file, k)
    judge.verdict()


# ---- options ---------------------------------------------------------------------------

OPTIONS: dict[str, tuple[str, ...]] = {
    "train": ("--preset", "--model", "--set", "--data", "--seed", "--device", "--threads", "--out", "--seeds"),
    "pretrain": ("--preset", "--model", "--set", "--data", "--seed", "--device"),
    "finetune": ("--from", "--model", "--set", "--seed"),
    "evaluate": ("--device", "--threads"),
    "info": ("--json",),
    "export": ("--to", "-o", "--for", "--dtype", "--skin"),
    "md": (
        "--model", "--out", "--engine", "--ensemble", "--temperature", "--pressure", "--dt", "--steps", "--every",
        "--friction", "--trajectory", "--hydrogen-mass", "--seed", "--device", "--dtype", "--backend", "--threads",
    ),
    "data": ("--size", "--data"),
    "reproduce": ("--budget", "--seeds", "--models", "--datasets", "--frames", "--equal", "--jobs", "--threads"),
}  # fmt: skip


@pytest.mark.parametrize("command", OPTIONS)
def test_options(judge: Judge, potential: Path, extxyz: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, words = generator(f"options of {command}"), WORDS
    base: dict[str, list[object]] = {
        "train": ["train", "custom", "--print-recipe"],
        "pretrain": ["pretrain", "custom", "--print-recipe"],
        "finetune": ["finetune", "custom", "--from", potential, "--data", judge.folder / "none"],
        "evaluate": ["evaluate", potential, extxyz],
        "info": ["info", potential],
        "export": ["export", potential, "-o", judge.folder / "out.pt"],
        "md": ["md", extxyz, "--model", potential, "--out", judge.folder / "md", "--steps", 2, "--every", 1],
        "data": ["data", "prepare", "water-rpbe"],
        "reproduce": ["reproduce", "table1", "--tables-only", "--out", judge.folder / "pages"],
    }
    for k in range(24 * MORE):
        option, value = str(rng.choice(OPTIONS[command])), str(rng.choice(words))
        if option == "--set":
            key = rng.choice(["finetune.lr", "data", "model.name", "x.y.z", "finetune.max_steps", "data.fractions", ""])
            value = f"{key}={value}"
        if option in ("--steps", "--every") and value.isdecimal():
            value = "-" + value  # as many steps as that are no error
        shutil.rmtree(judge.folder / "md", ignore_errors=True)
        if k % 8 == 7:  # a word of its own, anywhere
            judge.run(*base[command][:2], value, *base[command][2:], env={})
        else:
            judge.run(*base[command], option, value)
    judge.verdict()


KEYS = [
    "model.hyperparameters.width", "model.hyperparameters.channels", "model.hyperparameters.layers", "model.cutoff",
    "model.hyperparameters.order", "model.hyperparameters.size", "model.hyperparameters.n_basis", "model.repulsion",
    "model.hyperparameters.avg_neighbors", "pretrain.sigma", "pretrain.max_steps", "pretrain.batch_atoms",
    "finetune.lr", "finetune.warmup_steps", "finetune.clip_norm", "finetune.ema_decay", "finetune.eval_every",
    "finetune.energy_weight", "data.fractions", "data.max_train_frames", "data.molecule", "data.size", "data.source",
    "finetune.patience", "finetune.huber_delta", "pretrain.element", "data.check", "data.units", "finetune",
]  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_settings(judge: Judge, model: str) -> None:
    rng = generator(model)
    for _ in range(40 * MORE):
        key, value = rng.choice(KEYS), GARBAGE[int(rng.integers(len(GARBAGE)))]
        text = json.dumps(value) if isinstance(value, (list, dict, bool)) else str(value)
        judge.run("train", "custom", "--model", model, "--set", f"{key}={text}", "--print-recipe")
    for key in ("width", "layers"):
        for value in (0, -1, 10**9, 10**30, 0.5, "true"):
            assert judge.run("train", "custom", "--model", model, "--set", f"model.hyperparameters.{key}={value}") == 2
    judge.verdict()


# ---- where it writes, and to whom it speaks --------------------------------------------


def test_places_that_cannot_be_written(judge: Judge, potential: Path, extxyz: Path) -> None:
    (judge.folder / "file").write_text("mine")
    (judge.folder / "mine").mkdir()
    (judge.folder / "mine" / "thesis.tex").write_text("mine")
    os.mkfifo(judge.folder / "pipe")
    places = [
        "file", "file/below", "mine", "pipe", "/dev/null", "/dev/null/x", "/proc/x/y", "a" * 300, "ü/水", "a\nb/c\nd",
        "mine/thesis.tex/..", "/sys/x",
    ]  # fmt: skip
    for place in places:
        if place != "file":  # which is replaced where it is meant
            judge.run("export", potential, "-o", judge.folder / place)
        judge.run(*train(extxyz, judge.folder / place, "--set", "pretrain.objective=none"))
        judge.run("md", extxyz, "--model", potential, "--out", judge.folder / place, "--steps", 1, "--every", 1)
        judge.run("reproduce", "table1", "--tables-only", "--out", judge.folder / place)
    assert (judge.folder / "file").read_text() == "mine"
    assert (judge.folder / "mine" / "thesis.tex").read_text() == "mine"
    judge.verdict()


@pytest.mark.parametrize("charset", ["ascii", "latin-1"])
def test_terminals_without_unicode(judge: Judge, potential: Path, extxyz: Path, charset: str) -> None:
    for words in (
        ["--help"],
        ["train", "custom", "--print-recipe"],
        ["train", "水", "--help"],
        ["info", "Å"],
        ["info", potential],
        ["evaluate", potential, extxyz],
        ["data", "inspect", extxyz],
        ["md", "--help"],
        train(extxyz, judge.folder / "水", "--set", "pretrain.objective=none"),
        ["md", extxyz, "--model", potential, "--out", judge.folder / "md", "--steps", 1, "--every", 1],
    ):
        judge.run(*words, charset=charset)
    judge.verdict()
