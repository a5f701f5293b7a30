"""Exported files against the potential they came from, in this process and in one that has torch alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import molecule

from mdpot import MaskedGNNCalculator, export
from mdpot.errors import MdpotError
from mdpot.export import export_torchscript, load_exported
from mdpot.export_check import example_structures
from mdpot.exported import without_traceback
from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.modelfile import open_model, save_potential
from mdpot.models import MODELS

SMALL: dict[str, dict[str, int]] = {name: {"width": 16, "layers": 2} for name in MODELS if name != "tide"}
WATER = [1, 8]


def make(model: str = "egnn", **hyperparameters: int) -> Potential:
    torch.manual_seed(0)
    return build_potential(model, {**SMALL.get(model, {}), **hyperparameters}, WATER, [-13.6, -2041.3], 2.0).eval()


def expected(potential: Potential, atoms: Atoms, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    graph = Graph.from_atoms(atoms, potential.cutoff, torch.float64)
    return potential.to(dtype)(*graph.inputs(), outputs=["forces", *(["stress"] if atoms.pbc.all() else [])])


def arguments(atoms: Atoms) -> tuple[torch.Tensor, ...]:
    return (
        torch.tensor(atoms.numbers, dtype=torch.int64),
        torch.tensor(atoms.positions),
        torch.tensor(atoms.cell.array),
        torch.tensor(atoms.pbc),
    )


def slab() -> Atoms:
    atoms = example_structures(WATER)[1]
    atoms.pbc = (True, False, True)
    return atoms


@pytest.mark.filterwarnings("ignore:.*not the gradient of its energy")
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-10)])
@pytest.mark.parametrize(
    ("model", "hyperparameters"), [*((name, {}) for name in MODELS), ("tide", {"sent_order": 2})], ids=str
)
def test_file_for_ase(tmp_path, model, hyperparameters, dtype, tolerance):
    potential = make(model, **hyperparameters)
    report = export_torchscript(potential, tmp_path / "m.pt", units="ase", dtype=dtype)
    assert report.n_frames == 3
    assert report.energy_error < tolerance
    assert report.force_error < tolerance
    module, _ = load_exported(tmp_path / "m.pt")
    for atoms in [*example_structures(WATER, seed=4), slab(), molecule("H2O"), Atoms("O")]:
        reference = expected(potential, atoms, getattr(torch, dtype))
        for _ in range(3):  # the executor optimizes after the first runs
            out = module(*arguments(atoms), bool(atoms.pbc.all()))
            for name in ("energy", "energies", "forces"):
                assert out[name].dtype == torch.float64
                # Rounding goes with the largest: a fresh network may have a force of hundreds beside one of tens.
                largest = max(1.0, float(reference[name].abs().max()))
                torch.testing.assert_close(out[name], reference[name], rtol=0.0, atol=tolerance * largest)
            if potential.conservative and atoms.pbc.all():
                torch.testing.assert_close(out["stress"], reference["stress"], rtol=tolerance, atol=tolerance)


def test_file_for_openmm_is_in_nm_and_kj_per_mol(tmp_path):
    potential = make()
    atoms = example_structures(WATER)[2]
    export_torchscript(potential, tmp_path / "m.pt", dtype="float64", numbers=atoms.numbers.tolist())
    module, header = load_exported(tmp_path / "m.pt")
    assert header["export"]["numbers"] == atoms.numbers.tolist()
    reference = expected(potential, atoms, torch.float64)
    positions = torch.tensor(atoms.positions / 10).requires_grad_()  # as TorchForce passes them
    energy, forces = module(positions, torch.tensor(atoms.cell.array / 10))
    kj_per_mol = units.kJ / units.mol
    assert float(energy) * kj_per_mol == pytest.approx(float(reference["energy"]), rel=1e-9)
    np.testing.assert_allclose(forces * kj_per_mol / 10, reference["forces"], atol=1e-8)
    energy, _ = module(positions)
    atoms.pbc = False
    alone = expected(potential, atoms, torch.float64)
    assert float(energy) * kj_per_mol == pytest.approx(float(alone["energy"]), rel=1e-9)


def test_forces_of_the_file_are_the_slope_of_its_energy(tmp_path):
    atoms = example_structures(WATER)[1]
    export_torchscript(make(), tmp_path / "m.pt", units="ase", dtype="float64")
    module, _ = load_exported(tmp_path / "m.pt")
    numbers, positions, cell, pbc = arguments(atoms)
    forces = module(numbers, positions, cell, pbc)["forces"]
    direction = torch.randn(positions.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    step = 5e-4
    energy = {
        s: float(module(numbers, positions + s * step * direction, cell, pbc)["interaction"]) for s in (-2, -1, 1, 2)
    }
    slope = (8 * (energy[1] - energy[-1]) - (energy[2] - energy[-2])) / (12 * step)
    assert slope == pytest.approx(-float((forces * direction).sum()), rel=1e-6)


def test_subset_of_particles(tmp_path):
    potential = make()
    export_torchscript(potential, tmp_path / "m.pt", dtype="float64")
    module, _ = load_exported(tmp_path / "m.pt")
    atoms = example_structures(WATER)[0]
    chosen = torch.tensor([20, 3, 11, 7])
    module.set_atoms(torch.tensor(atoms.numbers)[chosen], chosen, len(atoms))
    energy, forces = module(torch.tensor(atoms.positions / 10))
    reference = expected(potential, atoms[chosen.tolist()], torch.float64)
    assert float(energy) * units.kJ / units.mol == pytest.approx(float(reference["energy"]), rel=1e-9)
    np.testing.assert_allclose(forces[chosen] * units.kJ / units.mol / 10, reference["forces"], atol=1e-9)
    others = [i for i in range(len(atoms)) if i not in chosen]
    assert not forces[others].any()


def test_far_coordinates_cost_no_accuracy(tmp_path):
    export_torchscript(make(), tmp_path / "m.pt", units="ase", dtype="float32")
    module, _ = load_exported(tmp_path / "m.pt")
    atoms = example_structures(WATER)[2]
    near = module(*arguments(atoms))["forces"]
    atoms.positions += 7 * atoms.cell.array[0] - 400 * atoms.cell.array[2]
    far = module(*arguments(atoms))["forces"]
    torch.testing.assert_close(far, near, rtol=1e-5, atol=1e-5)


def test_neighbor_list_is_kept_inside(tmp_path):
    export_torchscript(make(), tmp_path / "m.pt", units="ase", skin=0.7)
    module, _ = load_exported(tmp_path / "m.pt")
    atoms = example_structures(WATER)[2]
    for _ in range(4):
        module(*arguments(atoms))
        atoms.positions += 0.02
    assert module.evaluator.neighbors.builds == 1
    assert module.evaluator.neighbors.skin == 0.7


def test_metadata_travels_with_the_file(tmp_path):
    potential = make()
    save_potential(tmp_path / "p.safetensors", potential, {"provenance": {"seed": 3}})
    export_torchscript(tmp_path / "p.safetensors", tmp_path / "m.pt", check=False)
    module, header = load_exported(tmp_path / "m.pt")
    assert json.loads(module.metadata()) == header
    assert header["provenance"] == {"seed": 3}
    assert header["cutoff"] == potential.cutoff
    assert header["export"]["units"] == {"length": "nm", "energy": "kJ/mol", "force": "kJ/mol/nm"}
    assert open_model(tmp_path / "m.pt").exported
    assert not open_model(tmp_path / "p.safetensors").exported


ALONE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"mdpot", "ase", "vesin", "scipy", "safetensors", "openmm"}:
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
import torch
module = torch.jit.load(sys.argv[1])
data = torch.jit.load(sys.argv[2]).state_dict()
out = module(data["numbers"], data["positions"], data["cell"], data["pbc"])
print(repr(float(out["energy"])), repr(float(out["forces"].square().sum())))
"""


