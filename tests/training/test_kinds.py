"""Errors by kind of frame: their rows, what stands out, and where a run and an evaluation tell it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from click.testing import CliRunner

from mdpot import MaskedGNNCalculator
from mdpot.cli import main
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers import read_frames
from mdpot.training.evaluation import Evaluation
from mdpot.training.kinds import about_outliers, composition, error_rows, kinds_table
from mdpot.training.run import run_train

from .conftest import CPU

# ---- errors that are chosen, of frames without a network ---------------------------------


def frame_of(atoms: Atoms, kind: str = "") -> Frame:
    return Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, kind=kind)


def named(*kinds: str) -> list[Frame]:
    """Frames of two atoms by the names of their kinds."""
    return [frame_of(Atoms("H2"), kind) for kind in kinds]


def evaluation(energy: Sequence[float], force: Sequence[float] | None = None, size: float = 1.0) -> Evaluation:
    """Frames of two atoms with energies off by meV/atom, and forces, all components of `size` eV/Å, by meV/Å."""
    n = len(energy)
    off = np.repeat(np.zeros(n) if force is None else np.array(force), 2)[:, None] / 1e3
    energies, forces = np.arange(n) - 5.0, np.full((2 * n, 3), size)
    return Evaluation(
        sizes=np.full(n, 2),
        energy=np.stack([energies, energies + 2 * np.array(energy) / 1e3]),
        forces=np.stack([forces, forces + off]),
        stress=np.zeros((2, 0, 3, 3)),
    )


def outliers(errors: dict[str, list[float]], **options) -> list[str]:
    """What stands out of energy errors by kind, meV/atom."""
    kinds = [kind for kind, values in errors.items() for _ in values]
    return about_outliers(
        {"test": evaluation([off for values in errors.values() for off in values])}, {"test": named(*kinds)}, **options
    )


def test_the_rows_are_the_errors_of_the_frames_of_a_kind() -> None:
    result = evaluation([1.0, -20.0, -3.0, 40.0, 30.0], [10.0, 0.0, 20.0, 0.0, 3.0])
    frames = {"test": named("a", "b", "a", "b", "b")}
    first, second = error_rows({"test": result}, frames, named("b", "c", "b"))
    # The forces of a are off by 15 where all are by 6.6, 2.3 times; the energies of b by 30 of 18.8, 1.6 times.
    assert (first["frames"], first["kind"], first["n_frames"], first["n_trained"]) == ("test", "a", 2, 0)
    assert first["energy_mae"] == pytest.approx(2.0)
    assert first["force_mae"] == pytest.approx(15.0)
    assert first["force_rmse"] == pytest.approx(np.sqrt((100 + 400) / 2))
    assert (second["kind"], second["n_frames"], second["n_atoms"], second["n_trained"]) == ("b", 3, 6, 2)
    assert second["energy_mae"] == pytest.approx(30.0)
    assert second["energy_rmse"] == pytest.approx(np.sqrt((400 + 1600 + 900) / 3))
    assert second["force_mae"] == pytest.approx(1.0)
    assert all("n_trained" not in row for row in error_rows({"test": result}, frames))


def test_many_kinds_are_the_worst_and_the_rest() -> None:
    frames = named(*(f"k{n}" for n in range(14) for _ in range(2)))
    rows = error_rows({"test": evaluation([float(n // 2) for n in range(28)])}, {"test": frames}, frames)
    assert [row["kind"] for row in rows] == [*(f"k{n}" for n in range(13, 4, -1)), "5 others together"]
    assert (rows[-1]["n_frames"], rows[-1]["n_trained"]) == (10, 10)
    assert rows[-1]["energy_mae"] == pytest.approx((0 + 1 + 2 + 3 + 4) / 5)
    assert sum(row["n_frames"] for row in rows) == 28


def test_a_part_of_an_evaluation() -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([1, 3, 2])
    energy, forces, stress = rng.normal(size=(2, 3)), rng.normal(size=(2, 6, 3)), rng.normal(size=(2, 3, 3, 3))
    stress[0, 2] = np.nan
    whole = Evaluation(sizes, energy, forces, stress, energy[0] - 0.5)
    alone = Evaluation(sizes[1:2], energy[:, 1:2], forces[:, 1:4], stress[:, 1:2], energy[0, 1:2] - 0.5)
    assert whole.part(np.array([1])).metrics() == alone.metrics()
    assert "stress_mae" not in whole.part(np.array([2])).metrics()
    assert whole.metrics()["stress_mae"] == pytest.approx(1e3 * np.abs(np.subtract(*stress[:, :2])).mean())
    assert whole.part(np.arange(3)).metrics() == whole.metrics()
    for n, (start, end) in enumerate([(0, 1), (1, 4), (4, 6)]):
        assert whole.frame_errors()["force_mae"][n] == pytest.approx(
            1e3 * np.abs(forces[1, start:end] - forces[0, start:end]).mean()
        )
        assert whole.frame_errors()["energy_mae"][n] == pytest.approx(
            1e3 * abs(energy[1, n] - energy[0, n]) / (end - start)
        )


def test_compositions_are_of_molecules_whole_and_of_crystals_the_smallest() -> None:
    assert composition(frame_of(molecule("C2H6"))) == "C2H6"
    assert composition(frame_of(bulk("NaCl", "rocksalt", 5.6) * (2, 1, 1))) == "NaCl"
    assert composition(frame_of(bulk("Cu", cubic=True))) == "Cu"
    salt = [frame_of(bulk("NaCl", "rocksalt", 5.6) * (n, 1, 1)) for n in (1, 2)]
    assert error_rows({"test": evaluation([1.0, 2.0])}, {"test": salt}) == []


def test_names_go_before_compositions_where_they_tell_frames_apart() -> None:
    mixed = [frame_of(molecule(name), "default") for name in ("CH4", "CH4", "H2O", "H2O")]
    result = {"test": evaluation([1.0, 1.0, 2.0, 3.0])}
    assert [row["kind"] for row in error_rows(result, {"test": mixed})] == ["H2O", "CH4"]
    for frame, name in zip(mixed, ["cold", "hot", "cold", "hot"], strict=True):
        frame.kind = name
    assert [row["kind"] for row in error_rows(result, {"test": mixed})] == ["hot", "cold"]
    for frame, name in zip(mixed, "1234", strict=True):
        frame.kind = name  # every frame a kind: that tells nothing
    assert [row["kind"] for row in error_rows(result, {"test": mixed})] == ["H2O", "CH4"]


def test_no_table_of_one_kind() -> None:
    assert error_rows({"test": evaluation([1.0, 2.0])}, {"test": named("a", "a")}) == []
    assert outliers({"a": [1.0, 2.0, 300.0]}) == []


def test_a_bar_in_a_name_is_none_of_the_table() -> None:
    frames = {"test": named("a|b", "a|b", "c", "c")}
    table = kinds_table(error_rows({"test": evaluation([4.0, 4.0, 1.0, 1.0])}, frames))
    assert table.splitlines()[2].startswith("| a\\|b | 2 | 4.00 |")


def test_what_stands_out() -> None:
    usual = {"a": [2.0, -3.0, 1.0, 2.5], "b": [-2.0, 2.0, 1.5, 0.5]}  # of all eight the median is 2
    assert outliers({**usual, "c": [9.0, -9.9, 9.5]}) == []
    (said,) = outliers({**usual, "c": [11.0, -13.0, 12.0]}, trained=named("c", "a"))
    assert said == (
        "test: the energy errors of c (median 12.0 meV/atom; 3 frames, 1 in training) are far above those of all other "
        "frames (median 2.00 meV/atom)."
    )


def test_no_wild_frame_makes_a_kind_stand_out_or_hides_another() -> None:
    usual = {"a": [2.0, -3.0, 1.0, 2.5], "b": [-2.0, 2.0, 1.5, 0.5]}
    assert outliers({**usual, "c": [900.0, 2.0, 3.0]}) == []
    assert outliers({**usual, "c": [900.0, 800.0]}) == []  # too few to tell
    wild = {**usual, "b": [-2.0, 2.0, 5000.0, 0.5]}
    assert "of c (median 12.0 meV/atom; 3 frames) are" in outliers({**wild, "c": [11.0, -13.0, 12.0]})[0]


def test_one_that_stands_out_does_not_hide_another() -> None:
    usual = {"a": [2.0, -3.0, 1.0, 2.5], "b": [-2.0, 2.0, 1.5, 0.5]}
    (said,) = outliers({**usual, "c": [20.0, 20.0, 20.0], "d": [80.0, 80.0, 80.0]})
    assert "of d (median 80.0 meV/atom; 3 frames) and c (median 20.0 meV/atom; 3 frames) are far above" in said


def test_most_frames_do_not_stand_out() -> None:
    assert outliers({"a": [1.0] * 4, "b": [90.0] * 5}) == []
    assert len(outliers({"a": [1.0] * 5, "b": [90.0] * 5})) == 1


def test_a_name_and_its_composition_are_told_of_once() -> None:
    frames = [frame_of(molecule(of), name) for of, name in [("CH4", "gas")] * 6 + [("H2O", "water")] * 4]
    (said,) = about_outliers({"test": evaluation([2.0] * 6 + [70.0] * 4)}, {"test": frames})
    assert "errors of water (" in said


def test_what_is_small_does_not_stand_out() -> None:
    assert outliers({"a": [0.01] * 8, "b": [0.9] * 3}) == []
    assert len(outliers({"a": [0.01] * 8, "b": [1.1] * 3})) == 1


def test_larger_forces_may_have_larger_errors() -> None:
    """In a liquid beside a crystal; but not where they are a larger share, and not beside frames at rest."""
    frames = {"test": named(*"aaaaaabbb")}
    result = evaluation([0.0] * 9, [20.0] * 6 + [150.0] * 3, size=1.0)
    assert "force errors of b (median 150.0 meV/Å; 3 frames)" in about_outliers({"test": result}, frames)[0]
    forces = np.array(result.forces)
    forces[:, 12:] += 9.0  # ten times as large, with the same errors
    liquid = Evaluation(result.sizes, result.energy, forces, result.stress)
    assert about_outliers({"test": liquid}, frames) == []
    forces = np.array(result.forces)
    forces[:, :12] = 0.0
    assert about_outliers({"test": Evaluation(result.sizes, result.energy, forces, result.stress)}, frames) == []


def test_a_name_is_no_composition() -> None:
    """Though it is called as one: so of its training frames, and of what is judged before."""
    copper, gold = bulk("Cu", cubic=True), bulk("Au", cubic=True)
    trained = [frame_of(copper, "Cu")] * 2 + [frame_of(copper, "slab")] * 7
    frames = {"test": [frame_of(copper, "Cu")] * 3 + [frame_of(copper, "slab")] * 6}
    result = {"test": evaluation([90.0] * 3 + [1.0] * 6)}
    assert [row["n_trained"] for row in error_rows(result, frames, trained)] == [2, 7]
    (said,) = about_outliers(result, frames, trained)
    assert "of Cu (median 90.0 meV/atom; 3 frames, 2 in training)" in said
    frames = {
        "test": [frame_of(gold, "Cu")] * 3 + [frame_of(gold, "slab")] * 6,
        "train": [frame_of(copper)] * 3 + [frame_of(gold)] * 6,
    }
    (said,) = about_outliers({"test": evaluation([1.0] * 9), "train": result["test"]}, frames)
    assert said.startswith("train: the energy errors of Cu (")


def test_each_kind_is_compared_with_what_is_left_without_it_and_worse_ones() -> None:
    for seed in range(30):
        rng = np.random.default_rng(seed)
        kinds = [f"k{n}" for n in np.sort(rng.integers(0, 9, 61))]
        scale = {kind: np.exp(2 * rng.normal()) * 3 for kind in kinds}
        errors = np.array([scale[kind] * rng.uniform(0.5, 1.5) for kind in kinds])
        there = {kind: np.array([kind == other for other in kinds]) for kind in scale}
        ranked = sorted(
            (kind for kind in scale if there[kind].sum() >= 3), key=lambda k: np.median(errors[there[k]]), reverse=True
        )
        left, far = np.ones(61, bool), []
        for n, kind in enumerate(ranked, 1):
            left &= ~there[kind]
            median = np.median(errors[there[kind]])
            if left.sum() >= 61 / 2 and np.mean(5 * errors[left] < median) > 0.5 and median > 1:
                far = ranked[:n]
        said = outliers({kind: errors[there[kind]].tolist() for kind in scale})
        assert len(said) == bool(far)
        if far:
            assert f"of {far[0]} (" in said[0]
            assert sum(said[0].count(f"{kind} (median") for kind in far) == min(len(far), 3)


def test_a_kind_is_told_of_once() -> None:
    trained, tested = named(*"aaaaaaaabbbccc"), named(*"aaaaaaaabbb")
    results = {"test": evaluation([1.0] * 8 + [90.0] * 3), "train": evaluation([1.0] * 8 + [90.0] * 3 + [50.0] * 3)}
    first, second = about_outliers(results, {"test": tested, "train": trained}, trained)
    assert first.startswith("test: the energy errors of b (median 90.0 meV/atom; 3 frames, 3 in training) are")
    assert second.startswith("train: the energy errors of c (median 50.0 meV/atom; 3 frames) are")


def test_a_composition_stands_out_of_names() -> None:
    frames = [frame_of(molecule(of), name) for of in ("CH4", "CH4", "CH4", "H2O") for name in ("hot", "cold")]
    frames += frames[-2:]
    (said,) = about_outliers({"test": evaluation([2.0] * 6 + [70.0] * 4)}, {"test": frames})
    assert said.startswith("test: the energy errors of H2O (median 70.0 meV/atom; 4 frames)")


def test_absent_labels_do_not_count() -> None:
    result = evaluation([1.0, 1.0, 1.0, 1.0, 80.0, 80.0, 80.0, 3.0])
    result.energy[0, 4:6] = np.nan
    frames = {"test": named(*"aaaabbbb")}
    assert about_outliers({"test": result}, frames) == []
    first, _ = error_rows({"test": result}, frames)
    assert (first["kind"], first["n_frames"], first["energy_mae"]) == ("b", 4, pytest.approx(41.5))
    result.forces[0], result.energy[0] = np.nan, np.nan
    assert about_outliers({"test": result}, frames) == []
    assert all("energy_mae" not in row for row in error_rows({"test": result}, frames))


# ---- where kinds come from ---------------------------------------------------------------


def test_kinds_come_from_info(tmp_path: Path) -> None:
    """A config_type counts beside a trajectory, a name of few groups is that of kinds, and a number is none."""
    structures = []
    for n, info in enumerate(
        [{"config_type": "liquid", "group": "run 1"}, {"subset": "surface"}, {"group": "slab"}, {"group": "17"}, {}]
    ):
        structures.append(molecule("H2O"))
        structures[-1].rattle(0.05, seed=n)
        structures[-1].info.update(info)
        structures[-1].calc = SinglePointCalculator(structures[-1], energy=-1.0 - n, forces=np.ones((3, 3)))
    write(tmp_path / "frames.extxyz", structures)
    frames = read_frames(tmp_path / "frames.extxyz")
    assert [frame.kind for frame in frames] == ["liquid", "surface", "slab", "", ""]
    assert frames[0].group == "run 1 liquid#0"


# ---- whole runs --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tiny_recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A short training on frames of copper of two kinds; the energies of the one are of another method."""
    folder, rng = tmp_path_factory.mktemp("kinds"), np.random.default_rng(0)
    frames = []
    for n in range(60):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.1, rng=rng)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.info["config_type"] = "odd" if n % 5 == 0 else "plain"
        atoms.calc = SinglePointCalculator(atoms, energy=energy + 8.0 * (n % 5 == 0), forces=forces)
        frames.append(atoms)
    write(folder / "copper.extxyz", frames)
    keys = ("data.split_by=frame", "data.fractions=[0.5, 0.1, 0.4]", "pretrain.objective=none")
    metrics = run_train(tiny_recipe(*keys, name="custom"), data=folder / "copper.extxyz", out=folder / "run", **CPU)
    return folder, metrics


