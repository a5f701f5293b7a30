"""The search for pairs of atoms in plain torch, for `mdpot.torch_neighbors` and wherever vesin would not end.

It is done with cells (Allen and Tildesley, Computer Simulation of Liquids, 2nd ed., section 5.3): atoms are sorted into
bins, the grid of bins is padded by periodic images of itself ("ghosts"), and every atom is compared with the bins
within reach. There may be as few as one bin a direction, so a cutoff longer than the cell needs no case of its own:
the padding then holds several images. Empty space between distant atoms is cut out first.
"""

import torch
from torch import Tensor

from mdpot.errors import MdpotError

FARTHEST = 1e9  # Å: float64 resolves 1e-7 Å there
FLATTEST = 1e-6  # volume of a cell, in parts of that of a rectangular cell of the same lengths
MOST_CANDIDATES = 2e9  # pairs of atoms and images to be looked at in one search
MOST_PER_ATOM = 3e6  # of them for each atom: a hundred times what a sphere of 30 Å in matter holds


def require_manageable(
    n_atoms: int,
    heights: list[float],
    pbc: list[bool],
    radius: float,
    most: float = MOST_CANDIDATES,
    most_per_atom: float = MOST_PER_ATOM,
) -> None:
    """Refuses a search that would not end, or fill the memory: a tiny or strongly skewed cell.

    Args:
        n_atoms: number of atoms.
        heights: of the cell in each direction, Å; in non-periodic ones the extent of the atoms.
        pbc: which directions repeat.
        radius: Å.
        most: candidates in all, and
        most_per_atom: for each atom.

    Raises:
        MdpotError: there would be more, were the atoms spread evenly.
    """
    candidates = float(n_atoms)
    images = 1.0
    for axis in range(3):
        ratio = heights[axis] / radius
        if ratio >= 3.0:
            candidates = candidates * 3.0 / ratio
        elif pbc[axis]:
            candidates = candidates * (2.0 / ratio + 1.0)
            images = images * (2.0 / ratio + 1.0)
    if candidates > most_per_atom or candidates * n_atoms > most:
        raise MdpotError(
            "neighbors: the cell is too small or too flat for its atoms: within "
            + str(radius)
            + " Å there would be about "
            + str(candidates)
            + " candidates for each of the "
            + str(n_atoms)
            + " atoms, in "
            + str(images)
            + " images of the cell. Check the units of cell and positions, or choose less skewed lattice vectors."
        )


