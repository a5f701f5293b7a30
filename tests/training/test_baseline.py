"""Potentials that correct a force field: what they learn, and that nothing runs them without it."""

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
from mdpot.forcefields import FORCE_FIELDS, ForceField
from mdpot.kernels import library
from mdpot.modelfile import open_model, save_ensemble
from mdpot.modelformat import pack
from mdpot.training import baseline
from mdpot.training.baseline import less_baseline
from mdpot.training.config import load_recipe, recipe_to_dict, with_network_of
from mdpot.training.data.frames import Dataset, Frame
from mdpot.training.evaluate import run_evaluate
from mdpot.training.run import run_finetune, run_pretrain, run_train

from .conftest import CPU

BASELINE = ("model.baseline=spcfw", "pretrain.objective=none")
SPRING = 0.05  # eV/Å²


def label(structure):
    """Every atom in a harmonic well at the origin; three atoms are not described."""
    if len(structure) == 3:
        return None
    return 0.5 * SPRING * float((structure.positions**2).sum()), -SPRING * structure.positions


@pytest.fixture(autouse=True)
def wells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("wells", label))


def charged(structure: Any) -> tuple[float, Any]:
    """As `label`, and 1 eV for each charge, 100 eV for each unpaired electron."""
    found: Any = label(structure)
    energy, forces = found
    charge, unpaired = structure.electrons.settled(structure.numbers)
    return energy + charge + 100 * (unpaired or 0), forces


@pytest.fixture
def by_charge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("charges", charged))


def frame(n: int = 4, **values) -> Frame:
    positions = np.random.default_rng(n).normal(size=(n, 3))
    of = {"cell": np.zeros((3, 3)), "pbc": np.zeros(3, bool), "energy": 1.0, "forces": np.ones((n, 3)), **values}
    return Frame(numbers=np.full(n, 8), positions=positions, **of)


def test_the_labels_are_differences() -> None:
    frames = [frame(4), frame(5, energy=None), frame(6, stress=np.ones((3, 3))), frame(3)]
    data = Dataset("d", frames, "DFT", "here", isolated={8: -1.0}, tests={"more": Dataset("t", [frame(4)], "DFT", "t")})
    told = []
    found = less_baseline(data, [0, 1, 2], "spcfw", lambda *done: told.append(done))
    np.testing.assert_allclose(found.frames[0].labels["forces"], 1.0 + SPRING * frames[0].positions, atol=1e-6)
    assert found.frames[0].energy == pytest.approx(1.0 - 0.5 * SPRING * (frames[0].positions ** 2).sum(), abs=1e-6)
    assert found.frames[1].energy is None
    assert found.frames[2].stress is None
    assert found.frames[3] is frames[3]
    assert (found.isolated, told) == ({}, [(3, 3)])
    assert found.labels == "DFT; the network learns what they have beyond spcfw"
    assert found.notes == ("stress is not learned, for the baseline spcfw has none",)
    assert found.tests["more"].frames[0].energy == found.frames[0].energy
    # It is the same data.
    assert found.fingerprint == data.fingerprint
    assert frames[0].energy == 1.0
    with pytest.raises(MdpotError, match=r"spcfw does not describe frame 7, of 3 atoms.*model\.baseline=none"):
        less_baseline(Dataset("d", [frame(3, index=7)], "DFT", "here"), [0], "spcfw")


def test_labels_are_kept_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdpot.training.data.cache.cache_folder", lambda: tmp_path)
    monkeypatch.setattr("mdpot.training.data.cache.LONG", -1.0)
    monkeypatch.setattr(baseline, "CHUNK", 2)
    asked = []

    def slow(structure):
        asked.append(len(structure))
        return label(structure)

    monkeypatch.setitem(FORCE_FIELDS, "spcfw", ForceField("slow", slow))
    data = Dataset("d", [frame(n) for n in (4, 5, 6, 7, 8)], "DFT", "here")
    first = less_baseline(data, range(5), "spcfw")
    again = less_baseline(data, range(5), "spcfw")
    assert asked == [4, 5, 6, 7, 8]
    for one, other in zip(first.frames, again.frames, strict=True):
        np.testing.assert_array_equal(one.labels["forces"], other.labels["forces"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_recipe, small_file: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FORCE_FIELDS, "spcfw", ForceField("wells", label))
        out = tmp_path_factory.mktemp("baseline") / "run"
        run_train(tiny_recipe(*BASELINE), data=small_file, out=out, **CPU)
    return out


def atoms_of(pbc: bool = False) -> Atoms:
    positions = [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0], [3, 0, 0], [3.96, 0, 0], [2.76, 0.93, 0]]
    return Atoms("OH2OH2", positions, cell=[8, 8, 8] if pbc else None, pbc=pbc)


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


def test_the_report_says_so(trained: Path) -> None:
    report = (trained / "report.md").read_text()
    assert "together with the force field `spcfw`, which it corrects" in report
    assert "| test: spcfw alone, mean energy |" in report
    assert "no force" not in report


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


