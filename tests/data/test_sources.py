"""Where sources are looked for, and in which order."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from mdpot.errors import MdpotError
from mdpot.training.data import sources
from mdpot.training.data.labels import Asked
from mdpot.training.data.rmd17 import MOLECULES
from mdpot.training.data.sources import find, list_sources, load_dataset, prepare


def _put(folder: Path, text: str, name: str = "input.data") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def _refuse(*_: object) -> None:
    raise MdpotError("water-rpbe: the download failed (no connection). Fetch it by hand.")


def test_the_sample_is_there_without_anything() -> None:
    dataset = load_dataset("water-rpbe")
    assert len(dataset) == 1000
    assert dataset.origin == "the sample inside the package"
    assert dataset.labels == "the RPBE-D3 network potential (not DFT)"
    assert dataset.notice == ""
    assert dataset.tests == {}
    assert dataset.splits is None


def test_the_order(tmp_path: Path, own_cache: Path, runner_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = _put(own_cache / "water-rpbe", runner_text)
    assert find("water-rpbe").files == (cached,)
    assert find("water-rpbe", allow_download=True).files == (cached,)
    monkeypatch.setenv("MDPOT_DATA", str(tmp_path / "all"))
    inside = _put(tmp_path / "all" / "water-rpbe", runner_text)
    place = find("water-rpbe")
    assert place.files == (inside,)
    assert place.origin == f"MDPOT_DATA: {inside}"
    given = _put(tmp_path / "given", runner_text, "mine.data")
    assert find("water-rpbe", given).files == (given,)
    # A folder laid out either way.
    monkeypatch.setenv("MDPOT_DATA", str(tmp_path / "all" / "water-rpbe"))
    assert find("water-rpbe").files == (inside,)
    assert find("water-rpbe", tmp_path / "all").files == (inside,)


def test_the_labels_and_the_test_set_of_a_file(tmp_path: Path, runner_text: str) -> None:
    _put(tmp_path, runner_text.replace("T 300.0", "| RPBE-D3 DFT"))
    _put(tmp_path, runner_text, "dft_test.data")
    dataset = load_dataset("water-rpbe", tmp_path)
    assert dataset.labels == "RPBE-D3 DFT"
    assert len(dataset.tests["dft_test"]) == 12
    assert dataset.tests["dft_test"].labels == "RPBE-D3 DFT"


def test_a_failed_download_falls_back_to_the_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "fetch", _refuse)
    dataset = load_dataset("water-rpbe", allow_download=True)
    assert len(dataset) == 1000
    assert "by hand" in dataset.notice
    assert "\n" not in dataset.notice
    with pytest.raises(MdpotError, match="by hand"):
        load_dataset("rmd17-ethanol", allow_download=True)
    with pytest.raises(MdpotError, match="by hand"):
        prepare("water-rpbe")


def test_a_download_is_found_in_the_cache(own_cache: Path, runner_text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "fetch", lambda name, download, folder: _put(folder, runner_text))
    dataset = load_dataset("water-rpbe", allow_download=True)
    assert len(dataset) == 12
    assert dataset.origin == "downloaded from https://zenodo.org/records/2634098"
    assert load_dataset("water-rpbe").origin.startswith(f"the cache: {own_cache}")


def test_prepare_copies_into_the_cache(tmp_path: Path, own_cache: Path, runner_text: str) -> None:
    _put(tmp_path / "here", runner_text)
    _put(tmp_path / "here", runner_text, "dft_test.data")
    summary = prepare("water-rpbe", tmp_path / "here")
    assert summary["n_frames"] == summary["n_groups"] == 12
    assert summary["elements"] == ["H", "O"]
    assert summary["tests"] == {"dft_test": 12}
    assert summary["files"] == [str(own_cache / "water-rpbe" / "input.data")]
    assert (own_cache / "water-rpbe" / "dft_test.data").is_file()
    assert prepare("water-rpbe")["fingerprint"] == summary["fingerprint"]


def write_rmd17(root: Path, *molecules: str) -> None:
    """Files of molecules with 2,500 frames, and splits for all."""
    (root / "npz_data").mkdir(parents=True)
    (root / "splits").mkdir()
    coords = np.random.default_rng(0).normal(size=(2500, 2, 3)) * 5
    coords[:, 1, 0] = coords[:, 0, 0] + 1.4
    for molecule in molecules:
        np.savez(
            root / "npz_data" / f"rmd17_{molecule}.npz",
            nuclear_charges=np.array([6, 8]), coords=coords, energies=np.zeros(2500), forces=coords,
        )  # fmt: skip
    for kind, start in (("train", 0), ("test", 1000)):
        np.savetxt(root / "splits" / f"index_{kind}_01.csv", np.arange(start, start + 1000), fmt="%d")


def test_prepare_copies_rmd17_with_its_splits(tmp_path: Path, own_cache: Path) -> None:
    write_rmd17(tmp_path / "rmd17", "uracil")
    summary = prepare("rmd17-uracil", tmp_path)
    assert summary["splits"] == {"train": 950, "validation": 50, "test": 1000}
    assert (own_cache / "rmd17" / "splits" / "index_train_01.csv").is_file()
    dataset = load_dataset("rmd17-uracil")
    assert dataset.splits is not None
    assert dataset.fingerprint == summary["fingerprint"]


def test_all_molecules_of_rmd17_are_ten(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with some of them, or one file, does not pass for all."""
    write_rmd17(tmp_path / "some" / "rmd17", *MOLECULES[:9])
    write_rmd17(tmp_path / "all" / "rmd17", *MOLECULES)
    for data in (tmp_path / "some", tmp_path / "some" / "rmd17" / "npz_data" / "rmd17_aspirin.npz"):
        with pytest.raises(MdpotError, match=r"must be, or hold, 10 files rmd17_\*\.npz"):
            load_dataset("rmd17-all", data)
    monkeypatch.setenv("MDPOT_DATA", str(tmp_path / "some"))
    with pytest.raises(MdpotError, match="rmd17-all: not found"):
        load_dataset("rmd17-all")
    monkeypatch.setenv("MDPOT_DATA", str(tmp_path / "all"))
    assert {k: len(v) for k, v in (load_dataset("rmd17-all").splits or {}).items()}["train"] == 9500


