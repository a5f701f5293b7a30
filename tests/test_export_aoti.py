"""Files compiled by AOTInductor against the potential they came from. Compiling takes long: one small file for all."""

from __future__ import annotations

import copy
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule
from click.testing import CliRunner

from mdpot import MaskedGNNCalculator, MdpotError, export_aoti, load_potential, open_model, save_potential
from mdpot.cli.main import main
from mdpot.compiled import load_compiled
from mdpot.export_check import example_structures
from mdpot.files import unsealed
from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.models import MODELS
from mdpot.padded import pad_edges

TIDE = {"cutoff": 3.4, "width": 8, "channels": 4, "n_radial": 3, "n_basis": 4, "layers": 2}
SMALL = {"et": {"width": 8, "layers": 2, "heads": 2, "n_basis": 5}, "cgcnn": {"width": 8, "layers": 1, "cutoff": 3.4}}
WALL, PAIR = [[1.5, 1.9], [1.9, 2.4]], [[[0.3, -0.2], [-0.2, 0.1]]]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch, by its own compiler


def make(model: str = "tide", **hyperparameters: Any) -> Potential:
    torch.manual_seed(0)
    fitted = (WALL, PAIR) if MODELS[model].conservative else (None, None)
    return build_potential(model, hyperparameters, [1, 8], [-13.6, -2041.3], 2.0, *fitted).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """p.safetensors, and m.pt2, which is compiled of it in float64."""
    folder = tmp_path_factory.mktemp("aoti")
    save_potential(folder / "p.safetensors", make(**TIDE), {"provenance": {"seed": 3}})
    report = export_aoti.export_aoti(folder / "p.safetensors", folder / "m.pt2", dtype="float64", skin=0.4)
    assert report.n_frames == 4
    assert max(report.energy_error, report.force_error, report.stress_error or 1.0) < 1e-10
    assert report.gradient_error is not None
    assert report.gradient_error < 1e-6
    return folder


def structures() -> list[Atoms]:
    cluster, small, box = example_structures([1, 8], seed=4)
    slab = small.copy()
    slab.pbc = (True, False, True)
    tiny = Atoms("OH", [[0, 0, 0], [0.9, 0.3, 0.1]], cell=[[2.1, 0, 0], [0.9, 2.0, 0], [-0.5, 0.4, 1.9]], pbc=True)
    lone = Atoms("O", cell=[2.4, 2.5, 2.6], pbc=True)
    apart = Atoms("OH", [[0, 0, 0], [9, 0, 0]])
    return [cluster, small, box, slab, tiny, lone, apart, molecule("H2O"), Atoms("O"), box.repeat((2, 1, 1))]


def arguments(atoms: Atoms) -> tuple[torch.Tensor, ...]:
    numbers = torch.tensor(atoms.numbers, dtype=torch.int64)
    return numbers, torch.tensor(atoms.positions), torch.tensor(atoms.cell.array), torch.tensor(atoms.pbc)


def test_any_number_of_atoms_and_neighbors(folder: Path) -> None:
    potential, _ = load_potential(folder / "p.safetensors", dtype="float64")
    module = open_model(folder / "m.pt2").module()
    for atoms in structures():
        stress = bool(atoms.pbc.all())
        out = module.evaluate(*arguments(atoms), stress)
        graph = Graph.from_atoms(atoms, potential.cutoff, torch.float64)
        expected = potential(*graph.inputs(), outputs=["forces", *(["stress"] if stress else [])])
        for name, value in expected.items():
            assert out[name].dtype == torch.float64
            largest = max(1.0, float(expected["forces"].abs().max()))
            torch.testing.assert_close(out[name], value, rtol=1e-12, atol=1e-11 * largest)
    empty = module.evaluate(*arguments(Atoms()))
    assert (float(empty["energy"]), empty["forces"].shape) == (0.0, (0, 3))