@pytest.mark.parametrize(
    ("backend", "atoms"), [("auto", None), ("native", [5, 4, 3, 0, 1, 2]), ("python", None), ("python", [0, 1, 2, 5])]
)
@pytest.mark.parametrize("periodic", [True, False])
def test_openmm_adds_both(backend: str, atoms: list[int] | None, periodic: bool, trained: Path) -> None:
    """As the calculator does, also for some of the particles, and after it was written to XML."""
    openmm = pytest.importorskip("openmm")
    from mdpot.openmm import create_force
    from mdpot.units import KJ_PER_MOL, NM

    if backend == "native" and library.is_off():
        pytest.skip("no kernels here")
    structure = atoms_of(periodic)
    chosen = list(range(len(structure))) if atoms is None else sorted(atoms)
    force: Any = create_force(
        trained, structure.numbers.tolist(), backend, atoms=atoms, periodic=periodic, dtype="float64", device="cpu"
    )
    assert force.getName() == f"mdpot {'python' if backend == 'python' else force.backend} and spcfw"
    system = openmm.System()
    for mass in structure.get_masses():
        system.addParticle(mass)
    system.addForce(openmm.XmlSerializer.clone(force))
    if periodic:
        system.setDefaultPeriodicBoxVectors(*(structure.cell.array / NM))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(structure.positions / NM)
    found = context.getState(energy=True, forces=True)
    part = structure[chosen]
    part.calc = MaskedGNNCalculator(trained, dtype="float64")
    assert found.getPotentialEnergy()._value * KJ_PER_MOL == pytest.approx(part.get_potential_energy(), abs=1e-8)
    forces = found.getForces(asNumpy=True)._value * KJ_PER_MOL / NM
    np.testing.assert_allclose(forces[chosen], part.get_forces(), atol=1e-7)
    np.testing.assert_array_equal(np.delete(forces, chosen, 0), 0.0)


def test_openmm_runs_a_force_field_by_python_alone(trained: Path) -> None:
    pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    with pytest.raises(MdpotError, match=r"'torchforce' runs a network alone.*spcfw: take 'native' or 'python'"):
        create_force(trained, atoms_of().numbers.tolist(), "torchforce", periodic=False)


