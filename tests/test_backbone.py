"""The contract of the architectures: fresh weights, hyperparameters with their documentation, per-element weights."""

from __future__ import annotations

import pytest
import torch
from ase.build import molecule

from mdpot import MODELS, Graph, MdpotError, build_potential
from mdpot.heads import Potential
from mdpot.models import Backbone
from mdpot.models.hyperparameters import hyperparameters_of
from mdpot.training.config import load_recipe, recipe_to_toml
from mdpot.training.transfer import network_weights, per_element_weights, transfer_backbone

SMALL = {"width": 8, "layers": 2, "cutoff": 3.0}


def fresh(name: str, seed: int = 11, elements: tuple[int, ...] = (1, 6, 8)) -> Potential:
    torch.manual_seed(seed)
    return build_potential(name, SMALL, elements, [0.0] * len(elements), 1.0)


# Interaction energy, and norms of forces and vectors weighted by atom, of acetaldehyde with two marked atoms. Those of
# Tide, EGNN and GNS were computed when every backbone drew its own embedding: a seed still gives what it gave then.
FRESH = {
    "tide": (-0.43459343973857323, 0.15282660510195434, 2.0984175026578136),
    "egnn": (0.4527375910094066, 0.749794375231323, 0.028711753359951322),
    "gns": (-0.2429628260456383, 7.903587363149928, 7.903587363149928),
    "forcenet": (-4.27137512833568, 9.71492376642701, 9.71492376642701),
}


@pytest.mark.parametrize("name", FRESH)
def test_a_seed_gives_the_weights_it_always_gave(name: str) -> None:
    graph = Graph.from_atoms(molecule("CH3CHO"), 3.0, torch.float64)
    marks = torch.tensor([0, 1, 0, 0, 1, 0, 0])
    out = fresh(name).double().eval()(*graph.inputs(), marks=marks, outputs=["forces", "vector"])
    weights = torch.arange(1.0, 8.0, dtype=torch.float64)
    norms = [float((out[key].square().sum(1) * weights).sum().sqrt()) for key in ("forces", "vector")]
    assert [float(out["interaction"]), *norms] == pytest.approx(FRESH[name], rel=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_every_hyperparameter_is_documented_and_shown(name: str) -> None:
    takes = hyperparameters_of(MODELS[name])
    assert {"cutoff", "width", "layers"} <= takes.keys()
    recipe = load_recipe("water-rpbe", "plain", [f"model.name={name}", "model.hyperparameters.width=17"])
    text = recipe_to_toml(recipe, comments=True)
    shown = text[text.index("[model.hyperparameters]") :].splitlines()
    assert "width = 17" in shown
    for key, one in takes.items():
        assert one.meaning.endswith("."), f"{key} of {name} has no line under Args:"
        if key != "cutoff":
            line = next(n for n, text in enumerate(shown) if text.removeprefix("# ").startswith(f"{key} = "))
            assert shown[line - 1].lower().startswith(f"# {one.meaning.lower()}")


def test_the_documentation_of_a_hyperparameter_gives_range_and_default() -> None:
    takes = hyperparameters_of(MODELS["egnn"])
    assert takes["width"].describe("width") == "Features per atom. A whole number from 1 to 4096; 128 if left out."
    assert takes["avg_neighbors"].describe("avg_neighbors").endswith("it is measured on the training frames.")
    size = hyperparameters_of(MODELS["tide"])["size"].describe("size")
    assert size.endswith('One of "small", "medium", "large"; "small" if left out.')


@pytest.mark.parametrize("name", MODELS)
def test_weights_per_element_are_declared(name: str) -> None:
    """By the shapes: those that grow with the number of elements, and no others; the network's, not the head's."""
    few, many = network_weights(fresh(name)), network_weights(fresh(name, elements=(1, 6, 7, 8, 9)))
    growing = {key for key in few if few[key].shape != many[key].shape}
    assert growing == per_element_weights(fresh(name))
    assert all((len(few[key]), len(many[key])) == (3, 5) for key in growing)


@pytest.mark.parametrize("name", MODELS)
def test_transfer_matches_elements_and_takes_everything_else(name: str) -> None:
    source, target = fresh(name, 1, (1, 7, 8)), fresh(name, 2, (1, 6, 8))
    before = {key: value.clone() for key, value in target.state_dict().items()}
    new = transfer_backbone(source, target)
    given, found = source.state_dict(), target.state_dict()
    for key in network_weights(target):
        if key in per_element_weights(target):
            assert torch.equal(found[key][[0, 2]], given[key][[0, 2]])
            assert torch.equal(found[key][1], before[key][1])
            assert f"{key} of C" in new
        else:
            assert torch.equal(found[key], given[key])
    assert torch.equal(found["readout.0.weight"], before["readout.0.weight"])


class Bare(Backbone):
    """A backbone that does nothing.

    Args:
        cutoff: Å.
        width: features per atom,
            which need no more than this.
    """

    def __init__(self, cutoff: float = 3.0, width: int = 5) -> None:
        super().__init__()
        self.cutoff, self.n_features = cutoff, width

    def forward(self, h, species, edge_index, vectors, direct):
        return h, h.new_zeros([h.shape[0], 3])


def test_one_class_and_one_entry_make_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "bare", Bare)
    potential = build_potential("bare", {"width": 3}, [1, 8], [0.0, 0.0], 1.0)
    assert potential.embedding.element.weight.shape == (2, 3)
    assert hyperparameters_of(Bare)["width"].meaning == "features per atom, which need no more than this."
    shown = recipe_to_toml(load_recipe("water-rpbe", "plain", ["model.name=bare"]), comments=True)
    assert "# Features per atom, which need no more than this. A whole number; 5 if left out.\n# width = 5\n" in shown
    with pytest.raises(MdpotError, match="unknown hyperparameter of bare 'wide'"):
        build_potential("bare", {"wide": 3}, [1], [0.0], 1.0)
