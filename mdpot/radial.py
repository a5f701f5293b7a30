"""Radial bases and envelopes: pure functions of distance."""

from __future__ import annotations

import math

import torch


def polynomial_envelope(distance: torch.Tensor, cutoff: float) -> torch.Tensor:
    """A factor that falls from 1 to 0 at the cutoff with zero first and second derivative there.

    1 - 28 x^6 + 48 x^7 - 21 x^8 with x = distance / cutoff, and 0 beyond (Gasteiger et al., ICLR 2020, eq. 8, p = 6).

    Args:
        distance: [...], Å.
        cutoff: Å.

    Returns:
        [...], between 0 and 1.
    """
    x = (distance / cutoff).clamp(max=1.0)
    x3 = x * x * x
    return 1.0 - x3 * x3 * (28.0 - x * (48.0 - 21.0 * x))


def cosine_envelope(distance: torch.Tensor, cutoff: float) -> torch.Tensor:
    """(1 + cos(π d / cutoff)) / 2, and 0 beyond: its second derivative jumps at the cutoff. Arguments as above."""
    return 0.5 * (1.0 + torch.cos(distance.clamp(max=cutoff) * (math.pi / cutoff)))


def message_envelope(distance: torch.Tensor, cutoff: float, smooth: bool) -> torch.Tensor:
    """`polynomial_envelope`, or where not `smooth` the hard end that published networks have: 1, and 0 beyond."""
    if smooth:
        return polynomial_envelope(distance, cutoff)
    return (distance < cutoff).to(distance.dtype)


def gaussian(exponent: torch.Tensor) -> torch.Tensor:
    """exp(-x) of x ≥ 0 that stays at 4e-18, beneath the precision of float64, from x = 40 on.

    Farther out float32 has subnormal numbers, 1e-38 to 1e-45, and with a few of them among its operands a matrix
    product on a CPU takes forty times as long.

    Args:
        exponent: [...].

    Returns:
        [...], between 4e-18 and 1.
    """
    return torch.exp(-exponent.clamp(max=40.0))


def gaussian_basis(distance: torch.Tensor, n_basis: int, cutoff: float) -> torch.Tensor:
    """exp(-(d - μ)² / 2 δ²) around n_basis centers μ from 0 to the cutoff, δ apart (the cutoff for a single one).

    Args:
        distance: [...], Å.
        n_basis: number of functions.
        cutoff: Å.

    Returns:
        [..., n_basis], between 0 and 1; see `gaussian`.
    """
    spacing = cutoff / max(n_basis - 1, 1)
    centers = spacing * torch.arange(n_basis, device=distance.device, dtype=distance.dtype)
    return gaussian(0.5 * ((distance.unsqueeze(-1) - centers) / spacing).square())


def bessel_basis(distance: torch.Tensor, n_basis: int, cutoff: float) -> torch.Tensor:
    """sqrt(2 cutoff) sin(n π d / cutoff) / d for n = 1 … n_basis.

    Eq. 7 of Gasteiger et al. (ICLR 2020) times the cutoff, and so of order one whatever that is.

    Args:
        distance: [...], Å, above 0.
        n_basis: number of functions.
        cutoff: Å.

    Returns:
        [..., n_basis].
    """
    n = torch.arange(1, n_basis + 1, device=distance.device, dtype=distance.dtype)
    d = distance.unsqueeze(-1)
    return math.sqrt(2.0 * cutoff) * torch.sin(d * (n * (math.pi / cutoff))) / d


WALL_STRENGTH = 300.0
"""eV, of `repulsive_wall`."""


def repulsive_wall(distance: torch.Tensor, start: torch.Tensor, strength: float = WALL_STRENGTH) -> torch.Tensor:
    """strength · (start / d - 1)^3 inside `start`, and exactly zero beyond, with two continuous derivatives.

    Started at the smallest distance that occurs in the training data, it leaves every training frame as it is and keeps
    dynamics out of the region where there were no data, into which networks fall.

    Args:
        distance: [...], Å, above 0.
        start: [...], Å; 0 for none.
        strength: eV.

    Returns:
        [...], eV.
    """
    return strength * (start / distance - 1.0).clamp(min=0.0) ** 3


PAIR_DECAY = 1.2
"""1/Å, of the slowest exponential of `pair_energy`."""


def pair_energy(
    distance: torch.Tensor, coefficients: torch.Tensor, cutoff: float, decay: float = PAIR_DECAY
) -> torch.Tensor:
    """The sum over k of c_k exp(-k · decay · d), times `polynomial_envelope`.

    Two of the exponentials make a Morse bond, the steeper ones a core repulsion.

    Args:
        distance: [n], Å.
        coefficients: [n_terms, n], c_1 first, eV.
        cutoff: Å.
        decay: 1/Å.

    Returns:
        [n], eV.
    """
    t = torch.exp(-decay * distance)
    value = torch.zeros_like(distance)
    for c in coefficients.flip(0).unbind(0):
        value = (value + c) * t
    return value * polynomial_envelope(distance, cutoff)
