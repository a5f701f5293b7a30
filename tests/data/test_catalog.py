"""The catalog: every source is complete, and the sample is what its attribution says."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mdpot.training.data.catalog import SAMPLE, SOURCES
from mdpot.training.data.readers.runner import first_comment, read_runner


@pytest.mark.parametrize("name", SOURCES)
def test_entries(name: str) -> None:
    source = SOURCES[name]
    assert source.description
    assert "\n" not in source.description
    assert source.folders
    assert source.download is not None or source.by_hand


def test_the_names() -> None:
    assert {"water-rpbe", "water-blypd3", "water-scan", "custom", "rmd17-aspirin", "rmd17-uracil"} <= set(SOURCES)
    assert sum(name.startswith("rmd17-") for name in SOURCES) == 11  # ten, and all of them


def test_the_sample() -> None:
    assert SAMPLE.stat().st_size <= 3_000_000
    frames = read_runner(SAMPLE)
    assert len(frames) == 1000
    counts = np.unique([frame.group for frame in frames], return_counts=True)[1]
    assert len(counts) == 306
    assert set(counts.tolist()) == {3, 4}
    assert {len(frame) for frame in frames} == {24, 30, 36, 48, 96, 192}
    assert "labelled by the RPBE-D3 network potential" in first_comment(SAMPLE)
    text = (SAMPLE.parent / "ATTRIBUTION.md").read_text()
    assert re.search(r"not DFT", text)
    for author in ("Morawietz", "Singraber", "Dellago", "Behler"):
        assert author in text
