"""Files that are not read: what they are, and what to do with them."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file

from .outputs import ORCA


def tarred(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("run1.out", b" vasp.6.4.2 20Jul23\n", "ASE tells it by the name: rename it, e.g. OUTCAR"),
        ("rows.sqlite", b"SQLite format 3\0", "rename it, e.g. frames.db"),
        ("OUTCAR.xz", lzma.compress(b" vasp.6.4.2 20Jul23\n"), "unpack it, or pack it by gzip"),
        ("run1.xml", b'<?xml version="1.0"?>\n<modeling>\n', "rename it, e.g. run1_vasprun.xml"),
        ("coord.npy", b"\x93NUMPY\x01\x00", "give the folder of a system of DeePMD-kit"),
        ("vaspout.h5", b"\x89HDF\r\n\x1a\n" + bytes(99), "VASP's own HDF5, which is not read: give the vasprun.xml"),
        ("rows.parquet", b"PAR1" + bytes(99), "a table in Parquet"),
        ("frames.pckl", b"\x80\x05\x95" + bytes(99), "a pickle, which is not read"),
        ("frames.pkl", b"(dp0\nS'energy'\np1\n", "a pickle, which is not read"),
        ("frames.npy", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'shape': (), }", "a pickle, which is not read"),
        ("water.out", b"\n      Psi4: An Open-Source Ab Initio Electronic Structure Package\n", "in json, QCSchema"),
        ("old.out", b"\n      PSI4: An Open-Source Ab Initio Electronic Structure Package\n", "in json, QCSchema"),
        ("job.qout", b"\n                  Welcome to Q-Chem\n", "an output of Q-Chem: ASE does not read"),
        ("rows.arrow", b"ARROW1\0\0" + bytes(99), "a table in Arrow"),
        ("qm7.mat", b"MATLAB 5.0 MAT-file, Platform: posix" + bytes(99), "scipy.io.loadmat"),
        ("frames.npz", b"version https://git-lfs.github.com/spec/v1\noid sha256:9f\nsize 9\n", "by git lfs pull"),
        ("frames.h5", b"/annex/objects/MD5E-s123--9f.h5\n", "by git annex get"),
        ("frames.xyz", b"<!DOCTYPE html>\n<html><body>Not found</body></html>\n", "its download failed"),
        ("W_0.json", b'# W\n{"Dataset": {"Data": [{"Stress": [[0, 0, 0]', "a configuration of FitSNAP"),
        ("frames.pt", b"PK\x03\x04" + bytes(26) + b"frames/data.pkl" + bytes(99), "a pickle, which is not read"),
        ("train.cfg", b"BEGIN_CFG\n Size\n    2\n", "an MTP file, whose atom types are numbers.*Write type_map.raw"),
        ("job.out", b" DBCSR| CPU\n CP2K| version string\n", "an output of CP2K: ASE does not read"),
        ("a.engrad", b"#\n# Number of atoms\n#\n 3\n#\n# The current total energy in Eh\n#\n", "give ORCA's output"),
        ("FORCE_SETS", b"8\n1\n\n1\n 0.01 0 0\n 0 0 0\n", "phonopy's forces without their structures"),
        (
            "phonopy_params.yaml",
            b"phonopy:\n  version: 2.20\n",
            "phonopy's displaced structures without their energies",
        ),
        ("run.out", b"Siesta Version  : 4.1.5\n", "an output of SIESTA: ASE does not read"),
        (
            "unknown.out",
            b"Total energy: -4.07 H\n",
            "no frame that ASE can read as espresso-out, which it takes it for",
        ),
        ("a.out", ORCA.encode("utf-16"), "text in UTF-16, as PowerShell writes it"),
        ("a.tar", tarred("a.xyz", b"1\n\nH 0 0 0\n"), "an archive of several files: unpack it"),
        ("a.tgz", gzip.compress(tarred("a.xyz", b"1\n\nH 0 0 0\n")), "an archive of several files: unpack it"),
        ("a.zip", zipped("a.xyz", b"1\n\nH 0 0 0\n"), "an archive of several files: unpack it"),
        ("dsgdb9nsd_000001.xyz", b"1\ngdb 1\t" + b"157.7\t" * 15 + b"\nC\t0\t2.1*^-6\t0\t-0.5\n", "--data pyg:QM9"),
        ("ethanol.xyz", b"1\n-97087.4;[[0.1, 0.2, 0.3]]\nC 0 0 0\n", "take the npz of the data set"),
        ("archive.json", b'{"run": [{"program": {"name": "VASP"}}]}', "an archive of NOMAD"),
        ("id_prop.json", b'[{"atoms": {"lattice_mat": []}, "total_energy": 1, "forces": [[0]]}]', "may be per atom"),
        ("a.npz.gz", gzip.compress(zipped("z.npy", b"\x93NUMPY")), "not read while it is packed by gzip: unpack it"),
        ("a.h5.xz", lzma.compress(b"\x89HDF\r\n\x1a\n"), "not read while it is packed by xz: unpack it"),
        ("data.lmdb", bytes(16) + b"\xde\xc0\xef\xbe" + bytes(4000), "a database in LMDB"),
        ("a.xyz.zst", b"\x28\xb5\x2f\xfd" + bytes(50), "packed by Zstandard"),
        ("mptrj.json", b'{"mp-1": {"0": {"structure": {"@module": "pymatgen.core.structure"', "structures of pymatgen"),
    ],
)
def test_what_is_not_read_says_what_it_is(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MdpotError, match=said) as caught:
        read_file(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.parquet", b"PAR1", "What is there is not read, e.g. a.parquet: a table in Parquet.*. Give the folder"),
        ("gdb.xyz", b"1\ngdb 1\t" + b"157.7\t" * 15 + b"\nC\t0\t0\t0\t-0.5\n", "e.g. gdb.xyz: a molecule of QM9"),
        (".zgroup", b'{"zarr_format": 2}', "a store of Zarr, which is not read"),
    ],
)
def test_a_folder_of_what_is_not_read(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MdpotError, match=said) as caught:
        read_file(tmp_path)
    assert ".." not in str(caught.value)
