"""Peers of mdpot with random weights, each behind the ASE calculator that its own package brings.

Every function takes a torch device, and a folder for files where a calculator wants to read its model from one, and
returns an ASE calculator in float32, in the mode that the package takes by default. Settings that the names do not
say are the defaults of the package. Elements are hydrogen and oxygen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

# torch and the rest only inside functions: threads are set before they load, and help needs none of them.
if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator


@dataclass(frozen=True)
class Peer:
    """A model to compare with.

    Attributes:
        family: what `--peers` calls it.
        label: for the table.
        package: distribution that must be installed.
        cutoff: Å.
        build: makes the calculator, of a folder and a device.
    """

    family: str
    label: str
    package: str
    cutoff: float
    build: Callable[[Path, str], BaseCalculator]

    def installed(self) -> str | None:
        """Version of the package, or None where it is missing."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


def mace(irreps: str, folder: Path, device: str) -> BaseCalculator:
    """MACE with two layers and 5 Å; the rest as `mace_run_train` takes it by default."""
    import numpy as np
    import torch
    from mace.calculators import MACECalculator  # isort: skip  # first: it lets e3nn read its old files

    from e3nn import o3
    from mace import modules

    block = modules.interaction_classes["RealAgnosticResidualInteractionBlock"]
    model = modules.ScaleShiftMACE(
        r_max=5.0,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=block,
        interaction_cls_first=block,
        num_interactions=2,
        num_elements=2,
        hidden_irreps=o3.Irreps(irreps),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(2),
        avg_num_neighbors=52.0,
        atomic_numbers=[1, 8],
        correlation=3,
        gate=torch.nn.functional.silu,
        use_reduced_cg=False,
        radial_MLP=[64, 64, 64],
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    return MACECalculator(models=model.float(), device=device, default_dtype="float32")


def tensornet(layers: int, folder: Path, device: str) -> BaseCalculator:
    """TensorNet of TorchMD-Net, width 128, 4.5 Å, with the settings of the package's examples."""
    import torch
    import warp

    warp.config.log_level = warp.LOG_WARNING  # else it lists every kernel that it loads
    from torchmdnet.calculators import TMDNETCalculator
    from torchmdnet.models.model import create_model

    settings: dict[str, Any] = {
        "model": "tensornet",
        "precision": 32,
        "embedding_dimension": 128,
        "num_layers": layers,
        "num_rbf": 32,
        "rbf_type": "expnorm",
        "trainable_rbf": False,
        "activation": "silu",
        "cutoff_lower": 0.0,
        "cutoff_upper": 4.5,
        "max_z": 10,
        "max_num_neighbors": 64,
        "equivariance_invariance_group": "O(3)",
        "static_shapes": False,
        "derivative": False,
        "atom_filter": -1,
        "prior_model": None,
        "output_model": "Scalar",
        "reduce_op": "add",
        "remove_ref_energy": False,
    }
    weights = {f"model.{name}": value for name, value in create_model(dict(settings)).state_dict().items()}
    path = folder / f"tensornet{layers}.ckpt"
    torch.save({"hyper_parameters": settings, "state_dict": weights}, path)

    class Neutral(TMDNETCalculator):
        """It wants the charge of the system with the structure."""

        def calculate(self, atoms: Atoms, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            atoms.info["charge"] = 0.0
            super().calculate(atoms, *args, **kwargs)

    return Neutral(str(path), device=device)


def painn(folder: Path, device: str) -> BaseCalculator:
    """PaiNN of SchNetPack, width 128, three layers, 5 Å, with its neighbor list of a skin of 0.3 Å."""
    import torch
    from torch.utils.data import dataloader

    if not hasattr(dataloader, "T_co"):  # SchNetPack 2.1 takes from torch a type variable that torch 2.9 renamed
        dataloader.T_co = dataloader._T_co  # type: ignore[attr-defined]
    import schnetpack as spk
    from schnetpack.interfaces import SpkCalculator

    model = spk.model.NeuralNetworkPotential(
        representation=spk.representation.PaiNN(
            n_atom_basis=128,
            n_interactions=3,
            radial_basis=spk.nn.GaussianRBF(n_rbf=20, cutoff=5.0),
            cutoff_fn=spk.nn.CosineCutoff(5.0),
        ),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(n_in=128, output_key="energy"), spk.atomistic.Forces()],
    )

    class WithModel(SpkCalculator):
        """It reads models as pickles, which torch no longer does without being told to; so none is written."""

        def _load_model(self, model_file: str, *placing: Any) -> torch.nn.Module:  # since 2.2 with device and dtype
            return model.to(device).eval()

    neighbors = spk.transform.SkinNeighborList(spk.transform.MatScipyNeighborList(5.0), cutoff_skin=0.3)
    return WithModel("", neighbors, energy_unit="eV", device=device)


PEERS = [
    Peer("tensornet", "TensorNet 128, 1 layer", "torchmd-net", 4.5, partial(tensornet, 1)),
    Peer("tensornet", "TensorNet 128, 2 layers", "torchmd-net", 4.5, partial(tensornet, 2)),
    Peer("mace", "MACE 64x0e, 2 layers", "mace-torch", 5.0, partial(mace, "64x0e")),
    Peer("mace", "MACE 128x0e + 128x1o, 2 layers", "mace-torch", 5.0, partial(mace, "128x0e + 128x1o")),
    Peer("painn", "PaiNN 128, 3 layers", "schnetpack", 5.0, painn),
]
FAMILIES = tuple(dict.fromkeys(peer.family for peer in PEERS))
