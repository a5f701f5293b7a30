"""A periodic neighbor list in plain torch: scripts, runs on CPU and CUDA, keeps a Verlet skin between calls.

Exported potentials and OpenMM forces carry this module inside, so it uses no operator that torch itself
lacks. `mdpot.neighbors` is the list for everything that stays in Python.

The list is built with cells (Allen and Tildesley, Computer Simulation of Liquids, 2nd ed., section 5.3):
atoms are sorted into bins, the grid of bins is padded by periodic images of itself ("ghosts"), and every atom
is compared with the bins within reach. There may be as few as one bin a direction, so a cutoff longer than
the cell needs no case of its own: the padding then holds several images.
"""

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError


def complete_cell(cell: Tensor, pbc: Tensor) -> Tensor:
    """A cell with an inverse: rows of non-periodic directions become unit vectors across the periodic ones.

    Args:
        cell: [3, 3] rows are cell vectors, Å; rows of non-periodic directions are ignored and may be zero.
        pbc: [3] bool, which directions repeat.

    Returns:
        [3, 3] float64 on the CPU, Å.

    Raises:
        RuntimeError: a periodic direction has no cell vector, or the periodic vectors are linearly dependent.
    """
    rows = cell.detach().to(device=torch.device("cpu"), dtype=torch.float64).clone()
    periodic: list[bool] = pbc.tolist()
    count = int(periodic[0]) + int(periodic[1]) + int(periodic[2])
    for axis in range(3):
        if not periodic[axis]:
            rows[axis] = 0.0
    if count == 0:
        return torch.eye(3, dtype=torch.float64)
    if count == 1:
        axis = 0 if periodic[0] else (1 if periodic[1] else 2)
        along = rows[axis]
        helper = torch.zeros(3, dtype=torch.float64)
        helper[int(torch.argmin(along.abs()).item())] = 1.0
        across = torch.linalg.cross(along, helper)
        rows[(axis + 1) % 3] = across / across.norm()
        across = torch.linalg.cross(along, rows[(axis + 1) % 3])
        rows[(axis + 2) % 3] = across / across.norm()
    if count == 2:
        axis = 0 if not periodic[0] else (1 if not periodic[1] else 2)
        across = torch.linalg.cross(rows[(axis + 1) % 3], rows[(axis + 2) % 3])
        rows[axis] = across / across.norm()
    volume = float(torch.linalg.det(rows).abs().item())
    size = float(rows.square().sum(1).sqrt().prod().item())
    if not volume > 1e-6 * size:
        vectors: list[list[float]] = cell.detach().to(torch.float64).tolist()
        raise RuntimeError(
            "cell: periodic directions need linearly independent, non-zero cell vectors; got "
            + str(vectors)
            + " with pbc "
            + str(periodic)
            + ". Set the cell, or switch those directions to non-periodic."
        )
    return rows


def _grid(shape: list[int], device: torch.device) -> Tensor:
    """[shape[0] * shape[1] * shape[2], 3] int64: the points of a grid, last coordinate fastest."""
    axes = [torch.arange(length, device=device) for length in shape]
    return torch.cartesian_prod(axes[0], axes[1], axes[2])


def _squared_length_(vectors: Tensor) -> Tensor:
    """[n] from [n, 3], which is overwritten: three times as fast on a CPU as `square().sum(1)`."""
    vectors.mul_(vectors)
    return vectors[:, 0] + vectors[:, 1] + vectors[:, 2]


