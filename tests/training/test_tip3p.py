"""The data computed by OpenMM: right labels, kept starts, and a source that is there when it is asked for."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from mdpot.errors import MdpotError
from mdpot.forcefields import SPCFw
from mdpot.stopping import Stopped
from mdpot.training.config import load_recipe
from mdpot.training.data import tip3p
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.npz import read_water_npz
from mdpot.training.data.sources import find, list_sources, load_dataset, prepare
from mdpot.training.data.splits import split_by_group
from mdpot.training.data.tip3p import SIZES, Size, generate
from mdpot.units import KJ_PER_MOL

pytest.importorskip("openmm")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "mdpot"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Trajectories of one molecule in place of OpenMM's; holds the starts that were computed."""
    done: list[int] = []

    def fake(k: int, plan: Size, rigid: bool, stepped: Callable[[], None], stopped: Callable[[], bool]) -> Any:
        rng = np.random.default_rng(k)
        molecule = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        done.append(k)
        return {
            "numbers": np.array([8, 1, 1]),
            "positions": molecule + rng.normal(scale=0.02, size=(plan.n_frames, 3, 3)),
            "forces": rng.normal(size=(plan.n_frames, 3, 3)),
            "energies": rng.normal(size=plan.n_frames),
            "cells": np.repeat(20 * np.eye(3)[None], plan.n_frames, axis=0),
            "source": np.full(plan.n_frames, f"start {k}"),
        }

    monkeypatch.setattr(tip3p, "_trajectory", fake)
    return done


def _compute(folder: Path, rigid: bool, monkeypatch: pytest.MonkeyPatch) -> list[Frame]:
    monkeypatch.setitem(SIZES, "tiny", Size(n_starts=2, n_frames=2, n_settle=0))
    return read_water_npz([generate(folder, "tiny", rigid)])


def _tip3p_without_ewald(frame: Frame, bonded: float) -> np.ndarray:
    """Forces of flexible TIP3P, the bonded terms times `bonded`, by the package's own sum (its formula is SPC/Fw's)."""
    labels = SPCFw(
        bond=bonded * 462750.4 * KJ_PER_MOL / 100,
        length=0.9572,
        angle=bonded * 836.8 * KJ_PER_MOL,
        equilibrium=np.deg2rad(104.52),
        epsilon=0.635968 * KJ_PER_MOL,
        sigma=3.15075,
        charge=0.417,
    ).label(frame)
    assert labels is not None
    return labels[1]


