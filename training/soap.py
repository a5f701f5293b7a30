"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., ICLR 2025, arXiv 2409.11321).

Small networks trained on forces gain most from it: a step costs little more than one of Adam, and far fewer are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from ctypes import CDLL
from typing import Any

import torch
from torch import Tensor

from mdpot.kernels.soap import SoapRows, find_soap, fits

Row = tuple[Tensor, Tensor, dict[str, Any]]
"""A parameter, its gradient, and what is kept of it."""

LARGEST = 1024
"""Sides of a matrix longer than this, and not cut, are not preconditioned."""

BLOCK = 256
"""Sides of a matrix longer than this are cut; what that saves and costs: docs/results/rmd17-trials.md."""


class SOAP(torch.optim.Optimizer):
    """Adam on gradients that are rotated into the eigenbasis of their second moments.

    For a weight matrix with gradient G [rows, columns] (a stack of them for three dimensions), in step t:

        L ← β_s L + (1 - β_s) G Gᵀ,  R ← β_s R + (1 - β_s) Gᵀ G
        Q_L, Q_R: eigenvectors of L and R, refreshed every few steps by one power iteration and a QR
        Adam's update N from the moments of G' = Q_Lᵀ G Q_R; the first is turned along when the eigenbasis changes
        W ← W - lr Q_L N Q_Rᵀ

    Vectors are updated by Adam. The first step of a matrix only finds its eigenbasis. Large matrices are cut into equal
    blocks, each with eigenbases of its own, as in distributed Shampoo (Shi et al., 2023, arXiv 2309.06497).

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay of Adam's first and second moment.
        basis_beta: β_s, decay of L and R.
        refresh: steps between two refreshments of the eigenbasis.
        block: sides longer than this are cut into the fewest equal parts that are not; where those would be shorter
            than a quarter of it, as of a prime number, the side stays whole.
        eps: added to the root of the second moment.
        weight_decay: decoupled, as in AdamW.
        kernels: whether the fused kernels make the steps of what they take, where they are installed; else torch.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        basis_beta: float = 0.95,
        refresh: int = 10,
        block: int = BLOCK,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        kernels: bool = True,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "basis_beta": basis_beta, "refresh": refresh, "block": block}
        super().__init__(params, {**defaults, "eps": eps, "weight_decay": weight_decay})
        self._kernels = kernels
        self._described: dict[int, SoapRows] = {}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._described = {}
        self.__dict__.setdefault("_kernels", True)
        for group in self.param_groups:
            group.setdefault("block", BLOCK)
        for kept in self.state.values():
            _renew(kept)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step from the gradients that the parameters hold."""
        library = find_soap() if self._kernels else None
        for number, group in enumerate(self.param_groups):
            due: dict[int, list[Row]] = {}  # by the number of the step
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if self._is_ready(parameter, parameter.grad, group):
                    state = self.state[parameter]
                    due.setdefault(state["step"], []).append((parameter, parameter.grad, state))
            for step, rows in due.items():
                settings = _settings(group, step)
                native, others = [], []
                for row in rows:
                    (native if library is not None and fits(*row[:2]) else others).append(row)
                refreshes = step % group["refresh"] == 0
                if library is not None and native:
                    described = self._describe(library, number, native)
                    described.step([gradient for _, gradient, _ in native], settings)
                    if refreshes:
                        described.refresh()
                for row in others:
                    _update(*row, **settings)
                    if refreshes:
                        _refresh_basis(row[2])

    def _describe(self, library: CDLL, group: int, rows: list[Row]) -> SoapRows:
        """What the kernels know of the rows of a group; described anew where they are not those of the last step."""
        found = self._described.get(group)
        if found is None or not found.are(rows):
            found = SoapRows(library, [(weights, state) for weights, _, state in rows])
            self._described[group] = found
        return found

    def _is_ready(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> bool:
        """Whether a parameter can make a step; the first one of a matrix only finds its eigenbasis."""
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            shape = _cut(parameter, group["block"])
            state["mean"], state["second"] = gradient.new_zeros(shape), gradient.new_zeros(shape)
            if len(shape) == 3:
                _start_basis(state)
        state["step"] += 1
        if state["step"] > 1 or state["mean"].ndim == 1:
            return True
        _average_outer_products(state, _as_blocks(gradient, state), group["basis_beta"])
        _find_basis(state)
        return False


def _cut(parameter: Tensor, block: int) -> tuple[int, ...]:
    """The shape of the matrices [n, rows, columns] into which a parameter is cut, or [n] where it is none."""
    if parameter.ndim < 2 or min(parameter.shape[-2:]) <= 1:
        return (parameter.numel(),)
    rows, columns = (_part(side, block) for side in parameter.shape[-2:])
    return parameter.numel() // (rows * columns), rows, columns


def _part(side: int, block: int) -> int:
    """The longest part, not above `block`, that a side can be cut into; the side where all are far shorter."""
    longest = next(n for n in range(min(side, block), 0, -1) if side % n == 0)
    return longest if 4 * longest >= block or longest == side else side


def _as_blocks(values: Tensor, state: dict[str, Any]) -> Tensor:
    """Numbers of a parameter's shape as the matrices into which it is cut."""
    cut = state["mean"].shape
    if len(cut) == 1:
        return values.reshape(cut)
    height, width = values.shape[-2:]
    parts = values.reshape(-1, height // cut[1], cut[1], width // cut[2], cut[2])
    return parts.transpose(2, 3).reshape(cut)


def _as_whole(blocks: Tensor, parameter: Tensor) -> Tensor:
    """What `_as_blocks` cut, whole again."""
    if blocks.ndim == 1:
        return blocks.view_as(parameter)
    (height, width), (rows, columns) = parameter.shape[-2:], blocks.shape[1:]
    parts = blocks.reshape(-1, height // rows, width // columns, rows, columns)
    return parts.transpose(2, 3).reshape(parameter.shape)


def _renew(kept: dict[str, Any]) -> None:
    """Makes what an earlier version kept of an interrupted training what is kept now: the first moment in the
    eigenbasis, moments of what is no matrix without a shape, and everything contiguous."""
    if "first" in kept:
        kept["mean"] = _rotate(kept.pop("first"), kept)
    for name, value in kept.items():
        if isinstance(value, Tensor):
            vector = name in ("mean", "second") and (value.ndim != 3 or min(value.shape[1:]) == 1)
            kept[name] = value.reshape(-1) if vector else value.contiguous()


def _settings(group: dict[str, Any], step: int) -> dict[str, float]:
    """The numbers of a step, as `mdpot_soap_settings` names them."""
    beta1, beta2 = group["betas"]
    return {
        "rate": group["lr"] / (1 - beta1**step),
        "keep": 1 - group["lr"] * group["weight_decay"],
        "beta1": beta1,
        "beta2": beta2,
        "basis_beta": group["basis_beta"],
        "root_scale": (1 - beta2**step) ** -0.5,
        "eps": group["eps"],
    }


def _update(
    parameter: Tensor,
    gradient: Tensor,
    state: dict[str, Any],
    *,
    rate: float,
    keep: float,
    beta1: float,
    beta2: float,
    basis_beta: float,
    root_scale: float,
    eps: float,
) -> None:
    """One step in torch: the reference of `mdpot.kernels.soap`."""
    gradient = _as_blocks(gradient, state)
    _average_outer_products(state, gradient, basis_beta)
    rotated = _rotate(gradient, state)
    state["mean"].lerp_(rotated, 1 - beta1)
    state["second"].mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
    update = _rotate_back(state["mean"] / state["second"].sqrt().mul_(root_scale).add_(eps), state)
    parameter.mul_(keep).add_(_as_whole(update, parameter), alpha=-rate)


def _start_basis(state: dict[str, Any]) -> None:
    n, rows, columns = state["mean"].shape
    for side, size in (("left", rows), ("right", columns)):
        if size <= LARGEST:
            state[side] = state["mean"].new_zeros(n, size, size)


def _average_outer_products(state: dict[str, Any], gradient: Tensor, beta: float) -> None:
    if "left" in state:
        state["left"].baddbmm_(gradient, gradient.mT, beta=beta, alpha=1 - beta)
    if "right" in state:
        state["right"].baddbmm_(gradient.mT, gradient, beta=beta, alpha=1 - beta)


def _find_basis(state: dict[str, Any]) -> None:
    for side in ("left", "right"):
        if side in state:
            state[f"{side}_basis"] = torch.linalg.eigh(state[side].double())[1].to(state[side].dtype).contiguous()


def _refresh_basis(state: dict[str, Any]) -> None:
    """One power iteration; the first moment is turned into the new basis, and the second follows where eigenvalues
    change their order."""
    mean = _rotate_back(state["mean"], state)
    for side, axis in (("left", 1), ("right", 2)):
        if side not in state:
            continue
        average, basis = state[side], state[f"{side}_basis"]
        eigenvalues = ((basis.mT @ average) * basis.mT).sum(2)
        order = eigenvalues.argsort(1, descending=True)
        basis = basis.gather(2, order.unsqueeze(1).expand_as(basis))
        second = state["second"]
        state["second"] = second.gather(axis, order.unsqueeze(3 - axis).expand_as(second))
        state[f"{side}_basis"] = torch.linalg.qr(average @ basis)[0].contiguous()
    state["mean"] = _rotate(mean, state)


def _rotate(values: Tensor, state: dict[str, Any]) -> Tensor:
    """Into the eigenbasis; vectors stay as they are."""
    if "left_basis" in state:
        values = state["left_basis"].mT @ values
    if "right_basis" in state:
        values = values @ state["right_basis"]
    return values


def _rotate_back(values: Tensor, state: dict[str, Any]) -> Tensor:
    """Out of the eigenbasis."""
    if "left_basis" in state:
        values = state["left_basis"] @ values
    if "right_basis" in state:
        values = values @ state["right_basis"].mT
    return values
