"""A periodic neighbor list in plain torch: scripts, runs on CPU and CUDA, keeps a Verlet skin between calls.

Exported potentials and OpenMM forces carry this module inside, so it uses no operator that torch itself
lacks. `mdpot.neighbors` is the list for everything that stays in Python.
"""

import torch
from torch import Tensor, nn

from mdpot.errors import MdpotError
from mdpot.neighbors import check_skin
from mdpot.torch_pairs import complete_cell, find_pairs, squared_length_


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
        MdpotError: the cutoff is not positive, or the skin negative or not finite.
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
        self.cutoff = float(cutoff)
        self.skin = check_skin(skin)
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
            edge_index [2, n_edges] int64 and shifts [n_edges, 3] in the dtype of the positions: edge vector =
            positions[j] - positions[i] + shifts @ cell, with i = edge_index[0]. Sorted by i, then j, then shift,
            whenever the candidates were built.

        Raises:
            MdpotError: as `complete_cell` and `find_pairs`.
        """
        with torch.no_grad():
            positions = positions.detach()
            cell = cell.detach().to(device=positions.device, dtype=positions.dtype)
            self._update(positions, cell, pbc)
            i, j = self.pairs[0], self.pairs[1]
            vectors = positions.index_select(0, j).sub_(positions.index_select(0, i)).add_(self.pair_offsets)
            close = (squared_length_(vectors) < self.cutoff * self.cutoff).nonzero().squeeze(1)
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
        rows = torch.where(pbc.to(cell.device).unsqueeze(1), cell, torch.zeros_like(cell))
        # Not `shifts @ rows`: which bits a product has may depend on the place of its row.
        x, y, z = self.pair_shifts[:, 0:1], self.pair_shifts[:, 1:2], self.pair_shifts[:, 2:3]
        self.pair_offsets = x * rows[0] + y * rows[1] + z * rows[2]