@pytest.mark.usefixtures("by_charge")
def test_openmm_is_told_the_charge(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    structure = atoms_of()

    def energy(file: Path, **options) -> float:
        force = create_force(file, structure.numbers.tolist(), "python", periodic=False, **options)
        return energy_in_openmm(force, structure)

    neutral = energy(trained)
    assert energy(trained, charge=-1) == pytest.approx(neutral - 1, abs=1e-6)
    file = with_electrons(trained, {"charge": 2, "unpaired": 2}, tmp_path / "ion.safetensors")
    assert energy(file) == pytest.approx(neutral + 202, abs=1e-6)
    assert energy(file, multiplicity=1) == pytest.approx(neutral + 2, abs=1e-6)
    with pytest.warns(UserWarning, match="has a charge of 0; the potential was trained at 2"):
        assert energy(file, charge=0) == pytest.approx(neutral + 200, abs=1e-6)
    with pytest.raises(MdpotError, match="18 electrons, of which -1 cannot be unpaired"):
        energy(file, multiplicity=0)
    file = with_electrons(trained, "stated", tmp_path / "both.safetensors")
    with pytest.raises(MdpotError, match="several charges"):
        energy(file)
    with pytest.raises(MdpotError, match="a network alone, and sees neither"):
        energy(Path("water-rpbe-small"), charge=1)


@pytest.mark.usefixtures("by_charge")
def test_openmm_takes_the_formal_charges_of_the_topology(trained: Path, tmp_path: Path) -> None:
    """Those of the atoms that the potential is for, unless the charge is said; zeros say nothing."""
    app = pytest.importorskip("openmm.app")
    from mdpot.openmm import create_force

    structure = atoms_of()

    def energy(*formal: int | None, file: Path = trained, **options) -> float:
        topology = app.Topology()
        residue = topology.addResidue("X", topology.addChain())
        for index, number in enumerate(structure.numbers):
            element = app.Element.getByAtomicNumber(int(number))
            topology.addAtom("X", element, residue, formalCharge=formal[index] if index < len(formal) else None)
        return energy_in_openmm(create_force(file, topology, "python", **options), structure)

    neutral, part = energy(), range(1, len(structure))
    assert energy(-1) == pytest.approx(neutral - 1, abs=1e-6)
    assert energy(-1, 1, -2, 0) == pytest.approx(neutral - 2, abs=1e-6)
    assert energy(1, None, 1, atoms=part) == pytest.approx(energy(atoms=part) + 1, abs=1e-6)
    assert energy(-2, charge=2) == pytest.approx(neutral + 2, abs=1e-6)
    file = with_electrons(trained, {"charge": 2}, tmp_path / "ion.safetensors")
    assert energy(0, 0, 0, file=file) == pytest.approx(neutral + 2, abs=1e-6)
    with pytest.warns(UserWarning, match="has a charge of 1; the potential was trained at 2"):
        assert energy(1, file=file) == pytest.approx(neutral + 1, abs=1e-6)


def energy_in_openmm(force: Any, structure: Atoms) -> float:
    import openmm

    from mdpot.units import KJ_PER_MOL, NM

    system = openmm.System()
    for mass in structure.get_masses():
        system.addParticle(mass)
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(structure.positions / NM)
    return context.getState(energy=True).getPotentialEnergy()._value * KJ_PER_MOL


def with_electrons(trained: Path, electrons, file: Path) -> Path:
    model = open_model(trained)
    file.write_bytes(pack({**model.header, "electrons": electrons}, model.tensors))
    return file


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


def test_finetuning_goes_on_with_the_same(trained: Path, tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    file = trained / "potential.safetensors"
    run_finetune(tiny_recipe(*BASELINE), from_file=file, data=small_file, out=tmp_path / "with", **CPU)
    assert open_model(tmp_path / "with").baseline == "spcfw"
    with pytest.raises(MdpotError, match=r"trained with model\.baseline=spcfw, and the recipe asks for none"):
        run_finetune(tiny_recipe(), from_file=file, data=small_file, out=tmp_path / "without", **CPU)
    assert not (tmp_path / "without").exists()


def test_the_network_of_a_file_brings_its_baseline(trained: Path) -> None:
    """Into recipes that can be read again; that of a property takes the network alone."""
    header = open_model(trained).header
    recipe = with_network_of(header, load_recipe("custom", "xtb"))
    assert (recipe.model.baseline, recipe.pretrain.objective) == ("spcfw", "none")
    assert recipe == recipe.model_validate(recipe_to_dict(recipe))
    assert with_network_of(header, load_recipe("qmof-bandgap")).model.baseline is None


def test_weights_that_learned_a_force_field_do_not_begin_a_correction(tiny_recipe, small_file, tmp_path: Path) -> None:
    file = run_pretrain(tiny_recipe("pretrain.objective=forcefield"), data=small_file, out=tmp_path / "first", **CPU)
    with pytest.raises(MdpotError, match="has learned a force field"):
        run_finetune(tiny_recipe(*BASELINE), from_file=file, data=small_file, out=tmp_path / "second", **CPU)
    assert not (tmp_path / "second").exists()


def test_a_run_resumes(tiny_recipe, small_file: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(*BASELINE)
    whole = run_train(recipe, data=small_file, out=tmp_path / "run", **CPU)
    again = run_train(recipe, data=small_file, out=tmp_path / "run", resume=True, **CPU)
    assert again["errors"] == whole["errors"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("model.baseline=mopac",), "model.baseline"),
        (("model.baseline=spcfw", "pretrain.objective=forcefield"), "learns what a force field lacks"),
    ],
)
def test_keys_that_make_no_sense(keys: tuple[str, ...], message: str) -> None:
    with pytest.raises(MdpotError, match=message):
        load_recipe("water-rpbe", "quick", keys)


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


@pytest.mark.usefixtures("by_charge")
@pytest.mark.parametrize(
    ("charges", "keys", "header"),
    [
        ((None, None), (), None),
        ((None, None), ("data.charge=-1",), {"charge": -1, "unpaired": None}),
        ((1, 1), (), {"charge": 1, "unpaired": None}),
        ((0, None), ("data.charge=1",), "stated"),
        ((2, None), (), "stated"),
        ((0, None), (), {"charge": 0, "unpaired": None}),
    ],
)
def test_a_run_learns_what_is_beyond_the_force_field_of_the_ion(
    charges, keys, header, tiny_recipe, small_file: Path, tmp_path: Path
) -> None:
    frames: Any = read(small_file, ":")
    for n, atoms in enumerate(frames):
        atoms.info.pop("total_charge", None)  # ASE reads the zero of the file
        if (charge := charges[n % 2]) is not None:
            atoms.info["charge"] = charge
    write(file := tmp_path / "frames.extxyz", frames)
    recipe = tiny_recipe(*BASELINE, "data.source=custom", *keys)
    run_train(recipe, data=file, out=tmp_path / "run", **CPU)
    assert open_model(tmp_path / "run").header["electrons"] == header
    # Frames are taken as they were in the training.
    scored = run_evaluate(tmp_path / "run", file)[file.name]
    # Errors are the same whether the frames state the charge or the potential does.
    if header not in (None, "stated"):
        for atoms in frames:
            atoms.info.pop("charge", None)
            assert "total_charge" not in atoms.info
        write(bare := tmp_path / "bare.extxyz", frames)
        same = run_evaluate(tmp_path / "run", bare)[bare.name]
        assert scored["energy_mae"] == pytest.approx(same["energy_mae"], abs=1e-6)
