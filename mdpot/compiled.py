"""Running what `mdpot export --to aoti` wrote: energy and forces as machine code, by AOTInductor.

The package holds `PaddedPotential` alone; neighbors are found around it, by the list that TorchScript files have
inside.
"""

from __future__ import annotations

import platform
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError
from mdpot.evaluator import Evaluator, ForOpenMM
from mdpot.files import unsealed
from mdpot.models.backbone import places_of
from mdpot.padded import pad_edges

KNOWN_OUTPUTS = ("energy", "energies", "interaction", "forces", "stress")
LEAST = 2
"""Atoms and slots of a compiled table: the compiler takes sizes of 1 for constants."""
INSTRUCTIONS = ("avx", "fma", "f16c", "bmi", "amx", "sse", "popcnt", "lzcnt", "abm", "asimd", "sve")


class CompiledPotential(nn.Module):
    """A package in the place of a `Potential` in an `Evaluator`.

    Args:
        run: [numbers, positions, neighbors, offsets] to the results of `PaddedPotential`.
        header: of the file.
        device: that it was compiled for.
    """

    lookup: Tensor

    def __init__(self, run: Any, header: dict[str, Any], device: torch.device) -> None:
        super().__init__()
        self.run = run
        self.cutoff, self.elements = float(header["cutoff"]), list(header["elements"])
        self.conservative = bool(header["conservative"])
        self.register_buffer("lookup", places_of(self.elements).to(device), persistent=False)

    def forward(
        self,
        numbers: Tensor,
        positions: Tensor,
        cell: Tensor,
        system: Tensor,
        edge_index: Tensor,
        shifts: Tensor,
        marks: Tensor | None = None,
        outputs: list[str] | None = None,
    ) -> dict[str, Tensor]:
        """What `Potential.forward` gives of one structure without marks, of `KNOWN_OUTPUTS`; arguments as there.

        Raises:
            MdpotError: an output that a package does not give.
        """
        wanted = ["energy", "forces"] if outputs is None else outputs
        if strange := [name for name in wanted if name not in KNOWN_OUTPUTS]:
            raise MdpotError(f"outputs: a compiled file gives {', '.join(KNOWN_OUTPUTS)}; got {strange[0]!r}.")
        if "stress" in wanted and not self.conservative:
            raise MdpotError("outputs: a force-centric potential has no stress once it is compiled.")
        energies, interaction, forces, virial = self._run(numbers, positions, cell[0], edge_index, shifts)
        out = {"energies": energies, "energy": energies.sum(0, True), "interaction": interaction.sum(0, True)}
        if "forces" in wanted:
            out["forces"] = forces
        if "stress" in wanted:
            volume = torch.det(cell).abs()
            out["stress"] = virial / torch.where(volume == 0, torch.inf, volume).view(1, 1, 1)
        return out

    def _run(
        self, numbers: Tensor, positions: Tensor, cell: Tensor, edge_index: Tensor, shifts: Tensor
    ) -> tuple[Tensor, ...]:
        n_atoms = numbers.shape[0]
        if n_atoms == 0:
            return positions.new_zeros([0]), positions.new_zeros([0]), positions, positions.new_zeros([3, 3])
        if n_atoms < LEAST:  # beside a copy of itself that nobody sees
            numbers, positions = numbers.repeat(LEAST), positions.repeat(LEAST, 1)
        neighbors, offsets = pad_edges(edge_index, shifts @ cell, len(numbers), self.cutoff, LEAST)
        energies, interaction, forces, virial = self.run([numbers, positions, neighbors, offsets])
        return energies[:n_atoms], interaction[:n_atoms], forces[:n_atoms], virial


def load_compiled(
    content: bytes, header: dict[str, Any], name: str, device: torch.device | str | None = None
) -> ForOpenMM:
    """The module of a compiled file: `evaluate` in eV and Å, the call itself as openmmtorch's TorchForce does.

    Args:
        content: of the file.
        header: its metadata.
        name: of the file, for errors.
        device: where to compute; None is the device it was compiled for.

    Raises:
        MdpotError: it was compiled for something else than what is here, or torch cannot load it.
    """
    export = header["export"]
    _require_fit(export, name)
    target = torch.device(device or export["device"])
    if target.type != export["device"]:
        raise MdpotError(f"{name!r} was compiled for {export['device']}; got device {str(target)!r}.")
    with tempfile.TemporaryDirectory() as folder:  # torch unpacks it into a folder of its own
        path = Path(folder) / "model.pt2"
        path.write_bytes(unsealed(content, name))
        index = {} if target.index is None else {"device_index": target.index}
        try:
            package: Any = torch._inductor.aoti_load_package(str(path), **index)  # type: ignore[attr-defined]
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).strip().split("\n")[0]
            raise MdpotError(f"{name!r} is not a package of AOTInductor, or is damaged: {reason}") from None
    potential: Any = CompiledPotential(package.loader.run, header, target)
    return ForOpenMM(Evaluator(potential, export["skin"]), "{}").to(target)


def describe_platform() -> dict[str, Any]:
    """What compiled code depends on, for the header of its file: torch, system, processor and its instructions."""
    return {
        "torch": torch.__version__,
        "system": platform.system(),
        "machine": platform.machine(),
        "instructions": _instructions(),
    }


def _instructions() -> list[str]:
    """The extensions that a compiler may use on this processor, as far as the system names them."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return sorted(flag for flag in flags if flag.startswith(INSTRUCTIONS))


def _require_fit(export: dict[str, Any], name: str) -> None:
    """Refuses code that was compiled for another torch, system or processor: it would crash, not fail."""
    here = describe_platform()
    found: dict[str, Any] = {key: export.get(key) for key in here}
    for what in ("system", "machine"):
        if found[what] != here[what]:
            raise MdpotError(
                f"{name!r} was compiled for {found['system']} {found['machine']}; this is {here['system']} "
                f"{here['machine']}. Export it here: mdpot export FILE --to aoti."
            )
    if _minor(found["torch"]) != _minor(here["torch"]):
        raise MdpotError(
            f"{name!r} was compiled with torch {found['torch']}, and code goes with its minor version; "
            f"{here['torch']} is installed. Export it here: mdpot export FILE --to aoti."
        )
    if missing := sorted(set(found["instructions"]) - set(here["instructions"])):
        raise MdpotError(
            f"{name!r} was compiled for a processor with {', '.join(missing)}, which this one lacks. "
            "Export it here: mdpot export FILE --to aoti."
        )


def _minor(version: str) -> list[str]:
    return str(version).split(".")[:2]