def test_forces_of_the_file_are_the_slope_of_its_energy(folder: Path) -> None:
    module = open_model(folder / "m.pt2").module()
    numbers, positions, cell, pbc = arguments(structures()[1])
    forces = module.evaluate(numbers, positions, cell, pbc)["forces"]
    direction = torch.randn(positions.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    step = 5e-4
    energy = {
        s: float(module.evaluate(numbers, positions + s * step * direction, cell, pbc)["interaction"])
        for s in (-2, -1, 1, 2)
    }
    slope = (8 * (energy[1] - energy[-1]) - (energy[2] - energy[-2])) / (12 * step)
    assert slope == pytest.approx(-float((forces * direction).sum()), rel=1e-6)


def test_torch_alone_runs_the_package(folder: Path) -> None:
    """As the documentation says: numbers, positions, a table of neighbors and their translations."""
    atoms = structures()[2]
    graph = Graph.from_atoms(atoms, 3.4, torch.float64)
    edges = pad_edges(graph.edge_index, graph.shifts @ graph.cell[0], len(atoms), 3.4)
    package = torch._inductor.aoti_load_package(str(folder / "m.pt2"))  # type: ignore[attr-defined]
    energies, interaction, forces, virial = package(graph.numbers, graph.positions, *edges)
    expected = load_potential(folder / "p.safetensors", dtype="float64")[0](*graph.inputs())
    torch.testing.assert_close(energies, expected["energies"], rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(forces, expected["forces"], rtol=1e-10, atol=1e-10)
    assert float(interaction.sum()) == pytest.approx(float(expected["interaction"]), rel=1e-10)
    assert virial.shape == (3, 3)


def test_the_calculator(folder: Path) -> None:
    compiled: Any = MaskedGNNCalculator(folder / "m.pt2", device="cpu")
    eager: Any = MaskedGNNCalculator(folder / "p.safetensors", device="cpu", dtype="float64", backend="torch")
    assert compiled.engine == "AOTInductor (exported file)"
    atoms = structures()[2]
    for _ in range(3):
        atoms.rattle(0.02, rng=np.random.default_rng(1))
        for name in ("energy", "energies", "forces", "stress"):
            expected = eager.get_property(name, atoms)
            np.testing.assert_allclose(compiled.get_property(name, atoms), expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_array_equal(copy.deepcopy(compiled).get_forces(atoms), compiled.get_forces(atoms))
    with pytest.raises(MdpotError, match="is an exported file: its backend and dtype cannot be changed"):
        MaskedGNNCalculator(folder / "m.pt2", backend="padded")


def test_openmm(folder: Path) -> None:
    openmm = pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    atoms = molecule("H2O")
    force = create_force(folder / "m.pt2", atoms.numbers.tolist(), periodic=False)
    assert force.backend == "python"  # type: ignore[attr-defined]
    system = openmm.System()
    for mass in atoms.get_masses():
        system.addParticle(float(mass))
    system.addForce(force)
    context = openmm.Context(system, openmm.VerletIntegrator(1e-3), openmm.Platform.getPlatform("Reference"))
    context.setPositions(atoms.positions / 10.0)
    found = context.getState(getForces=True).getForces(asNumpy=True)._value * units.kJ / units.mol / 10
    atoms.calc = MaskedGNNCalculator(folder / "p.safetensors", dtype="float64", device="cpu")
    np.testing.assert_allclose(found, atoms.get_forces(), atol=1e-6)
    with pytest.raises(MdpotError, match=r"'torchforce' takes TorchScript, and .* is a package of AOTInductor"):
        create_force(folder / "m.pt2", atoms.numbers.tolist(), "torchforce", periodic=False)


def test_metadata_travels_with_the_file(folder: Path) -> None:
    model = open_model(folder / "m.pt2")
    assert (model.exported, model.format, model.device, model.dtype) == (True, "aoti", "cpu", "float64")
    assert model.header["provenance"] == {"seed": 3}
    assert model.header["elements"] == [1, 8]
    assert model.header["cutoff"] == 3.4
    assert model.header["export"]["units"] == {"length": "Å", "energy": "eV", "force": "eV/Å"}
    assert model.header["export"]["skin"] == model.module().evaluator.neighbors.skin == 0.4
    done = CliRunner().invoke(main, ["info", str(folder / "m.pt2")])
    assert done.exit_code == 0
    assert "AOTInductor, float64, by torch" in done.output
    assert "cpu on " in done.output
    with pytest.raises(MdpotError, match="is an exported file; give the model file"):
        export_aoti.export_aoti(folder / "m.pt2", folder / "again.pt2")


def test_what_a_package_does_not_give(folder: Path) -> None:
    potential: Any = open_model(folder / "m.pt2").module().evaluator.potential
    inputs = Graph.from_atoms(structures()[1], 3.4, torch.float64).inputs()
    with pytest.raises(MdpotError, match=r"a compiled file gives energy, .*; got 'vector'"):
        potential(*inputs, outputs=["vector"])
    with pytest.raises(MdpotError, match=r"it knows nothing of \[6\]"):
        MaskedGNNCalculator(folder / "m.pt2").evaluate.module.evaluate(*arguments(Atoms("C")))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"machine": "pdp11"}, "was compiled for .* pdp11; this is .* Export it here: mdpot export FILE --to aoti"),
        ({"system": "Plan 9"}, "was compiled for Plan 9"),
        ({"torch": "1.0.1"}, r"was compiled with torch 1\.0\.1, and code goes with its minor version; .* is installed"),
        ({"instructions": ["avx9000"]}, "was compiled for a processor with avx9000, which this one lacks"),
        ({"device": "cuda"}, "was compiled for cuda; got device 'cpu'"),
    ],
)
def test_a_file_for_another_machine(folder: Path, changed: dict[str, Any], message: str) -> None:
    model = open_model(folder / "m.pt2")
    header = {**model.header, "export": {**model.header["export"], **changed}}
    with pytest.raises(MdpotError, match=message):
        load_compiled(model.content, header, "m.pt2", "cpu")


