"""Pretraining on labels of data of its own, by the derivative or by the vector head, and what finetuning takes over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mdpot import MdpotError, load_potential
from mdpot.training.config import FinetuneConfig, PretrainConfig, load_recipe, recipe_to_toml
from mdpot.training.data.frames import Frame
from mdpot.training.data.store import Store
from mdpot.training.evaluate import evaluate
from mdpot.training.networks import new_potential
from mdpot.training.objectives import Labels, pretraining_objective
from mdpot.training.prepare import data_to_pretrain, prepare
from mdpot.training.process import Process
from mdpot.training.run import run_finetune, run_pretrain, run_train
from mdpot.training.trainer import Means, validate
from mdpot.training.transfer import transfer_backbone

from .conftest import CPU, Notes, read_log, weights_of

RATIOS = [(1, 0, 0), (0, 1, 0), (0, 1, 1), (1, 1, 1), (1, 500, 500)]
OWN = ("pretrain.objective=labels", "pretrain.data.source=custom", "pretrain.data.split_by=frame")


def metals(n: int = 24) -> list:
    """Strained cells of copper, gold and both, with energies, forces and stress of ASE's effective-medium theory."""
    rng, out = np.random.default_rng(3), []
    for k in range(n):
        atoms = bulk(("Cu", "Au")[k % 2], "fcc", 3.8, cubic=True)
        if k % 3 == 0:
            atoms.numbers[0] = 29 if k % 2 else 79
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + 0.04 * rng.normal(size=(3, 3))), scale_atoms=True)
        atoms.rattle(0.08, seed=k)
        atoms.calc = EMT()
        atoms.get_potential_energy()
        atoms.get_stress()
        out.append(atoms)
    return out


@pytest.fixture(scope="module")
def metal_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("metals") / "metals.extxyz"
    write(path, metals())
    return path


@pytest.fixture
def recipe(tiny_recipe: Callable, metal_file: Path) -> Callable:
    def make(*overrides: str, **keywords):
        return tiny_recipe(*OWN, f"pretrain.data.path={metal_file}", *overrides, **keywords)

    return make


def test_the_network_knows_the_elements_of_both_sets(recipe, small_file: Path, tmp_path: Path) -> None:
    listener = Notes()
    metrics = run_train(recipe("pretrain.stress_weight=1"), data=small_file, out=tmp_path, listener=listener, **CPU)
    assert metrics["pretrained"] == "labels"
    pretrained, _ = load_potential(tmp_path / "pretrained.safetensors")
    finetuned, _ = load_potential(tmp_path / "potential.safetensors")
    assert pretrained.elements == [1, 8, 29, 79]
    assert finetuned.elements == [1, 8]
    assert any("data to pretrain on: 24 frames" in note for note in listener.notes)
    log = read_log(tmp_path / "pretrain")
    assert {"train/energy_mae", "train/force_mae", "train/stress_mae"} <= log[-1].keys()


def test_stages_by_themselves_are_the_same_as_training(recipe, small_file: Path, tmp_path: Path) -> None:
    whole = recipe("pretrain.vector=direct")
    together = run_train(whole, data=small_file, out=tmp_path / "train", **CPU)
    file = run_pretrain(whole, data=small_file, out=tmp_path / "pretrain", **CPU)
    apart = run_finetune(whole, from_file=file, data=small_file, out=tmp_path / "finetune", **CPU)
    assert apart["errors"] == together["errors"]


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("vector", ["derivative", "direct"])
def test_the_five_ratios(recipe, small_file: Path, ratio: tuple[int, int, int], vector: str) -> None:
    """The loss is the weighted sum of the mean absolute errors, and nothing else is computed."""
    energy, force, stress = ratio
    weights = (f"pretrain.energy_weight={energy}", f"pretrain.force_weight={force}", f"pretrain.stress_weight={stress}")
    made = recipe(*weights, f"pretrain.vector={vector}", "pretrain.loss=l1", model="egnn")
    main = prepare(made, small_file, 0, torch.device("cpu"))
    data = data_to_pretrain(made, main, 0, torch.device("cpu"))
    assert data is not None
    network = new_potential(made.model, data, 0)
    objective = pretraining_objective(made.pretrain, made.model.cutoff, data.train.labels, network.scale)
    asked = {"forces" if vector == "derivative" else "vector"} if force else set()
    assert set(objective.outputs) == {"interaction"} | asked | ({"stress"} if stress else set())
    found = validate(network, objective, data.train, made.pretrain)
    terms = zip(ratio, ("energy_mae", "force_mae", "stress_mae"), strict=True)
    assert found["loss"] == pytest.approx(sum(w * found[key] / 1e3 for w, key in terms if w), rel=1e-5)


