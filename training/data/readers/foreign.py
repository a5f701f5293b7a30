"""Files of formats that are common and not read here: what each is, and what to do with it, in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

from mdpot.errors import MdpotError
from mdpot.packed import has_ending, unpacked_name
from mdpot.training.data.readers.tables import is_table
from mdpot.xyz import is_xyz

_EXTXYZ = "write its frames as extended XYZ with ASE (energy in eV, forces in eV/Å)"
_OUTPUT = f"ASE does not read the outputs of this program: {_EXTXYZ}"
_PICKLE = f"a pickle, which is not read, for it can run code: load it in Python, and {_EXTXYZ}"
_PICKLES = (".pkl", ".pickle", ".pckl")
_PYMATGEN = (
    "its JSON holds structures of pymatgen in a layout that is not read: "
    "write them as extended XYZ with ASE (energy in eV, forces in eV/Å, stress in eV/Å³ and positive under tension)"
)
_SIESTA = f"an output of SIESTA: {_OUTPUT}"
_PSI4 = f"an output of Psi4: give its results in json, QCSchema (by psi4.schema_wrapper or QCEngine), or {_EXTXYZ}"
_ARCHIVE = "an archive of several files: unpack it, and give the file or the folder with the outputs"
_LMDB = f"a database in LMDB, as of the Open Catalyst Project: open it with fairchem, and {_EXTXYZ}"
_FITSNAP = (
    f"a configuration of FitSNAP, which is not read: {_EXTXYZ}, with the stress in eV/Å³ and positive under tension, "
    "where FitSNAP's is a pressure"
)
_NOMAD = "an archive of NOMAD, which is not read: download the raw files of its entries, and give their folder"
_QM9 = (
    "a molecule of QM9 in its own layout, which is not read, and has no forces: --data pyg:QM9 --energy-key y:7 (U0) "
    "--set finetune.force_weight=0 trains on its energies"
)
_MD17 = (
    "XYZ as of MD17's first files, with energy and forces in the comments, which is not read: take the npz of the data "
    "set"
)
_PAGE = "a web page in place of the file, for its download failed: download it again"
_DISPLACED = "phonopy's displaced structures without their energies"
#: What a file begins with.
_BEGINNINGS = {
    b"PAR1": f"a table in Parquet: read its rows with pandas, and {_EXTXYZ}",
    **dict.fromkeys((b"ARROW1", b"FEA1"), f"a table in Arrow: read its rows with pandas, and {_EXTXYZ}"),
    b"MATLAB 5.0 MAT-file": "an archive of MATLAB: load it by scipy.io.loadmat, and save its arrays as npz",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file: fetch that by git lfs pull",
    b"/annex/objects/": "a pointer of git-annex in place of the file: fetch that by git annex get",
    **dict.fromkeys((b"<!DOCTYPE html", b"<!doctype html", b"<html"), _PAGE),
    b"\x28\xb5\x2f\xfd": "packed by Zstandard, which is not read: unpack it, or pack it by gzip, bzip2, or xz",
    **dict.fromkeys((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"), _PICKLE),
}
#: What stands in the first lines of a program's output.
_PROGRAMS = {
    b"CP2K|": (
        "an output of CP2K: ASE does not read it: give the positions, …-pos-1.xyz, with the forces, …-frc-1.xyz, "
        "beside them, see CP2K in docs/own-data.md"
    ),
    b"Welcome to SIESTA": _SIESTA,
    b"Siesta Version": _SIESTA,
    b"Atomic-orbital Based Ab-initio Computation at UStc": f"an output of ABACUS: {_OUTPUT}",
    b"Welcome to OpenMX": f"an output of OpenMX: {_OUTPUT}",
    b"Welcome to Q-Chem": f"an output of Q-Chem: {_OUTPUT}",
    b"Psi4: An Open-Source": _PSI4,
    b"PSI4: An Open-Source": _PSI4,
    b"PROGRAM SYSTEM MOLPRO": f"an output of Molpro: {_OUTPUT}",
    b"x T B": f"an output of xtb: {_OUTPUT}",
    b"|  DFTB+": f"an output of DFTB+: {_OUTPUT}",
    b"# The current total energy in Eh": (
        "a gradient of one structure: give ORCA's output, the .out file, or xtb's file called gradient instead"
    ),
}
#: What ASE tells by the name alone: how it begins, the name it must have, what it is, and such a name.
_NAMED = (
    (re.compile(rb"SQLite format 3\0"), re.compile(r"\.db$"), "a database in SQLite", "frames.db"),
    (re.compile(rb"\s*vasp\.\d"), re.compile("OUTCAR"), "an OUTCAR of VASP", "OUTCAR"),
    (
        re.compile(rb"\s*(<\?xml[^>]*>)?\s*<modeling>"),
        re.compile(r"vasp.*\.xml$"),
        "a vasprun.xml of VASP",
        "run1_vasprun.xml",
    ),
)
_NAMES = {
    "force_sets": "phonopy's forces without their structures",
    "force_constants": "phonopy's force constants",
    **dict.fromkeys(("disp", "phonopy", "phonopy_disp", "phonopy_params"), _DISPLACED),
}
#: What stands in json of NOMAD.
_OF_NOMAD = re.compile(rb'"(?:nomad_version|upload_id|section_run)"|"run"\s*:\s*\[\s*\{\s*"program"')
#: The first two lines of XYZ with a layout of its own.
_XYZ = {
    re.compile(rb"\s*\d+\s*\n\s*gdb\s+\d+(?:\s+[-+\d.]\S*){15}\s*\n"): _QM9,
    re.compile(rb"\s*\d+\s*\n\s*-?\d+\.\d+\s*;\s*\[\s*\["): _MD17,
}
_VASPOUT = "VASP's own HDF5, which is not read: give the vasprun.xml beside it, or the OUTCAR"


def refuse_foreign(path: Path, start: bytes) -> None:
    """Refuses a file of a known format that is not read.

    Args:
        path: of the file.
        start: its first bytes, unpacked.

    Raises:
        MdpotError: what it is, and what to do.
    """
    text = start.lstrip()
    reason = next((what for beginning, what in _BEGINNINGS.items() if text.startswith(beginning)), None)
    if not is_xyz(start):  # in its comments all may stand
        reason = reason or next((what for word, what in _PROGRAMS.items() if word in start), None)
    if _is_archive(start):
        reason = _ARCHIVE
    if start[16:20] == b"\xde\xc0\xef\xbe":
        reason = _LMDB
    if text.startswith(b"PK") and b"/data.pkl" in start:  # so torch.save writes it
        reason = _PICKLE
    name = unpacked_name(path)
    if text.startswith(b"\x93NUMPY"):
        one = "one array of NumPy: give the folder of a system of DeePMD-kit, or save all arrays in one file as npz"
        reason = _PICKLE if b"'descr': '|O'" in start else one
    if has_ending(path, *_PICKLES) and not is_xyz(start):  # the oldest are text
        reason = _PICKLE
    for known, what in _NAMES.items():
        if name.lower() in (known, f"{known}.hdf5", f"{known}.yaml"):
            reason = f"{what}, which no potential can be trained on: give the outputs of the calculations"
    if name == "vaspout.h5":
        reason = _VASPOUT
    for begins, named, what, usual in _NAMED:
        if begins.match(start) and not named.search(name):
            reason = f"{what} under another name, and ASE tells it by the name: rename it, e.g. {usual}"
        elif begins.match(start) and usual == "OUTCAR" and path.suffix in (".bz2", ".xz"):
            reason = f"{what}, which ASE does not read in this packing: unpack it, or pack it by gzip"
    if has_ending(path, ".json") and not is_table(start) and b'"@module"' in start:
        reason = _PYMATGEN
    if has_ending(path, ".json") and b'"Dataset"' in start and b'"Data"' in start:
        reason = _FITSNAP
    if has_ending(path, ".json") and not is_table(start) and _OF_NOMAD.search(start):
        reason = _NOMAD
    if is_xyz(start):
        reason = next((what for layout, what in _XYZ.items() if layout.match(start)), reason)
    if reason is not None:
        raise MdpotError(f"{path}: {reason}.")


def _is_archive(start: bytes) -> bool:
    """Whether a file is a tar, or a zip whose first part is no array of NumPy."""
    if not start.startswith(b"PK\x03\x04"):
        return start[257:262] == b"ustar"
    length = int.from_bytes(start[26:28], "little")
    return not start[30 : 30 + length].endswith(b".npy")