def _brute_force(positions: Tensor, cell: Tensor, reach: list[int], radius: float) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs within `radius`, from every pair of atoms and every image up to `reach`. See `_binned`."""
    spans = [2 * images + 1 for images in reach]
    images = _grid(spans, positions.device) - torch.tensor(reach, device=positions.device)
    between = positions.unsqueeze(0) - positions.unsqueeze(1)
    offsets = images.to(positions.dtype) @ cell
    distances = (between.unsqueeze(2) + offsets).square().sum(3)
    home = images.shape[0] // 2  # the grid is symmetric about it
    distances.select(2, home).fill_diagonal_(2.0 * radius * radius + 1.0)
    found = (distances <= radius * radius).nonzero()
    return found[:, 0], found[:, 1], images.index_select(0, found[:, 2])


def _binned(
    positions: Tensor,
    cell: Tensor,
    bins: Tensor,
    shape: list[int],
    reach: list[int],
    pbc: list[bool],
    radius: float,
    chunk: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs within `radius` with the help of bins, sorted by central atom.

    Args:
        positions: [n_atoms, 3] inside the cell along periodic directions, Å.
        cell: [3, 3] complete cell, Å.
        bins: [n_atoms, 3] int64, the bin of each atom.
        shape: number of bins along each direction.
        reach: how many bins away an atom within `radius` can be.
        pbc: which directions repeat.
        radius: Å.
        chunk: number of distances computed at once, which bounds the memory.

    Returns:
        i [n_pairs], j [n_pairs], images [n_pairs, 3] int64: that image of atom j is near atom i.
    """
    device = positions.device
    n_atoms = positions.shape[0]
    limits = torch.tensor(shape, device=device)
    padding = torch.tensor(reach, device=device)

    # Atoms by bin.
    bin_of_atom = (bins[:, 0] * shape[1] + bins[:, 1]) * shape[2] + bins[:, 2]
    by_bin = torch.sort(bin_of_atom, stable=True)[1]
    occupancy = torch.bincount(bin_of_atom, minlength=shape[0] * shape[1] * shape[2])
    first = torch.cumsum(occupancy, 0) - occupancy

    # The padded grid: which bin stands in each place, and in which image.
    padded_shape = [shape[axis] + 2 * reach[axis] for axis in range(3)]
    places = _grid(padded_shape, device) - padding
    images = torch.div(places, limits, rounding_mode="floor")
    real = places - images * limits
    real_bin = (real[:, 0] * shape[1] + real[:, 1]) * shape[2] + real[:, 2]
    ghost_count = occupancy.index_select(0, real_bin)
    for axis in range(3):
        if not pbc[axis]:
            ghost_count = ghost_count * (images[:, axis] == 0)
    ghost_end = torch.cumsum(ghost_count, 0)
    ghost_first = torch.cat([torch.zeros_like(ghost_end[:1]), ghost_end])

    # The atoms in the padded grid, in the order of places.
    place = torch.repeat_interleave(ghost_count)
    rank = torch.arange(place.shape[0], device=device) - ghost_first.index_select(0, place)
    ghost_atom = by_bin.index_select(0, first.index_select(0, real_bin).index_select(0, place) + rank)
    ghost_image = images.index_select(0, place)
    ghost_position = positions.index_select(0, ghost_atom) + ghost_image.to(positions.dtype) @ cell

    # Each atom looks at columns of places: the places along the last direction are neighbors in memory.
    corner = (bins[:, 0] * padded_shape[1] + bins[:, 1]) * padded_shape[2] + bins[:, 2]
    columns = _grid([2 * reach[0] + 1, 2 * reach[1] + 1, 1], device)
    column = (columns[:, 0] * padded_shape[1] + columns[:, 1]) * padded_shape[2]
    start_place = corner.unsqueeze(1) + column
    start = ghost_first[start_place]
    count = ghost_first[start_place + (2 * reach[2] + 1)] - start

    total = int(count.sum().item())
    per_chunk = max(1, int(float(chunk) * n_atoms / max(total, 1)))
    found_i: list[Tensor] = []
    found_ghost: list[Tensor] = []
    for low in range(0, n_atoms, per_chunk):
        high = min(low + per_chunk, n_atoms)
        counts = count[low:high].reshape(-1)
        begins = start[low:high].reshape(-1) - (torch.cumsum(counts, 0) - counts)
        segment = torch.repeat_interleave(counts)
        ghost = begins.index_select(0, segment) + torch.arange(segment.shape[0], device=device)
        i = torch.arange(low, high, device=device).repeat_interleave(column.shape[0]).index_select(0, segment)
        between = ghost_position.index_select(0, ghost).sub_(positions.index_select(0, i))
        close = (_squared_length_(between) <= radius * radius).nonzero().squeeze(1)
        found_i.append(i.index_select(0, close))
        found_ghost.append(ghost.index_select(0, close))
    i, ghost = torch.cat(found_i), torch.cat(found_ghost)
    j = ghost_atom.index_select(0, ghost)
    image = ghost_image.index_select(0, ghost)
    other = ((i != j) | (image != 0).any(1)).nonzero().squeeze(1)
    return i.index_select(0, other), j.index_select(0, other), image.index_select(0, other)


