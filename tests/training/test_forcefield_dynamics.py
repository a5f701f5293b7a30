"""Structures of dynamics by a force field: their labels, what is random, and going on after a stop."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms, units

from mdpot import MdpotError
from mdpot.forcefields import FORCE_FIELDS, AnyStructure, ForceField
from mdpot.stopping import Stopped
from mdpot.training import forcefield_dynamics
from mdpot.training.config import load_recipe
from mdpot.training.data.frames import Frame
from mdpot.training.forcefield_dynamics import LENGTH, MOST_BARREN, sample_dynamics
from mdpot.training.run import run_train
from mdpot.training.schema import PretrainConfig

from .conftest import CPU

STRETCHED = 5.0  # Å; wells are not described beyond
SPRING = 2.0  # eV/Å²


def well(frame: AnyStructure):
    """Every atom in a harmonic well at the origin."""
    if np.abs(frame.positions).max() > STRETCHED:
        return None
    return 0.5 * SPRING * float((frame.positions**2).sum()), -SPRING * frame.positions


@pytest.fixture(autouse=True)
def wells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("wells", well))


def frames(n: int = 3) -> list[Frame]:
    rng = np.random.default_rng(1)
    of = {"cell": np.zeros((3, 3)), "pbc": np.zeros(3, bool)}
    return [
        Frame(numbers=np.full(4 + k, 8), positions=0.1 * rng.normal(size=(4 + k, 3)), energy=-1.0, **of)
        for k in range(n)
    ]


def stage(**values) -> PretrainConfig:
    return PretrainConfig(objective="forcefield", max_steps=1, batch_frames=1, **values)


def test_labels_are_the_force_fields(tmp_path: Path) -> None:
    starts, told = frames(), []
    found = sample_dynamics(starts, 90, stage(), (0, 0), tmp_path / "d.npz", lambda *done: told.append(done))
    assert len(found) == 90
    assert told[-1] == (90, 90)
    assert {frame.index for frame in found} == {0, 1, 2}
    for frame in found:
        labels = well(frame)
        assert labels is not None
        assert (frame.numbers == starts[frame.index].numbers).all()
        assert frame.energy == pytest.approx(labels[0])
        np.testing.assert_allclose(frame.labels["forces"], labels[1])
        assert frame.stress is None
    first, second = (found[n].positions for n in (0, LENGTH))
    assert first.shape != second.shape or np.abs(first - second).max() > 1e-3


def test_it_is_as_hot_as_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a harmonic well the potential energy comes to k T / 2 for each degree of freedom."""
    monkeypatch.setitem(globals(), "SPRING", 20.0)
    means = []
    for low, high in ((200.0, 200.0), (800.0, 800.0)):
        start = [replace(frames(1)[0], numbers=np.full(60, 1), positions=np.zeros((60, 3)))]
        found = sample_dynamics(start, 400, stage(temperature=(low, high)), (3,), tmp_path / f"{low}.npz")
        late = [float(f.labels["energy"]) for n, f in enumerate(found) if n % LENGTH >= LENGTH // 2]
        means.append(np.mean(late) / (0.5 * units.kB * low * 180))
    assert means == pytest.approx([1.0, 1.0], abs=0.15)


def test_the_same_seed_gives_the_same_structures(tmp_path: Path) -> None:
    def positions(seed: int) -> np.ndarray:
        found = sample_dynamics(frames(1), 30, stage(), (seed, 0), tmp_path / f"{seed}-{os.urandom(4).hex()}.npz")
        return np.array([frame.positions for frame in found])

    assert (positions(0) == positions(0)).all()
    assert (positions(0) != positions(1)).any()


@pytest.mark.parametrize(("at", "left"), [(1, 0), (LENGTH + 3, 1), (2 * LENGTH, 2), (50, 50 / LENGTH)])
def test_a_stop_loses_no_finished_trajectory(tmp_path: Path, at: int, left: float) -> None:
    whole = sample_dynamics(frames(), 50, stage(), (0, 0), tmp_path / "whole.npz")

    def stop(done: int, n: int) -> None:
        if done == at:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(
        Stopped, match=f"stopped after {left * LENGTH:.0f} of 50 structures of dynamics, which are kept"
    ):
        sample_dynamics(frames(), 50, stage(), (0, 0), tmp_path / "d.npz", stop)
    told = []
    again = sample_dynamics(frames(), 50, stage(), (0, 0), tmp_path / "d.npz", lambda *done: told.append(done[0]))
    assert told == list(range(int(left * LENGTH) + 1, 51))
    assert len(again) == 50
    assert all((a.positions == b.positions).all() and a.energy == b.energy for a, b in zip(whole, again, strict=True))


def test_a_kept_file_is_of_these_structures(tmp_path: Path) -> None:
    sample_dynamics(frames(), 30, stage(), (0, 0), tmp_path / "d.npz")
    with pytest.raises(MdpotError, match=r"d\.npz' is damaged: it is of other structures"):
        sample_dynamics(frames(2), 30, stage(), (0, 0), tmp_path / "d.npz")
    (tmp_path / "d.npz").write_bytes((tmp_path / "d.npz").read_bytes()[:-200])
    with pytest.raises(MdpotError, match=r"d\.npz' is damaged.*Remove it"):
        sample_dynamics(frames(), 30, stage(), (0, 0), tmp_path / "d.npz")


def test_every_structure_has_its_turn(tmp_path: Path) -> None:
    """Those that the force field does not describe are passed over, however many they are."""
    far = [replace(frames(1)[0], positions=np.full((4, 3), 2 * STRETCHED)) for _ in range(30)]
    found = sample_dynamics([*far, *frames()], 3 * LENGTH, stage(), (0, 0), tmp_path / "d.npz")
    assert {frame.index for frame in found} == {30, 31, 32}


def test_a_trajectory_ends_where_the_force_field_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forcefield_dynamics, "LARGEST_FORCE", 0.5)
    found = sample_dynamics(frames(1), 60, stage(temperature=(900, 900)), (0,), tmp_path / "d.npz")
    assert max(np.abs(frame.labels["forces"]).max() for frame in found) < 0.5
    far = [replace(frames(1)[0], positions=np.full((4, 3), 2 * STRETCHED))]
    with pytest.raises(MdpotError, match=rf"{MOST_BARREN} trajectories in a row gave no structure.*spcfw.*temperature"):
        sample_dynamics(far, 60, stage(), (0,), tmp_path / "far.npz")


