"""The highest phonon frequency of a crystal from a network of springs whose stiffness a neural network gives.

A bond between the atoms i and j, of length d and direction u, is a spring with the matrix of force constants
k ((1 - τ) u uᵀ + τ 1), where k and τ come of the elements, their surroundings and d. The dynamical matrices at the
eight wave vectors of a 2 × 2 × 2 supercell follow without anything that is fitted, masses and symmetry included; what
is trained on the measured frequency are the springs, and a correction by the atoms that move in the highest mode.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from ase import Atoms
from ase.data import atomic_masses, covalent_radii
from ase.neighborlist import neighbor_list
from descriptors import TABLE
from torch import Tensor, nn

CUTOFF = 6.0
RATIO = 1.7
"""The longest spring, over the sum of the covalent radii."""
WAVES = torch.tensor([[a, b, c] for a in (0, 1) for b in (0, 1) for c in (0, 1)])
"""Wave vectors, in halves of the reciprocal lattice vectors."""
TRAINED_WAVES = 3
"""Γ and two others, drawn anew for each step."""
HIGHEST = (0.6, 0.25, 0.15)
"""Shares of the three highest frequencies at a wave vector."""
LOWEST = 5.0
"""1/cm: lower frequencies count as this in training."""
SCALE = 300.0
"""1/cm: errors of this size count as much as a relative error of one."""


@dataclass(frozen=True)
class Crystal:
    """A crystal and its springs: [n_springs] ends i and j, lattice translation S, length d, length over the sum of the
    covalent radii, and direction."""

    numbers: np.ndarray
    i: np.ndarray
    j: np.ndarray
    translation: np.ndarray
    length: np.ndarray
    ratio: np.ndarray
    direction: np.ndarray

    @classmethod
    def of(cls, atoms: Atoms) -> "Crystal":
        i, j, d, vectors, translation = neighbor_list("ijdDS", atoms, CUTOFF)
        ratio = d / (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]])
        kept = ratio < RATIO
        if not kept.any():
            kept = d < d.min(initial=CUTOFF) + 0.3
        parts = translation, d, ratio, vectors / d[:, None]
        return cls(atoms.numbers, i[kept], j[kept], *(part[kept] for part in parts))


class Batch:
    """Crystals as tensors, with all atoms in one row; `crystal`, `own`: which crystal an atom is of, and its place
    there; `of`, `i`, `j`: the crystal of a spring, and its ends."""

    def __init__(self, crystals: Sequence[Crystal]) -> None:
        sizes = np.array([len(c.numbers) for c in crystals])
        starts = np.cumsum(sizes) - sizes
        springs = np.array([len(c.i) for c in crystals])
        self.n_crystals, self.most = len(crystals), int(sizes.max())
        self.numbers = _tensor([c.numbers for c in crystals], torch.int64)
        self.masses = torch.as_tensor(atomic_masses[self.numbers.numpy()], dtype=torch.float32)
        self.crystal = torch.as_tensor(np.repeat(np.arange(len(sizes)), sizes))
        self.own = _tensor([np.arange(n) for n in sizes], torch.int64)
        self.of = torch.as_tensor(np.repeat(np.arange(len(sizes)), springs))
        self.i = _tensor([c.i + start for c, start in zip(crystals, starts, strict=True)], torch.int64)
        self.j = _tensor([c.j + start for c, start in zip(crystals, starts, strict=True)], torch.int64)
        self.length, self.ratio, self.direction = (
            _tensor([getattr(c, name) for c in crystals]) for name in ("length", "ratio", "direction")
        )
        # exp(i q S) at these wave vectors is 1 or -1.
        self.phases = 1.0 - 2.0 * ((_tensor([c.translation for c in crystals], torch.int64) @ WAVES.T) % 2).float()


def _tensor(parts: Sequence[np.ndarray], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.as_tensor(np.concatenate(parts), dtype=dtype)


class SpringNetwork(nn.Module):
    """log of the highest frequency; see the top of this file.

    Args:
        width: of the hidden layers.
        features: of an atom.
    """

    def __init__(self, width: int = 48, features: int = 16) -> None:
        super().__init__()
        known = TABLE[1:90]
        self.register_buffer("table", torch.tensor((TABLE - known.mean(0)) / known.std(0), dtype=torch.float32))
        self.register_buffer("centers", torch.linspace(0.7, RATIO, 8))
        self.by_table = nn.Linear(TABLE.shape[1], features)
        self.by_element = nn.Embedding(len(TABLE), features)
        self.message = _mlp(2 * features + 8, width, features)
        self.update = nn.Linear(2 * features, features)
        self.spring = _mlp(4 * features + 10, width, width, 2)
        self.correction = _mlp(2 * features, width, 1)
        self.slope, self.shift = nn.Parameter(torch.tensor(4.0)), nn.Parameter(torch.tensor(0.0))
        nn.init.normal_(self.by_element.weight, std=0.02)
        for last in (self.spring[-1], self.correction[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, batch: Batch, waves: Tensor) -> Tensor:
        """[n_crystals]; `waves` are places in WAVES."""
        h = self.by_table(self.table[batch.numbers]) + self.by_element(batch.numbers)
        basis = torch.exp(-(((batch.ratio[:, None] - self.centers) / 0.14) ** 2))
        envelope = ((RATIO - batch.ratio) / (RATIO - 1.0)).clamp(0.0, 1.0)
        sent = self.message(torch.cat([h[batch.i], h[batch.j], basis], 1)) * envelope[:, None]
        around = torch.zeros_like(h).index_add(0, batch.i, sent) / 4
        h = h + self.update(torch.cat([around, h], 1))
        frequencies, motion = highest_modes(self._matrices(batch, h, basis, envelope, waves), batch.most)
        moving = _pooled(h * motion[batch.crystal, batch.own][:, None], batch)
        count = _pooled(torch.ones_like(h[:, :1]), batch)
        correction = self.correction(torch.cat([moving, _pooled(h, batch) / count], 1)).squeeze(1)
        return frequencies.log() + self.shift + correction

    def _matrices(self, batch: Batch, h: Tensor, basis: Tensor, envelope: Tensor, waves: Tensor) -> Tensor:
        """Dynamical matrices [n_crystals, n_waves, 3 most, 3 most], zero where a crystal has fewer atoms."""
        hi, hj = h[batch.i], h[batch.j]
        both = hi + hj, hi * hj, (hi - hj).square(), (hi - hj).abs()
        out = self.spring(torch.cat([*both, basis, batch.length[:, None] - 2.5, batch.ratio[:, None] - 1.0], 1))
        stiffness = envelope * torch.exp((out[:, 0] - self.slope * (batch.ratio - 1.0)).clamp(-12.0, 8.0))
        lateral = 0.5 * torch.sigmoid(out[:, 1] - 1.5)[:, None, None]
        along = batch.direction[:, :, None] * batch.direction[:, None, :]
        constants = stiffness[:, None, None] * ((1 - lateral) * along + lateral * torch.eye(3))
        n, phases, root = batch.most, batch.phases[:, waves], batch.masses.rsqrt()
        between = constants * (root[batch.i] * root[batch.j])[:, None, None]
        within = constants * batch.masses[batch.i].reciprocal()[:, None, None]
        row = (batch.of * n + batch.own[batch.i]) * n
        flat = torch.zeros([batch.n_crystals * n * n, len(waves), 3, 3])
        flat = flat.index_add(0, row + batch.own[batch.j], -between[:, None] * phases[:, :, None, None])
        flat = flat.index_add(0, row + batch.own[batch.i], within[:, None].expand(-1, len(waves), -1, -1))
        matrices = flat.view(batch.n_crystals, n, n, len(waves), 3, 3).permute(0, 3, 1, 4, 2, 5)
        matrices = matrices.reshape(batch.n_crystals, len(waves), 3 * n, 3 * n)
        return (matrices + matrices.transpose(-1, -2)) / 2


def highest_modes(matrices: Tensor, n_atoms: int) -> tuple[Tensor, Tensor]:
    """The mean over wave vectors of the highest frequencies [n_crystals], and how much each atom moves in the highest
    mode [n_crystals, n_atoms].

    An eigenvalue is vᵀ D v, whose derivative by D holds v fixed (Hellmann and Feynman).
    """
    with torch.no_grad():
        _, vectors = torch.linalg.eigh(matrices)
        vectors = vectors[..., -len(HIGHEST) :].flip(-1)
    squares = torch.einsum("bqxk,bqxy,bqyk->bqk", vectors, matrices, vectors)
    frequencies = squares.clamp(min=1e-6).sqrt() @ matrices.new_tensor(HIGHEST)
    motion = vectors[..., 0].unflatten(-1, [n_atoms, 3]).square().sum(-1)
    return frequencies.mean(1), motion.mean(1)


def _pooled(values: Tensor, batch: Batch) -> Tensor:
    return values.new_zeros([batch.n_crystals, values.shape[1]]).index_add(0, batch.crystal, values)


def _mlp(*sizes: int) -> nn.Sequential:
    parts = [[nn.Linear(before, after), nn.SiLU()] for before, after in pairwise(sizes)]
    return nn.Sequential(*[module for part in parts for module in part][:-1])


def fit_predict(
    crystals: Sequence[Crystal],
    targets: np.ndarray,
    test: Sequence[Crystal],
    seed: int,
    epochs: int = 100,
    lr: float = 4e-3,
    size: int = 32,
) -> np.ndarray:
    """The frequencies [n_test], 1/cm, of some crystals by a network that is trained on others."""
    torch.manual_seed(seed)
    random = np.random.RandomState(seed)
    network = SpringNetwork()
    first = Batch(crystals[:64])
    with torch.no_grad():
        network.shift += (torch.tensor(targets[:64]).clamp(min=LOWEST).log() - network(first, _waves(None))).median()
    average = torch.optim.swa_utils.AveragedModel(
        network, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99), use_buffers=False
    )
    optimizer = torch.optim.AdamW(network.parameters(), lr, betas=(0.9, 0.98), weight_decay=0.02)
    n_steps = epochs * -(-len(crystals) // size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / 30) * 0.5 * (1 + np.cos(np.pi * step / n_steps)) + 1e-4
    )
    for _ in range(epochs):
        for chosen in _batches(crystals, size, random):
            y = torch.tensor(targets[chosen], dtype=torch.float32).clamp(min=LOWEST)
            found = network(Batch([crystals[k] for k in chosen]), _waves(random))
            loss = (found - y.log()).abs().mean() + (found.clamp(max=8.5).exp() - y).abs().mean() / SCALE
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
    return _predict(average, test, size)


def _predict(network: nn.Module, crystals: Sequence[Crystal], size: int) -> np.ndarray:
    found = np.zeros(len(crystals))
    order = np.argsort([len(c.numbers) for c in crystals])
    with torch.no_grad():
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            found[chosen] = network(Batch([crystals[k] for k in chosen]), _waves(None)).exp().numpy()
    return found


def _waves(random: np.random.RandomState | None) -> Tensor:
    """All wave vectors, or Γ and some others."""
    if random is None:
        return torch.arange(len(WAVES))
    return torch.tensor([0, *(1 + random.permutation(len(WAVES) - 1)[: TRAINED_WAVES - 1])])


def _batches(crystals: Sequence[Crystal], size: int, random: np.random.RandomState) -> list[np.ndarray]:
    """Places of crystals of like sizes, so that little is padded, in a random order."""
    order = np.argsort([len(c.numbers) + random.uniform(-1.5, 1.5) for c in crystals])
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    random.shuffle(batches)
    return batches
