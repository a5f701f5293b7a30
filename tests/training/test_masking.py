"""Masking against a slow reference that goes molecule by molecule with ASE's tools."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase.geometry import find_mic
from ase.neighborlist import primitive_neighbor_list

from mdpot.heads import build_potential
from mdpot.training.config import PretrainConfig
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Batch, Store
from mdpot.training.objectives import MaskedAtoms
from mdpot.training.objectives.masking import MaskTarget, mask_molecules
from mdpot.training.trainer import Means

CUTOFF = 3.4
H, O = 1, 8  # noqa: E741


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def molecules_of(frame: Frame) -> list[list[int]]:
    """The intact water molecules of a frame: an O and the two H that are bonded to it and to nothing else."""
    i, j = primitive_neighbor_list(
        "ij", frame.pbc, frame.cell, frame.positions, {("H", "O"): 1.261, (1, 8): 1.261}, numbers=frame.numbers
    )
    bonded = {a: sorted(set(j[i == a].tolist())) for a in range(len(frame))}
    return [
        [o, *bonded[o]]
        for o in range(len(frame))
        if frame.numbers[o] == O and len(bonded[o]) == 2 and all(bonded[h] == [o] for h in bonded[o])
    ]


def positions_key(x) -> tuple[float, ...]:
    return tuple(np.round(np.asarray(x, dtype=float), 9))


def check_against_reference(
    frames: list[Frame], before: Batch, after: Batch, target: MaskTarget, element: int = H
) -> int:
    """Goes through every frame and molecule; returns how many molecules lost an atom of the element."""
    marks = dict(zip(target.atoms.tolist(), target.displacements.numpy(), strict=True))
    assert len(marks) == len(target.atoms)
    n_chosen = n_molecules = start = 0
    for k, frame in enumerate(frames):
        members = torch.where(after.graph.system == k)[0].tolist()
        where = {positions_key(after.graph.positions[a]): a for a in members}
        place = [where.get(positions_key(x)) for x in frame.positions]
        removed = {a for a, new in enumerate(place) if new is None}
        kept = [a for a in range(len(frame)) if a not in removed]
        # What is left is in the old order, each atom with its own labels.
        assert [place[a] for a in kept] == members == list(range(start, start + len(kept)))
        np.testing.assert_array_equal(after.graph.numbers[members], frame.numbers[kept])
        np.testing.assert_array_equal(after.labels["forces"][members], frame.forces[kept])  # type: ignore[index]
        marked = set()
        for molecule in molecules_of(frame):
            n_molecules += 1
            gone = removed & set(molecule)
            if not gone:
                continue
            n_chosen += 1
            (lost,) = gone
            assert frame.numbers[lost] == element
            for atom in set(molecule) - gone:
                marked.add(place[atom])
                vector, _ = find_mic(frame.positions[lost] - frame.positions[atom], frame.cell, True)
                np.testing.assert_allclose(marks[place[atom]], vector, atol=1e-9)
            removed -= gone
        assert not removed, "an atom went that belongs to no molecule"
        assert set(after.marks[members].nonzero().squeeze(1).add(start).tolist()) == marked
        assert {a for a in marks if a in members} == marked
        check_edges(frame, kept, after, k)
        start += len(kept)
    assert start == after.graph.n_atoms
    assert set(after.marks.tolist()) <= {0, 1}
    assert len(marks) == 2 * n_chosen
    assert float(target.share) == pytest.approx(n_chosen / max(n_molecules, 1))
    assert torch.equal(after.graph.cell, before.graph.cell)
    assert torch.equal(after.labels["energy"], before.labels["energy"])
    return n_chosen


def check_edges(frame: Frame, kept: list[int], after: Batch, k: int) -> None:
    """The edges are the neighbor list of the atoms that are left."""
    i, j, shifts = primitive_neighbor_list("ijS", frame.pbc, frame.cell, frame.positions[kept], CUTOFF)
    own = torch.where(after.graph.system[after.graph.edge_index[0]] == k)[0]
    first = int(torch.where(after.graph.system == k)[0][0])
    edges = (after.graph.edge_index[:, own] - first).T.tolist()
    found = [(*edge, *shift) for edge, shift in zip(edges, after.graph.shifts[own].int().tolist(), strict=True)]
    assert sorted(found) == sorted(zip(i.tolist(), j.tolist(), *shifts.T.tolist(), strict=True))
    assert [edge[0] for edge in edges] == sorted(edge[0] for edge in edges)


@pytest.fixture(scope="module")
def store(small_frames: list[Frame]) -> Store:
    return Store(small_frames, CUTOFF, molecule="H2O")


def whole_batch(frames: list[Frame], store: Store) -> Batch:
    return store.batch(torch.arange(len(frames)), torch.float64)


@pytest.mark.parametrize("ratio", [1e-9, 0.1, 0.5, 1.0])
def test_equals_the_slow_reference(small_frames: list[Frame], store: Store, ratio: float) -> None:
    batch = whole_batch(small_frames, store)
    n_molecules = sum(len(molecules_of(frame)) for frame in small_frames)
    assert n_molecules > 150
    for seed in range(2):
        masked, target = mask_molecules(batch, ratio, H, generator(seed))
        n_chosen = check_against_reference(small_frames, batch, masked, target)
        assert abs(n_chosen - ratio * n_molecules) <= 4 * np.sqrt(n_molecules * ratio * (1 - ratio))
        assert (n_chosen == n_molecules) == (ratio == 1.0)


def test_a_batch_with_frames_in_another_order_and_twice(small_frames: list[Frame], store: Store) -> None:
    order = [3, 0, 3, 17, 1]
    batch = store.batch(torch.tensor(order), torch.float64)
    masked, target = mask_molecules(batch, 0.5, H, generator())
    assert check_against_reference([small_frames[k] for k in order], batch, masked, target) > 10


def test_either_hydrogen_goes_equally_often(small_frames: list[Frame]) -> None:
    """For every molecule by itself, and whatever the order of its atoms."""
    frame = max(small_frames, key=lambda frame: len(molecules_of(frame)))
    molecules = molecules_of(frame)
    assert len(molecules) >= 10
    batch = Store([frame], CUTOFF, molecule="H2O").batch(torch.tensor([0]), torch.float64)
    draws, first = 600, np.zeros(len(molecules))
    source = generator(3)
    for _ in range(draws):
        masked, _ = mask_molecules(batch, 1.0, H, source)
        left = {positions_key(x) for x in masked.graph.positions}
        first += [positions_key(frame.positions[h1]) not in left for _, h1, _ in molecules]
    assert np.abs(first / draws - 0.5).max() < 4.5 * np.sqrt(0.25 / draws)
    assert abs(first.sum() / draws / len(molecules) - 0.5) < 4 * np.sqrt(0.25 / draws / len(molecules))


def test_molecules_are_chosen_independently_and_at_the_ratio(store: Store, small_frames: list[Frame]) -> None:
    batch = whole_batch(small_frames, store)
    source, shares, counts = generator(1), [], torch.zeros(batch.n_molecules)
    for _ in range(200):
        masked, target = mask_molecules(batch, 0.25, H, source)
        shares.append(float(target.share))
        chosen = torch.unique(masked.molecule[masked.marks > 0])
        assert len(chosen) == round(float(target.share) * batch.n_molecules)
        counts[chosen] += 1
    deviation = np.sqrt(0.25 * 0.75 / batch.n_molecules)
    assert np.mean(shares) == pytest.approx(0.25, abs=4 * deviation / np.sqrt(200))
    assert np.std(shares) == pytest.approx(deviation, rel=0.25)
    assert (counts / 200 - 0.25).abs().max() < 5 * np.sqrt(0.25 * 0.75 / 200)


def test_the_same_generator_gives_the_same_mask(store: Store, small_frames: list[Frame]) -> None:
    batch = whole_batch(small_frames, store)
    first, again, other = (mask_molecules(batch, 0.3, H, generator(seed)) for seed in (7, 7, 8))
    assert torch.equal(first[0].graph.positions, again[0].graph.positions)
    assert torch.equal(first[1].displacements, again[1].displacements)
    assert not torch.equal(first[1].atoms, other[1].atoms)


def test_exactly_one_goes_also_where_two_draw_the_same_number(
    store: Store, small_frames: list[Frame], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "rand", lambda n, **options: torch.full([n], 0.5))
    batch = whole_batch(small_frames, store)
    masked, target = mask_molecules(batch, 1.0, H, generator())
    monkeypatch.undo()
    assert check_against_reference(small_frames, batch, masked, target) == batch.n_molecules


def test_the_batch_itself_is_left_alone(store: Store, small_frames: list[Frame]) -> None:
    batch, fresh = whole_batch(small_frames, store), whole_batch(small_frames, store)
    mask_molecules(batch, 0.5, H, generator())
    for name in ("positions", "numbers", "edge_index", "shifts"):
        assert torch.equal(getattr(batch.graph, name), getattr(fresh.graph, name))
    assert not batch.marks.any()


def test_dissociated_molecules_stay_as_they_are(small_frames: list[Frame]) -> None:
    """OH-, H3O+ and a lone proton: none of their atoms goes or is marked."""
    water = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    hydronium = np.array([[5.0, 0, 0], [5.96, 0, 0], [4.76, 0.93, 0], [4.76, -0.93, 0]])
    hydroxide, proton = np.array([[0.0, 5, 0], [0.96, 5, 0]]), np.array([[5.0, 5, 5]])
    frame = Frame(
        numbers=np.array([8, 1, 1, 8, 1, 1, 1, 8, 1, 1]),
        positions=np.concatenate([water, hydronium, hydroxide, proton]),
        cell=np.eye(3) * 10,
        pbc=np.ones(3, dtype=bool),
        energy=0.0,
        forces=np.zeros((10, 3)),
    )
    batch = Store([frame], CUTOFF, molecule="H2O").batch(torch.tensor([0]), torch.float64)
    for seed in range(5):
        masked, target = mask_molecules(batch, 1.0, H, generator(seed))
        assert check_against_reference([frame], batch, masked, target) == 1
        assert masked.graph.n_atoms == 9
    # Without a formula every molecule with an H counts, but a lone atom has nobody to point at it.
    batch = Store([frame], CUTOFF).batch(torch.tensor([0]), torch.float64)
    masked, target = mask_molecules(batch, 1.0, H, generator())
    assert masked.graph.n_atoms == 7
    assert positions_key(proton[0]) in {positions_key(x) for x in masked.graph.positions}
    assert len(target.atoms) == 2 + 3 + 1
    assert float(target.share) == 1.0


def test_another_element(small_frames: list[Frame], store: Store) -> None:
    batch = whole_batch(small_frames, store)
    for ratio in (0.4, 1.0):
        masked, target = mask_molecules(batch, ratio, O, generator())
        # Both H of every molecule without its O are marked and point to where it was.
        n_chosen = check_against_reference(small_frames, batch, masked, target, O)
        assert bool((masked.graph.numbers[target.atoms] == H).all())
        assert (n_chosen == batch.n_molecules) == (ratio == 1.0)
        assert n_chosen > 50
        assert target.displacements.norm(dim=1).max() < 1.27
    masked, target = mask_molecules(batch, 1.0, 6, generator())
    assert masked.graph.n_atoms == batch.graph.n_atoms
    assert len(target.atoms) == 0


def _empty_batch(small_frames: list[Frame]) -> Batch:
    return Store(small_frames[:2], CUTOFF, molecule="CH4").batch(torch.arange(2), torch.float64)


def test_without_molecules_nothing_happens(small_frames: list[Frame]) -> None:
    batch = _empty_batch(small_frames)
    assert batch.n_molecules == 0
    masked, target = mask_molecules(batch, 1.0, H, generator())
    assert torch.equal(masked.graph.positions, batch.graph.positions)
    assert torch.equal(masked.graph.edge_index, batch.graph.edge_index)
    assert not masked.marks.any()
    assert (target.atoms.shape, target.displacements.shape) == ((0,), (0, 3))
    assert float(target.share) == 0.0


# ---- the objective ---------------------------------------------------------------------


def objective(**fields: object) -> MaskedAtoms:
    return MaskedAtoms(PretrainConfig(objective="mask", max_steps=1, batch_frames=1, **fields))  # type: ignore[arg-type]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b))


@pytest.mark.parametrize("vector", ["derivative", "direct"])
@pytest.mark.parametrize("loss", ["per-atom", "all"])
def test_the_loss_is_one_minus_the_cosine(store: Store, small_frames, vector: str, loss: str) -> None:
    torch.manual_seed(0)
    potential = build_potential("egnn", {"cutoff": CUTOFF, "width": 8, "layers": 2}, [1, 8], [0.0, 0.0], 0.3).double()
    task = objective(ratio=0.4, vector=vector, cosine=loss)
    assert task.outputs == ["interaction", "vector" if vector == "direct" else "derivative"]
    batch, target = task.prepare(whole_batch(small_frames, store), generator())
    prediction = potential(*batch.graph.inputs(), marks=batch.marks, outputs=task.outputs)
    score = task.score(prediction, target)
    value = score.loss()
    predicted = prediction["vector" if vector == "direct" else "derivative"].detach().numpy()[target.atoms]
    truth = target.displacements.numpy()
    per_atom = [cosine(a, b) for a, b in zip(predicted, truth, strict=True)]
    expected = 1 - (np.mean(per_atom) if loss == "per-atom" else cosine(predicted.ravel(), truth.ravel()))
    assert float(value.detach()) == pytest.approx(expected, abs=1e-6)
    numbers = Means()
    numbers.add(score)
    means = numbers.take()
    assert means["loss"] == pytest.approx(expected, abs=1e-6)
    assert means["cosine"] == pytest.approx(np.mean(per_atom), abs=1e-6)
    assert means["share_masked"] == pytest.approx(float(target.share))
    value.backward()
    gradients = [w.grad for w in potential.parameters()]
    assert all(g is None or bool(torch.isfinite(g).all()) for g in gradients)
    assert float(potential.embedding.mark.grad.abs().max()) > 0  # type: ignore[union-attr]


def test_the_perfect_prediction_costs_nothing(store: Store, small_frames: list[Frame]) -> None:
    for loss in ("per-atom", "all"):
        task = objective(ratio=0.5, cosine=loss)
        batch, target = task.prepare(whole_batch(small_frames, store), generator())
        forces = torch.randn(batch.graph.n_atoms, 3, dtype=torch.float64)
        forces[target.atoms] = 7.0 * target.displacements
        assert float(task.score({"derivative": forces}, target).loss()) == pytest.approx(0.0, abs=1e-9)
        forces[target.atoms] *= -1
        assert float(task.score({"derivative": forces}, target).loss()) == pytest.approx(2.0, abs=1e-9)


@pytest.mark.parametrize("vector", ["derivative", "direct"])
@pytest.mark.parametrize("loss", ["per-atom", "all"])
@pytest.mark.parametrize("cutoff", [CUTOFF, 0.3], ids=["edges", "no edges"])
def test_a_batch_without_a_mark_teaches_nothing(small_frames, vector: str, loss: str, cutoff: float) -> None:
    """It costs nothing, and the step goes through: no NaN, no gradient that is missing."""
    torch.manual_seed(0)
    potential = build_potential("egnn", {"cutoff": cutoff, "width": 8, "layers": 2}, [1, 8], [0.0, 0.0], 0.3)
    task = objective(ratio=1.0, vector=vector, cosine=loss)
    batch = Store(small_frames[:2], cutoff, molecule="CH4").batch(torch.arange(2))
    batch, target = task.prepare(batch, generator())
    prediction = potential(*batch.graph.inputs(), marks=batch.marks, outputs=task.outputs)
    score = task.score(prediction, target)
    value = score.loss()
    value.backward()
    assert float(value.detach()) == 0.0
    assert all(w.grad is None or not w.grad.any() for w in potential.parameters())
    assert float(score.terms["cosine"][1]) == float(score.numbers["cosine"][1]) == 0.0


def test_a_prediction_of_zero_has_a_finite_gradient() -> None:
    for loss in ("per-atom", "all"):
        vector = torch.zeros(4, 3, requires_grad=True)
        target = MaskTarget(torch.tensor([0, 2]), torch.ones(2, 3), torch.tensor(1.0))
        value = objective(cosine=loss).score({"derivative": vector}, target).loss()
        value.backward()
        assert float(value.detach()) == 1.0
        assert vector.grad is not None
        assert bool(torch.isfinite(vector.grad).all())
