"""The ways OpenMM can call a potential, which of them work here, and what is missing for the others."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from mdpot.errors import MdpotError, unknown

# "native" is for a CPU and for what has kernels. The others are torch's, fastest first: torchforce and pythontorch keep
# the positions on the GPU; on a CPU all three cost the same.
TORCH_BACKENDS = ("torchforce", "pythontorch", "python")
BACKENDS = ("native", *TORCH_BACKENDS)
NEEDED_OPENMM = (8, 5)
# openmmtorch 1.5, by trial: torch 2.8 crashes, 2.10 can't load a module; without torch's CUDA 12 build it
# does not import. With OpenMM 8.6 a force runs, but copying it or reading it from XML kills the process:
# 8.6 changed the layout of the serializer's nodes.
NEEDED_TORCH, NEEDED_CUDA, LAST_OPENMM = "2.9", "12", (8, 5)
INSTALL_TORCHFORCE = "pip install 'torch==2.9.*' 'openmm>=8.5,<8.6' openmmtorch==1.5"

logger = logging.getLogger("mdpot.openmm")
_loaded_late: set[str] = set()


def import_openmm() -> ModuleType:
    """OpenMM.

    Raises:
        MdpotError: OpenMM is not installed, or too old.
    """
    try:
        openmm = import_module("openmm")
    except ImportError as error:
        raise MdpotError(f"OpenMM can't be imported ({error}). Install it: pip install 'openmm>=8.5'.") from None
    if _release(openmm.__version__) < NEEDED_OPENMM:
        raise MdpotError(f"OpenMM 8.5 or later is needed; {openmm.__version__} is installed.")
    return openmm


@functools.cache
def ready_for_arrays() -> None:
    """Lets OpenMM take a list, by which it gets ready for what a PythonForce returns.

    Without that, OpenMM 8.5 dies of the first PythonForce in a process that has set no positions, but loaded a
    checkpoint or a State (OpenMM's issue 5399).
    """
    import_openmm().Continuous1DFunction([0.0, 1.0], 0.0, 1.0)


def import_openmmtorch() -> ModuleType:
    """openmmtorch, after a look at whether importing it can work here: with the wrong torch it crashes.

    Raises:
        MdpotError: openmmtorch is missing or does not go with the installed torch; the message names the
            installed torch, the needed one and the command that installs it.
    """
    import torch

    cuda = torch.version.cuda
    installed = f"torch {torch.__version__} ({f'CUDA {cuda} build' if cuda else 'CPU build'}) is installed"
    remedy = f"Install both: {INSTALL_TORCHFORCE}; or take backend='python', which needs OpenMM alone."
    try:
        found = version("openmmtorch")
    except PackageNotFoundError:
        raise MdpotError(
            f"openmmtorch is not installed. It needs torch {NEEDED_TORCH}.x, CUDA {NEEDED_CUDA} build; "
            f"{installed}. {remedy}"
        ) from None
    if found == "1.5" and not (
        re.match(rf"{re.escape(NEEDED_TORCH)}\.\d", torch.__version__) and (cuda or "").split(".")[0] == NEEDED_CUDA
    ):
        raise MdpotError(
            f"openmmtorch 1.5 needs torch {NEEDED_TORCH}.x, CUDA {NEEDED_CUDA} build, also on machines "
            f"without a GPU; {installed}. {remedy}"
        )
    openmm = import_openmm()
    try:
        with _quiet():
            openmmtorch = import_module("openmmtorch")
    except ImportError as error:
        raise MdpotError(
            f"openmmtorch {found} can't be imported: {error}. It needs torch {NEEDED_TORCH}.x, "
            f"CUDA {NEEDED_CUDA} build; {installed}. {remedy}"
        ) from None
    _load_late(openmm)
    return openmmtorch


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that openmmtorch 1.5 brings about by importing OpenMM under its old name."""

    def other(record: logging.LogRecord) -> bool:
        return "simtk.openmm" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(other)
    try:
        yield
    finally:
        root.removeFilter(other)


def _load_late(openmm: ModuleType) -> None:
    """Loads the plugins of openmmtorch that OpenMM could not load because it was imported before torch."""
    for failure in openmm.Platform.getPluginLoadFailures():
        found = re.match(r"Error loading library (.*OpenMMTorch[^:]*):", failure)
        if found and found.group(1) not in _loaded_late:
            with contextlib.suppress(openmm.OpenMMException):  # a platform that this machine does not have
                openmm.Platform.loadPluginLibrary(found.group(1))
            _loaded_late.add(found.group(1))


def obstacle(backend: str) -> str | None:
    """Why a backend can't be used here, or None where it can.

    Raises:
        MdpotError: no such backend.
    """
    if backend not in BACKENDS:
        raise unknown("backend", backend, ["auto", *BACKENDS])
    try:
        import_openmm()
        if backend in ("torchforce", "pythontorch"):
            openmmtorch = import_openmmtorch()
            if backend == "pythontorch" and not hasattr(openmmtorch, "PythonTorchForce"):
                return (
                    f"openmmtorch {version('openmmtorch')} has no PythonTorchForce; a later release will. "
                    "Take backend='torchforce' or 'python'."
                )
    except MdpotError as error:
        return str(error)
    return None


def crash_warning() -> str | None:
    """What is wrong with TorchForce under the installed OpenMM although it runs, or None."""
    found = import_openmm().__version__
    if version("openmmtorch") != "1.5" or _release(found) <= LAST_OPENMM:
        return None
    return (
        f"openmmtorch 1.5 was built for OpenMM 8.5 and {found} is installed: dynamics works, but copying a "
        "System with a TorchForce, or reading it from XML, kills the process. Take backend='python' or "
        f"OpenMM 8.5: {INSTALL_TORCHFORCE}."
    )


def choose_backend(backend: str = "auto") -> str:
    """The backend to use: the one asked for, or for "auto" the fastest of torch's that works here without reserve.

    Whether "native" is faster still depends on the potential and the device, and is for `create_force` to know.

    Raises:
        MdpotError: no such backend, or it does not work here.
    """
    if backend != "auto":
        reason = obstacle(backend)
        if reason:
            raise MdpotError(f"backend {backend!r}: {reason}")
        return backend
    import_openmm()
    reasons = {}
    for name in TORCH_BACKENDS:
        reason = obstacle(name) or (crash_warning() if name == "torchforce" else None)
        if reason is None:
            passed = "".join(f"\n  not {other}: {why}" for other, why in reasons.items())
            logger.info("backend 'auto' takes %r%s", name, passed)
            return name
        reasons[name] = reason
    raise MdpotError("no backend works here: " + " ".join(reasons.values()))


def _release(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])
