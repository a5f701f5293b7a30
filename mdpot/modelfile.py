"""Model files: one door through which every engine and command opens them, and what writes them.

A file holds a potential, a property of structures, or an ensemble of either: weights and all that is needed to use and
to trust them. What `mdpot export` wrote comes in by the same door.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mdpot.autograd import exact_gradients
from mdpot.electrons import STATED, Electrons
from mdpot.errors import MdpotError
from mdpot.exported import AOTI, format_of, is_exported, load_module, read_exported
from mdpot.files import write_bytes
from mdpot.heads import (
    AnyPotential,
    Potential,
    PotentialEnsemble,
    PropertyEnsemble,
    PropertyModel,
    build_ensemble,
    build_potential,
    build_property,
)
from mdpot.modelformat import (
    ENSEMBLE,
    POTENTIAL,
    PROPERTY,
    UNITS,
    Header,
    Tensors,
    as_dtype,
    member,
    pack,
    unpack,
)
from mdpot.models import MODELS
from mdpot.zoo import find_model


@dataclass(frozen=True)
class ModelFile:
    """A model file, found and read once; the network is made when it is asked for.

    Attributes:
        path: where it was found.
        header: see `save_model`; of an exported file what the header of its origin was, and "export".
        exported: whether it is a file of `mdpot export`.
        content: its bytes.
        tensors: its weights by name; none of an exported file.
    """

    path: Path
    header: Header
    exported: bool
    content: bytes = field(repr=False)
    tensors: Tensors = field(repr=False, default_factory=dict)

    @property
    def kind(self) -> str:
        """ "potential", "property" or "ensemble"."""
        return self.header.get("kind", POTENTIAL)

    @property
    def predicts(self) -> str:
        """ "potential" or "property": for an ensemble what its members are."""
        return self.header["members"][0]["kind"] if self.kind == ENSEMBLE else self.kind

    @property
    def dtype(self) -> str:
        """What the network computes in, "float32" or "float64"."""
        return self.header["export"]["dtype"] if self.exported else self.header["dtype"]

    @property
    def format(self) -> str | None:
        """What it was exported to, "torchscript" or "aoti"; None where it is not exported."""
        return format_of(self.header) if self.exported else None

    @property
    def device(self) -> str | None:
        """What it was compiled for, "cpu" or "cuda"; None where it runs on either."""
        return self.header["export"].get("device") if self.exported else None

    @property
    def baseline(self) -> str | None:
        """The force field that a potential corrects, and runs with, in `mdpot.forcefields.FORCE_FIELDS`; or None."""
        return self.header.get("baseline")

    @property
    def electrons(self) -> Electrons | str:
        """What the baseline takes for the electrons of structures that do not state theirs; `STATED`: they have to."""
        found = self.header.get("electrons") or {}
        return Electrons(**found) if isinstance(found, Mapping) else STATED

    @property
    def sha256(self) -> str:
        """The checksum of all its bytes."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def cautions(self) -> list[str]:
        """What a user should know before dynamics or predictions, a sentence each."""
        found = []
        networks = [part["model"] for part in self.header.get("members", [self.header])]
        if self.predicts == PROPERTY and (turned := [name for name in networks if not MODELS[name].equivariant]):
            found.append(f"the predictions of a {turned[0]} network depend a little on how a structure is turned.")
        if self.predicts == POTENTIAL and not self.header["conservative"]:
            found.append(
                "the forces of this potential are predicted directly, not the gradient of its energy. Energy is not "
                "conserved in dynamics, there is no stress, and a Monte Carlo barostat does not give the right volume."
            )
        if self.header.get("caution"):
            found.append(self.header["caution"])
        return found

    def require(self, what: str) -> ModelFile:
        """Itself, if it predicts `what`: "potential" or "property".

        Raises:
            MdpotError: it predicts the other; the message says what runs it.
        """
        if self.predicts == what:
            return self
        if what == POTENTIAL:
            raise MdpotError(
                f"{str(self.path)!r} predicts a property, {self.header['property']!r}, and has no energies and forces. "
                f"Run it with: mdpot predict {self.path} structures.extxyz."
            )
        raise MdpotError(
            f"{str(self.path)!r} is a potential: it gives energies and forces, not a property. Run it with "
            "MaskedGNNCalculator, mdpot md or mdpot.openmm, or compare it with labels by mdpot evaluate."
        )

    def require_alone(self) -> None:
        """Nothing, if it is the whole potential.

        Raises:
            MdpotError: it corrects a force field.
        """
        if self.baseline is not None:
            raise MdpotError(
                f"{str(self.path)!r} corrects the force field {self.baseline}, and means nothing without it. Run it by "
                "MaskedGNNCalculator, mdpot.openmm or mdpot md, which add both; nothing else does."
            )

    def potential(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        correction: bool = False,
    ) -> AnyPotential:
        """The potential, or the ensemble of some, in evaluation mode and without gradients of its weights.

        Args:
            device: where to; None is the CPU.
            dtype: of the network, float32 or float64; None is the dtype it was saved in.
            correction: whether the caller sees to the baseline, if it has one.

        Raises:
            MdpotError: it is no potential, it is exported, weights that do not fit the architecture, another dtype, or
                a correction that the caller does not know of.
        """
        return self.require(POTENTIAL).network(device, dtype, correction)

    def property(
        self, device: torch.device | str | None = None, dtype: torch.dtype | str | None = None
    ) -> PropertyModel | PropertyEnsemble:
        """The model of a property, or the ensemble of some; as `potential`."""
        return self.require(PROPERTY).network(device, dtype)

    @exact_gradients()
    def network(
        self,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str | None = None,
        correction: bool = False,
    ) -> Any:
        """What the file holds, whatever it is; as `potential`."""
        if not correction:
            self.require_alone()
        if self.exported:
            raise MdpotError(f"{str(self.path)!r} is an exported file; give the model file that it came from.")
        try:
            network = _build(self.header, self.tensors)
        except MdpotError as error:
            raise MdpotError(f"model file {str(self.path)!r} is damaged: {error}") from None
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            raise MdpotError(f"model file {str(self.path)!r} is damaged: {' '.join(str(error).split())}.") from None
        network.to(device=device, dtype=None if dtype is None else as_dtype(dtype))
        return network.eval().requires_grad_(False)

    @exact_gradients()
    def module(self, device: torch.device | str | None = None) -> Any:
        """The module of an exported file; for how to call it see `mdpot.export.export_torchscript`.

        Args:
            device: where to; None is the CPU, or what it was compiled for.

        Raises:
            MdpotError: it is not exported, this torch cannot load it, or it was compiled for another machine.
        """
        if not self.exported:
            raise MdpotError(f"{str(self.path)!r} is not an exported file. Make one: mdpot export {self.path}.")
        if self.format == AOTI:
            from mdpot.compiled import load_compiled

            return load_compiled(self.content, self.header, str(self.path), device)
        return load_module(self.content, str(self.path), device)


