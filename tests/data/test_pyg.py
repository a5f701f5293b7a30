"""Data sets of PyTorch Geometric as a source: PyG's own classes on files in their layout, and one's own class."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import CliRunner

from mdpot.cli.main import main
from mdpot.errors import MdpotError
from mdpot.training.data import from_pyg
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.readers.npz import load_arrays, rmd17_frames
from mdpot.training.data.readers.pyg import open_pyg
from mdpot.training.data.sources import load_dataset
from mdpot.units import KCAL_PER_MOL

pytest.importorskip("torch_geometric")
from torch_geometric.data import Data, InMemoryDataset
from torch_geometric.datasets import MD17

SPEC = "pyg:MD17:revised ethanol"


def assert_close(found: Any, expected: Any, atol: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.fixture(scope="module")
def labeled() -> list[Atoms]:
    """Shaken ethanol with the labels of EMT, whose forces are the derivative of its energies."""
    rng = np.random.default_rng(0)
    frames = []
    for _ in range(30):
        atoms = molecule("CH3CH2OH")
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        frames.append(atoms)
    return frames


def objects(frames: list[Atoms], energy: str = "energy", forces: str = "force", scale: float = 1.0) -> list[Data]:
    return [
        Data(
            z=torch.tensor(atoms.numbers),
            pos=torch.tensor(atoms.positions),
            **{
                energy: torch.tensor([atoms.get_potential_energy() * scale]),
                forces: torch.tensor(atoms.get_forces() * scale),
            },
        )
        for atoms in frames
    ]


@pytest.fixture
def revised(own_cache: Path, labeled: list[Atoms]) -> Path:
    """A file in revised MD17's layout (kcal/mol, Å), where PyG's class looks for it in mdpot's cache."""
    path = own_cache / "pyg/MD17/raw/rmd17/npz_data/rmd17_ethanol.npz"
    path.parent.mkdir(parents=True)
    n = len(labeled)
    np.savez(
        path,
        nuclear_charges=labeled[0].numbers.astype(np.uint8),
        coords=np.stack([a.positions for a in labeled]),
        energies=np.array([a.get_potential_energy() for a in labeled]) / KCAL_PER_MOL,
        forces=np.stack([a.get_forces() for a in labeled]) / KCAL_PER_MOL,
        old_indices=np.arange(n),
        old_energies=np.zeros(n),
        old_forces=np.zeros((n, 9, 3)),
    )
    return path


def test_pygs_own_class_gives_the_frames_that_ase_has(revised: Path, labeled: list[Atoms]) -> None:
    dataset = load_dataset("custom", SPEC)
    assert "energy, force" in dataset.labels
    assert "kcal/mol, kcal/mol/Å, Å (of PyG's MD17)" in dataset.labels
    assert dataset.origin == SPEC
    for frame, atoms in zip(dataset.frames, labeled, strict=True):
        np.testing.assert_array_equal(frame.numbers, atoms.numbers)
        # PyG stores single precision.
        assert_close(frame.positions, atoms.positions, atol=1e-6)
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), rel=1e-6)
        assert_close(frame.forces, atoms.get_forces(), atol=1e-5)
        assert not frame.pbc.any()
        assert not frame.cell.any()


