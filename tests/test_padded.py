"""Fixed slots against the potential that takes edges: the same numbers, and no operation that waits for a GPU."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from torch.utils._python_dispatch import TorchDispatchMode

from mdpot import MaskedGNNCalculator, MdpotError, save_potential
from mdpot.captured import FixedSlots, find_fixed_slots
from mdpot.export_check import example_structures
from mdpot.graph import Graph
from mdpot.heads import Potential, PotentialEnsemble, build_potential
from mdpot.models import MODELS
from mdpot.padded import PaddedPotential, pad_edges

SIZES = {"tide": {"width": 8, "channels": 4, "layers": 2}, "et": {"width": 8, "layers": 2, "heads": 2}}
WALL, PAIR = [[1.5, 1.9], [1.9, 2.4]], [[[0.3, -0.2], [-0.2, 0.1]], [[1.0, 2.0], [2.0, 3.0]]]


def make(model: str = "tide", seed: int = 0, **hyperparameters: Any) -> Potential:
    torch.manual_seed(seed)
    sizes = SIZES.get(model, {"width": 8, "layers": 2})
    fitted = (WALL, PAIR) if MODELS[model].conservative else (None, None)
    potential = build_potential(
        model, {"cutoff": 3.4, **sizes, **hyperparameters}, [1, 8], [-13.6, -2041.3], 2.0, *fitted
    )
    return potential.double().eval().requires_grad_(False)


def structures() -> list[Atoms]:
    """A cluster, cells far smaller than the cutoff, a slab, a box, and atoms that see nobody."""
    cluster, small, box = example_structures([1, 8])
    slab = small.copy()
    slab.pbc = (True, False, True)
    tiny = Atoms("OH", [[0, 0, 0], [0.9, 0.3, 0.1]], cell=[[2.1, 0, 0], [0.9, 2.0, 0], [-0.5, 0.4, 1.9]], pbc=True)
    return [cluster, small, slab, tiny, box, Atoms("O"), Atoms("OH", [[0, 0, 0], [9, 0, 0]])]


def table(atoms: Atoms, potential: Any, skin: float = 0.0, least: int = 1) -> tuple[torch.Tensor, ...]:
    graph = Graph.from_atoms(atoms, potential.cutoff + skin, torch.float64)
    edges = pad_edges(graph.edge_index, graph.shifts @ graph.cell[0], len(atoms), potential.cutoff, least)
    return graph.numbers, graph.positions, *edges


def check(atoms: Atoms, potential: Any, *rest: Any) -> None:
    """The padded potential is the potential."""
    energies, interaction, forces, virial = PaddedPotential(potential)(*table(atoms, potential, *rest))
    graph = Graph.from_atoms(atoms, potential.cutoff, torch.float64)
    stress = potential.conservative and bool(atoms.pbc.all())
    expected = potential(*graph.inputs(), outputs=["forces", *(["stress"] if stress else [])])
    close: dict[str, Any] = {"rtol": 0.0, "atol": 1e-11 * max(1.0, float(expected["forces"].abs().max()))}
    torch.testing.assert_close(energies, expected["energies"], rtol=0.0, atol=1e-10)
    torch.testing.assert_close(interaction.sum(0, True), expected["interaction"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(forces, expected["forces"], **close)
    if stress:
        torch.testing.assert_close(virial[None] / atoms.get_volume(), expected["stress"], **close)


@pytest.mark.parametrize("model", MODELS)
def test_the_numbers_are_those_of_the_potential(model: str) -> None:
    potential = make(model)
    for atoms in structures():
        check(atoms, potential)


def test_the_numbers_are_those_of_a_tide_that_sends_tensors() -> None:
    potential = make(order=3, sent_order=2)
    for atoms in structures():
        check(atoms, potential, 0.7, 300)


@pytest.mark.parametrize("model", MODELS)
def test_pairs_in_the_skin_and_empty_slots_contribute_nothing(model: str) -> None:
    potential = make(model)
    for atoms in structures()[:4]:
        check(atoms, potential, 0.7, 300)


def test_a_table_of_empty_slots_is_isolated_atoms_to_the_last_bit() -> None:
    potential = make()
    atoms = Atoms("OH2", np.zeros((3, 3)))  # on top of each other, and no edge between them
    none = torch.zeros(2, 0, dtype=torch.int64), torch.zeros(0, 3, dtype=torch.float64)
    edges = pad_edges(*none, 3, potential.cutoff, 5)
    found = PaddedPotential(potential)(torch.tensor(atoms.numbers), torch.zeros(3, 3).double(), *edges)
    assert not found[2].any()
    assert not found[3].any()
    alone = [PaddedPotential(potential)(*table(Atoms([z]), potential))[0] for z in atoms.numbers]
    torch.testing.assert_close(found[0], torch.cat(alone), rtol=0.0, atol=1e-12)


def test_an_ensemble_is_its_mean() -> None:
    check(structures()[1], PotentialEnsemble([make(seed=0), make(seed=1)]))


class Waits(TorchDispatchMode):
    """Notes the operations whose result, or its shape, depends on what tensors hold: a GPU would be waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        depends = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(func.tags)
        if depends or func is torch.ops.aten._local_scalar_dense.default:
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", MODELS)
def test_nothing_waits_for_a_gpu(model: str) -> None:
    potential = make(model)
    inputs = table(structures()[1], potential)
    padded = PaddedPotential(potential)
    with Waits() as waits:
        padded(*inputs)
    assert waits.names == []
    with Waits() as waits:
        potential(*Graph.from_atoms(structures()[1], 3.4, torch.float64).inputs())
    assert waits.names != []  # they are noticed where there are any