@pytest.mark.parametrize("rigid", [False, True])
def test_frames_hold_the_forces_of_tip3p(rigid: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = _compute(tmp_path, rigid, monkeypatch)
    assert len(frames) == 4
    lengths = []
    for frame in frames:
        assert len(frame) == 774
        np.testing.assert_array_equal(frame.cell, 20 * np.eye(3))
        assert frame.forces is not None
        expected = _tip3p_without_ewald(frame, bonded=0.0 if rigid else 1.0)
        assert np.sqrt(np.mean((frame.forces - expected) ** 2)) < 0.06 * np.sqrt(np.mean(expected**2))
        # What the force field gives for liquid water; the first frames are still warming up.
        assert -0.55 < (frame.energy or 0) / 258 < -0.25
        molecules = frame.positions.reshape(258, 3, 3)
        lengths.append(np.linalg.norm(molecules[:, 1:] - molecules[:, :1], axis=2))
    assert np.std(lengths) < 1e-4 if rigid else np.std(lengths) > 0.01
    assert np.abs(frames[0].positions - frames[2].positions).max() > 1.0  # each start has its own positions


def test_the_same_seed_gives_the_same_starts() -> None:
    first, again, other = (tip3p._random_start(k) for k in (0, 0, 1))
    np.testing.assert_array_equal(first.positions, again.positions)
    assert np.abs(first.positions - other.positions).max() > 1.0
    np.testing.assert_allclose(first.cell.array, 20 * np.eye(3), atol=1e-9)


def test_finished_starts_are_kept(tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tip3p._trajectory

    def breaks(k: int, *others: Any) -> Any:
        if k == 3:
            raise RuntimeError("out of memory")
        return whole(k, *others)

    monkeypatch.setitem(SIZES, "small", Size(5, 2, 0))
    monkeypatch.setattr(tip3p, "_trajectory", breaks)
    monkeypatch.setattr(tip3p, "n_cores", lambda: 1)
    with pytest.raises(RuntimeError, match="out of memory"):
        generate(tmp_path, "small")
    kept = sorted(int(path.stem) for path in (tmp_path / "tip3p-small-starts").iterdir())
    assert kept == sorted(computed)
    assert set(kept) >= {0, 1, 2}
    monkeypatch.setattr(tip3p, "_trajectory", whole)
    computed.clear()
    file = generate(tmp_path, "small")
    assert computed == [k for k in range(5) if k not in kept]
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == [file.name]
    assert len(read_water_npz([file])) == 10
    generate(tmp_path, "small")
    assert len(computed) == 5 - len(kept)


def test_processes_that_want_the_same_compute_it_once(
    tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads here: each opens the lock anew, as a process does."""
    monkeypatch.setitem(SIZES, "small", Size(3, 2, 0))
    monkeypatch.setattr(tip3p, "StopSignal", lambda: nullcontext(SimpleNamespace(requested=False)))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: generate(tmp_path, "small"), range(2))
    assert first == second
    assert sorted(computed) == [0, 1, 2]


def test_a_signal_stops_it(tmp_path: Path, computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tip3p._trajectory

    def waits(k: int, plan: Size, rigid: bool, stepped: Callable[[], None], stopped: Callable[[], bool]) -> Any:
        if k == 0:
            return whole(k, plan, rigid, stepped, stopped)
        os.kill(os.getpid(), signal.SIGINT)
        until = time.monotonic() + 20
        while not stopped():
            assert time.monotonic() < until
            time.sleep(0.01)
        return None

    monkeypatch.setitem(SIZES, "small", Size(2, 2, 0))
    monkeypatch.setattr(tip3p, "_trajectory", waits)
    monkeypatch.setattr(tip3p, "n_cores", lambda: 1)
    with pytest.raises(Stopped, match="the next call goes on"):
        generate(tmp_path, "small")
    assert [path.name for path in (tmp_path / "tip3p-small-starts").iterdir()] == ["000.npz"]


def test_the_source_computes_itself_once(computed: list[int], own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row.name: row for row in list_sources()}
    assert "`mdpot data prepare water-tip3p` computes it" in rows["water-tip3p"].found
    assert not computed
    dataset = load_dataset("water-tip3p")
    assert len(dataset) == len(computed) * SIZES["small"].n_frames == 400
    assert "--size paper" in dataset.notice
    assert dataset.labels == "the classical force field TIP3P, flexible molecules"
    again = load_dataset("water-tip3p")
    assert again.fingerprint == dataset.fingerprint
    assert again.notice == ""
    assert len(computed) == SIZES["small"].n_starts
    monkeypatch.setitem(SIZES, "paper", Size(10, 5, 0))
    assert len(load_dataset("water-tip3p", size="paper")) == 50
    assert len(load_dataset("water-tip3p", size="small")) == 400
    with pytest.raises(MdpotError, match=r"unknown size of water-tip3p 'papers'\. Did you mean 'paper'"):
        load_dataset("water-tip3p", size="papers")
    rigid = load_dataset("water-tip3p-rigid")
    assert "its forces hold no bonds and angles" in rigid.labels
    assert "rigid molecules" in rigid.caution
    assert not load_dataset("water-tip3p").caution
    assert rigid.origin.endswith(str(own_cache / "water-tip3p-rigid" / "tip3p-rigid-small.npz"))


@pytest.mark.parametrize("size", ["small", "paper"])
def test_every_split_has_frames(
    size: str, computed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SIZES, size, replace(SIZES[size], n_frames=20))
    frames = read_water_npz([generate(tmp_path, size)])
    assert len(frames) == SIZES[size].n_starts * 20
    assert len({frame.group for frame in frames}) == len(computed) == SIZES[size].n_starts
    splits = split_by_group([frame.group for frame in frames])
    assert all(len(part) / len(frames) >= 0.05 for part in splits.values())


def test_the_larger_size_counts(computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SIZES, "paper", Size(10, 3, 0))
    prepare("water-tip3p")
    assert find("water-tip3p").files[0].name == "tip3p-small.npz"
    prepare("water-tip3p", size="paper")
    assert find("water-tip3p").files[0].name == "tip3p-paper.npz"
    assert prepare("water-tip3p", size="small")["n_frames"] == 400
    assert sorted(computed) == sorted([*range(20), *range(10)])


def test_sizes_that_are_none(computed: list[int]) -> None:
    with pytest.raises(MdpotError, match=r"unknown size 'papr'\. Did you mean 'paper'"):
        prepare("water-tip3p", size="papr")
    with pytest.raises(MdpotError, match="a source that is computed here"):
        prepare("water-rpbe", size="small")
    assert not computed


def test_the_command(computed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    from mdpot.cli.main import main

    monkeypatch.setitem(SIZES, "paper", Size(10, 3, 0))
    result = CliRunner().invoke(main, ["data", "prepare", "water-tip3p", "--size", "paper"])
    assert result.exit_code == 0, result.output
    assert "30 of 3 to 3 atoms, in 10 groups" in result.output


def test_the_paper_s_size() -> None:
    paper = SIZES["paper"]
    assert (paper.n_starts, paper.n_frames * tip3p.SPACING) == (10, 50_000)
    assert paper.n_starts * paper.n_frames == 10_000


def test_the_recipe_has_the_numbers_of_the_paper() -> None:
    recipe = load_recipe("water-tip3p", "paper")
    assert (recipe.model.name, recipe.model.cutoff) == ("egnn", 3.4)
    assert recipe.model.hyperparameters == {"width": 128, "layers": 5}
    assert (recipe.pretrain.objective, recipe.pretrain.ratio) == ("mask", 0.9)
    for stage, epochs in ((recipe.pretrain, 25), (recipe.finetune, 50)):
        assert (stage.optimizer, stage.lr, stage.lr_min, stage.weight_decay) == ("adamw", 1e-4, 1e-7, 1e-4)
        assert (stage.epochs, stage.max_steps, stage.batch_frames, stage.eval_every) == (epochs, None, 10, None)
        assert (stage.warmup_steps, stage.clip_norm, stage.ema_decay) == (0, None, None)
