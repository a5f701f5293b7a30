"""Real spherical harmonics as polynomials, and the products that keep rotations right: constant tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MAX_ORDER = 3
MAX_SENT_ORDER = 2

# Rows of Y_l as {exponents of x, y, z: coefficient}; over the unit sphere each l has squares that add up to 1.
_S3, _S15, _S38, _S58 = math.sqrt(3.0), math.sqrt(15.0), math.sqrt(3.0 / 8.0), math.sqrt(5.0 / 8.0)
_HARMONICS: list[list[dict[tuple[int, int, int], float]]] = [
    [{(0, 0, 0): 1.0}],
    [{(1, 0, 0): 1.0}, {(0, 1, 0): 1.0}, {(0, 0, 1): 1.0}],
    [
        {(1, 1, 0): _S3},
        {(0, 1, 1): _S3},
        {(0, 0, 2): 1.0, (2, 0, 0): -0.5, (0, 2, 0): -0.5},
        {(1, 0, 1): _S3},
        {(2, 0, 0): _S3 / 2, (0, 2, 0): -_S3 / 2},
    ],
    [
        {(2, 1, 0): 3 * _S58, (0, 3, 0): -_S58},
        {(1, 1, 1): _S15},
        {(0, 1, 2): 4 * _S38, (2, 1, 0): -_S38, (0, 3, 0): -_S38},
        {(0, 0, 3): 1.0, (2, 0, 1): -1.5, (0, 2, 1): -1.5},
        {(1, 0, 2): 4 * _S38, (3, 0, 0): -_S38, (1, 2, 0): -_S38},
        {(2, 0, 1): _S15 / 2, (0, 2, 1): -_S15 / 2},
        {(3, 0, 0): _S58, (1, 2, 0): -3 * _S58},
    ],
]


def monomials(order: int) -> tuple[list[tuple[int, int, int]], list[int], list[int]]:
    """Monomials of x, y, z of degree 0 … order, and how each from the second degree on is a product.

    Returns:
        exponents, all of them by degree; and for those of degree 2 and up, indices (first, second) into the list:
        each is the earlier monomial `first` times `second`, one of 1 … 3, the coordinates.
    """
    exponents = [
        (a, b, degree - a - b)
        for degree in range(order + 1)
        for a in range(degree, -1, -1)
        for b in range(degree - a, -1, -1)
    ]
    first, second = [], []
    for exponent in exponents[4:]:
        axis = next(a for a in range(3) if exponent[a])
        lower = tuple(e - (a == axis) for a, e in enumerate(exponent))
        first.append(exponents.index(lower))  # type: ignore[arg-type]
        second.append(1 + axis)
    return exponents, first, second


def harmonics(order: int) -> Tensor:
    """[(order + 1)^2, n_monomials] float64: Y of l = 0 … order from the monomials of a unit vector."""
    exponents = monomials(order)[0]
    rows = [row for degree in range(order + 1) for row in _HARMONICS[degree]]
    return torch.tensor([[row.get(e, 0.0) for e in exponents] for row in rows], dtype=torch.float64)


def coupling(l1: int, l2: int, l3: int) -> Tensor:
    """The product of two harmonics that is a harmonic again, [2 l3 + 1, 2 l1 + 1, 2 l2 + 1] float64.

    Proportional to the mean of Y_l3 Y_l1 Y_l2 over the sphere (Gaunt's coefficients; not zero where l1 + l2 + l3 is
    even and no l above the sum of the others), scaled such that Y_l1(u) and Y_l2(u) of one direction u give Y_l3(u).
    """
    y1, y2, y3 = _HARMONICS[l1], _HARMONICS[l2], _HARMONICS[l3]
    gaunt = torch.tensor([[[_mean(a, b, c) for b in y2] for a in y1] for c in y3], dtype=torch.float64)
    pole = [
        torch.tensor([row.get((0, 0, degree), 0.0) for row in _HARMONICS[degree]], dtype=torch.float64)
        for degree in (l1, l2, l3)
    ]
    return gaunt / torch.einsum("cab,a,b,c->", gaunt, *pole)


def _mean(*factors: dict[tuple[int, int, int], float]) -> float:
    """The mean of a product of polynomials over the unit sphere."""
    product = {(0, 0, 0): 1.0}
    for factor in factors:
        terms: dict[tuple[int, int, int], float] = {}
        for (a, b, c), left in product.items():
            for (d, e, f), right in factor.items():
                key = (a + d, b + e, c + f)
                terms[key] = terms.get(key, 0.0) + left * right
        product = terms
    return sum(
        value * math.prod(_odd_factorial(e - 1) for e in key) / _odd_factorial(sum(key) + 1)
        for key, value in product.items()
        if all(e % 2 == 0 for e in key)
    )


def _odd_factorial(n: int) -> int:
    """1 · 3 · 5 ⋯ n."""
    return math.prod(range(1, n + 1, 2))


def message_paths(order: int, degree: int, sent_order: int = 1) -> list[tuple[int, int]]:
    """(l of an edge's harmonics, l of what is sent along it: 0 … sent_order) that couple to l = degree."""
    return [
        (edge, sent)
        for sent in range(sent_order + 1)
        for edge in range(order + 1)
        if abs(edge - sent) <= degree <= edge + sent and (edge + sent + degree) % 2 == 0
    ]


def message_table(order: int, sent_order: int = 1) -> Tensor:
    """[n_rows, (order + 1)^2 (sent_order + 1)^2] float64: harmonics times what is sent, of l = 0 … sent_order, to
    l = 0 … order; rows by l, path, m."""
    blocks = []
    for degree in range(order + 1):
        for edge, sent in message_paths(order, degree, sent_order):
            block = torch.zeros(2 * degree + 1, (order + 1) ** 2, (sent_order + 1) ** 2, dtype=torch.float64)
            block[:, edge**2 : (edge + 1) ** 2, sent**2 : (sent + 1) ** 2] = coupling(edge, sent, degree)
            blocks.append(block)
    return torch.cat(blocks).flatten(1)


def product_paths(order: int) -> list[tuple[int, int, int]]:
    """(l1, l2, l3), l1 <= l2, all from 1 to order: the products of two features that give a third."""
    span = range(1, order + 1)
    return [
        (l1, l2, l3)
        for l1 in span
        for l2 in span
        for l3 in span
        if l1 <= l2 and l2 - l1 <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
    ]


def product_table(order: int) -> tuple[list[int], list[int], Tensor]:
    """How all products of features follow from those of two components.

    Returns:
        first, second: the components (rows by l, m from l = 1) of each pair; and the table [n_rows, n_pairs] float64,
        rows: for each l from 1 the invariant (l, l → 0), then `product_paths`, each with its m.
    """
    n = (order + 1) ** 2 - 1
    invariants = [(degree, degree, 0) for degree in range(1, order + 1)]
    blocks = []
    for l1, l2, l3 in invariants + product_paths(order):
        block = torch.zeros(2 * l3 + 1, n, n, dtype=torch.float64)
        block[:, l1**2 - 1 : (l1 + 1) ** 2 - 1, l2**2 - 1 : (l2 + 1) ** 2 - 1] = coupling(l1, l2, l3)
        blocks.append(block)
    table = torch.cat(blocks)
    table = table.triu() + table.tril(-1).transpose(1, 2)
    first, second = (table.abs() > 1e-12).any(0).nonzero(as_tuple=True)
    return first.tolist(), second.tolist(), table[:, first, second]
