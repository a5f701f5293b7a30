"""The data set MPF.2021.2.8, of which `mpf/` holds two small files that pymatgen wrote."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from ase.units import GPa

from mdpot import MdpotError
from mdpot.training.data import download
from mdpot.training.data.catalog import SOURCES
from mdpot.training.data.sources import load_dataset

FOLDER = Path(__file__).parent / "mpf"


def test_frames_are_as_pymatgen_wrote_them() -> None:
    dataset = load_dataset("mpf-2021", FOLDER)
    # Two groups are too few to split by, so that each is cut; the material stays in the name.
    assert [frame.group.split("#")[0] for frame in dataset.frames] == ["mp-1"] * 3 + ["mp-22862"] * 3
    for n, frame in enumerate(dataset.frames):
        step, numbers = n % 3, [11, 17] if n < 3 else [31, 33]
        height = 4.2 + 0.1 * step
        assert frame.numbers.tolist() == numbers
        assert frame.pbc.all()
        np.testing.assert_allclose(frame.cell, np.diag([4.0, 4.1, height]), atol=1e-12)
        np.testing.assert_allclose(frame.positions, [[0, 0, 0], [2.0, 2.05, height * (0.5 + 0.01 * step)]], atol=1e-12)
        assert (frame.energy, frame.index) == (-6.0 - step, n)
        assert frame.forces is not None
        assert frame.stress is not None
        np.testing.assert_allclose(frame.forces[:, 2], [0.1 * (step + 1), -0.1 * (step + 1)])
        # VASP prints kbar, positive under compression; here tension is positive.
        np.testing.assert_allclose(frame.stress, -np.eye(3) * (10.0 + step) * 0.1 * GPa, rtol=1e-7)


def test_relaxed_frames_are_the_last_of_the_second_relaxation() -> None:
    assert [frame.energy for frame in load_dataset("mpf-2021", FOLDER, size="relaxed").frames] == [-8.0, -8.0]


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harmed",)


class Addresses:
    """An array of objects whose addresses are the bytes of the file."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return np.ndarray, ((1,), np.dtype("O"), b"\x41" * 8)


SNAPSHOTS = {"structure": [1], "energy": [0.0], "force": [[]], "stress": [[]]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"mp-1": {**SNAPSHOTS, "id": Addresses()}}), "an array of 'O8', which is none of numbers"),
        (pickle.dumps({"mp-1": SNAPSHOTS}), "no dictionary of materials, each with energy, force, id"),
        (pickle.dumps({"mp-1": {**SNAPSHOTS, "id": []}}), "the lists of mp-1 differ in length"),
        (pickle.dumps({"mp-1": {**SNAPSHOTS, "id": ["mp-1-0-0"]}}), "no structure of one element at each site"),
        (pickle.dumps({"mp-1": Harmful()}), "posix.system, which is none of pymatgen's"),
        (pickle.dumps([1, 2]), "no dictionary of materials"),
        (b"\x80\x04 broken", "truncated or damaged"),
        ((FOLDER / "block_0.p").read_bytes()[:-200], "truncated or damaged"),
    ],
)
def test_another_content_is_refused_and_runs_nothing(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "block_0.p").write_bytes((FOLDER / "block_0.p").read_bytes())
    (tmp_path / "block_1.p").write_bytes(content)
    with pytest.raises(MdpotError, match=message):
        load_dataset("mpf-2021", tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_without_a_network_the_message_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    def refuse(*args: object, **kwargs: object) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", refuse)
    source = SOURCES["mpf-2021"].download
    assert source is not None
    with pytest.raises(MdpotError, match=r"Fetch block_0.p and block_1.p by hand from https://figshare.com"):
        download.fetch("mpf-2021", source, tmp_path / "cache")


def test_figshare_states_address_and_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    class Answer:
        def raise_for_status(self) -> None:
            pass

        def json(self) -> dict[str, object]:
            return {"files": [{"name": "a.p", "download_url": "https://f/1", "computed_md5": "12"}]}

    monkeypatch.setattr(requests, "get", lambda address, timeout: Answer())
    assert download.figshare_address("1", "a.p") == ("https://f/1", "md5:12")
    with pytest.raises(ValueError, match=r"article 1 holds a.p"):
        download.figshare_address("1", "b.p")
