"""A data set of PyTorch Geometric to a potential, and a PyG model on mdpot's graphs. Needs the extra `pyg`.

The data set is a custom class, as in PyG's documentation, with rattled ethanol molecules labeled by ASE's EMT, a toy
that needs no download. PyG's own classes work the same way: `from_pyg(MD17(root, "revised aspirin"))`, or from a shell
`mdpot train custom --data "pyg:MD17:revised aspirin"`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from ase.build import molecule
from ase.calculators.emt import EMT
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.nn.models import SchNet

from mdpot import Graph, MaskedGNNCalculator
from mdpot.training.config import load_recipe
from mdpot.training.data import from_pyg
from mdpot.training.run import run_train


class Ethanol(InMemoryDataset):
    """60 structures; energies in eV, forces in eV/Å."""

    def __init__(self, root: Path) -> None:
        super().__init__(str(root))
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        return "ethanol.pt"

    def process(self) -> None:
        rng = np.random.default_rng(0)
        structures = []
        for _ in range(60):
            atoms = molecule("CH3CH2OH")
            atoms.rattle(0.05, rng=rng)
            atoms.calc = EMT()
            structures.append(
                Data(
                    z=torch.tensor(atoms.numbers),
                    pos=torch.tensor(atoms.positions),
                    energy=torch.tensor([atoms.get_potential_energy()]),
                    force=torch.tensor(atoms.get_forces()),
                )
            )
        self.save(structures, self.processed_paths[0])


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--steps", type=int, default=150)
arguments = parser.parse_args()

folder = Path(tempfile.mkdtemp())
dataset = from_pyg(Ethanol(folder / "ethanol"))
print("labels:", dataset.labels)

recipe = load_recipe(
    "custom",
    "quick",
    [
        "model.cutoff=4.0",
        "pretrain.max_steps=50",
        "pretrain.eval_every=50",
        f"finetune.max_steps={arguments.steps}",
        "finetune.eval_every=50",
    ],
)
metrics = run_train(recipe, data=dataset, out=folder / "run")
print("test force RMSE:", round(metrics["errors"]["test"]["force_rmse"], 1), "meV/Å")

atoms = molecule("CH3CH2OH")
atoms.calc = MaskedGNNCalculator(folder / "run")
print("energy:", atoms.get_potential_energy(), "eV")

# mdpot's neighbor lists for a model of PyG.
batch = Graph.from_atoms([atoms, molecule("H2O")], cutoff=4.0).to_pyg()


def neighbors(pos: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    source, target = batch.edge_index
    return batch.edge_index, (pos[source] - pos[target]).norm(dim=1)


schnet = SchNet(cutoff=4.0, interaction_graph=neighbors)
print("an untrained SchNet of PyG:", schnet(batch.z, batch.pos, batch.batch).flatten().tolist())
