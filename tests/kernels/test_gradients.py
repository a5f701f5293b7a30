"""Gradients of losses by the weights: those of torch's double backward, and of differences, in every size and order."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from ase import Atoms

from mdpot.errors import MdpotError
from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.kernels import NoKernel, TrainingKernel

from .test_same_numbers import CASES, ELEMENTS, random_sizes

OUTPUTS = ["energies", "energy", "interaction", "forces", "stress"]
Loss = Callable[[dict[str, torch.Tensor]], torch.Tensor]


@pytest.fixture(scope="session")
def make_batch(make_structures):
    """Nasty structures side by side; with those that are too close to each other for a test of all sizes left out."""

    def make(potential: Potential, seed: int = 0, n: int = 9) -> Graph:
        found = make_structures(tuple(potential.elements), seed)[:n]
        atoms = [Atoms(s.numbers, s.positions, cell=s.cell, pbc=s.pbc) for s in found]
        return Graph.from_atoms(atoms, potential.cutoff, torch.float64)

    return make


def random_loss(graph: Graph, seed: int, names=tuple(OUTPUTS)) -> Loss:
    """A loss that depends on every number of some outputs, not linearly."""
    rng = np.random.default_rng(seed)
    shapes = {
        "energies": (graph.n_atoms,),
        "energy": (graph.n_systems,),
        "interaction": (graph.n_systems,),
        "forces": (graph.n_atoms, 3),
        "stress": (graph.n_systems, 3, 3),
    }
    weights = {name: torch.tensor(rng.normal(size=shapes[name])) for name in names}
    scale = {"stress": 30.0}
    return lambda out: sum(  # type: ignore[return-value]
        ((weights[name] * scale.get(name, 1.0) * out[name] + 1.0).square() + 1.0).sqrt().sum() for name in names
    )


def gradients(engine, potential: Potential, graph: Graph, loss: Loss, marks=None) -> dict[str, torch.Tensor]:
    """Of a loss, by the name of the parameter; zeros where it has none."""
    potential.train().requires_grad_(True).zero_grad()
    loss(engine(*graph.inputs(), marks=marks, outputs=OUTPUTS)).backward()
    named = dict(potential.named_parameters())
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in named.items()}


def worst(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> float:
    """The largest difference, relative to the largest number of each parameter's gradient."""
    sized = [name for name in wanted if wanted[name].numel()]
    floor = 1e-6 * max(float(wanted[name].abs().max()) for name in sized)
    return max(float((found[n] - wanted[n]).abs().max() / wanted[n].abs().max().clamp(min=floor)) for n in sized)


@pytest.mark.parametrize("elements", ELEMENTS.values(), ids=ELEMENTS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_are_those_of_torch(lib, case, elements, make_potential, make_batch) -> None:
    potential = make_potential(elements, **case)
    graph = make_batch(potential)
    marks = torch.tensor(np.random.default_rng(1).integers(0, 2, graph.n_atoms).astype(float))
    for of_marks in (None, marks):
        loss = random_loss(graph, 2)
        wanted = gradients(potential, potential, graph, loss, of_marks)
        found = gradients(TrainingKernel(potential, lib), potential, graph, loss, of_marks)
        assert worst(found, wanted) < 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_random_sizes(lib, seed, make_potential, make_batch) -> None:
    rng = np.random.default_rng(seed)
    case = random_sizes(rng, 2.0, 5.0)
    elements = tuple(sorted(rng.choice(np.arange(1, 90), rng.integers(1, 7), replace=False).tolist()))
    potential = make_potential(elements, seed, plain=bool(rng.integers(2)), **case)
    graph = make_batch(potential, seed)
    names = tuple(name for name in OUTPUTS if rng.integers(2)) or ("forces",)
    loss = random_loss(graph, seed, names)
    torch.set_num_threads(int(rng.integers(1, 6)))
    try:
        found = gradients(TrainingKernel(potential, lib), potential, graph, loss)
    finally:
        torch.set_num_threads(1)
    assert worst(found, gradients(potential, potential, graph, loss)) < 1e-9


def test_outputs_are_those_of_torch(lib, make_potential, make_batch) -> None:
    potential = make_potential(layers=3)
    graph = make_batch(potential)
    wanted = potential(*graph.inputs(), outputs=[*OUTPUTS, "derivative"])
    found = TrainingKernel(potential, lib)(*graph.inputs(), outputs=[*OUTPUTS, "derivative"])
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-9)
    assert TrainingKernel(potential, lib)(*graph.inputs()).keys() == potential(*graph.inputs()).keys()