def test_real_frames_are_those_of_our_own_reader(data_folder: Path, own_cache: Path) -> None:
    ours = data_folder / "rmd17/npz_data/rmd17_aspirin.npz"
    if not ours.is_file():
        pytest.skip("needs revised MD17")
    arrays = load_arrays(ours)
    rows = range(0, len(arrays["coords"]), max(1, len(arrays["coords"]) // 60))
    path = own_cache / "pyg/MD17/raw/rmd17/npz_data/rmd17_aspirin.npz"
    path.parent.mkdir(parents=True)
    some: dict[str, Any] = {k: a if k == "nuclear_charges" else a[list(rows)] for k, a in arrays.items()}
    np.savez(path, **some)
    dataset = load_dataset("custom", "pyg:MD17:revised aspirin")
    for found, frame in zip(dataset.frames, rmd17_frames(ours, arrays, rows), strict=True):
        assert frame.energy is not None
        np.testing.assert_array_equal(found.numbers, frame.numbers)
        assert_close(found.positions, frame.positions, atol=1e-6)
        assert_close(found.forces, frame.forces, atol=1e-5)
        # 400,000 kcal/mol in single precision are known to 1/32 kcal/mol.
        assert found.energy == pytest.approx(frame.energy, abs=KCAL_PER_MOL / 32)
    (note,) = dataset.notes
    assert "single precision, in steps of 0.001 eV" in note


def test_an_object_is_read_as_its_spec(revised: Path) -> None:
    by_spec = load_dataset("custom", SPEC)
    whole: Any = open_pyg(SPEC)
    found = from_pyg(whole)
    assert found.fingerprint == by_spec.fingerprint
    assert found.origin == "PyG's MD17(30, name='revised ethanol')"
    half = from_pyg(whole[:15], tests={"rest": whole[15:]})
    assert (len(half), len(half.tests["rest"])) == (15, 15)
    assert half.frames[3].energy == by_spec.frames[3].energy
    subset = torch.utils.data.Subset(whole, [4, 2])  # its units are MD17's too
    assert [frame.energy for frame in from_pyg(subset).frames] == [by_spec.frames[k].energy for k in (4, 2)]


class Toy(InMemoryDataset):
    """One's own class, as PyG's documentation has it."""

    def __init__(self, root: Path, structures: list[Data]) -> None:
        self.structures = structures
        super().__init__(str(root))
        self.load(self.processed_paths[0])

    @property
    def processed_file_names(self) -> str:
        return "data.pt"

    def process(self) -> None:
        self.save(self.structures, self.processed_paths[0])


@pytest.mark.parametrize("names", [("energy", "force"), ("y", "dy"), ("REF_energy", "REF_forces")])
def test_own_class_and_names_of_labels(tmp_path: Path, labeled: list[Atoms], names: tuple[str, str]) -> None:
    write(tmp_path / "frames.extxyz", labeled)
    expected = load_dataset("custom", tmp_path / "frames.extxyz")
    found = from_pyg(Toy(tmp_path / "toy", objects(labeled, *names)))
    assert "in eV, eV/Å, Å (assumed)" in found.labels
    assert f"{names[0]}, {names[1]}" in found.labels
    for one, other in zip(found.frames, expected.frames, strict=True):
        assert one.group == other.group
        assert one.energy == pytest.approx(other.energy, abs=1e-7)
        assert_close(one.forces, other.forces, atol=1e-7)


def test_units_of_an_unknown_class_are_asked_for_or_doubted(labeled: list[Atoms]) -> None:
    frames = objects(labeled, scale=1 / KCAL_PER_MOL)
    found = from_pyg(frames, Asked(units="kcal/mol"))
    assert found.frames[7].energy == pytest.approx(labeled[7].get_potential_energy())
    assert "given" in found.labels
    other = [Data(z=d.z, pos=d.pos, energy=d.energy, force=d.force * KCAL_PER_MOL) for d in frames]
    with pytest.raises(MdpotError, match=r"the list of 30 structures: .*energ"):
        from_pyg(other)  # energies in kcal/mol, forces in eV/Å
    assert len(from_pyg(other, Asked(check=False))) == 30


def test_y_alone_may_be_any_property(labeled: list[Atoms]) -> None:
    frames = objects(labeled, "y", "velocities")
    with pytest.raises(MdpotError, match=r"no energy .* Keys there that might be labels: y"):
        from_pyg(frames, need={"energy"})
    assert from_pyg(frames, Asked(energy_key="y"), {"energy"}).frames[0].energy is not None
    several = [Data(z=d.z, pos=d.pos, y=torch.tensor([[1.0, d["y"].item(), 2.0]])) for d in frames]
    with pytest.raises(MdpotError, match="might be labels: y:0 to y:2"):
        from_pyg(several, need={"energy"})
    found = from_pyg(several, Asked(energy_key="y:1"), {"energy"})
    assert found.frames[4].energy == pytest.approx(labeled[4].get_potential_energy(), rel=1e-6)
    with pytest.raises(MdpotError, match="energy_key is 'y:3'"):
        from_pyg(several, Asked(energy_key="y:3"), {"energy"})


def test_cells_stresses_and_virials_are_those_of_the_file(tmp_path: Path) -> None:
    rng, frames = np.random.default_rng(1), []
    for _ in range(12):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        atoms.get_forces()
        atoms.get_stress()
        frames.append(atoms)
    write(tmp_path / "frames.extxyz", frames)
    expected = load_dataset("custom", tmp_path / "frames.extxyz").frames
    for kind in ("stress", "virial"):
        found = from_pyg(
            [
                Data(
                    z=torch.tensor(a.numbers),
                    pos=torch.tensor(a.positions),
                    cell=torch.tensor(a.cell.array)[None],
                    pbc=torch.tensor([True, True, True]),
                    energy=torch.tensor(a.get_potential_energy()),
                    forces=torch.tensor(a.get_forces()),
                    **{kind: torch.tensor(a.get_stress(voigt=False) * (1 if kind == "stress" else -a.get_volume()))},
                    group="first" if n < 6 else "second",
                )
                for n, a in enumerate(frames)
            ]
        ).frames
        for one, other in zip(found, expected, strict=True):
            assert_close(one.cell, other.cell, atol=1e-7)
            assert_close(one.stress, other.stress, atol=1e-7)
            assert one.pbc.all()
        assert {frame.group.split("#")[0] for frame in found} == {"first", "second"}


def test_inspection_names_the_data_set(revised: Path) -> None:
    found = inspect_file(SPEC, Asked())
    assert (found["frames"], found["labeled"], found["n_atoms"]) == (30, 30, [9, 9])
    assert found["units"]["energy"] == "kcal/mol"
    printed = CliRunner().invoke(main, ["data", "inspect", SPEC])
    assert printed.exit_code == 0, printed.output
    assert re.search(r"units: +kcal/mol, Å, kcal/mol/Å.*of PyG's MD17", printed.output)


def test_structures_are_read_without_labels(labeled: list[Atoms], revised: Path) -> None:
    bare = [Data(z=d.z, pos=d.pos) for d in objects(labeled)]
    assert len(from_pyg(bare, need=())) == 30
    assert len(read_file(SPEC, need=()).frames) == 30


def test_a_failed_download_says_what_to_put_where(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    def broken(*args: Any, **keywords: Any) -> None:
        raise OSError("network is\nunreachable")

    monkeypatch.setattr("torch_geometric.datasets.md17.download_url", broken)
    with pytest.raises(MdpotError) as caught:
        inspect_file(SPEC, Asked())
    message = str(caught.value)
    assert "\n" not in message
    assert "network is unreachable" in message
    assert MD17.revised_url in message
    folder = own_cache / "pyg/MD17/raw"
    assert f"put rmd17/npz_data/rmd17_ethanol.npz into {folder}" in message


def test_what_pyg_cannot_read_is_one_line(revised: Path) -> None:
    revised.write_bytes(b"no archive")
    with pytest.raises(MdpotError, match=f"{SPEC}: PyG cannot read it: .+"):
        load_dataset("custom", SPEC)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("pyg:MD71:aspirin", "no class 'MD71'. Did you mean 'MD17'"),
        ("pyg:MD17", "needs its name, as in pyg:MD17:NAME: aspirin, "),
        ("pyg:MD17:revised aspirine", "Did you mean 'revised aspirin'"),
        ("pyg:QM9:seven", "takes no argument; write pyg:QM9"),
    ],
)
def test_wrong_specs_are_named(spec: str, message: str) -> None:
    with pytest.raises(MdpotError, match=re.escape(message)[:40]):
        load_dataset("custom", spec)


def test_other_recipes_do_not_take_them() -> None:
    with pytest.raises(MdpotError, match="recipe custom, not for water-rpbe"):
        load_dataset("water-rpbe", SPEC)


def test_faults_name_the_structure(labeled: list[Atoms]) -> None:
    frames = objects(labeled)
    del frames[3]["pos"]
    with pytest.raises(MdpotError, match=r"the list of 30 structures, structure 3: .* pos"):
        from_pyg(frames)


def test_frames_can_be_handed_to_a_run(tmp_path: Path, labeled: list[Atoms], make_small: Callable[..., Any]) -> None:
    from mdpot.training.run import run_evaluate, run_train

    dataset = from_pyg(objects(labeled))
    metrics = run_train(make_small(), data=dataset, out=tmp_path / "run", device="cpu")
    assert metrics["data"] == "the list of 30 structures"
    again = run_train(make_small(), data=dataset, out=tmp_path / "run", device="cpu", resume=True)
    assert again["errors"] == metrics["errors"]
    scored = run_evaluate(tmp_path / "run", dataset, device="cpu")
    write(tmp_path / "frames.extxyz", labeled)
    same = run_evaluate(tmp_path / "run", tmp_path / "frames.extxyz", device="cpu")
    assert scored["custom"]["force_rmse"] == pytest.approx(same["frames.extxyz"]["force_rmse"], rel=1e-4)
    with pytest.raises(MdpotError, match="keys, units, and charges are for files"):
        run_evaluate(tmp_path / "run", dataset, device="cpu", labels=Asked(units="atomic"))
    bare = from_pyg(objects(labeled, forces="velocities"), need={"energy"})
    with pytest.raises(MdpotError, match="no forces"):
        run_train(make_small(), data=bare, out=tmp_path / "other", device="cpu")


@pytest.fixture
def make_small() -> Callable[..., Any]:
    from mdpot.training.config import load_recipe

    def make() -> Any:
        steps = [f"{stage}.{key}" for stage in ("pretrain", "finetune") for key in ("max_steps=4", "eval_every=2")]
        sizes = [f"model.hyperparameters.{text}" for text in ("width=8", "layers=1", "channels=4", "n_radial=4")]
        return load_recipe("custom", "quick", [*steps, *sizes, "model.cutoff=4.0"])

    return make
