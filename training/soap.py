"""SOAP: Adam in the eigenbasis of Shampoo's preconditioner (Vyas et al., ICLR 2025, arXiv 2409.11321).

Small networks trained on forces gain most from it: a step costs little more than one of Adam, and far fewer are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

LARGEST = 1024
"""Sides of a matrix longer than this are not preconditioned."""


class SOAP(torch.optim.Optimizer):
    """Adam on gradients that are rotated into the eigenbasis of their second moments.

    For a weight matrix with gradient G [rows, columns] (a stack of them for three dimensions), in step t:

        L ← β_s L + (1 - β_s) G Gᵀ,  R ← β_s R + (1 - β_s) Gᵀ G
        Q_L, Q_R: eigenvectors of L and R, refreshed every few steps by one power iteration and a QR
        Adam's update N from M = Q_Lᵀ m Q_R and G' = Q_Lᵀ G Q_R, with m the moving average of G
        W ← W - lr Q_L N Q_Rᵀ

    Vectors are updated by Adam. The first step of a matrix only finds its eigenbasis.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay of Adam's first and second moment.
        basis_beta: β_s, decay of L and R.
        refresh: steps between two refreshments of the eigenbasis.
        eps: added to the root of the second moment.
        weight_decay: decoupled, as in AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        basis_beta: float = 0.95,
        refresh: int = 10,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "basis_beta": basis_beta, "refresh": refresh, "eps": eps}
        super().__init__(params, {**defaults, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step from the gradients that the parameters hold."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, self.state[parameter], group)

    def _update(self, parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        matrices = parameter.ndim >= 2 and min(parameter.shape[-2:]) > 1
        if matrices:
            gradient = gradient.reshape(-1, *parameter.shape[-2:])
        if not state:
            state["step"] = 0
            state["mean"], state["second"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if matrices:
                _start_basis(state, gradient)
        state["step"] += 1
        if matrices:
            _average_outer_products(state, gradient, group["basis_beta"])
            if state["step"] == 1:
                _find_basis(state)
                return
        (beta1, beta2), t = group["betas"], state["step"]
        if "first" in state:  # saved when the first moment was not kept in the eigenbasis
            state["mean"] = _rotate(state.pop("first"), state)
        rotated = _rotate(gradient, state)
        mean = state["mean"].lerp_(rotated, 1 - beta1)
        state["second"].mul_(beta2).addcmul_(rotated, rotated, value=1 - beta2)
        root = state["second"].sqrt().mul_((1 - beta2**t) ** -0.5).add_(group["eps"])
        update = _rotate_back(mean / root, state)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(update.view_as(parameter), alpha=-group["lr"] / (1 - beta1**t))
        if matrices and t % group["refresh"] == 0:
            _refresh_basis(state)


def _start_basis(state: dict[str, Any], gradient: Tensor) -> None:
    n, rows, columns = gradient.shape
    for side, size in (("left", rows), ("right", columns)):
        if size <= LARGEST:
            state[side] = gradient.new_zeros(n, size, size)


def _average_outer_products(state: dict[str, Any], gradient: Tensor, beta: float) -> None:
    if "left" in state:
        state["left"].baddbmm_(gradient, gradient.mT, beta=beta, alpha=1 - beta)
    if "right" in state:
        state["right"].baddbmm_(gradient.mT, gradient, beta=beta, alpha=1 - beta)


def _find_basis(state: dict[str, Any]) -> None:
    for side in ("left", "right"):
        if side in state:
            state[f"{side}_basis"] = torch.linalg.eigh(state[side].double())[1].to(state[side].dtype)


def _refresh_basis(state: dict[str, Any]) -> None:
    """One power iteration; the second moment follows where eigenvalues change their order, the first one turns."""
    mean = _rotate_back(state["mean"], state)
    for side, axis in (("left", 1), ("right", 2)):
        if side not in state:
            continue
        basis = state[f"{side}_basis"]
        power = state[side] @ basis
        order = (basis * power).sum(1).argsort(1, descending=True)  # by eigenvalue
        second = state["second"]
        state["second"] = second.gather(axis, order.unsqueeze(3 - axis).expand_as(second))
        state[f"{side}_basis"] = torch.linalg.qr(power.gather(2, order.unsqueeze(1).expand_as(power)))[0]
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
