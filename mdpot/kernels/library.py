"""The compiled library: found beside this file or built once from the source, loaded by ctypes."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from ctypes import POINTER, c_char_p, c_double, c_int32, c_int64, c_void_p
from pathlib import Path

from mdpot.kernels.errors import NoKernel

ABI = 1
SOURCE = Path(__file__).parent / "src"


class Tide(ctypes.Structure):
    """`mdpot_tide` of mdpot_kernels.h."""

    _fields_ = [
        *((name, c_int32) for name in ("n_elements", "order", "layers", "width", "channels", "n_radial", "n_basis")),
        *((name, c_int32) for name in ("hidden", "n_pair_terms", "message_rows", "product_rows")),
        *((name, c_double) for name in ("cutoff", "norm", "scale", "wall_strength", "pair_decay")),
        *((name, c_void_p) for name in ("messages", "products", "weights")),
        ("n_weights", c_int64),
    ]


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
    library.mdpot_kernel_evaluate.restype = c_int32
    library.mdpot_kernel_evaluate.argtypes = [c_void_p, c_int64, *[c_void_p] * 4, c_int64, *[c_void_p] * 6]
    library.mdpot_kernels_error.restype = c_char_p
    library.mdpot_kernels_instructions.restype = c_char_p
    return library


@functools.cache
def default() -> ctypes.CDLL:
    """The library for this machine.

    Raises:
        NoKernel: there is none, and no compiler to make one.
    """
    names = instruction_sets()
    if not names:
        raise NoKernel(f"there are no kernels for {platform.machine()} processors.")
    return load(build(names[0]))


def instruction_sets() -> list[str]:
    """Those of build.json that this processor runs, best first."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
    known = json.loads((SOURCE / "build.json").read_text())["instructions"].get(machine, {})
    flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").is_file() else []
    needs = {"avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl"}, "avx2": {"avx2", "fma", "bmi2"}}
    return [name for name in known if needs.get(name, set()) <= set(flags)]


def build(instructions: str, extra: tuple[str, ...] = ()) -> Path:
    """Compiles the source for an instruction set into the user's cache, unless it is there; returns the library.

    Raises:
        NoKernel: no compiler, or it failed.
    """
    plan = json.loads((SOURCE / "build.json").read_text())
    flags = next(sets[instructions] for sets in plan["instructions"].values() if instructions in sets)
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise NoKernel("the kernels are not built, and there is no C++ compiler to build them.")
    options = [*plan["compile"], *flags, f'-DMDPOT_INSTRUCTIONS="{instructions}"', *extra]
    digest = hashlib.sha256(repr(options).encode())
    for path in sorted(SOURCE.iterdir()):
        digest.update(path.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mdpot"
    library = cache / f"kernels-{instructions}-{digest.hexdigest()[:16]}.so"
    if library.is_file():
        return library
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        objects = []
        for name in plan["sources"]:
            objects.append(f"{folder}/{name}.o")
            _run([compiler, *options, "-c", str(SOURCE / name), "-o", objects[-1]])
        # Linked without the flags of the compiler, of which some set the processor's modes for the whole process.
        linking = [flag for flag in extra if flag.startswith("-fsanitize")]
        _run([compiler, *objects, *plan["link"], *linking, "-o", f"{folder}/library.so"])
        Path(f"{folder}/library.so").replace(library)
    return library


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NoKernel(f"the kernels do not compile: {done.stderr.strip().splitlines()[0]}")
