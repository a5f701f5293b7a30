"""SiLU with second derivatives in few passes over memory: training on forces differentiates every activation twice."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class SiLU(nn.Module):
    """x σ(x). The same numbers as `torch.nn.SiLU`, whose twice-differentiable form takes many small operations."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting() or not torch.is_grad_enabled():  # pyright: ignore[reportPrivateImportUsage]
            return torch.nn.functional.silu(x)
        return _SiLU.apply(x)  # type: ignore[return-value]


class _SiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.nn.functional.silu(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _SiLUSlope.apply(grad, x)  # type: ignore[return-value]


class _SiLUSlope(torch.autograd.Function):
    """grad · silu'(x), and its derivatives by both."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(grad, x)
        return torch.ops.aten.silu_backward(grad, x)

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, Tensor]:
        grad, x = ctx.saved_tensors
        if torch.is_grad_enabled():  # a third derivative: let autograd have all of it
            s = torch.sigmoid(x)
            slope = s * (1 + x * (1 - s))
            return outer * slope, outer * grad * s * (1 - s) * (2 + x * (1 - 2 * s))
        # silu'' = s (1 - s) (2 + x (1 - 2 s))
        s = torch.sigmoid(x)
        curvature = torch.mul(s, -2.0).add_(1.0).mul_(x).add_(2.0)
        weight = torch.ops.aten.sigmoid_backward(outer, s)  # outer · s (1 - s)
        return torch.ops.aten.silu_backward(outer, x), curvature.mul_(weight).mul_(grad)
