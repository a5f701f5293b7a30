"""Data sets of PyTorch Geometric: `pyg:MD17:revised aspirin` on the command line, or an object in Python."""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mdpot.errors import MdpotError, unknown
from mdpot.pyg import atoms_of, cells_of, import_pyg
from mdpot.training.data.checks import accept
from mdpot.training.data.download import NEXT_PIECE, cache_folder
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.data.label_keys import family_of, looks_like_label
from mdpot.training.data.labels import Asked, Keys, Values, choose_keys, collect
from mdpot.training.data.named_units import divided
from mdpot.training.data.readers.ase_io import GROUP_KEYS
from mdpot.training.data.reading import ENERGY_AND_FORCES, Raw, finish
from mdpot.training.data.unit_statements import parse_units
from mdpot.training.data.units import ASE, SYSTEMS, Units

PREFIX = "pyg:"
EXAMPLES = "pyg:MD17:revised aspirin, pyg:QM9"
#: The units of PyG's own classes; PyG turns those of QM9 into eV as it reads the file.
UNITS = {
    "MD17": replace(SYSTEMS["kcal/mol"], source="of PyG's MD17"),
    "QM9": replace(ASE, source="of PyG's QM9"),
}
#: Parameters of the classes that say which part of their data is meant.
ARGUMENTS = ("name", "target", "subset", "split")
#: Rounding of the energies, eV, that is worth a word.
COARSE = 1e-4
NOTHING_ASKED = Asked()


