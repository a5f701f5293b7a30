"""Where the embeddings of elements begin."""

from __future__ import annotations

import pytest
import torch
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.data import atomic_numbers

from mdpot.training import networks
from mdpot.training.config import load_recipe
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.elements import period_and_group, relate
from mdpot.training.networks import new_potential
from mdpot.training.prepare import prepare
from mdpot.training.prepared import Prepared


@pytest.mark.parametrize(
    ("symbol", "period", "group"),
    [
        ("H", 1, 1), ("He", 1, 18), ("Li", 2, 1), ("Be", 2, 2), ("B", 2, 13), ("O", 2, 16), ("Ne", 2, 18),
        ("Al", 3, 13), ("K", 4, 1), ("Sc", 4, 3), ("Fe", 4, 8), ("Zn", 4, 12), ("Kr", 4, 18), ("Mo", 5, 6),
        ("Cs", 6, 1), ("Ba", 6, 2), ("La", 6, 3), ("Hf", 6, 4), ("W", 6, 6), ("Rn", 6, 18),
        ("Ra", 7, 2), ("Ac", 7, 3), ("Rf", 7, 4), ("Og", 7, 18),
    ],
)  # fmt: skip
def test_the_periodic_table(symbol: str, period: int, group: int) -> None:
    assert period_and_group(atomic_numbers[symbol]) == (period, group)


def test_lanthanides_lie_between_barium_and_hafnium() -> None:
    groups = [period_and_group(number)[1] for number in range(56, 73)]
    assert groups == sorted(set(groups))


def test_water_begins_as_it_did() -> None:
    random = torch.randn(2, 64)
    related = random.clone()
    relate(related, [1, 8])
    assert torch.equal(related, random)


def test_neighbors_in_the_table_begin_alike() -> None:
    elements = [1, 3, 6, 8, 11, 26, 27, 28, 42, 74]
    embedding = torch.randn(len(elements), 40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    relate(embedding, elements)
    shared = torch.corrcoef(embedding)
    assert embedding.std(1).sub(1.0).abs().max() < 0.02
    place = {number: n for n, number in enumerate(elements)}
    for alike, unlike in [((26, 27), (26, 3)), ((42, 74), (42, 8)), ((3, 11), (3, 6)), ((27, 28), (27, 1))]:
        assert shared[place[alike[0]], place[alike[1]]] > 0.4
        assert shared[place[unlike[0]], place[unlike[1]]] < 0.2


def test_all_elements_at_once() -> None:
    embedding = torch.randn(118, 32)
    relate(embedding, range(1, 119))
    assert embedding.isfinite().all()
    assert 0.5 < embedding.square().mean() < 2.0


RECIPE = load_recipe("custom", "quick", ["model.hyperparameters.width=512", "model.cutoff=3.0"])


@pytest.fixture(scope="module")
def alloys() -> Prepared:
    """Frames of nickel and of copper."""
    structures = [bulk(symbol, "fcc", a=3.6) * (2, 1, 1) for symbol in ("Ni", "Cu") * 6]
    frames = []
    for n, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=n)
        atoms.calc = EMT()
        frames.append(Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_potential_energy(),
                            atoms.get_forces(), group=str(n)))  # fmt: skip
    return prepare(RECIPE, Dataset("alloys", frames, "EMT", "a test"), 0, torch.device("cpu"))


def test_new_networks_begin_so(alloys: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nickel and copper begin alike in a new potential, and nothing else in it is other than at random."""
    weights = new_potential(RECIPE.model, alloys, 0).state_dict()
    monkeypatch.setattr(networks, "relate", lambda embedding, elements: None)
    plain = new_potential(RECIPE.model, alloys, 0).state_dict()
    assert torch.corrcoef(weights["embedding.element.weight"])[0, 1] > 0.5
    assert torch.corrcoef(plain["embedding.element.weight"])[0, 1] < 0.2
    assert {name for name in weights if not torch.equal(weights[name], plain[name])} == {"embedding.element.weight"}


def test_new_networks_leave_the_random_numbers_of_others_alone(alloys: Prepared) -> None:
    torch.manual_seed(12345)
    before = torch.get_rng_state()
    new_potential(RECIPE.model, alloys, 0)
    assert torch.equal(torch.get_rng_state(), before)