def test_forces_by_the_vector_head_are_in_its_scale(frames: list[Frame]) -> None:
    """A network whose vector is the label over its scale predicts the label."""
    config = PretrainConfig(objective="labels", max_steps=1, batch_frames=1, vector="direct")
    batch = Store(frames[:3], 3.4).batch(torch.arange(3))
    objective = pretraining_objective(config, 3.4, {"energy", "forces"}, scale=0.25)
    prediction = {"vector": batch.labels["forces"] / 0.25, "interaction": batch.labels["interaction"].float()}
    assert float(objective.score(prediction, batch).loss()) == pytest.approx(0.0, abs=1e-3)


def test_the_readout_comes_along_where_asked(recipe, small_file: Path, tmp_path: Path) -> None:
    for asked in ("new", "pretrained"):
        run_train(
            recipe(f"finetune.readout={asked}", "finetune.transferred_rate=0.0"),
            data=small_file, out=tmp_path / asked, **CPU,
        )  # fmt: skip
        before, after = (weights_of(tmp_path / asked / f"{n}.safetensors") for n in ("pretrained", "potential"))
        frozen = [key for key in before if key.startswith("backbone.")]
        assert frozen
        assert all(torch.equal(before[key], after[key]) for key in frozen)
    one, other = (weights_of(tmp_path / asked / "potential.safetensors") for asked in ("new", "pretrained"))
    assert any(not torch.equal(one[key], other[key]) for key in one if key.startswith("readout."))


@pytest.mark.parametrize(
    ("asked", "rate", "network", "readout"),
    [("pretrained", 0.01, 0.01, 0.01), ("new", 0.01, 0.01, 1.0), ("pretrained", 0.0, 0.0, 1.0)],
)
def test_a_readout_that_came_along_learns_at_the_rate_of_what_was_transferred(
    recipe, small_file: Path, tmp_path: Path, asked: str, rate: float, network: float, readout: float
) -> None:
    """A step of AdamW moves a weight by its rate, or hardly more, whatever the gradient: two are 1e-3 apart at most."""
    lr = 1e-3
    made = {}
    for steps in (1, 2):
        once = recipe(
            f"finetune.readout={asked}", f"finetune.transferred_rate={rate}", "finetune.optimizer=adamw",
            f"finetune.max_steps={steps}", "finetune.eval_every=1", f"finetune.lr={lr}", f"finetune.lr_min={lr}",
            "finetune.warmup_steps=0", "finetune.weight_decay=0.0", "finetune.ema_decay=none",
        )  # fmt: skip
        run_train(once, data=small_file, out=tmp_path / str(steps), **CPU)
        made[steps] = torch.load(tmp_path / str(steps) / "finetune" / "last.pt", weights_only=True)["potential"]
    for part, share in (("backbone.", network), ("readout.0.", readout)):
        mine = [key for key in made[1] if key.startswith(part) and made[1][key].numel()]
        moved = max(float((made[2][key] - made[1][key]).abs().max()) for key in mine)
        assert 0.3 * lr * share <= moved < 1.5 * lr * share or moved == share == 0.0, part


@pytest.mark.parametrize("pair", [np.full((4, 2, 2), 0.3), None], ids=["pair", "no-pair"])
@pytest.mark.parametrize(("isolated", "average"), [({}, np.mean), ({1: -13.0, 8: -430.0}, np.median)])
def test_with_its_readout_comes_its_pair_energy(
    isolated, average, pair, tiny_recipe: Callable, small_file: Path
) -> None:
    """Forces are those of the pretrained potential, and the energies are off by nothing on average."""
    made = tiny_recipe("model.repulsion=false")
    source_data, data = (prepare(made, small_file, 0, torch.device("cpu")) for _ in range(2))
    source_data.pair = pair
    if isolated:
        source_data.shift = np.array(list(isolated.values()))
    source = new_potential(made.model, source_data, 0)
    data.dataset = replace(data.dataset, isolated=isolated)
    assert data.refer_to(source, 0.5)
    target = new_potential(made.model, data, 1)
    transfer_backbone(source, target, with_readout=True, offset=data.offset - 0.5)
    before, after = evaluate(source, data.train), evaluate(target, data.train)
    np.testing.assert_allclose(after.forces[1], before.forces[1], atol=1e-4)
    left = (after.energy[0] - after.energy[1]) / after.sizes
    assert abs(average(left)) < 0.1 * left.std()
    if isolated:
        assert data.shift.tolist() == list(isolated.values())


