"""Whole runs, cut down to seconds: what they leave, also on a user's own data, and how it is evaluated."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write

from mdpot import MaskedGNNCalculator, MdpotError, load_potential
from mdpot.modelfile import read_metadata
from mdpot.neighbors import neighbor_list
from mdpot.training import run as runs
from mdpot.training.config import load_recipe, recipe_to_dict
from mdpot.training.contacts import closest_approach, shortest_contacts
from mdpot.training.data.catalog import SOURCES
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers import read_frames
from mdpot.training.data.splits import split_by_group
from mdpot.training.data.store import Store
from mdpot.training.metrics import METRICS
from mdpot.training.pair import evaluate_pair_energy, fit_pair_energy
from mdpot.training.run import run_evaluate, run_finetune, run_train

from .conftest import CPU, read_log

# ---- what a run leaves -----------------------------------------------------------------


def test_the_folder_of_a_run(trained) -> None:
    out, metrics, recipe, _ = trained
    found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    stages = {
        f"{stage}/{name}" for stage in ("pretrain", "finetune") for name in ("last.pt", "best.pt", "metrics.jsonl")
    }
    assert found == stages | {
        "run.json",
        "recipe.toml",
        "splits.json",
        "metrics.json",
        "report.md",
        "learning_curves.png",
        "parity.png",
        "potential.safetensors",
        "pretrained.safetensors",
    }
    assert json.loads((out / "metrics.json").read_text()) == metrics
    again = load_recipe(out / "recipe.toml")
    assert recipe_to_dict(again) == recipe_to_dict(recipe)
    for name in ("learning_curves.png", "parity.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_metrics_of_a_run(trained, small_file: Path) -> None:
    _, metrics, _, _ = trained
    assert set(metrics["errors"]) == {"train", "validation", "test"}
    for table in metrics["errors"].values():
        assert set(table) == {key for key in METRICS if "stress" not in key and "property" not in key}
        assert all(math.isfinite(value) for value in table.values())
    assert sum(table["n_frames"] for table in metrics["errors"].values()) == len(read_frames(small_file))
    assert metrics["recipe"] == "water-rpbe"
    assert metrics["pretrained"] == "mask"
    assert metrics["finetune_steps"] == 8
    assert metrics["best_step"] in (4, 8)
    assert metrics["seed"] == 0


def test_the_report_says_what_was_done(trained, small_file: Path) -> None:
    out, metrics, _, listener = trained
    report = (out / "report.md").read_text()
    assert str(small_file) in report
    assert metrics["labels"] in report
    assert "RPBE-D3" in metrics["labels"]
    assert "Pretrained by the objective `mask`" in report
    for name, table in metrics["errors"].items():
        row = next(line for line in report.splitlines() if line.startswith(f"| {name} |"))
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        assert cells[0] == f"{table['n_frames']:.0f}"
        assert float(cells[5]) == pytest.approx(table["force_rmse"], rel=6e-3)
    said = "\n".join(listener.notes)
    assert str(small_file) in said
    assert metrics["labels"] in said
    assert "transferred every weight of the backbone" in said
    assert "readout" in said
    assert listener.stages == sorted(listener.stages, reverse=True)  # pretrain before finetune


def test_the_splits_of_a_run(trained, small_file: Path) -> None:
    out, _, _, _ = trained
    splits = json.loads((out / "splits.json").read_text())
    frames = read_frames(small_file)
    assert sorted(index for indices in splits.values() for index in indices) == list(range(len(frames)))
    groups = {name: {frames[i].group for i in indices} for name, indices in splits.items()}
    assert not groups["train"] & groups["validation"]
    assert not groups["train"] & groups["test"]
    assert not groups["validation"] & groups["test"]


def test_the_potential_of_a_run(trained, small_file: Path) -> None:
    out, metrics, recipe, _ = trained
    potential, header = load_potential(out / "potential.safetensors")
    provenance = header["provenance"]
    assert provenance["recipe"] == recipe_to_dict(recipe)
    assert provenance["seed"] == 0
    assert provenance["metrics"] == metrics["errors"]
    assert provenance["data"]["origin"] == str(small_file)
    assert provenance["data"]["labels"] == metrics["labels"]
    assert len(provenance["data"]["fingerprint"]) == 64
    assert provenance["versions"]["torch"] == torch.__version__
    assert header["elements"] == potential.elements == [1, 8]
    assert header["dtype"] == "float32"

    frames, splits = read_frames(small_file), json.loads((out / "splits.json").read_text())
    training = [frames[i] for i in splits["train"]]
    assert header["min_distances"] == smallest(training, recipe.model.cutoff)
    # The wall stands inside, and touches no training frame.
    assert potential.has_wall
    starts = potential.wall.tolist()
    for key, start in {"H-H": starts[0][0], "H-O": starts[0][1], "O-O": starts[1][1]}.items():
        assert 0.65 < start / header["min_distances"][key] < 1.0001
    # Energies without the pair energy and the elements' share: least squares on the training frames.
    assert potential.has_pair
    store = Store(training, recipe.model.cutoff)
    closest = closest_approach([1, 8], shortest_contacts(store))
    pair = fit_pair_energy(store, [1, 8], recipe.model.cutoff, closest).coefficients
    np.testing.assert_allclose(potential.pair.numpy(), pair, rtol=1e-5, atol=1e-3)
    energies, forces = evaluate_pair_energy(store, [1, 8], pair, recipe.model.cutoff)
    x = np.array([[(f.numbers == 1).mean(), (f.numbers == 8).mean()] for f in training])
    y = np.array([(f.energy - e) / len(f) for f, e in zip(training, energies, strict=True)])  # type: ignore[operator]
    expected = np.linalg.lstsq(x, y, rcond=1e-10)[0]
    np.testing.assert_allclose(potential.shift.tolist(), expected, rtol=1e-9)
    rms = np.sqrt(np.mean((np.concatenate([f.forces for f in training]) - forces) ** 2))  # type: ignore[arg-type]
    assert potential.scale == pytest.approx(rms, rel=0.05)
    pairs = sum(neighbor_list(f.positions, f.cell, f.pbc, recipe.model.cutoff)[0].shape[1] for f in training)
    atoms = sum(len(f) for f in training)
    assert potential.hyperparameters["avg_neighbors"] == pytest.approx(pairs / atoms, abs=0.01)

    held_out = [frames[i] for i in splits["test"]]
    for structure in header["structures"]:
        matches = [f for f in held_out if f.numbers.tolist() == structure["numbers"]]
        assert any(np.allclose(f.positions, structure["positions"], atol=1e-5) for f in matches)


def smallest(frames: list[Frame], cutoff: float) -> dict[str, Any]:
    """The smallest distance of every pair of elements, frame by frame."""
    names, found = {1: "H", 8: "O"}, {}
    for frame in frames:
        (i, j), shifts = neighbor_list(frame.positions, frame.cell, frame.pbc, cutoff)
        distances = np.linalg.norm(frame.positions[j] - frame.positions[i] + shifts @ frame.cell, axis=1)
        for a, b, d in zip(frame.numbers[i], frame.numbers[j], distances, strict=True):
            key = "-".join(names[z] for z in sorted((int(a), int(b))))
            found[key] = min(found.get(key, np.inf), d)
    return {key: pytest.approx(value, abs=1e-4) for key, value in found.items()}


def test_the_metrics_are_those_of_the_ase_calculator(trained, small_file: Path) -> None:
    out, metrics, _, _ = trained
    frames, splits = read_frames(small_file), json.loads((out / "splits.json").read_text())
    calculator = MaskedGNNCalculator(out, device="cpu")
    force, energy = [], []
    for frame in (frames[i] for i in splits["test"]):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, calculator=calculator)
        force.append(atoms.get_forces() - frame.forces)
        energy.append((atoms.get_potential_energy() - frame.energy) / len(frame))  # type: ignore[operator]
    table = metrics["errors"]["test"]
    assert 1e3 * np.sqrt(np.mean(np.concatenate(force) ** 2)) == pytest.approx(table["force_rmse"], rel=1e-4)
    assert 1e3 * np.abs(energy).mean() == pytest.approx(table["energy_mae"], rel=1e-3)


def test_what_is_taken_off_the_energies_is_said(trained, small_file: Path) -> None:
    """It is the difference between the error in the log and that of the finished potential."""
    out, metrics, _, listener = trained
    offset = metrics["energy_offset"]
    assert abs(offset) > 0.1
    (best,) = [line for line in read_log(out / "finetune") if line["step"] == metrics["best_step"]]
    frames, splits = read_frames(small_file), json.loads((out / "splits.json").read_text())
    calculator, before = MaskedGNNCalculator(out, device="cpu"), []
    for frame in (frames[i] for i in splits["validation"]):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        before.append(1e3 * (calculator.get_potential_energy(atoms) - frame.energy) / len(frame) + offset)
    assert np.abs(before).mean() == pytest.approx(best["val/energy_mae"], rel=1e-3)
    text = METRICS["energy_mae"].text(offset)
    said = f"The median energy error of the training frames, {text} meV/atom, is taken off the finished potential"
    assert said in (out / "report.md").read_text()
    assert any(note.startswith(said) for note in listener.notes)


def test_the_report_loads_the_potential_of_its_run(trained) -> None:
    out, _, _, _ = trained
    (line,) = [line for line in (out / "report.md").read_text().splitlines() if line.startswith("atoms.calc = ")]
    assert eval(line.removeprefix("atoms.calc = "), {"MaskedGNNCalculator": Path}) == out


# ---- own data --------------------------------------------------------------------------


def labelled(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """With labels from springs between neighbors, the same in every frame, and their exact stress."""
    (i, j), shifts = neighbor_list(atoms.positions, atoms.cell.array, atoms.pbc, 3.0)
    vectors = atoms.positions[j] - atoms.positions[i] + shifts @ atoms.cell.array
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    energy = 0.5 * float((0.1 * (lengths - 3.0) ** 2).sum()) - 3.0 * len(atoms)
    pull = 0.2 * (lengths - 3.0) * vectors / lengths
    forces = np.zeros((len(atoms), 3))
    np.add.at(forces, i, pull)
    results: dict[str, Any] = {"energy": energy, "forces": forces}
    if atoms.pbc.all():
        full = 0.5 * (pull[:, :, None] * vectors[:, None]).sum(0) / atoms.get_volume()
        results["stress"] = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


@pytest.fixture
def copper(tmp_path: Path) -> Path:
    """Fourteen frames of a metal with stress, two of them clusters without a cell."""
    from ase.build import bulk

    rng = np.random.default_rng(1)
    frames = []
    for n in range(14):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array * (1 + 0.02 * rng.normal()), scale_atoms=True)
        atoms.rattle(0.1, rng=rng)
        if n % 7 == 3:
            atoms.pbc = False
            atoms.set_cell(np.zeros((3, 3)))
        frames.append(labelled(atoms, rng))
    write(tmp_path / "copper.extxyz", frames)
    return tmp_path / "copper.extxyz"


def test_own_data_with_stress(tiny_recipe, copper: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(
        "finetune.stress_weight=10.0", "finetune.max_steps=60", "finetune.eval_every=30", "finetune.lr=1e-2",
        "data.split_by=frame", "data.fractions=[0.7, 0.15, 0.15]", name="custom"
    )  # fmt: skip
    metrics = run_train(recipe, data=copper, out=tmp_path / "run", **CPU)
    assert metrics["pretrained"] == "denoise"
    assert "stress_rmse" in metrics["errors"]["train"]
    assert str(copper) in metrics["data"]
    assert "copper.extxyz" in metrics["labels"]
    log = [json.loads(line) for line in (tmp_path / "run" / "finetune" / "metrics.jsonl").read_text().splitlines()]
    assert all(math.isfinite(value) for line in log for value in line.values())
    assert log[-1]["train/stress_mae"] < log[0]["train/stress_mae"]
    assert "stress RMSE" in (tmp_path / "run" / "report.md").read_text()
    # Against ASE's own reading of the file: the sign and the order of the components.
    frames = read(copper, ":")
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    assert "worse than no force, mean energy" in read_metadata(tmp_path / "run")["caution"]
    with pytest.warns(UserWarning, match="worse than no force, mean energy"):
        calculator = MaskedGNNCalculator(tmp_path / "run", device="cpu")
    errors = []
    for index in splits["train"]:
        atoms = frames[index]
        if atoms.pbc.all():
            mine = atoms.copy()
            mine.calc = calculator
            errors.append(mine.get_stress(voigt=False) - atoms.get_stress(voigt=False))
    assert 1e3 * np.sqrt(np.mean(np.square(errors))) == pytest.approx(
        metrics["errors"]["train"]["stress_rmse"], rel=1e-3
    )


def test_energies_have_no_offset_on_the_training_frames(tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    """Not even where energies are not in the loss; and the file says what the run said."""
    keys = ("pretrain.objective=none", "finetune.energy_weight=0.0", "finetune.second_energy_weight=none")
    metrics = run_train(tiny_recipe(*keys), data=small_file, out=tmp_path / "run", **CPU)
    splits = json.loads((tmp_path / "run" / "splits.json").read_text())
    frames, calculator = read_frames(small_file), MaskedGNNCalculator(tmp_path / "run", device="cpu", dtype="float64")
    errors = []
    for frame in (frames[index] for index in splits["train"]):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        errors.append((calculator.get_potential_energy(atoms) - frame.energy) / len(atoms))
    assert np.median(errors) == pytest.approx(0.0, abs=2e-6)
    assert 1e3 * np.mean(np.abs(errors)) == pytest.approx(metrics["errors"]["train"]["energy_mae"], rel=1e-3)


def test_stress_that_is_not_trained_is_still_tested(tiny_recipe, copper: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe("data.split_by=frame", "data.fractions=[0.7, 0.15, 0.15]", name="custom")
    metrics = run_train(recipe, data=copper, out=tmp_path / "run", **CPU)
    assert math.isfinite(metrics["errors"]["train"]["stress_mae"])


def test_the_caution_of_the_data_is_in_the_potential(
    tiny_recipe, copper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SOURCES, "custom", replace(SOURCES["custom"], caution="half of the forces are missing."))
    recipe = tiny_recipe(
        "data.split_by=frame", "data.fractions=[0.7, 0.15, 0.15]", "pretrain.objective=none", name="custom"
    )
    run_train(recipe, data=copper, out=tmp_path / "run", **CPU)
    assert read_metadata(tmp_path / "run")["caution"].startswith("half of the forces are missing.")


def test_too_few_frames(tiny_recipe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    two = [labelled(molecule("H2O"), rng), labelled(molecule("H2O2"), rng)]
    write(tmp_path / "few.extxyz", two)
    with pytest.raises(MdpotError, match=r"need at least 3 groups of frames; got 2 .*Give more frames"):
        run_train(tiny_recipe(name="custom"), data=tmp_path / "few.extxyz", out=tmp_path / "run", **CPU)


def test_an_element_that_only_the_test_split_holds(tiny_recipe, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = []
    for n in range(20):
        atoms = molecule("CO2" if n == 0 else "H2O")
        atoms.rattle(0.05, rng=rng)
        atoms.info["group"] = f"g{n}"
        frames.append(labelled(atoms, rng))
    write(tmp_path / "mixed.extxyz", frames)
    # The labels are made up, and no bond is as soft.
    recipe = tiny_recipe("pretrain.objective=none", "finetune.max_steps=1", "data.check=off", name="custom")
    names = [frame.group for frame in read_frames(tmp_path / "mixed.extxyz")]
    seeds = range(100)
    seed = next(seed for seed in seeds if 0 in split_by_group(names, recipe.data.fractions, seed)["test"])
    metrics = run_train(recipe, data=tmp_path / "mixed.extxyz", out=tmp_path / "run", seed=seed, **CPU)
    assert 0 in json.loads((tmp_path / "run" / "splits.json").read_text())["test"]
    assert all(math.isfinite(v) for table in metrics["errors"].values() for v in table.values())
    potential, header = load_potential(tmp_path / "run")
    assert potential.elements == [1, 6, 8]
    assert header["reference_energies"]["6"] == 0.0


# ---- evaluation ------------------------------------------------------------------------


def test_evaluate(trained, small_file: Path, tmp_path: Path) -> None:
    out, metrics, _, _ = trained
    frames, splits = read_frames(small_file), json.loads((out / "splits.json").read_text())
    chosen = []
    for frame in (frames[i] for i in splits["test"]):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        atoms.calc = SinglePointCalculator(atoms, energy=frame.energy, forces=frame.forces)
        chosen.append(atoms)
    write(tmp_path / "test.extxyz", chosen)
    for file in (out, out / "potential.safetensors"):
        result = run_evaluate(file, tmp_path / "test.extxyz", device="cpu")
        assert set(result) == {"file", "data", "labels", "test.extxyz"}
        assert result["test.extxyz"] == pytest.approx(metrics["errors"]["test"], rel=1e-3)


def test_evaluate_refuses(trained, tmp_path: Path) -> None:
    out, _, _, _ = trained
    rng = np.random.default_rng(0)
    write(tmp_path / "methane.extxyz", [labelled(molecule("CH4"), rng)])
    with pytest.raises(MdpotError, match=r"holds C, but the potential knows only H, O\. Train one that knows both"):
        run_evaluate(out, tmp_path / "methane.extxyz", device="cpu")
    with pytest.raises(MdpotError, match="no such file"):
        run_evaluate(out, tmp_path / "nowhere.extxyz", device="cpu")
    with pytest.raises(MdpotError, match="is not there"):
        run_evaluate(tmp_path / "nowhere.safetensors", tmp_path / "methane.extxyz", device="cpu")
    write(tmp_path / "bare.extxyz", molecule("H2O"))
    with pytest.raises(MdpotError, match="no energy"):
        run_evaluate(out, tmp_path / "bare.extxyz", device="cpu")


def test_the_public_names_of_the_module() -> None:
    assert {"run_train", "run_pretrain", "run_finetune", "run_evaluate"} <= set(runs.__all__)


def test_names_of_files_may_be_text(small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    metrics = run_train(tiny_recipe("pretrain.objective=none"), data=str(small_file), out=str(tmp_path / "run"), **CPU)
    begun = {"from_file": str(tmp_path / "run" / "potential.safetensors"), "out": str(tmp_path / "more"), **CPU}
    assert run_finetune(tiny_recipe(), data=str(small_file), **begun)["errors"].keys() == metrics["errors"].keys()


def test_slips_in_python(small_file: Path, tiny_recipe, tmp_path: Path) -> None:
    """Each is refused by name, and leaves no folder."""
    where: dict[str, Any] = {"out": tmp_path / "run"}
    with pytest.raises(MdpotError, match=r"recipe must be a Recipe, which .*load_recipe reads; got 'custom'"):
        run_train("custom", data=small_file, **where)  # type: ignore[arg-type]
    with pytest.raises(MdpotError, match=r"data must be a file, a folder, or a Dataset; got list\. Write"):
        run_train(tiny_recipe("data.source=custom"), data=[Atoms("H")], **where)  # type: ignore[arg-type]
    with pytest.raises(MdpotError, match="device 'nowhere' cannot be used here"):
        run_train(tiny_recipe(), data=small_file, device="nowhere", **where)
    with pytest.raises(MdpotError, match="device 'nowhere' cannot be used here"):
        run_evaluate("water-rpbe-small", small_file, device="nowhere")
    assert not (tmp_path / "run").exists()
