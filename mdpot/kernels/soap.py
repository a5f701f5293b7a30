"""SOAP's step in the fused kernels: its many small matrix products on all threads, without torch's price of each."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mdpot.errors import MdpotError
from mdpot.kernels import library
from mdpot.kernels.errors import NoKernel
from mdpot.threads import available_threads

Row = tuple[Tensor, Mapping[str, Tensor]]
KEPT = ("mean", "second", "left", "right", "left_basis", "right_basis")


def find_soap() -> ctypes.CDLL | None:
    """The library whose `soap_step` this processor runs, or None where there is none."""
    try:
        return library.default()
    except NoKernel:
        return None


def fits(weights: Tensor, gradient: Tensor) -> bool:
    """Whether the kernels take these: float32, dense, in the memory of the processor."""
    return (
        weights.dtype is gradient.dtype is torch.float32
        and weights.is_contiguous()
        and gradient.layout is torch.strided
        and weights.numel() > 0
        and weights.device.type == gradient.device.type == "cpu"
    )


def _kept(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """Where what is kept lies in memory."""
    return tuple(state[name].data_ptr() for name in KEPT if name in state)


class SoapRows:
    """Parameters with what SOAP keeps of them, described once for the kernels; their gradients are new in every step.

    Args:
        lib: of `find_soap`.
        rows: of each parameter the weights and what SOAP keeps: "mean" and "second" of the matrices [n, rows, columns]
            into which it is cut, or [n] where it is none, and of each side that is rotated "left" [n, rows, rows] and
            "left_basis", or "right" [n, columns, columns] and "right_basis". All float32, contiguous, and changed in
            place alone.

    Raises:
        MdpotError: what is kept is not contiguous.
    """

    def __init__(self, lib: ctypes.CDLL, rows: Sequence[Row]) -> None:
        self._lib = lib
        self.weights = [weights for weights, _ in rows]
        self._kept = [_kept(state) for _, state in rows]
        self._described = (library.SoapWeights * len(rows))()
        for to, (weights, state) in zip(self._described, rows, strict=True):
            cut = state["mean"].shape
            to.n, to.rows, to.columns = cut if len(cut) == 3 else (1, 0, weights.numel())
            to.abreast = weights.shape[-1] // to.columns if to.rows else 1
            for name in KEPT:
                if name in state:
                    if not state[name].is_contiguous():
                        raise MdpotError(f"state {name!r} must be contiguous; its strides are {state[name].stride()}.")
                    setattr(to, name, state[name].data_ptr())

    def are(self, rows: Sequence[tuple[Tensor, Tensor, Mapping[str, Tensor]]]) -> bool:
        """Whether these are rows of weights, gradients and states that still hold what was described."""
        return len(rows) == len(self.weights) and all(
            of is weights and kept == _kept(state)
            for of, kept, (weights, _, state) in zip(self.weights, self._kept, rows, strict=True)
        )

    def step(self, gradients: Sequence[Tensor], settings: Mapping[str, float]) -> None:
        """Updates weights, moments and averages in place; the result is the same to the bit for any number of threads.

        Args:
            gradients: of each parameter, of its shape.
            settings: the fields of `mdpot_soap_settings`.

        Raises:
            MdpotError: sizes that do not fit, or no memory.
        """
        held = [gradient.contiguous() for gradient in gradients]
        for to, weights, gradient in zip(self._described, self.weights, held, strict=True):
            to.weights, to.gradient = weights.data_ptr(), gradient.data_ptr()
        self._call(self._lib.mdpot_soap_step, ctypes.byref(library.SoapSettings(**settings)))
        for weights in self.weights:  # so that who computes with them, and torch itself, sees that they have changed
            torch.autograd.graph.increment_version(weights)

    def refresh(self) -> None:
        """Refreshes the eigenbases in place, and turns the moments along; errors as of `step`."""
        self._call(self._lib.mdpot_soap_refresh)

    def _call(self, function: Any, *settings: Any) -> None:
        if function(len(self._described), self._described, *settings, available_threads()):
            raise MdpotError(self._lib.mdpot_kernels_error().decode())