def test_isolated_atoms_that_the_potential_does_not_count_from(tiny_recipe: Callable, tmp_path: Path) -> None:
    """Of two compositions, whose energies it gives but for those of the elements: they are fitted, and the energies of
    isolated atoms by the other method would tear them apart."""
    rng, frames = np.random.default_rng(0), []
    for n in range(24):
        atoms = molecule("H2O" if n % 2 else "H2O2")
        atoms.positions += 0.05 * rng.normal(size=atoms.positions.shape)
        atoms.calc = SinglePointCalculator(atoms, energy=-9.0, forces=rng.normal(size=atoms.positions.shape))
        frames.append(atoms)
    write(tmp_path / "frames.xyz", frames)
    made = tiny_recipe("model.repulsion=false", "data.check=off", name="custom")
    data = prepare(made, tmp_path / "frames.xyz", 0, torch.device("cpu"))
    source = new_potential(made.model, data, 0)
    elsewhere = {1: -13.0, 8: -430.0}
    given = evaluate(source, data.train).energy[1].tolist()
    energies = dict(zip(data.splits["train"], given, strict=True))
    labeled = [
        replace(
            frame, energy=energies.get(n, 0.0) - 7.0 * (frame.numbers == 1).sum() - 99.0 * (frame.numbers == 8).sum()
        )
        for n, frame in enumerate(data.dataset.frames)
    ]
    data.dataset = replace(data.dataset, isolated=elsewhere, frames=labeled)
    assert not data.refer_to(source, 0.0)
    np.testing.assert_allclose(data.shift, [-7.0, -99.0], atol=0.05)
    assert data.offset == 0.0


@pytest.mark.parametrize("objective", ["labels", "denoise"])
def test_only_frames_at_rest(objective: str, recipe, small_file: Path, metal_file: Path) -> None:
    """Also where their forces are not learned."""
    made = recipe("pretrain.data.max_force=1.0", f"pretrain.objective={objective}")
    main = prepare(made, small_file, 0, torch.device("cpu"))
    data = data_to_pretrain(made, main, 0, torch.device("cpu"))
    assert data is not None
    forces = [frame.labels["forces"] for frame in data.frames("train") + data.frames("validation")]
    largest = [float(np.linalg.norm(part, axis=1).max()) for part in forces]
    everything = [float(np.linalg.norm(a.get_forces(), axis=1).max()) for a in metals()]
    assert max(largest) <= 1.0 < max(everything)
    assert len(largest) <= sum(x <= 1.0 for x in everything)


def test_a_recipe_with_its_own_data_is_written_and_read(recipe, tmp_path: Path) -> None:
    made = recipe("pretrain.data.max_force=0.05")
    file = tmp_path / "recipe.toml"
    file.write_text(recipe_to_toml(made))
    assert load_recipe(file, "plain").pretrain == made.pretrain
    with pytest.raises(MdpotError, match=r"unknown key of \[pretrain.data\] 'sorce'. Did you mean 'source'"):
        recipe("pretrain.data.sorce=custom")


def test_shares_of_a_batch_add_up_to_all_of_it(frames: list[Frame]) -> None:
    """Gradients of several processes, over batches of which some lack labels, are those of one with everything."""
    some = [Frame(f.numbers, f.positions, f.cell, f.pbc, None if k % 2 else f.energy, None if k % 3 == 1 else f.forces)
            for k, f in enumerate(frames[:7])]  # fmt: skip
    store = Store(some, 3.4)
    objective = Labels(FinetuneConfig(max_steps=1, batch_frames=1, force_weight=3.0))
    values = torch.randn(100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def score(indices: torch.Tensor, weight: torch.Tensor):
        batch = store.batch(indices, torch.float64)
        return objective.score(
            {"interaction": weight * values[indices], "forces": weight * batch.graph.positions}, batch
        )

    weight = torch.ones([], dtype=torch.float64, requires_grad=True)
    every = torch.arange(len(some))
    whole = score(every, weight)
    expected = torch.autograd.grad(whole.loss(), weight)[0]
    found = torch.zeros([], dtype=torch.float64)
    means = Means()
    for rank in range(3):
        part = score(Process(rank, 3).share(every, store.n_atoms_per_frame), weight)
        found += torch.autograd.grad(part.loss(whole.counts), weight)[0]
        means.add(part)
    assert float(found) == pytest.approx(float(expected), rel=1e-12)
    assert means.take()["loss"] == pytest.approx(float(whole.loss().detach()), rel=1e-12)
    assert len({Process(rank, 3).seed(7, 11) for rank in range(3)}) == 3
    assert Process(0).seed(7, 11) == 7 * 1_000_003 + 11
