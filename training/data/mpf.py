"""MPF.2021.2.8, the relaxations of the Materials Project that M3GNet was trained on: 187,687 frames of 62,783 crystals.

Chen and Ong, Nature Computational Science 2, 718 (2022). Two pickles of dictionaries, {material: snapshots}, with
structures of pymatgen, energies in eV, forces in eV/Å, and stress as VASP prints it, in kbar.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from mdpot.errors import MdpotError
from mdpot.structures import read_bytes
from mdpot.training.data.download import Download, figshare_address, keep
from mdpot.training.data.frames import Frame
from mdpot.training.data.labels import Keys
from mdpot.training.data.reading import Raw
from mdpot.training.data.units import VASP

FILES = ("block_0.p", "block_1.p")
ARTICLE = "19470599"
ALL, RELAXED = "all", "relaxed"
SIZES = (ALL, RELAXED)
"""All frames, or of each crystal the last of its second relaxation, whose forces are small: those to denoise."""

_KEYS = {"structure", "energy", "force", "stress", "id"}

DOWNLOAD = Download(
    page=f"https://figshare.com/articles/dataset/MPF_2021_2_8/{ARTICLE}",
    archives=FILES,
    resolve=partial(figshare_address, ARTICLE),
    unpack=keep,
    by_hand="put block_0.p and block_1.p into {folder}, or give their folder by --data.",
)


def parse_mpf(files: Sequence[Path], size: str = ALL) -> Raw:
    """The frames of the data set; pymatgen is not needed.

    Args:
        files: both pickles, or one of them.
        size: in `SIZES`.

    Raises:
        MdpotError: another content, truncated or damaged; a site that several elements share.
    """
    frames = [
        frame
        for file in files
        for material, snapshots in _load(file).items()
        for frame in _frames(file, str(material), snapshots, size)
    ]
    for place, frame in enumerate(frames):
        frame.index = place
    return Raw(frames, Keys("energy", "force", "stress"), VASP)


class _Object:
    """Stands for an object of pymatgen: the arguments that it was made of, and its attributes."""

    arguments: tuple[Any, ...]

    def __new__(cls, *arguments: Any) -> _Object:
        made = super().__new__(cls)
        made.arguments = arguments
        return made

    def __setstate__(self, state: Any) -> None:
        for part in state if isinstance(state, tuple) else (state,):
            self.__dict__.update(part or {})


class _Dtype:
    """Stands for a type of numpy, of numbers alone."""

    def __init__(self, code: str, *_: Any) -> None:
        if not re.fullmatch("[biuf][1248]", code):
            raise pickle.UnpicklingError(f"it holds an array of {code!r}, which is none of numbers")
        self.code, self.order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def array(self, data: bytes) -> np.ndarray:
        """The numbers [n] that bytes stand for."""
        return np.frombuffer(data, np.dtype(self.order + self.code))


class _Array:
    """Stands for an array, until numpy asks for its values."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, by_columns, data = state
        self.values = dtype.array(data).reshape(shape, order="F" if by_columns else "C")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, place: int) -> Any:
        return self.values[place]


# What is called while such a pickle is read: stand-ins for pymatgen's objects and numpy's arrays, which keep what they
# are given, and containers. So a file cannot run code, nor have numpy take bytes of its choice for addresses.
_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): None,  # named, never called
    ("_codecs", "encode"): lambda text, encoding: text.encode("latin1"),  # how older pickles write bytes
    ("collections", "OrderedDict"): dict,
    **{("builtins", kind.__name__): kind for kind in (dict, list, set, tuple, float, int)},
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    _STAND_INS[_module, "_reconstruct"] = lambda kind, shape, code: _Array()
    _STAND_INS[_module, "scalar"] = lambda dtype, data: dtype.array(data)[0]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "pymatgen":
            return _Object
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is none of pymatgen's structures")


def _load(file: Path) -> Mapping[str, Any]:
    try:
        content = _Unpickler(BytesIO(read_bytes(file))).load()
    except MdpotError:
        raise
    except Exception as error:  # what unpickling raises depends on what it meets
        raise MdpotError(f"{file}: no pickle of MPF.2021.2.8, truncated or damaged ({error}). Copy it again.") from None
    materials = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(material, dict) and material.keys() >= _KEYS for material in materials):
        raise MdpotError(f"{file}: it holds no dictionary of materials, each with {', '.join(sorted(_KEYS))}.")
    for name, material in content.items():
        if not all(hasattr(material[key], "__len__") for key in _KEYS) or len({len(material[k]) for k in _KEYS}) != 1:
            raise MdpotError(f"{file}: the lists of {name} differ in length. Copy it again.")
    return content


def _frames(file: Path, material: str, snapshots: Mapping[str, Any], size: str) -> list[Frame]:
    structures, names = snapshots["structure"], snapshots["id"]
    chosen = range(len(structures)) if size == ALL else _relaxed(names)
    frames = []
    for n in chosen:
        numbers, positions, cell = _structure(f"{file}, {names[n]}", structures[n])
        frames.append(
            Frame(
                numbers,
                positions,
                cell,
                np.ones(3, bool),
                energy=float(snapshots["energy"][n]),
                forces=np.array(snapshots["force"][n], np.float64),
                stress=np.array(snapshots["stress"][n], np.float64),
                group=material,
            )
        )
    return frames


def _relaxed(names: Sequence[str]) -> list[int]:
    """The last step of the second relaxation, which the data call 0; names are material-relaxation-step."""
    steps = {int(name.split("-")[-1]): n for n, name in enumerate(names) if name.split("-")[-2] == "0"}
    return [steps[max(steps)]] if steps else []


def _structure(at: str, structure: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atomic numbers, positions and cell of what was a structure of pymatgen."""
    try:
        cell = np.array(structure._lattice._matrix, np.float64).reshape(3, 3)
        fractional = np.array([site._frac_coords for site in structure._sites], np.float64)
        symbols = []
        for site in structure._sites:
            ((element, amount),) = site._species._data.items()
            if amount != 1:
                raise MdpotError(f"{at}: a site is occupied by {amount:g} {_symbol(element)}, not by one.")
            symbols.append(_symbol(element))
        return np.array([atomic_numbers[symbol] for symbol in symbols]), fractional @ cell, cell
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise MdpotError(f"{at}: no structure of one element at each site ({error}).") from None


def _symbol(element: Any) -> str:
    """Of an element, made of its symbol; or of a species with an oxidation state, which has an element."""
    return str(element.arguments[0]) if element.arguments else _symbol(element._el)
