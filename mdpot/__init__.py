"""mdpot: graph neural network potentials for molecular dynamics, pretrained by masking.

The names below are imported when they are first used, so that `import mdpot` and the command line's help are
fast.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdpot.errors import MdpotError

if TYPE_CHECKING:
    from mdpot.calculator import MaskedGNNCalculator
    from mdpot.graph import Graph
    from mdpot.heads import Potential, PropertyModel, build_potential, build_property
    from mdpot.modelfile import load_potential, open_model, save_model, save_potential
    from mdpot.models import MODELS
    from mdpot.predictor import PropertyPredictor

__version__ = "0.1.0"

__all__ = [
    "MODELS",
    "Graph",
    "MaskedGNNCalculator",
    "MdpotError",
    "Potential",
    "PropertyModel",
    "PropertyPredictor",
    "__version__",
    "build_potential",
    "build_property",
    "load_potential",
    "open_model",
    "save_model",
    "save_potential",
]

_HOME = {
    "MODELS": "mdpot.models",
    "Graph": "mdpot.graph",
    "MaskedGNNCalculator": "mdpot.calculator",
    "Potential": "mdpot.heads",
    "PropertyModel": "mdpot.heads",
    "PropertyPredictor": "mdpot.predictor",
    "build_potential": "mdpot.heads",
    "build_property": "mdpot.heads",
    "load_potential": "mdpot.modelfile",
    "open_model": "mdpot.modelfile",
    "save_model": "mdpot.modelfile",
    "save_potential": "mdpot.modelfile",
}

_CHECKOUT = Path(__file__).resolve().parent.parent


class _Beside(MetaPathFinder):
    """In a checkout cli/ and training/ lie beside this folder, not in it; nothing else there belongs to the package."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname not in ("mdpot.cli", "mdpot.training"):
            return None
        folder = _CHECKOUT / fullname.rpartition(".")[2]
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


if (_CHECKOUT / "pyproject.toml").is_file():
    # First of all: another checkout may be what is installed.
    sys.meta_path.insert(0, _Beside())


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'mdpot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
