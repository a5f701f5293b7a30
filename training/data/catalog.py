"""The data sources by name. A new one is one entry here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import partial
from pathlib import Path

import numpy as np

from mdpot.errors import MdpotError
from mdpot.packed import head
from mdpot.training.data import matbench, mpf
from mdpot.training.data.download import Download, unpack_members, unpack_runner, zenodo_address
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Asked, Keys
from mdpot.training.data.readers import is_runner, read_file
from mdpot.training.data.readers.npz import read_water_npz
from mdpot.training.data.readers.runner import first_comment
from mdpot.training.data.readers.tables import TARGET, parse_json
from mdpot.training.data.reading import ENERGY_AND_FORCES, Reading, finish, official
from mdpot.training.data.rmd17 import ALL, MOLECULES, PROTOCOLS, official_splits, read_all_rmd17
from mdpot.training.data.tip3p import SIZES, generate


@dataclass(frozen=True)
class Request:
    """What is wanted of the files of a source.

    Attributes:
        size: one of its `sizes`, "" where it has none.
        labels: what the user says of the labels.
        need: the labels that a frame must have, see `mdpot.training.data.readers.read_file`.
    """

    size: str = ""
    labels: Asked = field(default_factory=Asked)
    need: Collection[str] | None = ENERGY_AND_FORCES


@dataclass(frozen=True)
class Source:
    """A set of frames: what it is, the files it consists of, how they are read.

    Attributes:
        description: one line for `mdpot data list`.
        labels: takes the files, gives what labeled them; of the user's own frames nothing more is known than the keys.
        folders: where below MDPOT_DATA the files may lie, best first; below other folders also at the top.
        files: patterns of file names; the first pattern that any file fits, counts.
        n_files: how many files make it whole; with fewer of them it is not there.
        read: takes the files and a request, gives the frames and the official splits, where there are any.
        property, unit: what is predicted of its structures by default, a number each, and in which unit; "" of sources
            with energies and forces.
        folds: takes the frames, gives the test frames of each official fold; None where there are none.
        own: whether the labels of its files have keys and units that the user may name.
        sample: a file inside the package that stands in for the source; None where there is none.
        test: patterns of a file beside the others that is for testing only.
        test_labels: what labeled that one.
        beside: further folders and files to copy along, relative to the folder of the files.
        download: where it can be fetched; None where it cannot.
        generate: where it is computed here: takes the folder in the cache and one of `sizes`, gives the file.
        sizes: how much there is to choose from, the default first; what is computed takes about a minute in that.
        by_hand: how a person gets it, where it cannot be fetched.
        caution: for whoever runs a potential that learned its labels.
    """

    description: str
    labels: Callable[[Sequence[Path]], str]
    folders: tuple[str, ...]
    files: tuple[str, ...]
    read: Callable[[Sequence[Path], Request], Reading]
    n_files: int = 1
    sample: Path | None = None
    test: tuple[str, ...] = ()
    test_labels: str = ""
    beside: tuple[str, ...] = ()
    download: Download | None = None
    generate: Callable[[Path, str], Path] | None = None
    sizes: tuple[str, ...] = ()
    by_hand: str = ""
    caution: str = ""
    property: str = ""
    unit: str = ""
    folds: Callable[[Sequence[Frame]], Sequence[np.ndarray]] | None = None
    own: bool = False


RUNNER_FILES = ("input.data.gz", "input.data.bz2", "input.data")
SAMPLE = Path(__file__).parent / "water-rpbe-sample" / "input.data.bz2"

# The name of the archive (104 MB) is second-hand, and how its folders are called is not known: this was
# written on a network without Zenodo. So address and checksum are asked from Zenodo itself, and whatever is
# not as expected ends in the line that says what to do by hand.
WATER_RPBE_DOWNLOAD = Download(
    page="https://zenodo.org/records/2634098",
    archives=("training-data_H2O.tar.gz",),
    resolve=partial(zenodo_address, "2634098"),
    unpack=partial(unpack_runner, words=("rpbe", "d3"), others=("blyp",)),
    by_hand="unpack it and put its RPBE-D3 set at {folder}/input.data, or give its path by --data.",
)


def rmd17_download(molecule: str) -> Download:
    """The figshare archive of the revised MD17; no checksum is published with it.

    Not by PyG's loader `MD17`: of the same archive it makes objects of all 100,000 frames, and leaves the official
    splits aside.
    """
    return Download(
        page="https://figshare.com/articles/dataset/Revised_MD17_dataset_rMD17_/12672038",
        archives=("rmd17.tar.bz2",),
        resolve=lambda archive: ("https://figshare.com/ndownloader/files/23950376", None),
        unpack=partial(unpack_members, wanted=partial(_is_rmd17_file, molecule)),
        by_hand="unpack it to {folder}/npz_data and {folder}/splits, or give its folder by --data.",
    )


def _is_rmd17_file(molecule: str, name: str) -> bool:
    return fnmatch(name, f"*npz_data/rmd17_{_rmd17_pattern(molecule)}.npz") or fnmatch(name, "*splits/*.csv")


def _rmd17_pattern(molecule: str) -> str:
    return "*" if molecule == ALL else molecule


def _read_one(files: Sequence[Path], request: Request) -> Reading:
    return read_file(files[0], request.labels, request.need)


def _read_water(files: Sequence[Path], request: Request) -> Reading:
    return official(read_water_npz(files))


def _read_rmd17(files: Sequence[Path], request: Request) -> Reading:
    return official(*read_all_rmd17(files, request.size))


def _water_rpbe_labels(files: Sequence[Path]) -> str:
    comment = first_comment(files[0]) if is_runner(files[0]) else ""
    if "network potential" in comment:
        return "the RPBE-D3 network potential (not DFT)"
    return "RPBE-D3 DFT" if "DFT" in comment else "RPBE-D3 DFT as the public set; the file does not say"


def _rmd17_labels(files: Sequence[Path]) -> str:
    missing = "; the files of the official splits are not there, so frames were split at random"
    return "PBE/def2-SVP DFT (revised MD17)" + (missing if official_splits(files[0]) is None else "")


def _rmd17(molecule: str) -> Source:
    what = "all ten molecules; of each" if molecule == ALL else f"{molecule}: one molecule;"
    return Source(
        description=f"revised MD17, {what} 950 frames train, 50 validate, 1,000 test",
        labels=_rmd17_labels,
        folders=("rmd17/npz_data", "npz_data", "."),
        files=(f"rmd17_{_rmd17_pattern(molecule)}.npz",),
        read=_read_rmd17,
        n_files=len(MOLECULES) if molecule == ALL else 1,
        sizes=PROTOCOLS,
        beside=(f"../splits/{_rmd17_pattern(molecule)}/*_01.csv", "../splits/*_01.csv"),
        download=rmd17_download(molecule),
    )


def _read_property(name: str, files: Sequence[Path], request: Request) -> Reading:
    """Frames of a source with one property, under its name there or, in a list of structures, under "y"."""
    if not head(files[0]).lstrip().startswith((b"[", b"{")):
        raise MdpotError(f"{files[0]}: no json, as this source has it. Your own data: the recipe custom-property.")
    raw = parse_json(files[0])
    for frame in raw.frames:
        if name not in frame.properties and TARGET in frame.properties:
            frame.properties[name] = frame.properties.pop(TARGET)
    raw.keys = Keys(properties=(name,))
    return finish(raw, {name}, files[0])


def _matbench(name: str) -> Source:
    task = matbench.TASKS[name]
    official_file = f"matbench_{name}.json.gz"
    return Source(
        description=f"MatBench {name}, {task.n_rows:,} crystals: {task.what} ({task.column}, {task.unit or 'no unit'})",
        labels=lambda files: (
            f"MatBench, {task.what}" + ("" if files[0].name == official_file else f"; a part of it, {files[0].name}")
        ),
        folders=("matbench", "."),
        files=(official_file, f"matbench_{name}_*.json.gz"),  # the second is a part, which says so in its name
        read=partial(_read_property, task.column),
        download=matbench.download(name),
        property=task.column,
        unit=task.unit,
        folds=partial(matbench.official_folds, task),
    )


def _read_crystals(files: Sequence[Path], request: Request) -> Reading:
    """Frames of several files; their places count through all of them, and each is a group of its own."""
    readings = [read_file(file, request.labels, request.need) for file in files]
    frames = [frame for reading in readings for frame in reading.frames]
    for place, frame in enumerate(frames):
        frame.index, frame.group = place, str(place)
    found = readings[0]
    found.frames, found.notes = frames, [note for reading in readings for note in reading.notes]
    found.n_frames = sum(reading.n_frames for reading in readings)
    return found


def _read_mpf(files: Sequence[Path], request: Request) -> Reading:
    return finish(mpf.parse_mpf(files, request.size), request.need, files[0].parent)


def _property_list(file: str, name: str, unit: str, what: str) -> Source:
    return Source(
        description=f"{what} ({name}, {unit})",
        labels=lambda files: what,
        folders=("properties", "."),
        files=(f"{file}.json.gz", f"{file}.json"),
        read=partial(_read_property, name),
        by_hand=f"Put {file}.json.gz, a list of structure_id, positions, cell, atomic_numbers and y, into {{folder}}, "
        "or give its path by --data.",
        property=name,
        unit=unit,
    )


RIGID = (
    "it learned the forces of rigid molecules, in which there are no bonds and angles: nothing holds its molecules "
    "together in dynamics."
)


def _water_tip3p(rigid: bool) -> Source:
    name, kind = ("water-tip3p-rigid", "rigid") if rigid else ("water-tip3p", "flexible")
    lacking = " (its forces hold no bonds and angles)" if rigid else ""
    return Source(
        description=f"liquid water, TIP3P with {kind} molecules, computed here by OpenMM{lacking}",
        labels=lambda files: f"the classical force field TIP3P, {kind} molecules{lacking}",
        folders=(name, "."),
        # The largest that is there counts.
        files=tuple(f"tip3p-{'rigid-' if rigid else ''}{size}.npz" for size in reversed(SIZES)),
        read=_read_water,
        generate=partial(generate, rigid=rigid),
        sizes=tuple(SIZES),
        by_hand=f"`mdpot data prepare {name}` computes it.",
        caution=RIGID if rigid else "",
    )


SOURCES: dict[str, Source] = {
    "water-rpbe": Source(
        description="liquid water and ice, RPBE-D3; a sample of 1,000 frames is inside the package",
        labels=_water_rpbe_labels,
        folders=("water-rpbe", "."),
        files=RUNNER_FILES,
        read=_read_one,
        own=True,
        sample=SAMPLE,
        test=("dft_test.data", "dft_test.data.gz"),
        test_labels="RPBE-D3 DFT",
        download=WATER_RPBE_DOWNLOAD,
    ),
    "water-blypd3": Source(
        description="liquid water and ice, BLYP-D3 DFT, 322 frames; do not mix its energies with RPBE-D3",
        labels=lambda files: "BLYP-D3 DFT",
        folders=("water-blypd3",),
        files=RUNNER_FILES,
        read=_read_one,
        own=True,
        by_hand="Put its RuNNer file at {folder}/input.data, or give its path by --data.",
    ),
    "water-scan": Source(
        description="liquid water and ice Ih/Ic, SCAN DFT, 192 to 864 atoms, 1,240 frames",
        labels=lambda files: "SCAN DFT",
        folders=("water-scan", "."),
        files=("scan_water_*atoms.npz",),
        read=_read_water,
        by_hand="Put its files scan_water_*atoms.npz into {folder}, or give their folder by --data.",
    ),
    "water-tip3p": _water_tip3p(rigid=False),
    "water-tip3p-rigid": _water_tip3p(rigid=True),
    **{f"rmd17-{molecule}": _rmd17(molecule) for molecule in (*MOLECULES, ALL)},
    "crystals-mattersim": Source(
        description="5,222 crystals of 89 elements, hot and compressed ones among them: energies, forces and stress",
        labels=lambda files: "PBE and PBE+U DFT as of the Materials Project (test sets of MatterSim)",
        folders=("crystals/mattersim", "."),
        files=("*.extxyz.gz", "*.extxyz"),
        read=_read_crystals,
        by_hand="Put the test sets of MatterSim, extended XYZ, into {folder}, or give their folder by --data.",
    ),
    "mpf-2021": Source(
        description="MPF.2021.2.8, relaxations of 62,783 crystals: 187,687 frames with energies, forces and stress",
        labels=lambda files: "PBE and PBE+U DFT of the Materials Project (MPF.2021.2.8)",
        folders=("mpf-2021", "."),
        files=("block_[01].p",),
        n_files=len(mpf.FILES),
        read=_read_mpf,
        download=mpf.DOWNLOAD,
        sizes=mpf.SIZES,
    ),
    **{f"matbench-{name.replace('_', '-')}": _matbench(name) for name in matbench.TASKS},
    "2d-workfunction": _property_list("2d_workfunction", "workfunction", "eV", "work functions of 2D crystals, DFT"),
    "qmof-bandgap": _property_list("qmof_bandgap", "bandgap", "eV", "band gaps of metal-organic frameworks, DFT"),
    "custom": Source(
        description="your own frames: --data FILE or FOLDER, extended XYZ, VASP, RuNNer, npz or another that ASE reads",
        labels=lambda files: f"as in {files[0].name}",
        folders=(".",),
        files=(),
        read=_read_one,
        by_hand="Name the file or folder with your frames by --data.",
        own=True,
    ),
}
