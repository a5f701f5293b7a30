"""The compiled libraries: which there are, which one this processor takes, and their functions declared for ctypes."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p
from pathlib import Path

from mdpot.errors import MdpotError, unknown
from mdpot.kernels.build import FOLDER, NotBuilt, compile_library, file_name, instruction_sets, machine
from mdpot.kernels.errors import NoKernel

ABI = 5
VARIABLE = "MDPOT_KERNELS"
"""Environment variable that forces an instruction set, or with "off" has torch do all the work."""
REMEDY = "Install a C++ compiler and run: python -m mdpot.kernels"


class Tide(ctypes.Structure):
    """`mdpot_tide` of mdpot_kernels.h."""

    _fields_ = [
        *((name, c_int32) for name in ("n_elements", "order", "sent_order", "layers", "width", "channels", "n_radial")),
        *((name, c_int32) for name in ("n_basis", "hidden", "n_pair_terms", "message_rows", "product_rows")),
        *((name, c_double) for name in ("cutoff", "norm", "scale", "wall_strength", "pair_decay")),
        *((name, c_void_p) for name in ("products", "weights")),
        ("n_weights", c_int64),
    ]


class SoapWeights(ctypes.Structure):
    """`mdpot_soap_weights` of mdpot_kernels.h."""

    _fields_ = [
        *((name, c_int64) for name in ("n", "rows", "columns", "abreast")),
        *((name, c_void_p) for name in ("gradient", "weights", "mean", "second")),
        *((name, c_void_p) for name in ("left", "right", "left_basis", "right_basis")),
    ]


class SoapSettings(ctypes.Structure):
    """`mdpot_soap_settings` of mdpot_kernels.h."""

    _fields_ = [(name, c_double) for name in ("rate", "keep", "beta1", "beta2", "basis_beta", "root_scale", "eps")]


def load(path: Path | str) -> ctypes.CDLL:
    """A compiled library with its functions declared.

    Raises:
        NoKernel: it does not load, or is of another version of the interface.
    """
    try:
        library = ctypes.CDLL(str(path))
        library.mdpot_kernels_abi.restype = c_int32
        found = library.mdpot_kernels_abi()
    except (OSError, AttributeError) as error:
        raise NoKernel(f"the kernels' library {str(path)!r} does not load: {error}") from None
    if found != ABI:
        raise NoKernel(f"the kernels' library {str(path)!r} has interface {found}; this mdpot needs {ABI}.")
    library.mdpot_kernel_create.restype = c_void_p
    library.mdpot_kernel_create.argtypes = [POINTER(Tide), c_int32, c_int32]
    library.mdpot_kernel_destroy.restype = None
    library.mdpot_kernel_destroy.argtypes = [c_void_p]
    library.mdpot_kernel_set_threads.restype = c_int32
    library.mdpot_kernel_set_threads.argtypes = [c_void_p, c_int32]
    structures = [c_void_p, c_int64, *[c_void_p] * 3, c_int64, *[c_void_p] * 2, c_int64, *[c_void_p] * 3]
    library.mdpot_kernel_evaluate.restype = c_int32
    library.mdpot_kernel_evaluate.argtypes = [*structures, *[c_void_p] * 3]
    library.mdpot_kernel_train.restype = c_int32
    library.mdpot_kernel_train.argtypes = [c_void_p, POINTER(Tide)]
    library.mdpot_kernel_update.restype = c_int32
    library.mdpot_kernel_update.argtypes = [c_void_p, c_void_p]
    library.mdpot_kernel_gradient.restype = c_int32
    library.mdpot_kernel_gradient.argtypes = [*structures, *[c_void_p] * 4]
    library.mdpot_soap_step.restype = c_int32
    library.mdpot_soap_step.argtypes = [c_int64, POINTER(SoapWeights), POINTER(SoapSettings), c_int32]
    library.mdpot_soap_refresh.restype = c_int32
    library.mdpot_soap_refresh.argtypes = [c_int64, POINTER(SoapWeights), c_int32]
    library.mdpot_pairs_find.restype = c_int32
    library.mdpot_pairs_find.argtypes = [
        c_int64,
        *[c_void_p] * 3,
        c_double,
        c_int32,
        POINTER(c_void_p),
        POINTER(c_int64),
    ]
    library.mdpot_pairs_write.restype = c_int32
    library.mdpot_pairs_write.argtypes = [c_void_p] * 4
    library.mdpot_pairs_destroy.restype = None
    library.mdpot_pairs_destroy.argtypes = [c_void_p]
    library.mdpot_kernels_error.restype = c_char_p
    library.mdpot_kernels_instructions.restype = c_char_p
    library.mdpot_kernels_runs.restype = c_int32
    library.mdpot_kernels_runs.argtypes = [c_char_p]
    return library


def is_off() -> bool:
    """Whether the user does without the kernels."""
    return os.environ.get(VARIABLE) == "off"


def default() -> ctypes.CDLL:
    """The library for this machine: the best that the processor runs, or the one that `MDPOT_KERNELS` names.

    Raises:
        NoKernel: there is none, or `MDPOT_KERNELS` is "off".
        MdpotError: `MDPOT_KERNELS` names what this machine does not run.
    """
    if is_off():
        raise NoKernel(f"the kernels are switched off by {VARIABLE}=off.")
    asked = os.environ.get(VARIABLE) or "auto"
    return of(None if asked == "auto" else asked)


@functools.cache
def of(instructions: str | None) -> ctypes.CDLL:
    """The library for an instruction set; None is the best one that this processor runs.

    Raises:
        NoKernel: it is not there.
        MdpotError: there is no such instruction set, or this processor does not run it.
    """
    known = instruction_sets()
    if instructions is not None and instructions not in known:
        raise unknown(f"instruction set ({VARIABLE})", instructions, ["auto", "off", *known])
    if not known:
        raise NoKernel(f"there are no kernels for {machine()} processors.")
    # The last one runs on every processor of the family, and says what else this one runs.
    common = load(_find(known[-1]))
    runs = [name for name in known if common.mdpot_kernels_runs(name.encode())]
    if instructions is None:
        instructions = next(name for name in runs if (FOLDER / file_name(name)).is_file())
    if instructions not in runs:
        raise MdpotError(f"{VARIABLE}: this processor runs {', '.join(runs)}; got {instructions!r}.")
    return common if instructions == known[-1] else load(_find(instructions))


def supported() -> list[str]:
    """The instruction sets that this processor runs and that are compiled, best first; empty where there are none."""
    found = []
    for name in instruction_sets():
        try:
            of(name)
        except MdpotError:
            continue
        found.append(name)
    return found


def build(instructions: str, extra: Sequence[str] = ()) -> Path:
    """A library compiled with more flags, such as sanitizers: for tests. It is kept in the user's cache.

    Raises:
        NoKernel: no compiler, or it failed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mdpot"
    path = cache / "-".join(["kernels", *(flag.strip("-") for flag in extra)]) / file_name(instructions)
    try:
        if not path.is_file():
            compile_library(instructions, path, extra)
    except NotBuilt as error:
        raise NoKernel(f"the kernels were not built: {error}.") from None
    return path


def _find(instructions: str) -> Path:
    path = FOLDER / file_name(instructions)
    if path.is_file():
        return path
    old = any(FOLDER.glob(f"kernels-{instructions}-*"))
    raise NoKernel(f"the kernels are {'of an older source' if old else 'not compiled'}. {REMEDY}.")
