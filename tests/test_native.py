"""The fused kernels as the engine of the calculator, of OpenMM and of `mdpot md`, and torch where there are none."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from click.testing import CliRunner

from mdpot import MaskedGNNCalculator, MdpotError, build_potential, save_potential
from mdpot.cli import main
from mdpot.kernels import Kernel, NoKernel, library, native
from mdpot.simulate import Settings, run_md, water_box
from mdpot.simulate.bench import PARTS
from mdpot.simulate.log import read_log

NO_LIBRARY = "no compiled kernels here: python -m mdpot.kernels"
compiled = pytest.mark.skipif(not library.supported(), reason=NO_LIBRARY)


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the log is told once, it is told in every test; and nobody has forced an engine."""
    monkeypatch.setattr(native, "_told", set())
    monkeypatch.delenv(library.VARIABLE, raising=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    hyperparameters = {"cutoff": 3.4, "width": 16, "channels": 4}
    wall, pair = [[0.9, 0.6], [0.6, 1.6]], [[[0.3, 0.2], [0.2, -0.4]]]
    potential = build_potential("tide", hyperparameters, [1, 8], [-13.6, -2041.3], 0.5, wall, pair)
    path = tmp_path_factory.mktemp("tide") / "potential.safetensors"
    save_potential(path, potential)
    return path


def calculator(file: Path, backend: str, dtype: str = "float64") -> Any:
    return MaskedGNNCalculator(file, device="cpu", backend=backend, dtype=dtype)


def structures() -> dict[str, Atoms]:
    rng = np.random.default_rng(1)
    box, small = water_box(12, rng), water_box(1, rng)
    slanted = box.copy()
    skew = np.array([[0, 0, 0], [1.3, 0, 0], [-0.7, 2.1, 0]])
    slanted.set_cell(box.cell.array + skew, scale_atoms=True)
    scattered = box.copy()
    scattered.positions += rng.integers(-3, 4, (len(box), 3)) @ box.cell.array
    cluster = box.copy()
    cluster.pbc = False
    slab = box.copy()
    slab.pbc = [True, True, False]
    lone = Atoms("OH", [[0, 0, 0], [9.0, 0, 0]])
    return {"box": box, "one": small, "slanted": slanted, "far": scattered, "open": cluster, "slab": slab, "lone": lone}


@compiled
@pytest.mark.parametrize("name", structures())
def test_calculator_gives_the_numbers_of_torch(file: Path, name: str) -> None:
    atoms = structures()[name]
    ours, theirs = calculator(file, "native"), calculator(file, "torch")
    properties = ["energy", "forces", "energies", *(["stress"] if atoms.pbc.all() else [])]
    for _ in range(3):  # with a fresh list, with a kept one, and with a list that is searched again
        for quantity in reversed(properties):
            expected = theirs.get_property(quantity, atoms)
            scale = np.abs(expected).max() + 1e-3
            assert ours.get_property(quantity, atoms) == pytest.approx(expected, abs=1e-10 * scale), quantity
        atoms.positions += np.random.default_rng(2).normal(scale=0.1, size=atoms.positions.shape)
    assert ours.engine.startswith("fused kernels")
    assert theirs.engine == "torch"


@compiled
def test_atoms_may_change_between_calls(file: Path) -> None:
    one = calculator(file, "auto")
    for atoms in (*structures().values(), structures()["box"][:9], structures()["box"]):
        fresh = calculator(file, "auto")
        assert np.array_equal(one.get_forces(atoms), fresh.get_forces(atoms))
        swapped = atoms.copy()
        swapped.numbers = swapped.numbers[::-1].copy()
        expected = calculator(file, "torch").get_potential_energy(swapped)
        assert one.get_potential_energy(swapped) == pytest.approx(expected, rel=1e-12)


@compiled
def test_results_and_structures_belong_to_the_caller(file: Path) -> None:
    atoms = structures()["box"]
    atoms.calc = calculator(file, "native")
    before = atoms.get_forces()
    kept = before.copy()
    atoms.positions += 0.05
    atoms.positions[0] += 0.1
    after = atoms.get_forces()
    assert np.array_equal(before, kept)
    assert not np.array_equal(after, kept)
    atoms.positions[0] = np.nan
    with pytest.raises(MdpotError, match="finite"):
        atoms.get_forces()


@compiled
def test_copies_compute_the_same(file: Path) -> None:
    atoms, one = structures()["box"], calculator(file, "native", "float32")
    expected = one.get_forces(atoms)
    for other in (copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert np.array_equal(other.get_forces(atoms), expected)


@compiled
def test_threads_of_torch_are_respected_and_left_alone(file: Path) -> None:
    atoms, before = water_box(60, np.random.default_rng(0)), torch.get_num_threads()
    one = calculator(file, "native")
    expected = one.get_forces(atoms)
    assert torch.get_num_threads() == before
    try:
        torch.set_num_threads(before + 1)
        atoms.rattle(1e-12)
        assert one.get_forces(atoms) == pytest.approx(expected, abs=1e-9)
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_without_the_library_torch_computes_and_says_so_once(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library, "FOLDER", Path("/nowhere"))
    library.of.cache_clear()
    try:
        for _ in range(2):
            assert calculator(file, "auto").engine == "torch"
        warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "python -m mdpot.kernels" in warnings[0].getMessage()
        with pytest.raises(NoKernel, match="not compiled"):
            calculator(file, "native")
    finally:
        library.of.cache_clear()


@compiled
def test_a_library_that_fails_the_self_test_is_not_used(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    right = Kernel.__call__

    def wrong(self: Kernel, *arguments: Any, **more: Any) -> Any:
        result = right(self, *arguments, **more)
        result.forces[0, 0] *= 1.001
        return result

    monkeypatch.setattr(Kernel, "__call__", wrong)
    assert calculator(file, "auto").engine == "torch"
    assert "differ from torch in the forces" in caplog.text
    with pytest.raises(NoKernel, match="differ from torch"):
        calculator(file, "native")


@compiled
def test_an_instruction_set_can_be_forced(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atoms = structures()["box"]
    expected = calculator(file, "torch").get_forces(atoms)
    for name in library.supported():
        monkeypatch.setenv(library.VARIABLE, name)
        forced = calculator(file, "auto")
        assert forced.engine == f"fused kernels ({name})"
        assert forced.get_forces(atoms) == pytest.approx(expected, abs=1e-10)
    monkeypatch.setenv(library.VARIABLE, "off")
    assert calculator(file, "auto").engine == "torch"
    monkeypatch.setenv(library.VARIABLE, "mmx")
    with pytest.raises(MdpotError, match=r"instruction set \(MDPOT_KERNELS\)"):
        calculator(file, "auto")


@compiled
def test_a_processor_is_not_given_what_it_does_not_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = Path("/proc/cpuinfo")
    if "avx512" not in library.instruction_sets() or not flags.is_file():
        pytest.skip("needs Linux on x86-64")
    found = set(flags.read_text().split())
    needs = {"avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}, "avx2": {"avx2", "fma", "bmi2"}}
    expected = [name for name in library.instruction_sets() if needs.get(name, set()) <= found]
    runs = library.of(None).mdpot_kernels_runs
    assert [name for name in library.instruction_sets() if runs(name.encode())] == expected
    if "avx512" not in expected:
        monkeypatch.setenv(library.VARIABLE, "avx512")
        with pytest.raises(MdpotError, match="this processor runs"):
            calculator(file, "native")


def test_what_has_no_kernels_is_torchs(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "egnn.safetensors"
    save_potential(path, build_potential("egnn", {"width": 8, "layers": 1}, [1, 8], [0.0, 0.0], 1.0))
    assert calculator(path, "auto").engine == "torch"
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(NoKernel, match="only Tide"):
        calculator(path, "native")


# ---- dynamics --------------------------------------------------------------------------


@compiled
@pytest.mark.parametrize(
    ("engine", "slow", "described"),
    [("ase", "torch", "by fused kernels"), ("openmm", "python", "OpenMM on Reference, VerletIntegrator, mdpot native")],
)
def test_dynamics_is_that_of_torch(tmp_path: Path, engine: str, slow: str, described: str) -> None:
    if engine == "openmm":
        pytest.importorskip("openmm")
    settings = {"engine": engine, "ensemble": "nve", "steps": 20, "every": 5, "dtype": "float64", "device": "cpu"}
    logs = {}
    for backend in ("native", slow):
        out = tmp_path / backend
        summary = run_md(Settings("water:8", "water-rpbe-small", backend=backend, **settings), out)
        assert summary.stopped is None
        assert (described in summary.engine) == (backend == "native")
        logs[backend] = read_log(out / "log.csv")
    for column in ("potential_eV", "kinetic_eV"):
        assert logs["native"][column] == pytest.approx(logs[slow][column], abs=2e-6)


@compiled
@pytest.mark.parametrize("periodic", [True, False])
def test_openmm_gives_the_numbers_of_the_python_backend(file: Path, periodic: bool) -> None:
    openmm = pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    box = structures()["box"]
    found = {}
    for backend in ("native", "auto", "python"):
        system = openmm.System()
        for _ in box:
            system.addParticle(1.0)
        system.setDefaultPeriodicBoxVectors(*(box.cell.array / 10).tolist())
        atoms = [3, 4, 5, 9, 10, 11, 0, 1, 2]
        force: Any = create_force(
            file, box.numbers.tolist(), backend, atoms=atoms, periodic=periodic, dtype="float64", device="cpu"
        )
        system.addForce(force)
        system = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(system))
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
        context.setPositions(box.positions / 10)
        state = context.getState(energy=True, forces=True)
        forces = state.getForces(asNumpy=True)._value
        found[force.backend] = np.append(forces.ravel(), state.getPotentialEnergy()._value)
    assert set(found) == {"native", "python"}
    assert np.abs(found["python"]).max() > 1
    assert found["native"] == pytest.approx(found["python"], rel=1e-9, abs=1e-7)


@compiled
def test_openmm_system_runs_where_there_are_no_kernels(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openmm = pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    force = create_force(file, [8, 1, 1], "native", periodic=False, dtype="float64")
    text = openmm.XmlSerializer.serialize(force)
    monkeypatch.setenv(library.VARIABLE, "off")
    energies = []
    for each in (force, openmm.XmlSerializer.deserialize(text)):
        system = openmm.System()
        for _ in range(3):
            system.addParticle(1.0)
        system.addForce(each)
        context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatform("Reference"))
        context.setPositions([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]])
        energies.append(context.getState(energy=True).getPotentialEnergy()._value)
    assert energies[1] == pytest.approx(energies[0], rel=1e-12)


def test_native_backend_of_openmm_refuses_what_it_cannot(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    from mdpot.export import export_torchscript
    from mdpot.openmm import create_force

    # Where there is no GPU, that is said first.
    with pytest.raises(MdpotError, match=r"backend 'native' computes on a CPU; got device 'cuda'|cannot be used here"):
        create_force(file, [8], "native", periodic=False, device="cuda")
    export_torchscript(file, tmp_path / "model.pt", check=False)
    with pytest.raises(MdpotError, match="was exported from"):
        create_force(tmp_path / "model.pt", [8], "native", periodic=False)


# ---- commands --------------------------------------------------------------------------


def test_info_says_who_computes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(library.VARIABLE, "off")
    header = json.loads(CliRunner().invoke(main, ["info", str(file), "--json"]).output)
    assert header["cpu_engine"] == "torch (the kernels are switched off by MDPOT_KERNELS=off)"
    if supported := library.supported():
        monkeypatch.delenv(library.VARIABLE)
        header = json.loads(CliRunner().invoke(main, ["info", str(file), "--json"]).output)
        assert header["cpu_engine"] == f"fused kernels ({supported[0]})"


def test_bench_says_where_the_time_goes(file: Path) -> None:
    arguments = ["bench", str(file), "--structure", "water:4", "--threads", "1", "--seconds", "0.05"]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["machine"]["torch"] == torch.__version__
    timings = {timing["engine"].split(" (")[0]: timing for timing in found["timings"]}
    assert set(timings) == {"fused kernels" if library.supported() else "native", "torch"}
    for timing in timings.values():
        if timing["note"]:
            continue
        assert timing["n_atoms"] == 12
        assert timing["ns_per_day"] == pytest.approx(found["dt_fs"] * 1e-6 * 86400e3 / timing["ms"])
        assert set(timing["parts"]) == set(PARTS)
        assert sum(timing["parts"].values()) == pytest.approx(timing["ms"])
        assert timing["parts"]["network"] > 0
        assert timing["parts"]["rest"] > 0
    table = CliRunner().invoke(main, [*arguments, "--engine", "torch"]).output.splitlines()
    assert table[-1].split()[:3] == ["12", "torch", "1"]


@pytest.mark.parametrize("start", ["water:many", "water:1.5e3", "water:0", "nowhere.xyz"])
def test_bench_refuses_a_start_that_is_none(file: Path, start: str) -> None:
    done = CliRunner().invoke(main, ["bench", str(file), "--structure", start])
    assert done.exit_code == 2
    assert f"START '{start}'" in done.stderr


def test_bench_asks_for_a_structure_where_there_is_no_water(tmp_path: Path) -> None:
    path = tmp_path / "argon.safetensors"
    save_potential(path, build_potential("tide", {"width": 8, "channels": 2}, [18], [0.0], 1.0))
    done = CliRunner().invoke(main, ["bench", str(path)])
    assert "--structure FILE" in done.output


# ---- build -----------------------------------------------------------------------------


def test_build_without_a_compiler_is_one_line(checkout: Path) -> None:
    program = (
        "import runpy, os; os.environ['CXX'] = '/nowhere/c++'\n"
        f"runpy.run_path({str(checkout / 'mdpot' / 'kernels' / 'build.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if not library.instruction_sets():
        pytest.skip("no kernels for this processor")
    assert done.returncode == 1
    assert done.stderr.strip() == "the C++ compiler '/nowhere/c++' does not run: No such file or directory"


@compiled
def test_loading_leaves_the_process_its_denormal_numbers() -> None:
    """A library that was linked by GCC 12 with -ffast-math would flush them to zero, in all of the process."""
    for name in library.supported():
        library.of(name)
    assert np.float64(2.0**-1050) * np.float64(0.5) == 2.0**-1051
    assert np.float32(2.0**-140) * np.float32(0.5) > 0