def numbers_of(fixed: FixedSlots, atoms: Atoms) -> np.ndarray:
    found = fixed(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    return np.concatenate([found.energies, found.forces.ravel(), found.virial.ravel()])


def test_slots_keep_their_place_until_a_list_overflows_them() -> None:
    """What a graph was captured of is not replaced while everything fits, and no longer used once it is."""
    potential = make()
    fixed = FixedSlots(potential, 0.5)
    atoms = structures()[4]

    def places() -> list[int]:
        return [tensor.data_ptr() for tensor in fixed._inputs]

    def again() -> np.ndarray:
        fresh = numbers_of(FixedSlots(potential, 0.0), atoms)
        np.testing.assert_allclose(numbers_of(fixed, atoms), fresh, rtol=1e-12, atol=1e-10)
        return fresh

    first = again()
    kept, run, n_slots = places(), fixed._run, fixed.n_slots
    for seed in range(4):
        atoms.rattle(0.1, rng=np.random.default_rng(seed))
        again()
    assert fixed.neighbors.n_builds > 1
    assert (places(), fixed._run, fixed.n_slots) == (kept, run, n_slots)
    n_builds = fixed.neighbors.n_builds
    atoms.set_cell(0.98 * atoms.cell.array, scale_atoms=True)
    assert not np.allclose(again(), first)
    # A strain within the skin keeps the list, and moves its images.
    assert (places(), fixed.neighbors.n_builds) == (kept, n_builds)
    atoms.set_cell(0.85 * atoms.cell.array, scale_atoms=True)
    again()
    assert fixed.n_slots > n_slots
    assert fixed._run is not run
    n_slots = fixed.n_slots
    atoms.set_cell(atoms.cell.array / 0.8, scale_atoms=True)
    again()
    assert fixed.n_slots == n_slots  # it does not shrink
    atoms = atoms[:5]
    again()


def test_the_first_structure_may_be_an_atom_alone() -> None:
    potential = make()
    fixed = FixedSlots(potential, 0.5)
    alone, bound = Atoms("O"), structures()[4]
    assert numbers_of(fixed, alone)[0] == pytest.approx(float(potential.shift[potential.lookup[8]]), rel=1e-3)
    for atoms in (bound, alone):
        np.testing.assert_allclose(numbers_of(fixed, atoms), numbers_of(FixedSlots(potential, 0.0), atoms), atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_calculator(tmp_path, dtype: str) -> None:
    file = tmp_path / "p.safetensors"
    save_potential(file, make())
    padded: Any = MaskedGNNCalculator(file, device="cpu", backend="padded", dtype=dtype)
    eager: Any = MaskedGNNCalculator(file, device="cpu", backend="torch", dtype=dtype)
    assert padded.engine == "torch (fixed slots)"
    tolerance = 1e-10 if dtype == "float64" else 1e-5
    for atoms in [structures()[1], structures()[4], structures()[2]]:
        names = ["energies", "forces", *(["stress"] if atoms.pbc.all() else [])]
        for _ in range(3):
            atoms.positions += 0.05 * np.sin(np.arange(3 * len(atoms)).reshape(-1, 3))
            for name in names:
                expected = eager.get_property(name, atoms)
                largest = max(1.0, np.abs(eager.get_forces(atoms)).max())
                found = padded.get_property(name, atoms)
                np.testing.assert_allclose(found, expected, rtol=1e-7, atol=tolerance * largest)
    again = copy.deepcopy(padded)
    np.testing.assert_array_equal(again.get_forces(atoms), padded.get_forces(atoms))


def test_what_they_are_not_for(caplog, monkeypatch) -> None:
    ensemble = PotentialEnsemble([make(seed=0), make(seed=1)])
    with pytest.raises(MdpotError, match="an ensemble takes backend 'torch'"):
        FixedSlots(ensemble, 0.5)
    assert find_fixed_slots(ensemble, 0.5) is None
    assert find_fixed_slots(make(), 0.5) is not None
    assert not caplog.records
    wrong = FixedSlots.packed
    monkeypatch.setattr(FixedSlots, "packed", lambda *inputs: 1.01 * wrong(*inputs))
    with caplog.at_level(logging.WARNING):
        assert find_fixed_slots(make(), 0.5) is None
    assert "without a CUDA graph, which is slower: its energies differ" in caplog.text
