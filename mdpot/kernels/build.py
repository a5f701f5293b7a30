"""Compiles the kernels: when mdpot is installed, and by `python -m mdpot.kernels` where that could not be done.

One library for each instruction set of the machine, beside this file, with a plain C interface: it knows neither torch
nor Python. A name holds a digest of what the library is made of, so that an old one is never taken for a new one. Needs
nothing but the standard library, for setup.py loads this file before anything is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
SOURCE = FOLDER / "src"
WINDOWS, MACOS = sys.platform == "win32", sys.platform == "darwin"
SUFFIX = ".dll" if WINDOWS else ".dylib" if MACOS else ".so"
MACHINES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
# The kernels are written in the vector extensions of GCC and Clang, which Microsoft's compiler lacks; on Windows,
# Clang finds the libraries of Visual Studio by itself, and MinGW brings its own.
COMPILERS = ("clang++", "g++") if WINDOWS else ("c++", "g++", "clang++")


class NotBuilt(Exception):
    """The kernels cannot be compiled here; the message is one line that says why."""


@cache
def plan() -> dict[str, Any]:
    """What build.json says: the sources, and the flags for each machine and instruction set, best first."""
    return json.loads((SOURCE / "build.json").read_text(encoding="utf-8"))


def machine() -> str:
    """The processor's family that is compiled for, e.g. "x86_64"; on macOS it may be another than this one's."""
    asked = os.environ.get("ARCHFLAGS", "").split() if MACOS else []
    name = asked[-1] if asked else platform.machine()
    return MACHINES.get(name.lower(), name.lower())


def instruction_sets() -> list[str]:
    """All that there are kernels for on this family of processors, best first; the last one runs on every one of it."""
    return list(plan()["instructions"].get(machine(), {}))


@cache
def digest() -> str:
    """Of the sources and how they are compiled."""
    found = hashlib.sha256()
    for path in (FOLDER / "build.py", *sorted(SOURCE.iterdir())):
        found.update(path.name.encode() + path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:12]


def file_name(instructions: str) -> str:
    """Of the library for an instruction set."""
    return f"kernels-{instructions}-{digest()}{SUFFIX}"


def compile_library(instructions: str, library: Path, extra: Sequence[str] = ()) -> None:
    """Compiles the library for an instruction set.

    Args:
        instructions: one of `instruction_sets`.
        library: the file to write.
        extra: flags for the compiler; those that begin with -fsanitize are for the linker as well.

    Raises:
        NotBuilt: no compiler, or it failed.
    """
    compiler = find_compiler()
    flags = [*plan()["compile"], *plan()["instructions"][machine()][instructions], *extra]
    if _is_gcc(compiler):  # a seventh smaller and as fast, for vectors are written out
        flags += plan()["gcc"]
    linking = [*plan()["link"], *(flag for flag in extra if flag.startswith("-fsanitize"))]
    architecture = shlex.split(os.environ.get("ARCHFLAGS", "")) if MACOS else []
    if WINDOWS:
        flags, linking = ([flag for flag in some if flag not in ("-fPIC", "-pthread")] for some in (flags, linking))
    if not MACOS:
        linking += ["-static"] if WINDOWS and "clang" not in compiler[0] else []
        linking += [] if WINDOWS else ["-static-libstdc++", "-static-libgcc"]
    if not (MACOS or WINDOWS or extra):  # of the C++ library only what is used, and no names: a third of the size
        linking += ["-s", "-Wl,--exclude-libs,ALL,--gc-sections"]
    with tempfile.TemporaryDirectory() as folder:
        objects = [str(Path(folder) / f"{name}.o") for name in plan()["sources"]]
        always = [*compiler, *architecture, *flags, f'-DMDPOT_INSTRUCTIONS="{instructions}"']
        commands = [[*always, *plan()["own"].get(name, []), "-c", str(SOURCE / name)] for name in plan()["sources"]]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda c, o: _run([*c, "-o", o]), commands, objects))
        linked = str(Path(folder) / library.name)
        # Without the compiler's flags: GCC before 13 takes -ffast-math, when linking, as an order to switch off
        # denormal numbers in the whole process.
        _run([*compiler, *architecture, *objects, *linking, "-o", linked])
        library.parent.mkdir(parents=True, exist_ok=True)
        unfinished = library.with_name(f"{library.name}.{os.getpid()}")
        try:
            shutil.copyfile(linked, unfinished)
            unfinished.replace(library)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise NotBuilt(f"{str(library)!r} cannot be written: {error.strerror}") from None


def find_compiler() -> list[str]:
    """The C++ compiler: `CXX` of the environment, or the first of `COMPILERS` that there is.

    Raises:
        NotBuilt: there is none.
    """
    asked = os.environ.get("CXX")
    if asked:
        return shlex.split(asked, posix=not WINDOWS)
    for name in COMPILERS:
        if found := shutil.which(name):
            return [found]
    raise NotBuilt(f"there is no C++ compiler ({', '.join(COMPILERS)}; another can be named by CXX)")


def _is_gcc(compiler: Sequence[str]) -> bool:
    try:
        said = subprocess.run([*compiler, "--version"], capture_output=True, text=True, errors="replace").stdout
    except OSError:
        return False  # what compiles says why
    return "Free Software Foundation" in said


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    except OSError as error:
        raise NotBuilt(f"the C++ compiler {command[0]!r} does not run: {error.strerror}") from None
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        reason = next((line for line in lines if "error" in line), lines[0])
        raise NotBuilt(f"the C++ compiler {command[0]!r} failed: {reason}")


def main() -> None:
    """Compiles the libraries of this machine beside this file, and removes those of other sources."""
    names = instruction_sets()
    if not names:
        sys.exit(f"there are no kernels for {machine()} processors; torch does their work")
    for instructions in names:
        try:
            compile_library(instructions, FOLDER / file_name(instructions))
        except NotBuilt as error:
            sys.exit(f"{error}")
        sys.stdout.write(f"{FOLDER / file_name(instructions)}\n")
    for path in FOLDER.glob(f"kernels-*{SUFFIX}"):
        if path.name not in map(file_name, names):
            path.unlink()


if __name__ == "__main__":
    main()