def test_are_those_of_differences(lib, make_potential, make_batch) -> None:
    """Of v · forces: the change of the energy's first derivative by the weights as atoms go along v, with torch; and,
    without any derivative, the change of v · forces with a weight."""
    potential = make_potential(order=3)
    graph = make_batch(potential, n=4)
    v = torch.tensor(np.random.default_rng(3).normal(size=(graph.n_atoms, 3)))
    kernel = TrainingKernel(potential, lib)

    def of_forces(out):
        return (v * out["forces"]).sum()

    def of_energy(out):
        return -out["interaction"].sum()

    found, step = gradients(kernel, potential, graph, of_forces), 2e-6
    moved = [graph.replace(positions=graph.positions + sign * step * v) for sign in (1, -1)]
    ahead, behind = (gradients(potential, potential, to, of_energy) for to in moved)
    assert worst(found, {name: (ahead[name] - behind[name]) / (2 * step) for name in found}) < 1e-6
    rng = np.random.default_rng(0)
    for name, parameter in potential.named_parameters():
        if not parameter.numel() or name.startswith("backbone.gate"):
            continue
        k = int(rng.integers(parameter.numel()))
        values, flat = [], parameter.detach().view(-1)
        for change in (step, -2 * step):
            flat[k] += change
            values.append(float(of_forces(kernel(*graph.inputs())).detach()))
        flat[k] += step
        slope = (values[0] - values[1]) / (2 * step)
        assert float(found[name].view(-1)[k]) == pytest.approx(slope, rel=1e-5, abs=1e-5)


def test_derivatives_by_the_stress_may_lie_in_any_order_in_memory(lib, make_potential, make_batch) -> None:
    potential = make_potential()
    graph = make_batch(potential)
    weights = torch.tensor(np.random.default_rng(0).normal(size=(3, 3, graph.n_systems))).permute(2, 0, 1)
    found, wanted = (
        gradients(engine, potential, graph, lambda out: (30.0 * weights * out["stress"]).sum())
        for engine in (TrainingKernel(potential, lib), potential)
    )
    assert worst(found, wanted) < 1e-9


def test_float32_is_no_worse_than_torch(lib, make_potential, make_batch, as_float32) -> None:
    ratios = []
    for seed in range(4):
        rough = as_float32(make_potential(seed=seed))
        exact = as_float32(rough).double()
        graph = make_batch(exact, seed)
        loss = random_loss(graph, seed, ("interaction", "forces", "stress"))
        wanted = gradients(exact, exact, graph, loss)
        ours, torchs = (gradients(engine, rough, graph, loss) for engine in (TrainingKernel(rough, lib), rough))
        for name in wanted:
            if bool(wanted[name].any()):
                errors = [float((g[name].double() - wanted[name]).norm()) for g in (ours, torchs)]
                ratios.append(errors[0] / errors[1])
    assert np.exp(np.mean(np.log(ratios))) < 1.5


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_same_bits_for_the_same_threads(lib, threads, make_potential, make_batch, as_float32) -> None:
    potential = as_float32(make_potential(layers=3))
    graph = make_batch(potential)
    loss = random_loss(graph, 0)
    torch.set_num_threads(threads)
    try:
        first = gradients(TrainingKernel(potential, lib), potential, graph, loss)
        again = TrainingKernel(potential, lib)
        for _ in range(5):
            found = gradients(again, potential, graph, loss)
            assert all(torch.equal(found[name], first[name]) for name in first)
    finally:
        torch.set_num_threads(1)


