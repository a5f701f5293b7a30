"""One self-contained TorchScript file from a potential: loads with torch alone, on CPU and CUDA.

The file holds the network, a periodic neighbor list with its skin, and its metadata. It is compared with
the potential it came from before it gets its name, so a file that is there is right.
"""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

import mdpot
from mdpot.errors import MdpotError, name_elements, unknown
from mdpot.evaluator import Evaluator, ForASE, ForOpenMM, Particles
from mdpot.export_check import ExportReport, compare
from mdpot.exported import EXPORT_VERSION, EXTRA_FILE, TORCHSCRIPT, load_module
from mdpot.files import atomic, require_regular, sealed
from mdpot.heads import AnyPotential
from mdpot.modelfile import ModelFile, open_model
from mdpot.modelformat import DTYPES

UNITS = {
    "ase": {"length": "Å", "energy": "eV", "force": "eV/Å"},
    "openmm": {"length": "nm", "energy": "kJ/mol", "force": "kJ/mol/nm"},
}
SKIN = 0.5  # Å


def export_torchscript(
    ckpt: Path | str | ModelFile | AnyPotential,
    out: Path | str,
    *,
    units: str = "openmm",
    dtype: str = "float32",
    skin: float = SKIN,
    numbers: Sequence[int] | None = None,
    check: bool = True,
    frames: Sequence[Atoms] | None = None,
) -> ExportReport:
    """Writes a potential as one TorchScript file.

    A file for ASE is called with (numbers, positions, cell, pbc, compute_stress=False) in eV and Å, see
    `mdpot.evaluator.Evaluator`; a file for OpenMM with (positions, boxvectors=None) in nm and kJ/mol, as
    openmmtorch's TorchForce does with `setOutputsForces(True)`. Both have `evaluate` (the call in eV and Å)
    and `metadata()` (JSON, also in the extra file "mdpot.json").

    Args:
        ckpt: potential file, folder of a run, name in `mdpot.zoo.ZOO`, or a potential.
        out: file to write, `*.pt` by custom.
        units: "openmm" or "ase".
        dtype: "float32" or "float64", precision of the network. Neighbors and sums are always float64.
        skin: Å, of the neighbor list inside.
        numbers: atomic numbers of the system, for OpenMM only; None leaves them to the file's `set_atoms`.
        check: whether to compare the file with the potential before it gets its name.
        frames: structures to compare on; None takes those that the trainer left in the file, else made-up ones.

    Returns:
        What the comparison found.

    Raises:
        MdpotError: unknown units or dtype, numbers given for ASE or not trained, a model that TorchScript
            cannot take, or a file that does not agree with its potential; then no file is left behind.
    """
    require_regular(out)
    if units not in UNITS:
        raise unknown("units", units, UNITS)
    if dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    if numbers is not None and units != "openmm":
        raise MdpotError("numbers: a file for ASE takes them in every call; leave them out, or export for OpenMM.")
    model = open_model(ckpt)
    for caution in model.cautions:
        warnings.warn(caution, stacklevel=2)
    particles = None
    if numbers is not None:
        require_elements(numbers, model.header["elements"])
        particles = Particles([int(z) for z in numbers], None, len(numbers))
    return write_torchscript(model, out, units, dtype, skin, particles, check, frames)


def write_torchscript(
    model: ModelFile,
    out: Path | str,
    units: str,
    dtype: str,
    skin: float,
    particles: Particles | None = None,
    check: bool = True,
    frames: Sequence[Atoms] | None = None,
) -> ExportReport:
    """`export_torchscript` of an open model file, for some particles of a System, without its warnings."""
    potential = model.potential(dtype=dtype)
    kept = [Atoms(**structure) for structure in model.header.get("structures", [])]
    header = {key: value for key, value in model.header.items() if key != "structures"}
    header["export"] = _describe(units, dtype, skin, None if particles is None else particles.numbers)
    module = make_module(potential, units, header, skin)
    if particles is not None:
        particles.enter(module)
    report = ExportReport(Path(out), units, dtype)
    with atomic(out) as temporary:
        save_module(module, temporary, header)
        if check:
            report = compare(load_module(temporary.read_bytes(), str(out)), report, potential, frames or kept)
    return report


def _describe(units: str, dtype: str, skin: float, numbers: list[int] | None) -> dict[str, Any]:
    return {
        "format_version": EXPORT_VERSION,
        "format": TORCHSCRIPT,
        "for": units,
        "units": UNITS[units],
        "dtype": dtype,
        "skin": float(skin),
        "numbers": numbers,
        "mdpot": mdpot.__version__,
        "torch": torch.__version__,
    }


def make_module(potential: AnyPotential, units: str, header: dict[str, Any], skin: float) -> torch.jit.ScriptModule:
    """The scripted module of a file, not yet saved.

    Raises:
        MdpotError: TorchScript cannot take the model.
    """
    evaluator = Evaluator(potential, skin)
    text = json.dumps(header)
    module = ForASE(evaluator, text) if units == "ase" else ForOpenMM(evaluator, text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch announces the end of TorchScript
        try:
            return torch.jit.script(module)
        except Exception as error:  # whatever the compiler trips over
            reason = " ".join(str(error).split("\n  File")[0].split())
            raise MdpotError(
                f"model {potential.model!r} can't be exported: TorchScript does not take "
                f"{type(getattr(potential, 'backbone', potential)).__name__}: {reason}"
            ) from None


def save_module(module: torch.jit.ScriptModule, path: Path, header: dict[str, Any]) -> None:
    """Saves a module of `make_module` with its metadata in an extra file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # Not straight to the file: on a full disk torch kills the process.
        buffer = io.BytesIO()
        torch.jit.save(module, buffer, _extra_files={EXTRA_FILE: json.dumps(header)})
    path.write_bytes(sealed(buffer.getvalue()))


def load_exported(
    path: Path | str, device: torch.device | str | None = None
) -> tuple[torch.jit.ScriptModule, dict[str, Any]]:
    """An exported file, as a module, and its metadata: `open_model` and `ModelFile.module` in one."""
    model = open_model(path)
    return model.module(device), model.header


def require_elements(numbers: Sequence[int], elements: Sequence[int]) -> None:
    """Raises MdpotError where `numbers` holds an element that is not among `elements`."""
    wrong = sorted({int(z) for z in numbers} - set(elements))
    if wrong:
        raise MdpotError(
            f"this potential was trained for {name_elements(elements)}; it knows nothing of {name_elements(wrong)}."
        )
