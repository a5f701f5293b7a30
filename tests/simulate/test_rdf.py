"""Radial distributions, against an ideal gas, lattices and supercells; drift, against lines."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell

from mdpot.errors import MdpotError
from mdpot.simulate import radial_distributions
from mdpot.simulate.rdf import heights
from mdpot.simulate.summary import energy_drift

CELLS = {"box": np.diag([9.0, 10, 11]), "triclinic": np.array([[6.0, 0, 0], [2, 7, 0], [-1, 2.5, 8]])}


@pytest.mark.parametrize("name", CELLS)
def test_ideal_gas_is_flat(name: str) -> None:
    rng, cell = np.random.default_rng(0), CELLS[name]
    n_o, n_h = 30, 60
    frames = [Atoms(f"O{n_o}H{n_h}", rng.uniform(size=(n_o + n_h, 3)) @ cell, cell=cell, pbc=True) for _ in range(60)]
    radial = radial_distributions(frames, r_max=8.0, width=0.5)
    assert radial.n_frames == 60
    assert set(radial.g) == {"H-O", "H-H", "O-O"}
    far = radial.r > 2.0
    nearest_image = np.linalg.norm(cell, axis=1).min()
    # Without its images an atom has N − 1 others, of N that the density counts.
    for pair, flat in (("H-O", 1.0), ("H-H", 1 - 1 / n_h), ("O-O", 1 - 1 / n_o)):
        inside = far & (radial.r < nearest_image - 0.5)
        assert radial.g[pair][inside] == pytest.approx(flat, abs=0.06)
        assert radial.g[pair][inside].mean() == pytest.approx(flat, abs=0.015)
    assert radial.g["H-O"][far] == pytest.approx(1.0, abs=0.06)


@pytest.mark.parametrize("cubic", [True, False])
def test_fcc_has_its_shells(cubic: bool) -> None:
    """One or four atoms in the cell: all neighbors are images."""
    a, width = 4.0, 0.1
    atoms = bulk("Cu", "fcc", a=a, cubic=cubic)
    radial = radial_distributions([atoms], r_max=5.5, width=width)
    per_bin = radial.g["Cu-Cu"] * 4 / a**3 * 4 / 3 * np.pi * ((radial.r + 0.05) ** 3 - (radial.r - 0.05) ** 3)
    shells = {a / np.sqrt(2): 12, a: 6, a * np.sqrt(1.5): 24}
    for distance, count in shells.items():
        near = np.abs(radial.r - distance) < 1.01 * width
        assert per_bin[near].sum() == pytest.approx(count)
    assert radial.peak("Cu-Cu", 0, 3.5) == pytest.approx(a / np.sqrt(2), abs=width)
    assert (radial.g["Cu-Cu"][radial.r < 2.7] == 0).all()


def test_a_supercell_gives_the_same() -> None:
    rng = np.random.default_rng(1)
    cell = np.array([[3.5, 0.2, 0], [1.5, 3.0, 0.4], [-0.8, 1.0, 4.03]])
    small = Atoms("OH2", rng.uniform(size=(3, 3)) @ cell, cell=cell, pbc=True)
    large = make_supercell(small, [[2, 0, 0], [1, 3, 0], [0, 0, 2]])
    one, two = (radial_distributions([atoms], r_max=7.0, width=0.2) for atoms in (small, large))
    for pair in one.g:
        assert two.g[pair] == pytest.approx(one.g[pair], abs=1e-9)


def test_changing_volume() -> None:
    """Frames of a scaled cell weigh by their own density."""
    cells = [bulk("Cu", "fcc", a=a, cubic=True) for a in (4.0, 4.4)]
    both = radial_distributions(cells, r_max=4.0, width=0.2)
    each = [radial_distributions([cell], r_max=4.0, width=0.2) for cell in cells]
    assert both.g["Cu-Cu"] == pytest.approx(0.5 * (each[0].g["Cu-Cu"] + each[1].g["Cu-Cu"]))


def test_r_max_by_default() -> None:
    assert radial_distributions([bulk("Cu")]).r[-1] == pytest.approx(6.0, abs=0.05)
    big = Atoms("Ar2", [[0, 0, 0], [5, 5, 5]], cell=[16, 17, 18], pbc=True)
    assert radial_distributions([big]).r[-1] == pytest.approx(8.0, abs=0.05)


def test_peak_by_parabola() -> None:
    rng = np.random.default_rng(2)
    frames = [Atoms("O2", [[5, 5, 5], [5 + d, 5, 5]], cell=[14] * 3, pbc=True) for d in rng.normal(2.78, 0.12, 3000)]
    assert radial_distributions(frames).peak("O-O", 1.5, 4.0) == pytest.approx(2.76, abs=0.05)
    assert radial_distributions(frames).peak("O-O", 4.0, 5.0) is None
    assert radial_distributions(frames).peak("C-O") is None


def test_heights() -> None:
    cell = np.array([[3.0, 0, 0], [1.0, 4.0, 0], [2.0, -1.0, 5.0]])
    volume = abs(np.linalg.det(cell))
    a, b, c = cell
    expected = [volume / np.linalg.norm(np.cross(*pair)) for pair in ((b, c), (c, a), (a, b))]
    assert heights(cell) == pytest.approx(expected)


def test_radial_refuses() -> None:
    with pytest.raises(MdpotError, match="at least one frame"):
        radial_distributions([])
    with pytest.raises(MdpotError, match="full periodicity"):
        radial_distributions([Atoms("Ar", cell=[5, 5, 5], pbc=[True, True, False])])


def test_energy_drift() -> None:
    time = np.linspace(0, 10, 101)
    wave = 0.3 * np.sin(40 * time)
    energy = -1e6 + 192 * 1e-3 * (0.05 * time + wave)
    slope, scatter = energy_drift(time, energy, 192)
    assert slope == pytest.approx(0.05, abs=0.01)
    assert scatter == pytest.approx(0.3 / np.sqrt(2), rel=0.1)