def open_model(model: Path | str | ModelFile | nn.Module) -> ModelFile:
    """The model file of a name.

    Args:
        model: a file of `save_model` or `mdpot export`, the folder of a run, or a name in `mdpot.zoo.ZOO`. What is open
            already is given back, and a network is what its file would be.

    Raises:
        MdpotError: no such file, not a model file, damaged, or written by a newer mdpot.
    """
    if isinstance(model, ModelFile):
        return model
    if isinstance(model, nn.Module):
        return read_model(_packed(model, {}), Path(f"a {type(model).__name__} in memory"))
    path = find_model(model)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MdpotError(f"model file {str(path)!r} cannot be read: {error.strerror}.") from None
    return read_model(content, path)


def read_model(content: bytes, path: Path) -> ModelFile:
    """The model file of some bytes; errors as `open_model`.

    Args:
        content: of the file.
        path: how to call it.
    """
    if is_exported(content):
        return ModelFile(path, read_exported(content, str(path)), True, content)
    header, tensors = unpack(content, str(path))
    return ModelFile(path, header, False, content, tensors)


def read_metadata(path: Path | str) -> Header:
    """The header of a model file, upgraded to the current format version; errors as `open_model`."""
    return open_model(path).header


def load_potential(
    path: Path | str,
    device: torch.device | str | None = None,
    dtype: torch.dtype | str | None = None,
    correction: bool = False,
) -> tuple[Potential, Header]:
    """The potential of a file, in evaluation mode, and its header: `open_model` and `ModelFile.potential` in one.

    Raises:
        MdpotError: as those, and an ensemble.
    """
    model = open_model(path)
    potential = model.potential(device, dtype, correction)
    if isinstance(potential, PotentialEnsemble):
        raise MdpotError(f"{str(model.path)!r} holds an ensemble, not one potential. Name one of its members' files.")
    return potential, model.header