def test_process_with_torch_alone(tmp_path):
    potential = make()
    export_torchscript(potential, tmp_path / "m.pt", units="ase", dtype="float64", check=False)
    atoms = example_structures(WATER)[1]
    holder = torch.nn.Module()
    for name, tensor in zip(("numbers", "positions", "cell", "pbc"), arguments(atoms), strict=True):
        holder.register_buffer(name, tensor)
    torch.jit.script(holder).save(str(tmp_path / "data.pt"))
    command = [sys.executable, "-I", "-c", ALONE, str(tmp_path / "m.pt"), str(tmp_path / "data.pt")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    energy, squares = map(float, done.stdout.split())
    reference = expected(potential, atoms, torch.float64)
    assert energy == pytest.approx(float(reference["energy"]), rel=1e-12)
    assert squares == pytest.approx(float(reference["forces"].square().sum()), rel=1e-8)


class Unscriptable(torch.nn.Module):
    """A backbone that TorchScript refuses."""

    cutoff, conservative, n_features = 3.0, True, 4

    def forward(self, h, species, edge_index, vectors, direct):
        yield h


def test_model_that_cannot_be_scripted_is_refused_by_name():
    potential = make()
    potential.backbone = Unscriptable()  # type: ignore[assignment]
    with pytest.raises(MdpotError, match="model 'egnn' can't be exported: TorchScript does not take Unscriptable"):
        export.make_module(potential, "ase", {}, 0.5)


@pytest.mark.parametrize("factor", [1.001, float("nan")])
def test_file_that_fails_the_check_is_not_left_behind(tmp_path, monkeypatch, factor):
    def spoil(potential, *rest):
        other = open_model(potential).potential()
        other.scale *= factor
        return make_module(other, *rest)

    make_module = export.make_module
    monkeypatch.setattr(export, "make_module", spoil)
    out = tmp_path / "m.pt"
    out.write_text("what was there before")
    with pytest.raises(MdpotError, match="the exported file is wrong and was not kept"):
        export_torchscript(make(), out, units="ase")
    assert out.read_text() == "what was there before"
    assert [f.name for f in tmp_path.iterdir()] == ["m.pt"]


def test_export_errors(tmp_path):
    potential = make()
    out = tmp_path / "m.pt"
    with pytest.raises(MdpotError, match=r"unknown units 'openm'\. Did you mean 'openmm'"):
        export_torchscript(potential, out, units="openm")
    with pytest.raises(MdpotError, match="unknown dtype 'float16'"):
        export_torchscript(potential, out, dtype="float16")
    with pytest.raises(MdpotError, match="numbers: a file for ASE takes them in every call"):
        export_torchscript(potential, out, units="ase", numbers=[1])
    with pytest.raises(MdpotError, match="trained for H, O; it knows nothing of Si"):
        export_torchscript(potential, out, numbers=[1, 14])
    with pytest.raises(MdpotError, match="is not there"):
        export_torchscript(tmp_path / "none.safetensors", out)
    assert list(tmp_path.iterdir()) == []
    export_torchscript(potential, out, check=False)
    with pytest.raises(MdpotError, match="is an exported file; give the model file"):
        export_torchscript(out, tmp_path / "again.pt")


def test_load_errors(tmp_path):
    with pytest.raises(MdpotError, match="is not there"):
        load_exported(tmp_path / "none.pt")
    (tmp_path / "text.pt").write_text("no")
    with pytest.raises(MdpotError, match="damaged or of another format"):
        load_exported(tmp_path / "text.pt")
    torch.jit.script(torch.nn.Linear(1, 1)).save(str(tmp_path / "other.pt"))
    with pytest.raises(MdpotError, match="not one that mdpot exported"):
        load_exported(tmp_path / "other.pt")


def test_errors_of_the_file(tmp_path):
    export_torchscript(make(), tmp_path / "m.pt", check=False)
    module, _ = load_exported(tmp_path / "m.pt")
    numbers, positions, cell, pbc = arguments(example_structures(WATER)[1])
    with pytest.raises(Exception, match=r"call set_atoms\(numbers\) first"):
        module(positions)
    with pytest.raises(Exception, match=r"atomic numbers \[1, 8\]; it knows nothing of \[6, 200\]"):
        module.set_atoms(torch.tensor([6, 200, 1]))
    with pytest.raises(Exception, match=r"it knows nothing of \[-1\]"):
        module.evaluate(-torch.ones_like(numbers), positions, cell, pbc)
    with pytest.raises(Exception, match="one different index for each"):
        module.set_atoms(torch.tensor([1, 8]), torch.tensor([2, 2]), 5)
    with pytest.raises(Exception, match="below n_particles"):
        module.set_atoms(torch.tensor([1, 8]), torch.tensor([2, 5]), 5)
    with pytest.raises(Exception, match="positions: must be"):
        module.evaluate(numbers[1:], positions, cell, pbc)
    module.set_atoms(numbers)
    with pytest.raises(Exception, match="positions: must be"):
        module(positions[1:])
    with torch.no_grad(), pytest.raises(Exception, match=r"outside of torch\.no_grad"):
        module.evaluate(numbers, positions, cell, pbc)


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms("O", pbc=True), "cell: periodic directions need linearly independent"),
        (Atoms("O", positions=[[np.nan, 0, 0]]), "positions: every coordinate must be a finite number"),
        (Atoms("O", cell=[0.01] * 3, pbc=True), "neighbors: the cell is too small or too flat"),
    ],
)
def test_what_a_file_refuses_is_one_sentence(tmp_path, atoms, message):
    """In ASE and in OpenMM, without the traceback of TorchScript."""
    export_torchscript(make(), tmp_path / "m.pt", check=False)
    atoms = atoms.copy()
    atoms.calc = MaskedGNNCalculator(tmp_path / "m.pt", device="cpu")
    with pytest.raises(MdpotError, match=rf"\A{message}") as caught:
        atoms.get_forces()
    assert "\n" not in str(caught.value)


def test_an_error_loses_the_traceback_of_torchscript():
    text = (
        "The following operation failed in the TorchScript interpreter.\n"
        'Traceback of TorchScript, serialized code (most recent call last):\n  File "code/a.py", line 1, in forward\n'
        "    _0 = one(two)\n         ~~~ <--- HERE\n"
        "builtins.RuntimeError: positions: must be finite,\nand are not.\n"
    )
    assert without_traceback(text) == "positions: must be finite, and are not."
    assert without_traceback("ValueError: of\nyours") == "ValueError: of yours"


def test_globals_of_torch_stay_as_they_are(tmp_path):
    before = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
    export_torchscript(make(), Path(tmp_path) / "m.pt", dtype="float64")
    assert before == (torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