def test_follow_the_weights(lib, make_potential, make_batch) -> None:
    potential, other = make_potential(seed=0), make_potential(seed=1)
    graph = make_batch(potential)
    loss = random_loss(graph, 0, ("interaction", "forces"))
    kernel = TrainingKernel(potential, lib)
    before = gradients(kernel, potential, graph, loss)
    with torch.no_grad():
        for mine, theirs in zip(potential.parameters(), other.parameters(), strict=True):
            mine.copy_(theirs)
    found, wanted = (gradients(engine, potential, graph, loss) for engine in (kernel, potential))
    assert worst(found, wanted) < 1e-9
    assert worst(before, wanted) > 1e-2


def test_weights_that_changed_in_between_are_an_error(lib, make_potential, make_batch) -> None:
    potential = make_potential()
    graph = make_batch(potential)
    out = TrainingKernel(potential.requires_grad_(True), lib)(*graph.inputs())
    with torch.no_grad():
        potential.readout[0].weight += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out["energy"].sum().backward()


def test_frozen_weights_have_none(lib, make_potential, make_batch) -> None:
    potential = make_potential().requires_grad_(True)
    potential.embedding.requires_grad_(False)
    graph = make_batch(potential)
    TrainingKernel(potential, lib)(*graph.inputs())["forces"].square().sum().backward()
    assert all((p.grad is None) == name.startswith(("embedding", "backbone.gate")) for name, p in named(potential))


def named(potential: Potential) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, p) for name, p in potential.named_parameters() if p.numel()]


def test_what_is_wrong_is_an_error(lib, make_potential, make_batch) -> None:
    potential = make_potential()
    kernel, graph = TrainingKernel(potential, lib), make_batch(potential)
    with pytest.raises(MdpotError, match="unknown output of the kernels 'vector'"):
        kernel(*graph.inputs(), outputs=["vector"])
    spoiled = graph.positions.clone()
    spoiled[3, 1] = torch.nan
    with pytest.raises(MdpotError, match="must be finite"):
        kernel(*graph.replace(positions=spoiled).inputs())
    edges = graph.edge_index.clone()
    edges[1, 7] = graph.n_atoms
    with pytest.raises(MdpotError, match="candidates"):
        kernel(*graph.replace(edge_index=edges).inputs())
    with pytest.raises(MdpotError, match="candidates and species"):
        kernel(*graph.replace(numbers=torch.full_like(graph.numbers, 6)).inputs())
    with pytest.raises(NoKernel, match="only Tide"):
        TrainingKernel(build_potential("egnn", {}, [1, 8], [0.0, 0.0], 1.0), lib)
    torch.testing.assert_close(kernel(*graph.inputs())["forces"], potential(*graph.inputs())["forces"])


def test_no_atoms(lib, make_potential) -> None:
    potential = make_potential()
    graph = Graph.from_atoms([Atoms(), Atoms(cell=3 * np.eye(3), pbc=True)], potential.cutoff, torch.float64)
    found = gradients(TrainingKernel(potential, lib), potential, graph, lambda out: out["energy"].sum())
    assert all(not bool(gradient.any()) for gradient in found.values())


def test_several_at_once(lib, make_potential, make_batch) -> None:
    potentials = [make_potential(seed=n) for n in range(2)]
    graphs = [make_batch(p) for p in potentials]
    losses = [random_loss(graph, 0) for graph in graphs]
    kernels = [TrainingKernel(p, lib) for p in potentials]
    wanted = [gradients(*each) for each in zip(kernels, potentials, graphs, losses, strict=True)]
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(20):
            found = gradients(kernels[n], potentials[n], graphs[n], losses[n])
            wrong.extend(n for name in found if not torch.equal(found[name], wanted[n][name]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