def save_model(path: Path | str, model: nn.Module, metadata: Mapping[str, Any] | None = None) -> None:
    """Writes a model to one self-describing file, atomically.

    The header holds, as JSON: format_version, kind, model, hyperparameters, elements, cutoff (Å), scale, dtype, units,
    checksum (see there), and `metadata`. A potential adds reference energies (eV per atom) and conservative; a model of
    a property its name, unit, pooling and the mean of its targets; an ensemble the headers of its members.

    Args:
        path: file to write, `*.safetensors` by custom.
        model: made by `build_potential`, `build_property` or `build_ensemble`.
        metadata: JSON-like; what the trainer knows of its provenance, and `caution`, a sentence for whoever runs it,
            where there is one to say.

    Raises:
        MdpotError: weights that are not finite or in half precision, or a file that cannot be written.
    """
    write_bytes(path, _packed(model, metadata or {}))


def save_potential(path: Path | str, potential: Potential, metadata: Mapping[str, Any] | None = None) -> None:
    """`save_model` of a potential."""
    save_model(path, potential, metadata)


def save_ensemble(path: Path | str, files: Sequence[Path | str | ModelFile]) -> None:
    """Writes the models of several files as one, an ensemble, which runs wherever one of them would.

    The header of each is kept. What is said of all of them is put together: cautions, and the smallest distances.

    Args:
        path: file to write.
        files: two or more model files, or names of such, as `open_model` takes them.

    Raises:
        MdpotError: files that do not go together (other elements, dtype, kind or property), an ensemble or an exported
            file among them, the same file twice, or a file that cannot be written.
    """
    models = [open_model(file) for file in files]
    ensemble = build_ensemble([model.network() for model in models])
    first: dict[str, Path] = {}
    for model in models:
        if model.sha256 in first:
            raise MdpotError(
                f"members must differ; {str(first[model.sha256])!r} and {str(model.path)!r} hold the same, and would "
                "always agree."
            )
        first[model.sha256] = model.path
    headers = [model.header for model in models]
    distances: dict[str, float] = {}
    for header in headers:
        for pair, distance in (header.get("min_distances") or {}).items():
            distances[pair] = min(float(distance), distances.get(pair, math.inf))
    known = {
        "caution": " ".join(dict.fromkeys(header["caution"] for header in headers if header.get("caution"))),
        "min_distances": distances,
        "structures": headers[0].get("structures", []),
    }
    apart = ("structures", "checksum", "format_version")
    members = [{key: value for key, value in header.items() if key not in apart} for header in headers]
    content = {**{key: value for key, value in known.items() if value}, **_describe(ensemble), "members": members}
    write_bytes(path, pack(content, _weights(ensemble)))


def _packed(model: nn.Module, metadata: Mapping[str, Any]) -> bytes:
    return pack({**metadata, **_describe(model)}, _weights(model))


def _weights(model: nn.Module) -> Tensors:
    return {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}


def _describe(model: Any) -> Header:
    """What a file says of a model, beside its weights."""
    described = {
        "model": model.model,
        "hyperparameters": model.hyperparameters,
        "elements": model.elements,
        "cutoff": model.cutoff,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "units": UNITS,
    }
    if isinstance(model, (PotentialEnsemble, PropertyEnsemble)):
        members = [_describe(member) for member in model.members]
        shared = ("conservative", "property", "unit")
        described |= {key: members[0][key] for key in shared if key in members[0]}
        return {"kind": ENSEMBLE, **described, "members": members}
    described["scale"] = model.scale
    if isinstance(model, PropertyModel):
        targets = {"property": model.name, "unit": model.unit, "pooling": model.pooling, "mean": model.mean}
        return {"kind": PROPERTY, **described, **targets}
    energies = dict(zip(map(str, model.elements), model.shift.tolist(), strict=True))
    return {
        "kind": POTENTIAL,
        **described,
        "conservative": model.conservative,
        "reference_energies": energies,
    }


def _build(header: Header, tensors: Tensors) -> nn.Module:
    """The model of a header and its weights, in the dtype of the file."""
    if header["kind"] == ENSEMBLE:
        parts = header["members"]
        return build_ensemble([_build(part, member(index, tensors)) for index, part in enumerate(parts)])
    network: Any
    common = header["model"], header["hyperparameters"], header["elements"]
    if header["kind"] == PROPERTY:
        targets = (header[key] for key in ("property", "unit", "pooling", "mean", "scale"))
        network = build_property(*common, *targets)
    else:
        fitted = tensors["wall"].tolist(), tensors["pair"].tolist()
        network = build_potential(*common, tensors["shift"].tolist(), header["scale"], *fitted)
    for key in ("cutoff", "conservative"):
        if hasattr(network, key) and header.get(key, getattr(network, key)) != getattr(network, key):
            raise MdpotError(f"it states another {key} than its network has.")
    network.to(as_dtype(header["dtype"]))
    network.load_state_dict(tensors)
    return network