def test_nothing_bad_is_copied_into_the_cache(tmp_path: Path, own_cache: Path, runner_text: str) -> None:
    _put(tmp_path / "mine", runner_text.replace("0.01 -0.02 0.03", "nan -0.02 0.03"))
    with pytest.raises(MdpotError, match="forces must be finite"):
        prepare("water-blypd3", tmp_path / "mine")
    assert not list(own_cache.rglob("*.data"))
    _put(tmp_path / "mine", runner_text)
    assert prepare("water-blypd3", tmp_path / "mine")["n_frames"] == 12
    assert list(own_cache.rglob("*.data"))


def test_keys_are_for_ones_own_files(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match="rmd17-uracil has labels of its own"):
        load_dataset("rmd17-uracil", tmp_path, labels=Asked(energy_key="E"))


def test_a_source_has_its_property_alone() -> None:
    with pytest.raises(
        MdpotError, match=r"property_key must be none for matbench-jdft2d, .* 'exfoliation_en'; got 'gap'"
    ):
        load_dataset("matbench-jdft2d", labels=Asked(property_key="gap"))


def test_custom_files(tmp_path: Path) -> None:
    with pytest.raises(MdpotError, match=r"custom: not found\. Name the file or folder with your frames by --data\."):
        load_dataset("custom")
    water = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    water.info["REF_energy"] = -5.0
    water.arrays["REF_forces"] = np.ones((3, 3))
    write(tmp_path / "mine.extxyz", [water] * 4)
    dataset = load_dataset("custom", tmp_path / "mine.extxyz")
    assert len(dataset) == 4
    assert dataset.labels == ("as in mine.extxyz: REF_energy, REF_forces, no stress; in eV, eV/Å, Å (assumed)")
    del water.arrays["REF_forces"]
    write(tmp_path / "bare.extxyz", [water] * 4)
    with pytest.raises(MdpotError, match=r"bare\.extxyz: no forces in any of its 4 frames"):
        load_dataset("custom", tmp_path / "bare.extxyz")
    assert len(load_dataset("custom", tmp_path / "bare.extxyz", need=())) == 4
    del water.info["REF_energy"]
    write(tmp_path / "bare.extxyz", [water] * 4)
    with pytest.raises(MdpotError, match=r"bare\.extxyz: no energy, no forces in any of its 4 frames"):
        load_dataset("custom", tmp_path / "bare.extxyz")


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MdpotError, match=r"unknown data source 'watr-rpbe'\. Did you mean 'water-rpbe'"):
        load_dataset("watr-rpbe")
    with pytest.raises(MdpotError, match=r"no such file or folder\."):
        load_dataset("water-rpbe", tmp_path / "none")
    with pytest.raises(MdpotError, match=r"water-rbpe: no such file or folder\. Did you mean the data 'water-rpbe'\?"):
        load_dataset("custom", Path("water-rbpe"))
    with pytest.raises(MdpotError, match=r"--data for water-rpbe must be, or hold, input\.data\.gz or input\.data"):
        load_dataset("water-rpbe", tmp_path)
    with pytest.raises(MdpotError, match="no output of a calculation and no file of frames is in this folder"):
        load_dataset("custom", tmp_path)
    with pytest.raises(MdpotError, match="water-scan: not found"):
        load_dataset("water-scan")
    monkeypatch.setenv("MDPOT_DATA", str(tmp_path / "none"))
    with pytest.raises(MdpotError, match="MDPOT_DATA must name a folder"):
        load_dataset("water-rpbe")


def test_the_list(own_cache: Path, runner_text: str) -> None:
    rows = {row.name: row for row in list_sources()}
    assert rows["water-rpbe"].n_frames == 1000
    assert "prepare rmd17-aspirin" in rows["rmd17-aspirin"].found
    assert rows["custom"].found == "needs --data"
    _put(own_cache / "water-blypd3", runner_text)
    found = next(row for row in list_sources() if row.name == "water-blypd3")
    assert found.n_frames == 12
    assert "12 frames" in str(found)


def test_the_list_goes_on_where_a_file_cannot_be_counted(own_cache: Path, runner_text: str) -> None:
    _put(own_cache / "crystals-mattersim", "1\n\nH 0 0 0\n", "a.extxyz")
    _put(own_cache / "rmd17" / "npz_data", "no archive", "rmd17_uracil.npz")
    _put(own_cache / "water-blypd3", "", "input.data.gz").write_bytes(gzip.compress(runner_text.encode())[:100])
    rows = {row.name: row for row in list_sources()}
    for name in ("crystals-mattersim", "rmd17-uracil", "water-blypd3"):
        assert rows[name].found.startswith("the cache: ")
        assert rows[name].n_frames is None


@pytest.mark.parametrize(
    ("name", "n_frames"),
    [("water-rpbe", 6120), ("water-blypd3", 322), ("water-scan", 1240), ("rmd17-aspirin", 2000)],
)
def test_real_sources(data_folder: Path, name: str, n_frames: int) -> None:
    dataset = load_dataset(name, data_folder)
    assert len(dataset) == n_frames
