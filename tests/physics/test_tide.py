"""The default network: its sizes and angular orders, and the tables of its harmonics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from numpy.polynomial import Legendre

from mdpot import MdpotError
from mdpot.heads import build_potential
from mdpot.models.angular import MAX_ORDER, coupling, harmonics, monomials, product_paths
from mdpot.models.tide import SIZES

from .conftest import CUTOFF, ELEMENTS, SHIFT, WITH_VECTOR, assert_same, check_forces, compute
from .test_symmetry import random_rotation

KINDS: list[dict[str, Any]] = [{"order": order, "width": 16} for order in range(1, MAX_ORDER + 1)]
KINDS += [{"size": size} for size in SIZES]
SENDS_TENSORS = [{"order": order, "sent_order": 2, "width": 16} for order in range(2, MAX_ORDER + 1)]
KINDS += [*SENDS_TENSORS, {"sent_order": 2, "width": 16, "layers": 3}]


def _values(order: int, directions: np.ndarray) -> list[np.ndarray]:
    """Y_l of unit vectors [n, 3] for l = 0 … order, each [2 l + 1, n]."""
    powers = np.stack([np.prod(directions ** np.array(e), axis=1) for e in monomials(order)[0]])
    rows = harmonics(order).numpy() @ powers
    return [rows[degree**2 : (degree + 1) ** 2] for degree in range(order + 1)]


def _directions(seed: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(50, 3))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_harmonics_obey_the_addition_theorem() -> None:
    """Σ_m Y_lm(u) Y_lm(v) = P_l(u · v) holds for spherical harmonics alone."""
    u, v = _directions(1), _directions(2)
    cosines = (u * v).sum(1)
    for degree, (left, right) in enumerate(zip(_values(MAX_ORDER, u), _values(MAX_ORDER, v), strict=True)):
        np.testing.assert_allclose((left * right).sum(0), Legendre.basis(degree)(cosines), atol=1e-12)


@pytest.mark.parametrize("path", product_paths(MAX_ORDER), ids=str)
def test_the_product_of_two_harmonics_is_a_third(path: tuple[int, int, int]) -> None:
    values = _values(MAX_ORDER, _directions(3))
    first, second, third = (values[degree] for degree in path)
    product = np.einsum("cab,an,bn->cn", coupling(*path).numpy(), first, second)
    np.testing.assert_allclose(product, third, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_size_and_order_turns_with_the_structure(kind: dict[str, Any]) -> None:
    torch.manual_seed(2)
    potential = build_potential("tide", {"cutoff": CUTOFF, **kind}, ELEMENTS, SHIFT, 0.7).double().eval()
    atoms = molecule("CH3CH2OH")
    rotation = -random_rotation(3)
    turned = Atoms(atoms.numbers, atoms.positions @ rotation.T)
    found = compute(potential, turned, outputs=WITH_VECTOR)
    assert float(found["forces"].abs().max()) > 1e-3
    assert_same(found, compute(potential, atoms, outputs=WITH_VECTOR), rotation)
    check_forces(potential, atoms, n_random=1)


def test_what_is_sent_of_l_2_is_seen() -> None:
    """Its weights alone change the energy."""
    torch.manual_seed(2)
    sizes = {"cutoff": CUTOFF, "sent_order": 2}
    potential = build_potential("tide", sizes, ELEMENTS, SHIFT, 0.7).double().eval()
    atoms = molecule("CH3CH2OH")
    before = compute(potential, atoms)["interaction"]
    names = [name for name, _ in potential.named_parameters() if "send_tensor" in name]
    assert names == ["backbone.layers.1.send_tensor"]
    with torch.no_grad():
        potential.get_parameter(names[0]).zero_()
    assert abs(float(compute(potential, atoms)["interaction"] - before)) > 1e-4


def test_l_2_is_sent_where_there_is_l_2() -> None:
    with pytest.raises(MdpotError, match="sent_order must be between 1 and 1 where order is 1; got 2"):
        build_potential("tide", {"cutoff": CUTOFF, "order": 1, "sent_order": 2}, ELEMENTS, SHIFT, 0.7)


def test_an_order_out_of_range_is_refused() -> None:
    with pytest.raises(MdpotError, match="order must be from 1 to 3; got 4"):
        build_potential("tide", {"cutoff": CUTOFF, "order": 4}, ELEMENTS, SHIFT, 0.7)