def errors_of(run: tuple[Path, dict], split: str) -> list[tuple[str, float]]:
    """Kind and energy error, meV/atom, of each frame of a split, by ASE's reader and calculator."""
    folder, _ = run
    frames, calculator = read(folder / "copper.extxyz", ":"), MaskedGNNCalculator(folder / "run", device="cpu")
    found = []
    for atoms in (frames[n] for n in json.loads((folder / "run" / "splits.json").read_text())[split]):
        off = calculator.get_potential_energy(atoms) - atoms.get_potential_energy()
        found.append((atoms.info["config_type"], 1e3 * off / len(atoms)))
    return found


@pytest.mark.filterwarnings("ignore:.*worse than no force")
def test_a_run_tells_of_kinds(run) -> None:
    folder, metrics = run
    errors = errors_of(run, "test")
    trained = [kind for kind, _ in errors_of(run, "train")]
    assert {row["kind"] for row in metrics["kinds"]} == {"odd", "plain"}
    assert metrics["kinds"][0]["kind"] == "odd"
    for row in metrics["kinds"]:
        mine = [abs(error) for kind, error in errors if kind == row["kind"]]
        assert row["frames"] == "test"
        assert row["n_frames"] == len(mine)
        assert row["n_trained"] == trained.count(row["kind"])
        assert row["energy_mae"] == pytest.approx(np.mean(mine), rel=1e-3)
    (said,) = metrics["outliers"]
    median = np.median([abs(error) for kind, error in errors if kind == "odd"])
    assert said.startswith(f"test: the energy errors of odd (median {median:,.1f} meV/atom; ")
    report = (folder / "run" / "report.md").read_text()
    assert f"**{said}**" in report
    assert f"| odd | {metrics['kinds'][0]['n_frames']:.0f} | {trained.count('odd')} | " in report
    assert json.loads((folder / "run" / "metrics.json").read_text()) == metrics


@pytest.mark.filterwarnings("ignore:.*worse than no force")
def test_evaluate_tells_of_kinds(run) -> None:
    folder, _ = run
    arguments = ["evaluate", str(folder / "run"), str(folder / "copper.extxyz"), "--device", "cpu"]
    result = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    errors = [pair for split in ("train", "validation", "test") for pair in errors_of(run, split)]
    assert [row["kind"] for row in result["kinds"]] == ["odd", "plain"]
    for row in result["kinds"]:
        mine = [abs(error) for kind, error in errors if kind == row["kind"]]
        assert row["energy_mae"] == pytest.approx(np.mean(mine), rel=1e-3)
        assert "n_trained" not in row
    (said,) = result["outliers"]
    assert said.startswith("copper.extxyz: the energy errors of odd (median ")
    output = CliRunner().invoke(main, arguments).stdout
    assert "Errors in copper.extxyz by kind of frame, worst first" in output
    assert output.rstrip().endswith(said)
    assert "kinds:" not in output
