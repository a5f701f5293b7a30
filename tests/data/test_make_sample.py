"""The script that draws the sample gives the file that ships."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.training.data import make_sample
from mdpot.training.data.catalog import SAMPLE


def test_frames_are_spread_evenly() -> None:
    groups = np.repeat(["a", "b", "c"], 20)
    chosen = make_sample.choose_frames(groups, 10, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 10
    counts = np.unique(groups[chosen], return_counts=True)[1]
    assert sorted(counts.tolist()) == [3, 3, 4]
    gaps = [np.diff(chosen[groups[chosen] == name]) for name in "abc"]
    assert min(gap.min() for gap in gaps) >= 4


def test_the_shipped_file_is_drawn_again(data_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MDPOT_DATA", str(data_folder))
    monkeypatch.setattr(make_sample, "SAMPLE", tmp_path / "sample" / "input.data.bz2")
    assert make_sample.main() == 0
    assert (tmp_path / "sample" / "input.data.bz2").read_bytes() == SAMPLE.read_bytes()


def test_it_needs_the_full_set() -> None:
    with pytest.raises(MdpotError, match="set MDPOT_DATA"):
        make_sample.main()