def complete_cell(cell: Tensor, pbc: Tensor, flattest: float = FLATTEST, longest: float = FARTHEST) -> Tensor:
    """A cell with an inverse: rows of non-periodic directions become unit vectors across the periodic ones.

    Args:
        cell: [3, 3] rows are cell vectors, Å; rows of non-periodic directions are ignored and may be zero.
        pbc: [3] bool, which directions repeat.
        flattest: smallest volume, in parts of that of a rectangular cell of the same lengths.
        longest: Å, largest component of a cell vector.

    Returns:
        [3, 3] float64 on the CPU, Å.

    Raises:
        MdpotError: a periodic direction has no cell vector, or the periodic vectors are linearly dependent or
            almost so, not finite, or too long.
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
    if not (volume > flattest * size and float(rows.abs().max().item()) <= longest):
        vectors: list[list[float]] = cell.detach().to(torch.float64).tolist()
        raise MdpotError(
            "cell: periodic directions need linearly independent, non-zero, finite cell vectors; got "
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


def squared_length_(vectors: Tensor) -> Tensor:
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
        close = (squared_length_(between) <= radius * radius).nonzero().squeeze(1)
        found_i.append(i.index_select(0, close))
        found_ghost.append(ghost.index_select(0, close))
    i, ghost = torch.cat(found_i), torch.cat(found_ghost)
    j = ghost_atom.index_select(0, ghost)
    image = ghost_image.index_select(0, ghost)
    other = ((i != j) | (image != 0).any(1)).nonzero().squeeze(1)
    return i.index_select(0, other), j.index_select(0, other), image.index_select(0, other)


def find_pairs(
    positions: Tensor,
    cell: Tensor,
    pbc: Tensor,
    radius: float,
    brute_force: int = 20_000,
    chunk: int = 0,
    farthest: float = FARTHEST,
) -> tuple[Tensor, Tensor]:
    """Every pair of atoms within `radius`, each periodic image on its own, an atom's own images included.

    Args:
        positions: [n_atoms, 3] Å, inside the cell or not.
        cell: [3, 3] float64 on the CPU, Å, from `complete_cell`.
        pbc: [3] bool.
        radius: Å.
        brute_force: up to this many distances (n_atoms² × images) the pairs are found without bins.
        chunk: number of distances computed at once; 0 takes what fits the cache of a CPU or fills a GPU.
        farthest: Å, largest coordinate.

    Returns:
        edge_index [2, n_pairs] int64 and shifts [n_pairs, 3] int64: the vector from atom i = edge_index[0] to atom
        j = edge_index[1] is positions[j] - positions[i] + shifts @ cell. Sorted by i, then j, then shift.

    Raises:
        MdpotError: a position is not finite or too far out, or there are too many pairs.
    """
    n_atoms = positions.shape[0]
    if not float(positions.abs().max().item()) <= farthest:
        raise MdpotError(
            "positions: every coordinate must be a finite number, and not beyond "
            + str(farthest)
            + " Å; some are not. The system has blown up, or its atoms were never wrapped into the cell."
        )
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
    lengths = [heights[axis] if periodic[axis] else heights[axis] * extents[axis] for axis in range(3)]
    if not (periodic[0] or periodic[1] or periodic[2]):
        radius = min(radius, lengths[0] + lengths[1] + lengths[2] + 1.0)
    require_manageable(n_atoms, lengths, periodic, radius)
    if _bins(lengths, radius)[1] > _most_bins(n_atoms):
        fractional, lengths, cell = _without_gaps(fractional, lengths, cell, periodic, 1.1 * radius)

    reach: list[int] = []
    n_images = 1
    for axis in range(3):
        reach.append(int(radius / lengths[axis]) + 1 if periodic[axis] else 0)
        n_images = n_images * (2 * reach[axis] + 1)
    inside = fractional @ cell
    if n_atoms * n_atoms * n_images <= brute_force:
        i, j, images = _brute_force(inside, cell, reach, radius)
    else:
        shape = _bins(lengths, radius)[0]
        while shape[0] * shape[1] * shape[2] > _most_bins(n_atoms):
            largest = max(shape)
            for axis in range(3):
                if shape[axis] == largest:
                    shape[axis] = (shape[axis] + 1) // 2
        reach = []
        for axis in range(3):
            images_needed = int(radius * shape[axis] / max(lengths[axis], 1e-6 * radius)) + 1
            reach.append(images_needed if periodic[axis] else min(images_needed, shape[axis] - 1))
        limits = torch.tensor(shape, device=positions.device)
        spans = torch.where(pbc.to(positions.device), torch.ones_like(origin), fractional.max(0)[0].clamp(min=1e-9))
        bins = torch.minimum((fractional / spans * limits).to(torch.int64), limits - 1)
        if chunk <= 0:
            chunk = 32_768 if positions.device.type == "cpu" else 8_000_000
        i, j, images = _binned(inside, cell, bins, shape, reach, periodic, radius, chunk)
    turns = wrap.to(torch.int64)
    shifts = images - turns.index_select(0, j) + turns.index_select(0, i)
    order = _order(i * n_atoms + j, images)
    return torch.stack([i, j]).index_select(1, order), shifts.index_select(0, order)


def _bins(lengths: list[float], radius: float) -> tuple[list[int], float]:
    """Number of bins of half the radius along each direction, and their product."""
    shape = [max(1, int(2.0 * length / radius)) for length in lengths]
    return shape, float(shape[0]) * float(shape[1]) * float(shape[2])


def _most_bins(n_atoms: int) -> int:
    return 4 * n_atoms + 64


def _order(pairs: Tensor, images: Tensor) -> Tensor:
    """The order [n_pairs] by number of the pair [n_pairs] and then by image [n_pairs, 3]."""
    if pairs.shape[0] == 0:
        return pairs
    low = images.min(0)[0]
    spans = images.max(0)[0] - low + 1
    digits = images - low
    image = (digits[:, 0] * spans[1] + digits[:, 1]) * spans[2] + digits[:, 2]
    n_images = int(spans.prod().item())
    if float(pairs.max().item()) * n_images < 9e18:
        return torch.sort(pairs * n_images + image)[1]
    first = torch.sort(image, stable=True)[1]
    return first.index_select(0, torch.sort(pairs.index_select(0, first), stable=True)[1])


def _without_gaps(
    fractional: Tensor, lengths: list[float], cell: Tensor, periodic: list[bool], keep: float
) -> tuple[Tensor, list[float], Tensor]:
    """The same atoms, with the empty space between distant ones cut out of each direction.

    Across a layer without atoms that is thicker than the radius there are no pairs, so that it may as well be thinner:
    the others keep their vectors, for no such layer is between them.

    Args:
        fractional: [n_atoms, 3], not negative, and along periodic directions below 1.
        lengths: Å, height of the cell along each direction, or the extent of the atoms.
        cell: [3, 3] complete cell, Å.
        periodic: which directions repeat.
        keep: Å that is left of a layer.

    Returns:
        The three of them after the cuts: fractional coordinates, lengths, and cell.
    """
    columns: list[Tensor] = []
    scales: list[float] = []
    for axis in range(3):
        values, order = torch.sort(fractional[:, axis], stable=True)
        # Along a direction that does not repeat a fractional coordinate is a length: its row is a unit vector.
        unit = lengths[axis] if periodic[axis] else 1.0
        steps = torch.cat([torch.zeros_like(values[:1]), values[1:] - values[:-1]])
        removed = torch.cumsum((steps - keep / unit).clamp(min=0.0), 0)
        last = (values[0] + 1.0 - values[-1] - keep / unit).clamp(min=0.0)
        values = values - values[0] - removed
        scale = float((1.0 - removed[-1] - last).item()) if periodic[axis] else 1.0
        columns.append(torch.zeros_like(values).index_copy(0, order, values / scale))
        scales.append(scale)
        lengths[axis] = lengths[axis] * scale if periodic[axis] else float(values[-1].item())
    factors = torch.tensor(scales, dtype=cell.dtype, device=cell.device)
    return torch.stack(columns, 1), lengths, cell * factors.unsqueeze(1)