def test_damaged_files(folder: Path, tmp_path: Path) -> None:
    content = bytearray((folder / "m.pt2").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "changed.pt2").write_bytes(content)
    with pytest.raises(MdpotError, match="was changed since it was written"):
        open_model(tmp_path / "changed.pt2")
    other = tmp_path / "other.pt2"
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("model/data/aotinductor/model/a.so", "")
    with pytest.raises(MdpotError, match="is a package of AOTInductor, but not one that mdpot exported"):
        open_model(other)


def test_a_package_that_torch_cannot_load(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> None:
        raise RuntimeError("undefined symbol: aoti_torch_new\nand more")

    monkeypatch.setattr(torch._inductor, "aoti_load_package", fail)
    with pytest.raises(MdpotError, match="is not a package of AOTInductor, or is damaged: undefined symbol: aoti_tor"):
        open_model(folder / "m.pt2").module()


@pytest.mark.parametrize(
    ("which", "factor", "message"),
    [
        (0, 1.001, "its energies differ"),
        (0, float("nan"), "its energies differ"),
        (2, 1.001, "its forces differ"),
        (3, 1.001, "its stress differs"),
    ],
)
def test_a_file_that_fails_the_check_is_not_left_behind(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int, factor: float, message: str
) -> None:
    """One of energies, interaction, forces and virial is wrong in what was compiled."""

    def spoiled(*rest: Any) -> Any:
        module: Any = load_compiled(*rest)
        right = module.evaluator.potential.run
        module.evaluator.potential.run = lambda inputs: [
            value * factor if n == which else value for n, value in enumerate(right(inputs))
        ]
        return module

    content = unsealed((folder / "m.pt2").read_bytes(), "m.pt2")
    monkeypatch.setattr(export_aoti, "_compile", lambda potential, header: content)
    monkeypatch.setattr(export_aoti, "load_compiled", spoiled)
    out = tmp_path / "m.pt2"
    out.write_text("what was there before")
    with pytest.raises(MdpotError, match=f"the exported file is wrong and was not kept: {message}"):
        export_aoti.export_aoti(folder / "p.safetensors", out, dtype="float64")
    assert out.read_text() == "what was there before"
    assert [f.name for f in tmp_path.iterdir()] == ["m.pt2"]


def test_export_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    potential, out = make(**TIDE), tmp_path / "m.pt2"
    with pytest.raises(MdpotError, match="unknown dtype 'float16'"):
        export_aoti.export_aoti(potential, out, dtype="float16")
    with pytest.raises(MdpotError, match="unknown device 'tpu'"):
        export_aoti.export_aoti(potential, out, device="tpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(MdpotError, match="to compile for cuda takes a CUDA GPU"):
        export_aoti.export_aoti(potential, out, device="cuda")
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "no-such-compiler")}),  # type: ignore[attr-defined]
        pytest.raises(MdpotError, match=r"needs a C\+\+ compiler, and torch finds none. Install g\+\+"),
    ):
        export_aoti.export_aoti(potential, out)
    monkeypatch.delattr(torch._inductor, "aoti_compile_and_package")
    with pytest.raises(MdpotError, match=r"needs torch 2\.6 or later; .* is installed"):
        export_aoti.export_aoti(potential, out)
    assert list(tmp_path.iterdir()) == []


class Undecided(torch.nn.Module):
    """A backbone whose shapes depend on the positions."""

    def padded(self, h: Any, species: Any, neighbors: Any, vectors: Any, direct: bool) -> Any:
        return h[vectors[:, 0, 0] > 0], h


def test_a_model_that_cannot_be_traced_is_refused_by_name(tmp_path: Path) -> None:
    potential = make(**TIDE)
    potential.backbone = Undecided()  # type: ignore[assignment]
    with pytest.raises(MdpotError, match="model 'tide' can't be exported: AOTInductor does not take Undecided"):
        export_aoti._compile(potential, {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--to", "aoti", "--for", "ase"], "--for is for torchscript"),
        (["--device", "cuda"], "--device is for aoti"),
    ],
)
def test_command_line(options: list[str], message: str) -> None:
    done = CliRunner().invoke(main, ["export", "water-rpbe-small", *options])
    assert done.exit_code != 0
    assert message in done.output + str(done.exception)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*not the gradient of its energy")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("model", [name for name in MODELS if name != "tide"])
def test_the_other_models(tmp_path: Path, model: str, dtype: str) -> None:
    """The file checks itself: energies, forces and stress of several sizes."""
    potential = make(model, **SMALL.get(model, {"width": 8, "layers": 2}))
    report = export_aoti.export_aoti(potential, tmp_path / "m.pt2", dtype=dtype)
    assert report.n_frames == 4
    assert (report.gradient_error is not None) == potential.conservative
