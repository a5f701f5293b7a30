"""The potential: a backbone's features turned into energy, forces and stress."""

# Not `from __future__ import annotations`: TorchScript reads the types of the buffers, and only as types.
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError
from mdpot.models.activation import SiLU
from mdpot.models.backbone import AtomEmbedding, Backbone, places_of
from mdpot.radial import pair_energy, repulsive_wall

OUTPUTS = ("energy", "energies", "interaction", "forces", "stress", "vector", "derivative")
"""What can be asked of a potential by name; see `Potential.forward`."""


class Potential(nn.Module):
    """Energy = Σ_i (scale · e_i + shift[z_i]) + pairs, with e_i read out from the backbone's features of atom i.

    The pairs are what a sum over pairs of atoms can say of the energy, fitted before the network learns the rest, and
    repulsive where there were no data (see `pair_energy`); and a wall inside the smallest distances of the training
    data (see `repulsive_wall`).

    For conservative backbones the forces are -dE/dx; for force-centric ones they are the backbone's vector.

    Args:
        embedding: of the elements and the mark, as wide as the backbone's features.
        backbone: the architecture, one of `MODELS`.
        elements: atomic numbers it is trained for, ascending.
        shift: [n_elements], eV, reference energy per atom of each element.
        scale: eV, what one unit of the network's output is worth.
        wall: [n_elements, n_elements], Å, distance at which the wall of each pair of elements starts; None for no wall.
        pair: [n_terms, n_elements, n_elements], eV, coefficients of the pair energy, symmetric in the elements; None
            for no pair energy. Force-centric models have neither wall nor pair energy.
    """

    lookup: Tensor
    shift: Tensor
    wall: Tensor
    pair: Tensor

    def __init__(
        self,
        embedding: AtomEmbedding,
        backbone: Backbone,
        elements: Sequence[int],
        shift: Sequence[float],
        scale: float,
        wall: Sequence[Sequence[float]] | None = None,
        pair: Sequence[Sequence[Sequence[float]]] | None = None,
    ) -> None:
        super().__init__()
        # What rebuilds it from a file; `build_potential` fills them in.
        self.model = type(backbone).__name__.lower()
        self.hyperparameters = {}
        if len(elements) == 0 or len(elements) != len(shift):
            raise MdpotError(f"shift must hold one energy per element; got {len(shift)} for {len(elements)} elements.")
        self.embedding = embedding
        self.backbone = backbone
        self.cutoff = float(backbone.cutoff)
        self.conservative = bool(backbone.conservative)
        self.known_outputs = list(OUTPUTS)
        self.elements = [int(z) for z in elements]
        self.scale = float(scale)
        width = backbone.n_features
        self.readout = nn.Sequential(nn.Linear(width, width), SiLU(), nn.Linear(width, 1))
        self.register_buffer("lookup", places_of(self.elements), persistent=False)
        self.register_buffer("shift", torch.tensor(list(shift), dtype=torch.float64))
        n = len(self.elements)
        starts = torch.zeros([n, n]) if wall is None else torch.tensor(wall, dtype=torch.get_default_dtype())
        if starts.shape != (n, n):
            raise MdpotError(f"wall must be one distance per pair of elements, [{n}, {n}]; got {list(starts.shape)}.")
        # Beyond the cutoff there are no edges: a wall that reached there would end in a jump.
        self.register_buffer("wall", starts.clamp(max=self.cutoff))
        self.has_wall = self.conservative and bool((starts > 0).any())
        terms = torch.zeros([1, n, n]) if pair is None else torch.tensor(pair, dtype=torch.get_default_dtype())
        if terms.dim() != 3 or terms.shape[1:] != (n, n):
            raise MdpotError(
                f"pair must be coefficients per pair of elements, [n_terms, {n}, {n}]; got {list(terms.shape)}."
            )
        self.register_buffer("pair", terms)
        self.has_pair = self.conservative and bool((terms != 0).any())

    def _apply(self, fn, recurse=True):
        # Total energies reach -1e5 eV: the reference stays in float64 whatever the network is converted to.
        shift = self.shift
        super()._apply(fn, recurse)
        self.shift = shift.to(self.lookup.device)
        return self

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
        """What is asked for of a batch of structures; the arguments but the last two are the tensors of `Graph`.

        The energies always come along, for they are free; the forces of a conservative model, "stress" and
        "derivative" share one derivative, which is taken where one of them is asked for.

        Args:
            numbers: [n_atoms] int64, all among `elements`.
            positions: [n_atoms, 3], Å. In float64 they serve a float32 network best: edge vectors are taken in
                the dtype of the positions, and forces are summed in it.
            cell: [n_systems, 3, 3], Å, in the dtype of the positions.
            system: [n_atoms] int64.
            edge_index: [2, n_edges] int64. Edges beyond the cutoff do no harm.
            shifts: [n_edges, 3], integer lattice translations.
            marks: [n_atoms], 1 where the molecule of the atom lost an atom to the mask (pretraining only).
            outputs: names from the list below; None is energy and forces.

        Returns:
            - "energy" [n_systems] float64 eV, always;
            - "energies" [n_atoms] float64 eV, always;
            - "interaction" [n_systems] eV, always: the energy without the reference, in the network's dtype;
            - "forces" [n_atoms, 3] eV/Å;
            - "stress" [n_systems, 3, 3] eV/Å^3: dE/dε/V, positive under tension; zero without a volume;
            - "derivative" [n_atoms, 3] eV/Å: -dE/dx, which for a force-centric model is not what its forces are;
            - "vector" [n_atoms, 3]: the backbone's per-atom vector.

            They carry a graph for further derivatives in training mode or where the positions require a gradient.

        Raises:
            MdpotError: an unknown output, or one that takes a derivative while gradients are switched off.
        """
        wanted = ["energy", "forces"] if outputs is None else outputs
        differentiate = self.differentiates(wanted)
        keep_graph = self.training or positions.requires_grad
        vectors = edge_vectors(positions, cell, system, edge_index, shifts)
        vectors = vectors.to(self.readout[0].weight.dtype)  # type: ignore[arg-type]
        if differentiate and not vectors.requires_grad:
            vectors.requires_grad_()
        species = self.lookup[numbers]
        if marks is None:
            marks = torch.zeros_like(numbers)
        direct = "vector" in wanted or ("forces" in wanted and not self.conservative)
        if differentiate or keep_graph:
            network, vector = self.network(species, edge_index, vectors, marks, direct)
        else:
            with torch.no_grad():
                network, vector = self.network(species, edge_index, vectors, marks, direct)
        gradient = torch.zeros_like(vectors)
        if differentiate:
            gradient = slope(network, vectors, keep_graph)
        if not keep_graph:
            network, vector, vectors = network.detach(), vector.detach(), vectors.detach()
        energies = network.double() + self.shift[species]
        out = {
            "energies": energies,
            "energy": energies.new_zeros([cell.shape[0]]).index_add(0, system, energies),
            "interaction": network.new_zeros([cell.shape[0]]).index_add(0, system, network),
        }
        if "derivative" in wanted or ("forces" in wanted and self.conservative):
            downhill = force_on_atoms(gradient.to(positions.dtype), edge_index, positions.shape[0])
            if self.conservative:
                out["forces"] = downhill
            if "derivative" in wanted:
                out["derivative"] = downhill
        if "forces" in wanted and not self.conservative:
            out["forces"] = (vector * self.scale).to(positions.dtype)
        if "vector" in wanted:
            out["vector"] = vector
        if "stress" in wanted:
            out["stress"] = stress(gradient, vectors, cell, system.index_select(0, edge_index[0]))
        return out

    def differentiates(self, outputs: list[str]) -> bool:
        """Whether the outputs of these names take a derivative of the energy.

        Raises:
            MdpotError: an unknown name, or a derivative while gradients are switched off.
        """
        for name in outputs:
            if name not in self.known_outputs:
                raise MdpotError("unknown output " + name + ". Known: " + ", ".join(self.known_outputs) + ".")
        found = "stress" in outputs or "derivative" in outputs or ("forces" in outputs and self.conservative)
        if found and not torch.is_grad_enabled():
            raise MdpotError(
                "outputs: forces and stress need gradients; call this outside of torch.no_grad and "
                "torch.inference_mode, or ask for the energy alone."
            )
        return found

    def network(
        self, species: Tensor, edge_index: Tensor, vectors: Tensor, marks: Tensor, direct: bool
    ) -> tuple[Tensor, Tensor]:
        """Energies without the reference [n_atoms], eV, and the backbone's vectors [n_atoms, 3]; arguments as there."""
        features, vector = self.backbone(self.embedding(species, marks), species, edge_index, vectors, direct)
        energies = self.readout(features).squeeze(-1) * self.scale
        if self.has_wall or self.has_pair:
            # Every pair comes twice, once for each of its atoms.
            i, j = edge_index[0], edge_index[1]
            energies = energies.index_add(0, i, 0.5 * self.pair_energies(vectors, species[i], species[j]))
        return energies, vector

    def pair_energies(self, vectors: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Wall and pair energy of pairs of atoms.

        Args:
            vectors: [n_pairs, 3], Å.
            first, second: [n_pairs] int64, index into the elements of the two atoms.

        Returns:
            [n_pairs], eV.
        """
        kind = first * self.wall.shape[0] + second
        distance = torch.linalg.vector_norm(vectors, dim=-1)
        energy = torch.zeros_like(distance)
        if self.has_wall:
            energy = energy + repulsive_wall(distance, self.wall.flatten().index_select(0, kind))
        if self.has_pair:
            energy = energy + pair_energy(distance, self.pair.flatten(1).index_select(1, kind), self.cutoff)
        return energy


def edge_vectors(positions: Tensor, cell: Tensor, system: Tensor, edge_index: Tensor, shifts: Tensor) -> Tensor:
    """The vectors [n_edges, 3], Å, from atom i to its neighbor j; arguments as in `Graph`."""
    i, j = edge_index[0], edge_index[1]
    if cell.shape[0] == 1:
        translation = shifts @ cell[0]
    else:
        # Column by column: sums over three numbers are slow on a CPU.
        a, b, c = cell.index_select(0, system.index_select(0, i)).unbind(1)
        translation = shifts[:, 0:1] * a + shifts[:, 1:2] * b + shifts[:, 2:3] * c
    return positions.index_select(0, j) - positions.index_select(0, i) + translation


def slope(energies: Tensor, vectors: Tensor, create_graph: bool) -> Tensor:
    """dE/dv [n_edges, 3], eV/Å, of energies [n_atoms], eV, by the edge vectors [n_edges, 3] that they came from."""
    if vectors.shape[0] > 0:
        found = torch.autograd.grad([energies.sum()], [vectors], create_graph=create_graph)[0]
        if found is not None:
            return found
    return torch.zeros_like(vectors)


def force_on_atoms(gradient: Tensor, edge_index: Tensor, n_atoms: int) -> Tensor:
    """-dE/dx [n_atoms, 3] from dE/dv [n_edges, 3], eV/Å: an edge pulls its two atoms in opposite directions."""
    zeros = gradient.new_zeros([n_atoms, 3])
    return zeros.index_add(0, edge_index[0], gradient).index_add(0, edge_index[1], -gradient)


def stress(gradient: Tensor, vectors: Tensor, cell: Tensor, system: Tensor) -> Tensor:
    """dE/dε/V of a symmetric strain ε, zero without a volume.

    Args:
        gradient: [n_edges, 3], eV/Å, dE/dv.
        vectors: [n_edges, 3], Å.
        cell: [n_systems, 3, 3], Å.
        system: [n_edges] int64, of each edge.

    Returns:
        [n_systems, 3, 3], eV/Å^3, in the dtype of the cell.
    """
    n_systems = cell.shape[0]
    virial = (gradient.unsqueeze(2) * vectors.unsqueeze(1)).flatten(1).to(cell.dtype)
    virial = virial.new_zeros([n_systems, 9]).index_add(0, system, virial).view(n_systems, 3, 3)
    volume = torch.det(cell).abs().view(n_systems, 1, 1)
    # Without a volume there is no stress; a division by zero would put NaN into everyone's gradients.
    volume = volume.masked_fill(volume == 0, math.inf)
    return 0.5 * (virial + virial.transpose(1, 2)) / volume
