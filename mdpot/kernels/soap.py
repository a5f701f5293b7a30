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

Row = tuple[Tensor, Tensor, Mapping[str, Tensor]]
KEPT = ("mean", "second", "left", "right", "left_basis", "right_basis")


def find_soap() -> ctypes.CDLL | None:
    """The library whose `soap_step` this processor runs, or None where there is none."""
    try:
        return library.default()
    except NoKernel:
        return None


def fits(weights: Tensor, gradient: Tensor) -> bool:
    """Whether the kernels take these: float32, dense, in the memory of the processor."""
    return weights.is_contiguous() and all(
        x.device.type == "cpu" and x.dtype == torch.float32 and x.layout == torch.strided and x.numel() > 0
        for x in (weights, gradient)
    )


def soap_step(lib: ctypes.CDLL, rows: Sequence[Row], settings: Mapping[str, float]) -> None:
    """Updates weights, moments and averages in place; the result is the same to the bit for any number of threads.

    Args:
        lib: of `find_soap`.
        rows: of each parameter the weights, the gradient of the same shape, and what SOAP keeps: "mean" and "second" of
            the matrices [n, rows, columns] into which it is cut, or [n] where it is none, and of each side that is
            rotated "left" [n, rows, rows] and "left_basis", or "right" [n, columns, columns] and "right_basis". All
            float32 and contiguous.
        settings: the fields of `mdpot_soap_settings`.

    Raises:
        MdpotError: sizes that do not fit, or no memory.
    """
    held = [(weights, gradient.contiguous(), state) for weights, gradient, state in rows]
    _call(lib.mdpot_soap_step, lib, held, ctypes.byref(library.SoapSettings(**settings)))
    for weights, _, _ in rows:  # so that who computes with them, and torch itself, sees that they have changed
        torch.autograd.graph.increment_version(weights)


def soap_refresh(lib: ctypes.CDLL, rows: Sequence[Row]) -> None:
    """Refreshes the eigenbases in place, and turns the moments along; arguments and errors as of `soap_step`."""
    _call(lib.mdpot_soap_refresh, lib, rows)


def _call(function: Any, lib: ctypes.CDLL, rows: Sequence[Row], *settings: Any) -> None:
    described = (library.SoapWeights * len(rows))()
    for to, (weights, gradient, state) in zip(described, rows, strict=True):
        cut = state["mean"].shape
        to.n, to.rows, to.columns = cut if len(cut) == 3 else (1, 0, weights.numel())
        to.abreast = weights.shape[-1] // to.columns if to.rows else 1
        to.gradient, to.weights = gradient.data_ptr(), weights.data_ptr()
        for name in KEPT:
            if name in state:
                if not state[name].is_contiguous():
                    raise MdpotError(f"state {name!r} must be contiguous; its strides are {state[name].stride()}.")
                setattr(to, name, state[name].data_ptr())
    if function(len(rows), described, *settings, available_threads()):
        raise MdpotError(lib.mdpot_kernels_error().decode())
