"""A potential as machine code: energy and forces through torch.export and AOTInductor, in one file.

The successor of TorchScript files. What is compiled is `PaddedPotential`, for any number of atoms and neighbors, on
the processor and with the torch that it was compiled on. As `mdpot.export`, a file is compared with its potential
before it gets its name.
"""

from __future__ import annotations

import inspect
import json
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch import Tensor

import mdpot
from mdpot.autograd import exact_gradients
from mdpot.compiled import LEAST, describe_platform, load_compiled
from mdpot.errors import MdpotError, unknown
from mdpot.export import SKIN
from mdpot.export_check import ExportReport, compare, example_structures
from mdpot.exported import AOTI, EXPORT_VERSION, EXTRA_FILE
from mdpot.files import atomic, require_regular, sealed
from mdpot.heads import AnyPotential
from mdpot.modelfile import ModelFile, open_model
from mdpot.modelformat import DTYPES
from mdpot.padded import PaddedPotential

DEVICES = ("cpu", "cuda")
NEEDED_TORCH = "2.6"
EXAMPLE = (192, 40)
"""Atoms and slots that the compiler tunes for; any other number runs as well."""
# Loops on one thread: with more, AOTInductor sums over neighbors by atomic additions, which cost more than a second
# core brings, and starts OpenMP's threads. Matrix products still use torch's threads.
# And no vectors of its own: where a size is no multiple of theirs, sums write past the end of their results, and the
# process dies or goes on with wrong numbers (pytorch/pytorch#183699, fixed after 2.9, and #196681, which is open).
SETTINGS = {"cpp.threads": 1, "cpp.simdlen": 1}


def export_aoti(
    ckpt: Path | str | ModelFile | AnyPotential,
    out: Path | str,
    *,
    dtype: str = "float32",
    skin: float = SKIN,
    device: str = "cpu",
    check: bool = True,
    frames: Sequence[Atoms] | None = None,
) -> ExportReport:
    """Writes a potential as one package of AOTInductor.

    `MaskedGNNCalculator` and `mdpot.openmm` open it as they do a TorchScript file. With torch alone,
    `torch._inductor.aoti_load_package(out)` gives a function with the arguments and results of `PaddedPotential`.
    Compiling takes a minute or two. The metadata are in the extra file "mdpot.json".

    Args:
        ckpt: potential file, folder of a run, name in `mdpot.zoo.ZOO`, or a potential.
        out: file to write, `*.pt2` by custom.
        dtype: "float32" or "float64", precision of the network. Neighbors and sums are always float64.
        skin: Å, of the neighbor list.
        device: "cpu" or "cuda", to compile for.
        check: whether to compare the file with the potential before it gets its name.
        frames: structures to compare on; None takes those that the trainer left in the file, else made-up ones.

    Returns:
        What the comparison found.

    Raises:
        MdpotError: unknown dtype or device, no C++ compiler, a torch that is too old, a model that torch cannot export,
            or a file that does not agree with its potential; then no file is left behind.
    """
    require_regular(out)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    require_compiler(device)
    model = open_model(ckpt)
    for caution in model.cautions:
        warnings.warn(caution, stacklevel=2)
    potential = model.potential(dtype=dtype)
    structures = frames or [Atoms(**structure) for structure in model.header.get("structures", [])]
    structures = [*(structures or example_structures(potential.elements)), Atoms([potential.elements[0]])]
    header = {key: value for key, value in model.header.items() if key != "structures"}
    header["export"] = _describe(dtype, skin, device)
    report = ExportReport(Path(out), "any", dtype)
    content = sealed(_compile(model.potential(device, dtype), header))
    with atomic(out) as temporary:
        temporary.write_bytes(content)
        if check:
            report = compare(load_compiled(content, header, str(out)), report, potential, structures)
    return report


def require_compiler(device: str) -> None:
    """Refuses what cannot be compiled here.

    Raises:
        MdpotError: torch is too old, there is no C++ compiler, or no GPU where one is asked for.
    """
    inductor: Any = torch._inductor
    if not hasattr(inductor, "aoti_compile_and_package"):
        raise MdpotError(f"exporting to aoti needs torch {NEEDED_TORCH} or later; {torch.__version__} is installed.")
    if device == "cuda" and not torch.cuda.is_available():
        raise MdpotError("device: to compile for cuda takes a CUDA GPU; torch finds none.")
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:  # its class differs between versions of torch
        raise MdpotError(
            "exporting to aoti needs a C++ compiler, and torch finds none. Install g++, or name one by the environment "
            f"variable CXX ({' '.join(str(error).split())})."
        ) from None


def trace(module: PaddedPotential) -> torch.export.ExportedProgram:
    """Energy and forces as one graph of operations for any number of atoms and slots, the derivative written out.

    Raises:
        MdpotError: torch cannot export the model.
    """
    from torch._dynamo.exc import UserError
    from torch.fx.experimental.proxy_tensor import make_fx

    example = _example(module)
    atoms, slots = torch.export.Dim("n_atoms", min=LEAST), torch.export.Dim("n_slots", min=LEAST)
    shapes = ({0: atoms}, {0: atoms}, {0: atoms, 1: slots}, {0: atoms, 1: slots})
    # torch.export takes no derivatives; tracing them first leaves plain operations.
    graph = make_fx(module, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*example)
    settings: dict[str, Any] = {"dynamic_shapes": shapes, "strict": False}
    try:
        return torch.export.export(graph, example, **settings)
    except UserError:  # torch 2.11 cannot prove of some sizes that they fit whatever the numbers are
        later = "prefer_deferred_runtime_asserts_over_guards"
        if later not in inspect.signature(torch.export.export).parameters:
            raise
        settings[later] = True
        return torch.export.export(graph, example, **settings)


def _example(module: PaddedPotential) -> tuple[Tensor, ...]:
    n_atoms, n_slots = EXAMPLE
    device = module.shift.device
    numbers = torch.full([n_atoms], int((module.lookup >= 0).nonzero()[0]), device=device)
    neighbors = torch.arange(n_atoms, device=device).unsqueeze(1).repeat(1, n_slots)
    positions, offsets = torch.zeros(n_atoms, 3).double(), torch.ones(n_atoms, n_slots, 3).double()
    return numbers, positions.to(device), neighbors, offsets.to(device)


@exact_gradients()
def _compile(potential: AnyPotential, header: dict[str, Any]) -> bytes:
    """The bytes of a package, its metadata beside the code."""
    inductor: Any = torch._inductor
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt2"
        try:
            program = trace(PaddedPotential(potential))
            inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=SETTINGS)
        except Exception as error:  # whatever a compiler trips over
            network = type(getattr(potential, "backbone", potential)).__name__
            raise MdpotError(
                f"model {potential.model!r} can't be exported: AOTInductor does not take {network}: "
                f"{' '.join(str(error).split())[:500]}"
            ) from error
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(f"{path.stem}/extra/{EXTRA_FILE}", json.dumps(header))
        return path.read_bytes()


def _describe(dtype: str, skin: float, device: str) -> dict[str, Any]:
    return {
        "format_version": EXPORT_VERSION,
        "format": AOTI,
        "for": "any",
        "units": {"length": "Å", "energy": "eV", "force": "eV/Å"},
        "dtype": dtype,
        "skin": float(skin),
        "numbers": None,
        "device": device,
        "mdpot": mdpot.__version__,
        **describe_platform(),
    }