class Structures(Protocol):
    """A data set of PyG, a part of one, or a list of `Data`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Unopened(MdpotError):
    """A data set that PyG cannot download or read; to try again at once is of no use."""


def from_pyg(
    dataset: Structures,
    labels: Asked = NOTHING_ASKED,
    need: Collection[str] | None = ENERGY_AND_FORCES,
    tests: Mapping[str, Structures] | None = None,
) -> Dataset:
    """The structures of a PyG data set, as `run_train` and `run_evaluate` take them.

    Each `Data` has z, pos, and as they are there: cell, pbc, energy, force or forces, stress or virial, group. y is the
    energy if dy, the forces, is there too, or if `labels` says so: `Asked(energy_key="y")`, of several columns
    "y:7". Units are those of `UNITS`, else what `labels.units` says, else ASE's.

    Args:
        dataset: a `torch_geometric.data.Dataset`, a part of one, or a list of `Data`.
        labels: what is to be said of keys, units and checks.
        need: the labels that a frame must have, see `load_dataset`.
        tests: further data sets, for testing only, by name.

    Raises:
        MdpotError: PyG is not installed; fields that are missing or do not fit each other; labels that contradict each
            other or physics.
    """
    import_pyg("data")
    where = f"PyG's {dataset!r}" if _class_of(dataset) else f"the {type(dataset).__name__} of {len(dataset)} structures"
    raw = collect_frames(dataset, labels, need is None or len(need) > 0, where)
    reading = accept(finish(raw, need, Path(where)), where, need, labels.check)
    return Dataset(
        "custom",
        reading.frames,
        f"as in {where}: {reading.described}",
        where,
        isolated=reading.isolated,
        notes=tuple(reading.notes),
        tests={name: from_pyg(test, labels, need) for name, test in (tests or {}).items()},
    )


def is_pyg(data: Path | str) -> bool:
    """Whether `--data` names a data set of PyG."""
    return str(data).startswith(PREFIX)


def parse_pyg(spec: str, asked: Asked, want_labels: bool) -> Raw:
    """What a data set that `pyg:CLASS` or `pyg:CLASS:ARGUMENT` names holds, in its own units.

    Raises:
        MdpotError: as `open_pyg` and `from_pyg`.
    """
    return collect_frames(open_pyg(spec), asked, want_labels, spec)


def open_pyg(spec: str) -> Structures:
    """The data set of `pyg:CLASS:ARGUMENT`: a class of `torch_geometric.datasets`, its files in the cache of mdpot.

    Raises:
        MdpotError: PyG is not installed; no such class; an argument that it does not take; a download that fails, with
            what to fetch by hand.
    """
    _, name, argument = (*spec.split(":", 2), "")[:3]
    datasets = import_pyg("datasets")
    if name not in datasets.__all__:
        close = get_close_matches(name, datasets.__all__, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise MdpotError(
            f"{spec}: torch_geometric.datasets has no class {name!r}.{hint} The form is pyg:CLASS:ARGUMENT, e.g. "
            f"{EXAMPLES}."
        )
    cls, cache = getattr(datasets, name), cache_folder()
    if cache is None:
        raise MdpotError(f"{spec}: it needs pooch, which knows the folder of the cache. pip install pooch")
    arguments = _arguments(spec, cls, argument)
    try:
        return _downloading(spec, cls)(root=str(cache / "pyg" / name), **arguments)
    except MdpotError:
        raise
    except Exception as error:  # whatever PyG's classes raise
        raise Unopened(f"{spec}: PyG cannot read it: {_one_line(error)}") from error


def _arguments(spec: str, cls: Any, argument: str) -> dict[str, Any]:
    """The argument of a spec under the name that the class has for it."""
    parameters = signature(cls.__init__).parameters
    key = next((key for key in ARGUMENTS if key in parameters), None)
    names = getattr(cls, "file_names", None) or getattr(cls, "names", None)
    if argument and key is None:
        raise MdpotError(f"{spec}: {cls.__name__} takes no argument; write pyg:{cls.__name__}.")
    if argument and key == "name" and names and argument not in names:
        raise unknown(f"name in {cls.__name__}", argument, names)
    if not argument and key is not None and parameters[key].default is Parameter.empty:
        known = f": {', '.join(sorted(names))}" if names else ""
        raise MdpotError(f"{spec}: {cls.__name__} needs its {key}, as in pyg:{cls.__name__}:{key.upper()}{known}.")
    return {str(key): argument} if argument else {}


def _downloading(spec: str, cls: Any) -> Any:
    """The class, but where its download fails it says what to fetch by hand."""

    class Downloading(cls):
        def download(self) -> None:
            try:
                with _impatient():
                    super().download()
            except Exception as error:  # of the network, a server, an archive
                files = self.raw_file_names
                wanted = ", ".join([files] if isinstance(files, str) else files)
                pages = [value for key, value in vars(cls).items() if "url" in key and isinstance(value, str)]
                known = f" (its addresses: {', '.join(pages)})" if pages else ""
                raise Unopened(
                    f"{spec}: the download failed ({_one_line(error)}). Fetch it by hand{known}, and put {wanted} into "
                    f"{self.raw_dir}"
                ) from error

    Downloading.__name__ = Downloading.__qualname__ = cls.__name__
    return Downloading


@contextmanager
def _impatient() -> Iterator[None]:
    """PyG's downloads set no limit of time; a network that is not there would hang them."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NEXT_PIECE)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def collect_frames(dataset: Structures, asked: Asked, want_labels: bool, where: str) -> Raw:
    """What the objects of a data set hold, in its own units.

    Args:
        dataset: of PyG `Data`.
        asked: what the user says of the labels.
        want_labels: False for pretraining, which reads none.
        where: the data set, for messages.

    Raises:
        MdpotError: as `from_pyg`.
    """
    if not want_labels:
        asked = Asked(units=asked.units, check=asked.check)
    structures: list[Frame] = []
    values: list[Values] = []
    ignored: dict[str, None] = {}
    coarse = 0.0
    for index in range(len(dataset)):
        data = dataset[index]
        frame = _structure(data, f"{where}, structure {index}", index)
        fields = _fields(data, asked)
        if index == 0:
            asked = _with_y(asked, fields, want_labels)
        structures.append(frame)
        values.append(collect([fields], len(frame), asked))
        ignored |= dict.fromkeys(_unused(fields, values[-1]))
    keys = choose_keys(values, asked, where) if want_labels else Keys()
    units = divided(parse_units(asked.units, UNITS.get(_class_of(dataset), ASE)), keys)
    if keys.energy is not None:
        coarse = _rounding(dataset[0], keys.energy) * units.to_ev if len(dataset) else 0.0
    if coarse > COARSE:
        keys = replace(
            keys, notes=(*keys.notes, f"the energies are stored in single precision, in steps of {coarse:.1g} eV.")
        )
    frames = [_labeled(*pair, keys, units) for pair in zip(structures, values, strict=True)]
    return Raw(frames, keys, units, ignored=list(ignored))