def test_a_run_learns_it(tiny_recipe, small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "STRETCHED", np.inf)
    monkeypatch.setitem(globals(), "SPRING", 0.05)
    recipe = tiny_recipe(
        "pretrain.objective=forcefield", "pretrain.dynamics=45", "pretrain.temperature=[10, 20]", "model.pair=false"
    )
    run_train(recipe, data=small_file, out=tmp_path / "run", **CPU)
    assert (tmp_path / "run" / "potential.safetensors").is_file()
    for split, n in (("train", 45), ("validation", 5)):
        with np.load(tmp_path / "run" / "pretrain" / f"dynamics-{split}.npz") as kept:
            assert len(kept["starts"]) >= n


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("pretrain.dynamics=0", "pretrain.dynamics"),
        ("pretrain.temperature=[600, 300]", "temperature must be the lowest, then the highest"),
        ("pretrain.temperature=[0, 300]", "pretrain.temperature"),
    ],
)
def test_keys_that_make_no_sense(key: str, message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        load_recipe("water-rpbe", "quick", ["pretrain.objective=none", key])


@pytest.mark.slow
def test_gfn2_xtb_heats_ethanol(tmp_path: Path) -> None:
    """The real thing: energies rise above that of the start, and bonds hold."""
    pytest.importorskip("tblite")
    from ase.build import molecule

    atoms: Atoms = molecule("CH3CH2OH")
    start = Frame(atoms.numbers, atoms.positions, np.zeros((3, 3)), np.zeros(3, bool))
    found = sample_dynamics([start], 20, stage(forcefield="gfn2-xtb"), (0,), tmp_path / "d.npz")
    label = FORCE_FIELDS["gfn2-xtb"].label(start)
    assert label is not None
    assert all(0.02 < float(frame.labels["energy"]) - label[0] < 4.0 for frame in found)
