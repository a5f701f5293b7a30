"""Finding the frames of a source: --data, MDPOT_DATA, the cache, a download or computation, the package's sample."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols

from mdpot.errors import MdpotError, unknown
from mdpot.files import atomic
from mdpot.structures import read_bytes
from mdpot.training.data.catalog import SOURCES, Request, Source
from mdpot.training.data.checks import accept, validate_frames
from mdpot.training.data.download import cache_folder, fetch
from mdpot.training.data.frames import Dataset, elements_of
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import NOTHING_ASKED, is_runner
from mdpot.training.data.readers.pyg import is_pyg
from mdpot.training.data.readers.search import is_folder
from mdpot.training.data.reading import ENERGY_AND_FORCES, Reading
from mdpot.training.data.reference import rms_force


@dataclass(frozen=True)
class Place:
    """Where a source was found: its files, and how to say so."""

    files: tuple[Path, ...]
    origin: str
    notice: str = ""


@dataclass(frozen=True)
class SourceRow:
    """A line of `mdpot data list`; n_frames is None where counting would take long."""

    name: str
    description: str
    found: str
    n_frames: int | None

    def __str__(self) -> str:
        count = "" if self.n_frames is None else f", {self.n_frames:,} frames"
        return f"{self.name:20} {self.description}\n{'':20} {self.found}{count}"


def load_dataset(
    name: str,
    data: Path | str | Dataset | None = None,
    allow_download: bool = False,
    need: Collection[str] | None = ENERGY_AND_FORCES,
    size: str | None = None,
    labels: Asked = NOTHING_ASKED,
) -> Dataset:
    """The frames of a source, checked.

    They are looked for in this order: `data`, the folder in the environment variable MDPOT_DATA, the cache,
    the public download, the sample inside the package; a source that is computed here is computed, in its
    smallest size. A test file beside them comes along in `Dataset.tests`.

    Args:
        name: in `SOURCES`; "custom" needs `data`.
        data: a file, a folder laid out as the public source or, for "custom", one of calculations, or
            "pyg:CLASS:ARGUMENT" for a data set of PyG. A `Dataset` is checked and given back.
        allow_download: whether to ask the network when nothing nearer is found. Where that fails, a source
            with a sample gives the sample, and says so in `Dataset.notice`.
        need: the labels that a frame must have; empty for pretraining, None for any label at all. Frames of the
            user's own that lack one are left out, which is said in `Dataset.notes`.
        size: how much of a source that comes in `sizes`; None takes the first of them, or the largest that was
            computed.
        labels: what the user says of keys, units and checks.

    Raises:
        MdpotError: an unknown name; nothing found; a file that cannot be read, labels that contradict each other or
            physics, or frames that cannot be used.
    """
    if isinstance(data, Dataset):
        if labels.of_a_file:
            raise MdpotError("keys, units, and charges are for files; those of a Dataset are given to what makes it.")
        validate_frames(data.frames, data.origin, need or ())
        return data
    if not isinstance(data, Path | str | None):
        raise MdpotError(
            f"data must be a file, a folder, or a Dataset; got {type(data).__name__}. Write structures of ASE to a "
            "file: ase.io.write('frames.extxyz', structures)."
        )
    source = _source(name)
    _check_asked(name, source, size, labels)
    if source.property and need:
        need = {source.property}
    place = find(name, data, allow_download, size)
    request = Request(size or next(iter(source.sizes), ""), labels, need)
    reading = _read(source, place.files, request)
    for frame in reading.frames:
        frame.electrons = labels.electrons(frame)
    dataset = Dataset(
        name,
        reading.frames,
        source.labels(place.files) + (f": {reading.described}" if name == "custom" else ""),
        place.origin,
        reading.splits,
        notice=place.notice,
        caution=source.caution,
        isolated=reading.isolated,
        notes=tuple(reading.notes),
        folds=tuple(source.folds(reading.frames)) if source.folds is not None else (),
        property=source.property or labels.property_key or "",
        unit=source.unit,
    )
    for test in _matches(place.files[0].parent, source.test):
        extra = _read(source, [test], Request())
        dataset.tests[test.name.split(".")[0]] = Dataset(name, extra.frames, source.test_labels, str(test))
    return dataset


def _check_asked(name: str, source: Source, size: str | None, labels: Asked) -> None:
    """Refuses a size and what is said of labels where the source has another, or its own."""
    if size is not None and size not in source.sizes:
        raise unknown(f"size of {name}", size, source.sizes)
    if not source.own and labels.of_a_file:
        raise MdpotError(
            f"{name} has labels of its own; keys, units, and charges are for --data with your own frames (custom)."
        )
    if source.property and labels.property_key not in (None, source.property):
        raise MdpotError(
            f"data.property_key must be none for {name}, which has one property, {source.property!r}; got "
            f"{labels.property_key!r}. The recipe custom-property takes another of your own data."
        )


def load_named(data: Path | str | Dataset, labels: Asked = NOTHING_ASKED) -> tuple[str, Dataset]:
    """The name to show and the frames, with whatever labels they have, of a source, a file, or a `Dataset`.

    Raises:
        MdpotError: as `load_dataset`.
    """
    if isinstance(data, Dataset):
        return data.name, load_dataset(data.name, data, need=None, labels=labels)
    if str(data) in SOURCES and not Path(data).exists():
        return str(data), load_dataset(str(data), need=None, labels=labels)
    return Path(data).name, load_dataset("custom", data, need=None, labels=labels)


def _read(source: Source, files: Sequence[Path], request: Request) -> Reading:
    """The frames of the files of a source, checked."""
    physics = source.own and request.labels.check
    return accept(source.read(files, request), str(files[0]), request.need, physics)


def find(name: str, data: Path | str | None = None, allow_download: bool = False, size: str | None = None) -> Place:
    """Where a source is; arguments and errors as in `load_dataset`."""
    source = _source(name)
    if data is not None:
        return _given(name, source, Path(data))
    place = _nearby(name, source)
    if source.generate is not None and (
        place is None or (size is not None and not place.files[0].stem.endswith(f"-{size}"))
    ):
        return _generated(name, source, size or source.sizes[0])
    if place is not None:
        return place
    notice = ""
    if allow_download and source.download is not None:
        try:
            return _fetched(name, source)
        except MdpotError as error:
            if source.sample is None:
                raise
            notice = f"{error} Meanwhile the sample inside the package is used."
    if source.sample is not None:
        return Place((source.sample,), "the sample inside the package", notice)
    raise MdpotError(f"{name}: not found. {_remedy(name, source)}")


def list_sources() -> list[SourceRow]:
    """The sources, in the order of the catalog, and where each would come from now."""
    rows = []
    for name, source in SOURCES.items():
        place = _nearby(name, source)
        if place is None and source.sample is not None:
            place = Place((source.sample,), "the sample inside the package")
        if place is None:
            found = "needs --data" if not source.files else "not found"
            found += f"; `mdpot data prepare {name}` downloads it" if source.download is not None else ""
            found += f"; `mdpot data prepare {name}` computes it" if source.generate is not None else ""
            if source.files and source.download is None and source.generate is None:
                found += f"; {_remedy(name, source)}"
        rows.append(
            SourceRow(name, source.description, place.origin, _count(place.files))
            if place is not None
            else SourceRow(name, source.description, found, None)
        )
    return rows


def prepare(name: str, data: Path | str | None = None, size: str | None = None) -> dict[str, Any]:
    """Brings a source into the cache, by copying, downloading or computing it, and checks it.

    Args:
        name: in `SOURCES`.
        data: a file or folder to take it from; otherwise MDPOT_DATA, the cache, the download.
        size: of a source that is computed here, one of its `sizes`; without it, what is there or else the smallest.

    Returns:
        name, origin, labels, fingerprint, n_frames, n_groups, n_atoms (smallest and largest), elements,
        stress (how many frames have one), rms_force (eV/Å, of frames with forces), properties (names), splits (frames
        of each official split), tests (frames of each test set), files (where they lie now).

    Raises:
        MdpotError: as `load_dataset`, when the download fails, and for a size where there are none.
    """
    source = _source(name)
    if size is not None and (data is not None or source.generate is None):
        raise MdpotError(f"a size ({size!r}) is for a source that is computed here, and not together with --data.")
    place = _given(name, source, Path(data)) if data is not None else _nearby(name, source)
    if source.generate is not None and (place is None or size is not None):
        place = _generated(name, source, size or source.sizes[0])
    if place is None:
        if source.download is None:
            raise MdpotError(f"{name}: not found. {_remedy(name, source)}")
        place = _fetched(name, source)
    # Before anything is copied: the cache never holds what cannot be used.
    dataset = load_dataset(name, place.files[0] if len(place.files) == 1 else place.files[0].parent)
    cache = _cache(name, source)
    if source.files and cache is not None and cache not in place.files[0].parents:
        place = Place(_copy(source, place.files, cache), f"the cache, copied from {place.files[0].parent}")
    sizes = [len(frame) for frame in dataset.frames]
    return {
        "name": name,
        "origin": place.origin,
        "labels": dataset.labels,
        "fingerprint": dataset.fingerprint,
        "n_frames": len(dataset),
        "n_groups": len({frame.group for frame in dataset.frames}),
        "n_atoms": [min(sizes), max(sizes)],
        "elements": [chemical_symbols[z] for z in elements_of(dataset.frames)],
        "stress": sum(frame.stress is not None for frame in dataset.frames),
        "rms_force": None if source.property else rms_force(dataset.frames),
        "properties": sorted({name for frame in dataset.frames for name in frame.properties}),
        "splits": {key: len(value) for key, value in (dataset.splits or {}).items()},
        "tests": {key: len(test) for key, test in dataset.tests.items()},
        "files": [str(file) for file in place.files],
    }


def _source(name: str) -> Source:
    if name not in SOURCES:
        raise unknown("data source", name, SOURCES)
    return SOURCES[name]


def _given(name: str, source: Source, data: Path) -> Place:
    """The place that the user named."""
    if is_pyg(data):
        if name != "custom":
            raise MdpotError(f"{data}: data sets of PyG are for the recipe custom, not for {name}.")
        return Place((data,), str(data))
    if not data.exists() and not (name == "custom" and is_folder(data)):
        close = get_close_matches(str(data), SOURCES, n=1, cutoff=0.75)
        hint = f" Did you mean the data {close[0]!r}?" if close else ""
        raise MdpotError(f"{data}: no such file or folder.{hint}")
    if source.n_files == 1 and (data.is_file() or (name == "custom" and is_folder(data))):
        return Place((data,), str(data))
    files = _locate(source, data, at_the_top=True)
    if not files:
        wanted = " or ".join(source.files) or "a file, not a folder"
        if source.n_files > 1:
            wanted = f"{source.n_files} files {wanted}"
        raise MdpotError(f"{data}: --data for {name} must be, or hold, {wanted}; it does not.")
    return Place(files, str(files[0] if len(files) == 1 else files[0].parent))


def _nearby(name: str, source: Source) -> Place | None:
    """The source in MDPOT_DATA or in the cache."""
    named = os.environ.get("MDPOT_DATA")
    if named:
        folder = Path(named)
        if not folder.is_dir():
            raise MdpotError(f"MDPOT_DATA must name a folder; got {named!r}. Mend it, or unset it.")
        files = _locate(source, folder)
        if files:
            return Place(files, f"MDPOT_DATA: {files[0] if len(files) == 1 else files[0].parent}")
    cache = _cache(name, source)
    files = _locate(source, cache, at_the_top=True) if cache is not None else ()
    return Place(files, f"the cache: {files[0] if len(files) == 1 else files[0].parent}") if files else None


def _cache(name: str, source: Source) -> Path | None:
    """The folder of a source in the cache; the molecules of rMD17 share one."""
    root = cache_folder()
    folder = "rmd17" if source.beside else name
    return None if root is None else root / folder


def _fetched(name: str, source: Source) -> Place:
    """The source after its download."""
    cache = _cache(name, source)
    if cache is None or source.download is None:
        raise MdpotError(f"{name}: downloading needs pooch. pip install pooch")
    fetch(name, source.download, cache)
    files = _locate(source, cache, at_the_top=True)
    if not files:
        raise MdpotError(f"{name}: the download does not hold all of {' or '.join(source.files)}.")
    return Place(files, f"downloaded from {source.download.page}")


def _generated(name: str, source: Source, size: str) -> Place:
    """The source after its computation, which is skipped where the cache holds that size."""
    cache = _cache(name, source)
    if cache is None or source.generate is None:
        raise MdpotError(f"{name}: computing it needs pooch, which knows the folder of the cache. pip install pooch")
    file = source.generate(cache, size)
    larger = ", ".join(f"`mdpot data prepare {name} --size {other}`" for other in source.sizes if other != size)
    return Place((file,), f"computed by OpenMM: {file}", f"{name}: computed in the size {size}; another by {larger}.")


def _locate(source: Source, root: Path, at_the_top: bool = False) -> tuple[Path, ...]:
    """The files of a source in the first of its folders below a root that has them all; () where none has."""
    folders = (*source.folders, ".") if at_the_top else source.folders
    places = (_matches(root / folder, source.files) for folder in folders)
    return next((found for found in places if len(found) >= source.n_files), ())


def _matches(folder: Path, patterns: Sequence[str]) -> tuple[Path, ...]:
    """The files in a folder that fit the first pattern that any file fits."""
    return next((found for pattern in patterns if (found := tuple(sorted(folder.glob(pattern))))), ())


def _copy(source: Source, files: Sequence[Path], cache: Path) -> tuple[Path, ...]:
    """Copies the files of a source and those beside them into the cache; returns the files there."""
    home = files[0].parent
    folder = cache / "npz_data" if source.beside else cache
    copies = [(file, folder / file.name) for file in files]
    copies += [(test, folder / test.name) for test in _matches(home, source.test)]
    for pattern in source.beside:
        base = home.parent if pattern.startswith("../") else home
        copies += [(path, cache / path.relative_to(base)) for path in base.glob(pattern.removeprefix("../"))]
    for origin, target in copies:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as partial:
            shutil.copyfile(origin, partial)
    return tuple(folder / file.name for file in files)


def _remedy(name: str, source: Source) -> str:
    """What the user can do about a source that is nowhere."""
    if source.download is not None:
        return f"`mdpot data prepare {name}` downloads it; or name its folder by --data or in MDPOT_DATA."
    folder = _cache(name, source) or "a folder named in MDPOT_DATA"
    return source.by_hand.format(folder=folder)


def _count(files: Sequence[Path]) -> int | None:
    """How many frames files have, where that can be told without reading them."""
    if all(file.suffix == ".npz" for file in files):
        counts = [_count_npz(file) for file in files]
        return None if None in counts else sum(filter(None, counts))
    if len(files) > 1 or not is_runner(files[0]):
        return None
    try:
        return read_bytes(files[0]).count(b"\nend")
    except MdpotError:
        return None


def _count_npz(file: Path) -> int | None:
    try:
        with np.load(file) as archive:
            return len(archive["energies"])
    except Exception:  # what a damaged one raises depends on its damage; its reader says so
        return None