def find_pairs(
    positions: Tensor, cell: Tensor, pbc: Tensor, radius: float, brute_force: int = 20_000, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """Every pair of atoms within `radius`, each periodic image on its own, an atom's own images included.

    Args:
        positions: [n_atoms, 3] Å, inside the cell or not.
        cell: [3, 3] float64 on the CPU, Å, from `complete_cell`.
        pbc: [3] bool.
        radius: Å.
        brute_force: up to this many distances (n_atoms² × images) the pairs are found without bins.
        chunk: number of distances computed at once; 0 takes what fits the cache of a CPU or fills a GPU.

    Returns:
        edge_index [2, n_pairs] int64, sorted by central atom, and shifts [n_pairs, 3] int64: the vector from
        atom i = edge_index[0] to atom j = edge_index[1] is positions[j] - positions[i] + shifts @ cell.
    """
    n_atoms = positions.shape[0]
    periodic: list[bool] = pbc.tolist()
    inverse = torch.linalg.inv(cell)
    heights: list[float] = inverse.square().sum(0).rsqrt().tolist()
    cell = cell.to(positions.device)
    fractional = positions.detach().to(torch.float64) @ inverse.to(positions.device)
    wrap = torch.floor(fractional) * pbc.to(device=positions.device, dtype=torch.float64)
    fractional = fractional - wrap
    origin = torch.where(pbc.to(positions.device), torch.zeros_like(fractional[0]), fractional.min(0)[0])
    fractional = fractional - origin
    extents: list[float] = (fractional.max(0)[0]).tolist()
    if not (extents[0] + extents[1] + extents[2] < 1e12):
        raise RuntimeError(
            "positions: every coordinate must be a finite number; some are not. The system has blown up."
        )

    lengths: list[float] = []
    reach: list[int] = []
    n_images = 1
    for axis in range(3):
        lengths.append(float(heights[axis]) * (1.0 if periodic[axis] else float(extents[axis])))
        reach.append(int(radius / lengths[axis]) + 1 if periodic[axis] else 0)
        n_images = n_images * (2 * reach[axis] + 1)
    inside = fractional @ cell
    if n_atoms * n_atoms * n_images <= brute_force:
        i, j, images = _brute_force(inside, cell, reach, radius)
    else:
        # Bins of half the radius, but not many more bins than atoms.
        shape = [max(1, int(2.0 * length / radius)) for length in lengths]
        while shape[0] * shape[1] * shape[2] > 4 * n_atoms + 64:
            largest = max(shape)
            for axis in range(3):
                if shape[axis] == largest:
                    shape[axis] = (shape[axis] + 1) // 2
        reach = []
        scales: list[float] = []
        for axis in range(3):
            images_needed = int(radius * shape[axis] / max(lengths[axis], 1e-6 * radius)) + 1
            reach.append(images_needed if periodic[axis] else min(images_needed, shape[axis] - 1))
            scales.append(shape[axis] * (1.0 if periodic[axis] else 1.0 / max(float(extents[axis]), 1e-9)))
        limits = torch.tensor(shape, device=positions.device)
        scale = torch.tensor(scales, dtype=torch.float64, device=positions.device)
        bins = torch.minimum((fractional * scale).to(torch.int64), limits - 1)
        if chunk <= 0:
            chunk = 32_768 if positions.device.type == "cpu" else 8_000_000
        i, j, images = _binned(inside, cell, bins, shape, reach, periodic, radius, chunk)
    turns = wrap.to(torch.int64)
    shifts = images - turns.index_select(0, j) + turns.index_select(0, i)
    return torch.stack([i, j]), shifts


class TorchNeighborList(nn.Module):
    """Neighbor list that keeps its candidates between calls (Verlet skin) and works on inside TorchScript.

    Candidates are all pairs within cutoff + skin at the last build. They stay valid as long as no pair
    within the cutoff can have been outside of cutoff + skin then. With an unchanged cell that is: no
    atom has moved further than skin / 2. When the cell has changed from C0 to C (barostat, strain), let
    F = C0⁻¹ C and u_i the displacement of atom i from its image under F, minus a common translation; a
    pair that is now at distance d was at most (d + 2 max|u|) ‖F⁻¹‖ apart, so the candidates are kept
    while (cutoff + 2 max|u|) ‖F⁻¹‖ ≤ cutoff + skin. Atoms that the caller wraps across the cell do not
    count as moved.

    Args:
        cutoff: Å.
        skin: Å; 0 builds anew whenever a position changes. It costs distances every call and saves builds.

    Raises:
        MdpotError: the cutoff is not positive or the skin is negative.
    """

    cutoff: float
    skin: float
    builds: int
    allowed: float
    anchor: Tensor
    anchor_cell: Tensor
    anchor_pbc: Tensor
    built_cell: Tensor
    pairs: Tensor
    pair_shifts: Tensor
    pair_offsets: Tensor

    def __init__(self, cutoff: float, skin: float = 0.5):
        super().__init__()
        if not cutoff > 0:
            raise MdpotError(f"cutoff: must be positive (Å), got {cutoff}.")
        if not skin >= 0:
            raise MdpotError(f"skin: must not be negative (Å), got {skin}.")
        self.cutoff = float(cutoff)
        self.skin = float(skin)
        self.builds = 0  # how often the candidates were built
        self.allowed = -1.0  # Å an atom may move from its anchor before a second look is due
        self.register_buffer("anchor", torch.zeros(0, 3), persistent=False)
        self.register_buffer("anchor_cell", torch.zeros(3, 3), persistent=False)
        self.register_buffer("anchor_pbc", torch.zeros(3, dtype=torch.bool), persistent=False)
        self.register_buffer("built_cell", torch.zeros(3, 3, dtype=torch.float64), persistent=False)
        self.register_buffer("pairs", torch.zeros(2, 0, dtype=torch.int64), persistent=False)
        self.register_buffer("pair_shifts", torch.zeros(0, 3), persistent=False)
        self.register_buffer("pair_offsets", torch.zeros(0, 3), persistent=False)

    def forward(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> tuple[Tensor, Tensor]:
        """The edges within the cutoff.

        Args:
            positions: [n_atoms, 3] float32 or float64, Å, inside the cell or not.
            cell: [3, 3] rows are cell vectors, Å; rows of non-periodic directions are ignored.
            pbc: [3] bool; on the CPU it costs no wait for a GPU.

        Returns:
            edge_index [2, n_edges] int64, sorted by central atom i = edge_index[0], and shifts [n_edges, 3]
            in the dtype of the positions: edge vector = positions[j] - positions[i] + shifts @ cell.

        Raises:
            RuntimeError: a position is not finite, or a periodic direction has no cell vector.
        """
        with torch.no_grad():
            positions = positions.detach()
            cell = cell.detach().to(device=positions.device, dtype=positions.dtype)
            self._update(positions, cell, pbc)
            i, j = self.pairs[0], self.pairs[1]
            vectors = positions.index_select(0, j).sub_(positions.index_select(0, i)).add_(self.pair_offsets)
            close = (_squared_length_(vectors) < self.cutoff * self.cutoff).nonzero().squeeze(1)
            return self.pairs.index_select(1, close), self.pair_shifts.index_select(0, close)

    @torch.jit.export
    def reset(self) -> None:
        """Forget the candidates: the next call builds them."""
        self.allowed = -1.0

    def _update(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> None:
        """Make the candidates valid for these positions: nothing to do, carry them over, or build."""
        known = (
            self.allowed >= 0.0
            and self.anchor.shape[0] == positions.shape[0]
            and self.anchor.device == positions.device
            and self.anchor.dtype == positions.dtype
        )
        if known and positions.shape[0] > 0:
            moved = (positions - self.anchor).square().sum(1).max()
            strained = (cell - self.anchor_cell).abs().max()
            repeats = (pbc != self.anchor_pbc.to(pbc.device)).any().to(device=moved.device, dtype=moved.dtype)
            # One wait for the device instead of three.
            checks: list[float] = torch.stack([moved, strained, repeats]).tolist()
            if checks[2] == 0.0:
                if checks[1] == 0.0 and checks[0] <= self.allowed * self.allowed:
                    return
                if self._carry_over(positions, cell, pbc):
                    return
        self._build(positions, cell, pbc)

    def _carry_over(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> bool:
        """Keep the candidates although atoms were wrapped or the cell changed, if the class's rule allows."""
        now = complete_cell(cell, pbc)
        before = complete_cell(self.anchor_cell, pbc)
        deformation = torch.linalg.solve(before, now).to(positions.device)
        inverse = torch.linalg.inv(now)
        back = inverse @ self.built_cell.to(inverse.device)
        change = float((back - torch.eye(3, dtype=torch.float64)).norm().item())
        allowed = 0.5 * ((self.cutoff + self.skin) / (1.0 + change) - self.cutoff)
        if not allowed >= 0.0:
            return False
        anchor = self.anchor.to(torch.float64) @ deformation
        away = positions.to(torch.float64) - anchor
        turns = torch.round(away @ inverse.to(away.device)) * pbc.to(device=away.device, dtype=torch.float64)
        anchor = anchor + turns @ now.to(away.device)
        drift = (positions.to(torch.float64) - anchor).mean(0)
        anchor = anchor + drift
        moved = float((positions.to(torch.float64) - anchor).square().sum(1).max().item())
        if not moved <= allowed * allowed:
            return False
        turns = turns.to(positions.dtype)
        i, j = self.pairs[0], self.pairs[1]
        self.pair_shifts = self.pair_shifts + turns.index_select(0, i) - turns.index_select(0, j)
        self._settle(anchor.to(positions.dtype), cell, pbc, allowed)
        return True

    def _build(self, positions: Tensor, cell: Tensor, pbc: Tensor) -> None:
        complete = complete_cell(cell, pbc)
        if positions.shape[0] == 0:
            self.pairs = torch.zeros(2, 0, dtype=torch.int64, device=positions.device)
            self.pair_shifts = torch.zeros(0, 3, dtype=positions.dtype, device=positions.device)
        else:
            pairs, shifts = find_pairs(positions, complete, pbc, self.cutoff + self.skin)
            self.pairs = pairs
            self.pair_shifts = shifts.to(positions.dtype)
        self.built_cell = complete
        self.builds += 1
        self._settle(positions.clone(), cell, pbc, 0.5 * self.skin)

    def _settle(self, anchor: Tensor, cell: Tensor, pbc: Tensor, allowed: float) -> None:
        self.anchor = anchor
        self.anchor_cell = cell.clone()
        self.anchor_pbc = pbc.clone()
        self.allowed = allowed
        complete = torch.where(pbc.to(cell.device).unsqueeze(1), cell, torch.zeros_like(cell))
        self.pair_offsets = self.pair_shifts @ complete
