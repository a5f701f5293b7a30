"""Potentials that correct a force field, in ASE and by the commands; nothing runs them without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.io import read, write

from mdpot import MaskedGNNCalculator, MdpotError, load_potential
from mdpot.cli import main
from mdpot.electrons import Electrons
from mdpot.export import export_torchscript
from mdpot.modelfile import open_model, save_ensemble
from mdpot.training.data.frames import Frame
from mdpot.training.evaluate import run_evaluate

from .conftest import atoms_of, label, with_electrons


def test_the_calculator_adds_both(trained: Path) -> None:
    atoms = atoms_of()
    atoms.calc = MaskedGNNCalculator(trained, dtype="float64")
    network = load_potential(trained / "potential.safetensors", dtype="float64", correction=True)[0]
    alone = MaskedGNNCalculator(open_model(network))
    together = atoms.get_potential_energy(), atoms.get_forces()
    atoms.calc = alone
    found = label(atoms)
    assert found is not None
    energy, forces = found
    assert together[0] == pytest.approx(atoms.get_potential_energy() + energy, abs=1e-9)
    np.testing.assert_allclose(together[1], atoms.get_forces() + forces, atol=1e-9)

    both = MaskedGNNCalculator(trained)
    assert both.engine.endswith("and spcfw")
    assert both.implemented_properties == ["energy", "free_energy", "forces"]
    periodic = atoms_of(pbc=True)
    periodic.calc = both
    with pytest.raises(PropertyNotImplementedError, match="stress"):
        periodic.get_stress()
    three = atoms_of()[:3]
    three.calc = both
    with pytest.raises(MdpotError, match="spcfw, which the potential corrects, does not describe these atoms"):
        three.get_forces()


def test_errors_are_of_both_together(trained: Path, small_file: Path) -> None:
    """`mdpot evaluate` compares the sum with the labels."""
    found = run_evaluate(trained, small_file)
    (name,) = (key for key, value in found.items() if isinstance(value, dict))
    from mdpot.training.data.readers.runner import read_runner

    calculator, off = MaskedGNNCalculator(trained), []
    for frame in read_runner(small_file):
        atoms = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc, calculator=calculator)
        off.append(np.abs(atoms.get_forces() - frame.forces).ravel())
    assert found[name]["force_mae"] == pytest.approx(1e3 * np.concatenate(off).mean(), rel=1e-3)


def test_nothing_runs_it_alone(trained: Path, tmp_path: Path) -> None:
    file = trained / "potential.safetensors"
    refused = pytest.raises(MdpotError, match="corrects the force field spcfw, and means nothing without it")
    with refused:
        load_potential(file)
    with refused:
        export_torchscript(file, tmp_path / "exported.pt")
    with refused:
        save_ensemble(tmp_path / "ensemble.safetensors", [file, file])
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("by_charge")
@pytest.mark.parametrize("engine", ["ase", "openmm"])
@pytest.mark.parametrize(
    ("stated", "options", "expected"),
    [
        ({"charge": 3}, (), {"charge": 3}),
        ({}, ("--charge", "2"), {"charge": 2}),
        ({"charge": 3}, ("--charge", "1"), {"charge": 1}),
        ({"multiplicity": 3}, ("--charge", "2"), {"charge": 2, "multiplicity": 3}),
        ({"charge": 2}, ("--multiplicity", "1"), {"charge": 2, "multiplicity": 1}),
        ({"total_charge": 1, "spin": 1}, (), {"charge": 1, "multiplicity": 2}),
    ],
)
def test_dynamics(engine: str, stated, options, expected, trained: Path, tmp_path: Path) -> None:
    """Both engines run both together, with the charge that the structure or the command states, also when resumed."""
    if engine == "openmm":
        pytest.importorskip("openmm")
    energies = []
    for info in ({}, stated):
        atoms = atoms_of()
        atoms.info.update(info)
        write(tmp_path / "start.extxyz", atoms)
        words = ["md", tmp_path / "start.extxyz", "--model", trained, "--out", tmp_path / f"md{len(energies)}"]
        words += ["--engine", engine, "--steps", "4", "--every", "2", "--dt", "0.1"]
        assert run([*words, *(options if energies else ())]) == 0
        assert run([words[0], "--out", words[5], "--resume", "--steps", "8"]) == 0
        rows = (Path(words[5]) / "log.csv").read_text().splitlines()
        assert len(rows) == 6
        energies.append([float(row.split(",")[3]) for row in rows[1:]])
    more = expected["charge"] + 100 * (expected.get("multiplicity", 1) - 1)
    np.testing.assert_allclose(np.subtract(*energies), -more, atol=1e-3)
    trajectory: Any = read(tmp_path / "md1" / "trajectory.xyz", ":")
    for atoms in trajectory:
        assert {key: atoms.info[key] for key in expected} == expected


def run(words) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, words)])
    return int(ended.value.code or 0)


def test_a_network_alone_sees_no_charge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["md", "water:8", "--model", "water-rpbe-small", "--out", tmp_path / "md", "--charge", "1"]
    assert run(words) == 2
    assert "charge: for a potential that corrects a force field" in capsys.readouterr().err
    assert not (tmp_path / "md").exists()


def test_timings_need_a_structure(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes of water would take the force field minutes."""
    for words, code in (([], 2), (["--structure", str(tmp_path / "start.xyz"), "--seconds", "0.05"], 0)):
        atoms_of().write(tmp_path / "start.xyz")
        with pytest.raises(SystemExit) as ended:
            main(["bench", str(trained), *words])
        assert (ended.value.code or 0) == code
    assert "name a structure to time it on" in capsys.readouterr().err


def test_the_force_fields_take_atoms_of_ase() -> None:
    """As they take frames."""
    from mdpot.forcefields import SPCFw, Structure

    atoms = atoms_of(pbc=True)
    one = SPCFw().label(Structure.of(atoms))
    other = SPCFw().label(Frame(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc))
    assert one is not None
    assert other is not None
    assert one[0] == other[0]
    np.testing.assert_array_equal(one[1], other[1])
    assert SPCFw().label(Structure.of(atoms, Electrons(1))) is None


@pytest.mark.usefixtures("by_charge")
def test_a_calculator_takes_the_charge_of_the_atoms_or_that_of_the_training(trained: Path, tmp_path: Path) -> None:
    neutral = atoms_of()
    neutral.calc = MaskedGNNCalculator(trained)
    energy = neutral.get_potential_energy()
    neutral.info["charge"] = 2  # is noticed, though no atom moved
    assert neutral.get_potential_energy() == pytest.approx(energy + 2, abs=1e-6)

    file = with_electrons(trained, {"charge": -1, "unpaired": None}, tmp_path / "ion.safetensors")
    ion = atoms_of()
    ion.calc = MaskedGNNCalculator(file)
    assert ion.get_potential_energy() == pytest.approx(energy - 1, abs=1e-6)
    ion.info["total_charge"] = 0.0
    with pytest.warns(UserWarning, match="has a charge of 0; the potential was trained at -1"):
        ion.get_potential_energy()
    assert ion.get_potential_energy() == pytest.approx(energy, abs=1e-6)

    file = with_electrons(trained, "stated", tmp_path / "both.safetensors")
    some = atoms_of()
    some.calc = MaskedGNNCalculator(file)
    with pytest.raises(MdpotError, match=r"several charges.*atoms\.info\[\"charge\"\]"):
        some.get_potential_energy()
    some.info["charge"] = 1
    assert some.get_potential_energy() == pytest.approx(energy + 1, abs=1e-6)