def _structure(data: Any, where: str, index: int) -> Frame:
    """A frame without labels."""
    try:
        numbers, positions = atoms_of(data)
        cell, pbc = cells_of(data)
    except MdpotError as error:
        raise MdpotError(f"{where}: {error}") from None
    group: Any = next((data[key] for key in GROUP_KEYS if key in data), "")
    group = group.item() if hasattr(group, "item") and group.numel() == 1 else group
    return Frame(
        numbers=numbers.cpu().numpy(),
        positions=positions.detach().cpu().double().numpy(),
        cell=cell[0].detach().cpu().double().numpy(),
        pbc=pbc[0].cpu().numpy(),
        group=str(group) if isinstance(group, (str, int)) else "",
        index=index,
    )


def _fields(data: Any, asked: Asked) -> dict[str, Any]:
    """The numbers of a structure by key; a column of a field, as "y:7", where it is asked for."""
    found = {key: data[key] for key in data.keys()}  # noqa: SIM118 (it iterates over pairs)
    fields = {key: value.detach().cpu().numpy() if hasattr(value, "detach") else value for key, value in found.items()}
    for key in asked.keys.values():
        name, _, column = key.rpartition(":")
        if name in fields and column.isdecimal() and int(column) < np.size(fields[name]):
            fields[key] = np.ravel(fields[name])[int(column)]
    return fields


def _with_y(asked: Asked, fields: Mapping[str, Any], want_labels: bool) -> Asked:
    """Takes y and dy for energy and forces where both are there, and neither of the usual names is."""
    kinds = {found[0] for key in fields if (found := family_of(key)) is not None}
    if not want_labels or kinds & {"energy", "forces"} or not {"y", "dy"} <= fields.keys():
        return asked
    return replace(asked, energy_key=asked.energy_key or "y", forces_key=asked.forces_key or "dy")


def _unused(fields: Mapping[str, Any], values: Values) -> list[str]:
    """Keys that may hold labels and were not taken; y may be any property."""
    known = {*values.energy, *values.forces, *values.stress}
    names = [key for key in fields if key not in known and looks_like_label(key)]
    if "y" in fields and not any(key.split(":")[0] == "y" for key in known):
        columns = np.size(fields["y"])
        names += ["y"] if columns == 1 else [f"y:0 to y:{columns - 1}"]
    return names


def _labeled(frame: Frame, values: Values, keys: Keys, units: Units) -> Frame:
    frame.energy = None if keys.energy is None else values.energy.get(keys.energy)
    frame.forces = None if keys.forces is None else values.forces.get(keys.forces)
    stress = None if keys.stress is None else values.stress.get(keys.stress)
    if stress is not None and keys.stress_is_virial:
        stress = units.stress_of_virial(stress, frame.cell)
    frame.stress = stress if frame.pbc.all() else None
    return frame


def _rounding(data: Any, key: str) -> float:
    """The distance of an energy to the next one that its type can hold; 0 in double precision."""
    energy = data[key] if key in data else data[key.rpartition(":")[0]]
    if str(getattr(energy, "dtype", "")) not in ("torch.float32", "float32"):
        return 0.0
    return float(np.spacing(np.abs(energy.detach().cpu().numpy()).max()))


def _class_of(dataset: Any) -> str:
    """The name of PyG's own class that a data set, or what it is a part of, is of; "" where it is of none."""
    while not hasattr(dataset, "get") and hasattr(dataset, "dataset"):  # torch's Subset
        dataset = dataset.dataset
    names = (cls.__name__ for cls in type(dataset).__mro__ if cls.__module__.startswith("torch_geometric.datasets."))
    return next(names, "")
