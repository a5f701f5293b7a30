"""TensorNet, trained by torchmd-train and behind its own calculator."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
from accuracy_data import BATCH, SEED, Calls, Frames, timed

# torch and the rest only inside functions: threads are set before they load, and help needs none of them.
if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator


def train_tensornet(frames: Frames, settings: dict[str, Any], epochs: int) -> Calls:
    """`torchmd-train` with two changes.

    Its neighbor list wants cells of twice the cutoff, which two thirds of the frames are not: `every_image` is in its
    place. Its learning rate only falls when the validation loss stalls: here it falls along a cosine.
    """
    import torch
    from lightning.pytorch import Trainer as Lightning
    from torch_geometric.data import Data
    from torchmdnet import datasets
    from torchmdnet.scripts import train as script

    parts = {split: frames.atoms(split) for split in ("train", "validation", "test")}
    ends = np.cumsum([0, *(len(part) for part in parts.values())])
    names = ("idx_train", "idx_val", "idx_test")
    np.savez("splits.npz", **{name: np.arange(*ends[k : k + 2]) for k, name in enumerate(names)})
    data = [
        Data(
            z=torch.tensor(atoms.numbers, dtype=torch.long),
            pos=torch.tensor(atoms.positions, dtype=torch.float32),
            box=torch.tensor(atoms.cell.array, dtype=torch.float32)[None],
            y=torch.tensor([[atoms.info["REF_energy"]]], dtype=torch.float32),
            neg_dy=torch.tensor(atoms.arrays["REF_forces"], dtype=torch.float32),
        )
        for part in parts.values()
        for atoms in part
    ]

    class Cosine(script.LNNP):
        def configure_optimizers(self) -> Any:
            (optimizer,), _ = super().configure_optimizers()
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=1e-6)]

    options = {
        **settings,
        "num_epochs": epochs,
        "batch_size": BATCH,
        "lr": 1e-3,
        "lr_warmup_steps": 100,
        "early_stopping_patience": epochs,
        "y_weight": 0.01,
        "neg_dy_weight": 0.99,
        "gradient_clipping": 40.0,
        "derivative": True,
        "dataset": "Water",
        "splits": "splits.npz",
        "save_interval": 1,
        "num_workers": 0,
        "ngpus": 1,
        "seed": SEED,
        "log_dir": "logs",
    }
    Path("settings.yaml").write_text(json.dumps(options))
    torch.manual_seed(SEED)
    with (
        every_image(),
        patch.object(datasets, "Water", lambda root: data, create=True),
        patch.object(script, "LNNP", Cosine),
        patch.object(sys, "argv", ["torchmd-train", "--conf", "settings.yaml"]),
        timed(Lightning, "fit") as calls,
    ):
        script.main()
    shutil.copy(calls.arguments[0].checkpoint_callback.best_model_path, "best.ckpt")
    return calls


@contextmanager
def every_image() -> Iterator[None]:
    """TensorNets made in the block find every periodic image inside the cutoff, in cells of any size and shape."""
    import torch
    from torchmdnet.models import tensornet

    from mdpot.neighbors import neighbor_list

    class EveryImage(tensornet.OptimizedDistance):
        def forward(self, pos: Any, batch: Any = None, box: Any = None) -> Any:
            batch = torch.zeros(len(pos), dtype=torch.long) if batch is None else batch
            cells = box.reshape(-1, 3, 3).to(pos.dtype)
            pairs, offsets, first = [], [], 0
            for cell, n_atoms in zip(cells, torch.bincount(batch).tolist(), strict=True):
                own = pos[first : first + n_atoms].detach().numpy()
                edges, shifts = neighbor_list(own, cell.numpy(), np.ones(3, bool), self.cutoff_upper)
                pairs.append(torch.from_numpy(edges) + first)
                offsets.append(torch.from_numpy(shifts).to(pos.dtype) @ cell)
                first += n_atoms
            (i, j), offset = torch.cat(pairs, 1), torch.cat(offsets)
            vectors = pos[i] - pos[j] - offset
            loops = torch.arange(len(pos))  # TensorNet asks for these too; at length zero they have no gradient
            nothing = vectors.new_zeros(len(pos), 3)
            distances = torch.cat([vectors.norm(dim=1), nothing[:, 0]])
            return torch.stack([torch.cat([i, loops]), torch.cat([j, loops])]), distances, torch.cat([vectors, nothing])

    with patch.object(tensornet, "OptimizedDistance", EveryImage):
        yield


def tensornet_calculator(folder: Path, settings: dict[str, Any], dynamics: bool) -> BaseCalculator:
    import warp

    warp.config.log_level = warp.LOG_WARNING  # else it lists every kernel that it loads
    from torchmdnet.calculators import TMDNETCalculator

    class Neutral(TMDNETCalculator):
        """It wants the charge of the system with the structure."""

        def calculate(self, atoms: Atoms, *args: Any, **kwargs: Any) -> None:  # type: ignore[override]
            atoms.info["charge"] = 0.0
            super().calculate(atoms, *args, **kwargs)

    with nullcontext() if dynamics else every_image():
        return Neutral(str(folder / "best.ckpt"), max_num_neighbors=160)  # ice under pressure has more than 64


def tensornet_settings(width: int, layers: int, cutoff: float) -> dict[str, Any]:
    return {
        "model": "tensornet",
        "embedding_dimension": width,
        "num_layers": layers,
        "num_rbf": 32,
        "cutoff_upper": cutoff,
        "max_z": 10,
        "max_num_neighbors": 64,
    }
