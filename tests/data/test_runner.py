"""The RuNNer reader against ASE's units, and what it says about bad files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import units

from mdpot.errors import MdpotError
from mdpot.training.data.readers.runner import first_comment, read_runner


def test_units_and_groups(tmp_path: Path, runner_text: str) -> None:
    path = tmp_path / "input.data"
    path.write_text(runner_text)
    frames = read_runner(path)
    assert [frame.group for frame in frames] == [str(k) for k in range(12)]
    frame = frames[0]
    # ASE's Bohr and Hartree are CODATA 2014, ours 2018: they agree to 1e-8.
    np.testing.assert_allclose(frame.positions[1], [1.8 * units.Bohr, 0, 0], rtol=1e-8)
    np.testing.assert_allclose(frame.cell[1], np.array([1, 11, 0]) * units.Bohr, rtol=1e-8)
    assert frame.forces is not None
    np.testing.assert_allclose(frame.forces[0], np.array([1, -2, 3]) * 0.01 * units.Hartree / units.Bohr, rtol=1e-8)
    assert frame.energy == pytest.approx(-76.5 * units.Hartree, rel=1e-8)
    assert frame.numbers.tolist() == [8, 1, 1]
    assert frame.pbc.all()
    assert frame.stress is None


def test_gzipped_indented_and_without_lattice(tmp_path: Path, runner_text: str) -> None:
    lines = [f"  {line}" for line in runner_text.splitlines() if not line.startswith("lattice")]
    path = tmp_path / "odd-name.bin"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    frames = read_runner(path)
    assert len(frames) == 12
    assert not frames[0].pbc.any()
    assert not frames[0].cell.any()


def test_first_comment(tmp_path: Path, runner_text: str) -> None:
    path = tmp_path / "input.data"
    path.write_text(runner_text)
    assert first_comment(path).startswith("source_frame 0")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[:-60], r"truncated: frame 11 begins in line 122 and has no 'end'"),
        (lambda text: "", r"empty: it holds no frame"),
        (lambda text: "3\ncomment\nO 0 0 0\n", r"line 1: a frame starts with 'begin'; got '3'"),
        (lambda text: text.replace("end\n", "", 1), r"line 11: a second 'begin'"),
        (lambda text: text.replace(" 0.0 0.0 0.01 -0.02 0.03", ""), r"line 6: .* got 5 columns"),
        (lambda text: text.replace("O 0.0", "Xq 0.0"), r"line 6: 'Xq' is no element"),
        (lambda text: text.replace("1.8 0.0", "1.8x 0.0"), r"line 7: cannot read the numbers"),
        (lambda text: text.replace("-76.5", "low"), r"line 9: cannot read 'energy low'"),
        (lambda text: text.replace("lattice 10.0 0.0 0.0\n", ""), r"line 1: .*three lattice lines.* got 2"),
        (lambda text: "begin\nenergy 1.0\nend\n", r"line 1: it has no atom lines"),
        (lambda text: text.replace("charge", "charje"), r"line 10: unknown keyword of a RuNNer file 'charje'.*charge"),
        (lambda text: text.replace("begin\n", "", 1), r"line 1: a frame starts with 'begin'; got 'comment"),
        (lambda text: text[text.index("atom") :], r"line 1: a frame starts with 'begin'; got 'atom"),
    ],
)
def test_bad_files(tmp_path: Path, runner_text: str, change, message: str) -> None:
    path = tmp_path / "input.data"
    path.write_text(change(runner_text))
    with pytest.raises(MdpotError, match=message) as caught:
        read_runner(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files(tmp_path: Path, runner_text: str) -> None:
    with pytest.raises(MdpotError, match="no such file"):
        read_runner(tmp_path / "none.data")
    packed = gzip.compress(runner_text.encode())
    path = tmp_path / "input.data.gz"
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(MdpotError, match="truncated or damaged"):
        read_runner(path)


def test_all_of_the_large_set(data_folder: Path) -> None:
    frames = read_runner(data_folder / "water-rpbe" / "input.data.gz")
    assert len(frames) == 6120
    sizes, counts = np.unique([len(frame) for frame in frames], return_counts=True)
    assert dict(zip(sizes.tolist(), counts.tolist(), strict=True)) == {
        24: 780, 30: 240, 36: 480, 48: 2660, 96: 620, 192: 1340,
    }  # fmt: skip
    assert len({frame.group for frame in frames}) == 306


def test_any_white_space_any_case_comments_and_deuterium(tmp_path: Path, runner_text: str) -> None:
    path = tmp_path / "input.data"
    path.write_text(runner_text)
    expected = read_runner(path)
    odd = (
        runner_text.replace(" ", "\t").replace("begin", "Begin").replace("lattice", " LATTICE").replace("atom", "ATOM")
    )
    odd = odd.replace("end\n", "END\n# made by hand\n\n").replace("\tH\t", "\tD\t").replace("\n", "\r\n")
    path.write_bytes(odd.encode())
    for one, two in zip(read_runner(path), expected, strict=True):
        np.testing.assert_array_equal(one.cell, two.cell)
        np.testing.assert_array_equal(one.positions, two.positions)
        np.testing.assert_array_equal(np.array(one.forces), np.array(two.forces))
        assert (one.numbers.tolist(), one.energy, one.group) == (two.numbers.tolist(), two.energy, two.group)
