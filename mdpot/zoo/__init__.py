"""Trained potentials that come with the package, by name, each with its report; and how a model file is found."""

from __future__ import annotations

import os
from difflib import get_close_matches
from pathlib import Path

from mdpot.errors import MdpotError

ZOO: dict[str, str] = {
    "water-rpbe-small": "Liquid water and ice, taught by the RPBE-D3 network potential (not DFT); the fastest",
    "water-rpbe-medium": "The same, two thirds of the error at 2.6 times the cost",
    "crystals-pbe-small": "A start for crystals of 89 elements, PBE: finetune it on frames of your own",
    "molecules-xtb-small": "A start for organic molecules, GFN2-xTB: finetune it on frames of your own",
    "rmd17": "One molecule of any of the ten of revised MD17 in vacuum, PBE/def2-SVP",
    "rmd17-aspirin": "One molecule of aspirin in vacuum, PBE/def2-SVP",
    "rmd17-ethanol": "One molecule of ethanol in vacuum, PBE/def2-SVP",
}
"""Name to what it is for."""

RESULTS = ("potential.safetensors", "property.safetensors")
"""What the folder of a finished run holds, one of them."""


def find_model(name: Path | str) -> Path:
    """The file that a name stands for: a file, the folder of a run, or a model of the zoo.

    Raises:
        MdpotError: none of these.
    """
    if not isinstance(name, (str, os.PathLike)):
        raise MdpotError(f"model must be a path, or a name of the zoo; got {name!r}.")
    path = Path(name)
    if path.is_dir():
        pretrained = path / "pretrained.safetensors"
        path = next((path / result for result in RESULTS if (path / result).is_file()), path)
        if path.is_dir():
            hint = "is the run finished?"
            if pretrained.is_file():
                hint = f"its pretraining is {str(pretrained)!r}."
            raise MdpotError(f"folder {str(name)!r} holds no {' or '.join(RESULTS)}; {hint}")
    if path.is_file():
        return path
    if str(name) in ZOO:
        return Path(__file__).parent / f"{name}.safetensors"
    close = get_close_matches(str(name), ZOO, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else f" The zoo holds: {', '.join(ZOO)}."
    raise MdpotError(f"model {str(name)!r} is not there: no file, no folder of a run, no name of the zoo.{hint}")
