"""Pretrained weights into a new potential: all of the backbone, where asked the readout, and an account of what stays
new."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mdpot.errors import MdpotError, name_elements
from mdpot.heads import Potential, PropertyModel
from mdpot.modelfile import load_potential, read_metadata
from mdpot.models.hyperparameters import MEASURED, complete

NETWORK = ("embedding", "backbone")
"""The modules that every head stands on, and that are transferred."""


def network_weights(potential: Potential | PropertyModel) -> dict[str, Tensor]:
    """The weights of embedding and backbone, by their names in the state dict of the potential."""
    return {name: value for name, value in potential.state_dict().items() if name.split(".")[0] in NETWORK}


def per_element_weights(potential: Potential | PropertyModel) -> set[str]:
    """Those of them that have one row per element, as the modules declare."""
    return {f"{part}.{name}" for part in NETWORK for name in getattr(potential, part).per_element}


def transfer_backbone(
    source: Potential,
    target: Potential | PropertyModel,
    name: str = "the pretrained potential",
    with_readout: bool = False,
    offset: float = 0.0,
) -> list[str]:
    """Copies every weight of the embedding and the backbone of `source` into `target`, in place.

    Rows of weights that are per element are matched by element.

    Args:
        source: pretrained.
        target: of the same architecture; it may know further elements.
        name: of the source, for errors.
        with_readout: also copy the readout, so that `target` starts from the energies in eV that `source` gives, up to
            reference energies, pair energy and wall; else it stays as it is.
        offset: eV per atom, what the labels of `target` have on average beyond its reference energies, where those are
            not fitted; a copied readout starts from there.

    Returns:
        What stayed new in `target`, in words.

    Raises:
        MdpotError: the architectures or their hyperparameters differ.
    """
    _require_same_network(source, target, name)
    weights, fresh = network_weights(source), network_weights(target)
    if weights.keys() != fresh.keys():
        different = sorted(weights.keys() ^ fresh.keys())
        raise MdpotError(f"{name} does not fit the network of the recipe: weights {', '.join(different)} differ.")
    per_element = per_element_weights(target)
    new = [] if with_readout else [f"readout.{key}" for key in target.readout.state_dict()]
    for key, value in weights.items():
        if key in per_element:
            shared = [z for z in target.elements if z in source.elements]
            rows = torch.tensor([target.elements.index(z) for z in shared])
            fresh[key][rows] = value[[source.elements.index(z) for z in shared]].to(fresh[key])
            new += [f"{key} of {name_elements([z])}" for z in target.elements if z not in shared]
        elif value.shape != fresh[key].shape:
            raise MdpotError(
                f"{name} does not fit the network of the recipe: {key} is {list(value.shape)}, not "
                f"{list(fresh[key].shape)}."
            )
        else:
            fresh[key] = value
    target.load_state_dict(fresh, strict=False)
    if with_readout and isinstance(target, Potential):
        target.readout.load_state_dict(source.readout.state_dict())
        for kind, weight in target.readout[-1].named_parameters():
            weight.data *= source.scale / target.scale
            if kind == "bias":
                weight.data += offset / target.scale
    return new


def _require_same_network(source: Potential, target: Potential | PropertyModel, name: str) -> None:
    """Refuses another architecture, or other hyperparameters; arguments as of `transfer_backbone`."""
    if source.model != target.model:
        raise MdpotError(f"{name} is a {source.model!r} network; the recipe asks for {target.model!r}.")
    made = complete(type(source.backbone), source.hyperparameters)
    for key, value in complete(type(target.backbone), target.hyperparameters).items():
        # None is what follows from others; the shapes of the weights tell whether it is the same.
        if key != MEASURED and None not in (made[key], value) and made[key] != value:
            raise MdpotError(
                f"{name} was made with {key} = {made[key]!r}; the recipe asks for {value!r}. "
                "Finetune with the same, which `mdpot finetune` does where no key of the network is set, or "
                f"--set model.{'' if key == 'cutoff' else 'hyperparameters.'}{key}=..."
            )


def transferred_rates(share: float, with_readout: bool) -> dict[str, float]:
    """The learning rates of the parts of a network that were transferred, as a share of that of the others.

    Args:
        share: of what was transferred; with 0 a readout that came along learns alone, at the full rate.
        with_readout: whether the readout came along.
    """
    return dict.fromkeys((*NETWORK, "readout") if with_readout and share > 0 else NETWORK, share)


def pretraining_of(path: Path) -> str:
    """What the weights of a potential file learned: the name of the objective, or "labels" for a finetuned one."""
    provenance = read_metadata(path).get("provenance", {})
    return "labels" if is_finished(path) else provenance["recipe"]["pretrain"]["objective"]


def is_finished(path: Path) -> bool:
    """Whether a potential file is that of a finished training, and not of a pretraining."""
    return read_metadata(path).get("provenance", {}).get("stage") != "pretrain"


def load_pretrained(path: Path, device: torch.device) -> Potential:
    """A potential to take weights from; errors as `load_potential`."""
    return load_potential(path, device=device, correction=True)[0]
