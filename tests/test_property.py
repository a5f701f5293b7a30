"""Models of a property and ensembles: what they compute, how their files are kept, and who runs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from click.testing import CliRunner

from mdpot import (
    MODELS,
    Graph,
    MaskedGNNCalculator,
    MdpotError,
    PropertyPredictor,
    build_potential,
    build_property,
    open_model,
    save_model,
)
from mdpot.cli.main import main
from mdpot.export import export_torchscript
from mdpot.heads import Potential, PotentialEnsemble, PropertyModel, build_ensemble
from mdpot.heads.property import pool
from mdpot.modelfile import load_potential, save_ensemble

ELEMENTS = [1, 6, 8]
SIZES = {"cutoff": 3.3, "width": 16, "layers": 2}


def make_property(seed: int = 0, model: str = "egnn", **changed: Any) -> PropertyModel:
    torch.manual_seed(seed)
    sizes = SIZES if model in ("egnn", "gns", "forcenet") else {"cutoff": 3.3}
    targets = {"name": "gap", "unit": "eV", "pooling": "mean", "mean": 2.5, "scale": 0.5, **changed}
    return build_property(model, sizes, ELEMENTS, **targets).eval().requires_grad_(False)


def make_potential(
    seed: int = 0, cutoff: float = 3.3, elements: list[int] = ELEMENTS, model: str = "egnn"
) -> Potential:
    torch.manual_seed(seed)
    shift = [-10.0 * z for z in elements]
    return build_potential(model, {**SIZES, "cutoff": cutoff}, elements, shift, 0.7).eval()


def graph(*structures: Any, cutoff: float = 3.3) -> Graph:
    return Graph.from_atoms(list(structures), cutoff, torch.float64)


def periodic_water() -> Any:
    atoms = molecule("H2O")
    atoms.set_cell([4.0, 4.2, 4.4])
    atoms.pbc = True
    return atoms


@pytest.fixture
def water() -> Any:
    return periodic_water()


# ---- the property ----------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_pooling_is_that_of_pyg(pooling: str) -> None:
    pyg = pytest.importorskip("torch_geometric.nn")
    torch.manual_seed(0)
    features, system = torch.randn(9, 5), torch.tensor([0, 0, 1, 1, 1, 1, 3, 3, 3])  # structure 2 is empty
    expected = (pyg.global_add_pool if pooling == "sum" else pyg.global_mean_pool)(features, system, 4)
    torch.testing.assert_close(pool(features, system, 4, pooling), expected)


def test_a_supercell_has_the_same_mean_and_eight_times_the_sum(water: Any) -> None:
    """Of the pooled features; so the mean is a property of the crystal, whatever cell it is given in."""
    model = make_property(pooling="mean").double()
    small, large = model(*graph(water).inputs()), model(*graph(water.repeat(2)).inputs())
    assert float(small["property"]) == pytest.approx(float(large["property"]), abs=1e-10)
    model.pooling = "sum"
    linear = torch.nn.Linear(16, 1, bias=False, dtype=torch.float64)  # shows the sum
    model.readout, model.mean = torch.nn.Sequential(linear).requires_grad_(False), 0.0
    small, large = model(*graph(water).inputs()), model(*graph(water.repeat(2)).inputs())
    assert float(large["property"]) == pytest.approx(8 * float(small["property"]), rel=1e-10)


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_gives_what_each_gives_alone(model: str, water: Any) -> None:
    network = make_property(model=model).double()
    structures = [water, molecule("CH3CH2OH"), molecule("O")]
    together = network(*graph(*structures).inputs())["property"]
    alone = torch.cat([network(*graph(atoms).inputs())["property"] for atoms in structures])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-10)


def test_mean_and_scale_are_of_the_target(water: Any) -> None:
    out = make_property()(*graph(water).inputs())
    torch.testing.assert_close(out["property"], 2.5 + 0.5 * out["normalized"].double())
    assert out["property"].dtype == torch.float64


def test_it_scripts(water: Any) -> None:
    network = make_property()
    found = torch.jit.script(network)(*graph(water).inputs())
    torch.testing.assert_close(found["property"], network(*graph(water).inputs())["property"])


def test_refusals_of_a_property() -> None:
    with pytest.raises(MdpotError, match=r"unknown pooling 'men'\. Did you mean 'mean'"):
        make_property(pooling="men")
    with pytest.raises(MdpotError, match="at least one"):
        build_property("egnn", SIZES, [], "gap")


# ---- its file --------------------------------------------------------------------------


def test_a_property_file_comes_back(tmp_path: Path, water: Any) -> None:
    network = make_property()
    save_model(tmp_path / "p.safetensors", network, {"provenance": {"seed": 1}})
    model = open_model(tmp_path / "p.safetensors")
    assert (model.kind, model.predicts, model.exported, model.cautions) == ("property", "property", False, [])
    expected = {"kind": "property", "property": "gap", "unit": "eV", "pooling": "mean", "mean": 2.5, "scale": 0.5}
    assert expected.items() <= model.header.items()
    inputs = graph(water).inputs()
    assert torch.equal(model.property()(*inputs)["property"], network(*inputs)["property"])
    assert model.property(dtype="float64").readout[0].weight.dtype == torch.float64  # type: ignore[union-attr]


def test_the_folder_of_a_run_with_a_property(tmp_path: Path) -> None:
    save_model(tmp_path / "property.safetensors", make_property())
    assert open_model(tmp_path).kind == "property"


def test_each_kind_says_what_runs_it(tmp_path: Path, water: Any) -> None:
    save_model(tmp_path / "p.safetensors", make_property())
    save_model(tmp_path / "e.safetensors", make_potential())
    for attempt in (
        lambda: MaskedGNNCalculator(tmp_path / "p.safetensors"),
        lambda: export_torchscript(tmp_path / "p.safetensors", tmp_path / "p.pt"),
        lambda: load_potential(tmp_path / "p.safetensors"),
    ):
        with pytest.raises(MdpotError, match=r"predicts a property, 'gap', and has no energies.*mdpot predict"):
            attempt()
    with pytest.raises(MdpotError, match=r"e\.safetensors' is a potential.*MaskedGNNCalculator"):
        PropertyPredictor(tmp_path / "e.safetensors")
    write(tmp_path / "w.xyz", water)
    arguments = [
        "md",
        str(tmp_path / "w.xyz"),
        "--model",
        str(tmp_path / "p.safetensors"),
        "--out",
        str(tmp_path / "md"),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "predicts a property" in done.output
    assert not (tmp_path / "md").exists()


def test_openmm_refuses_a_property(tmp_path: Path) -> None:
    pytest.importorskip("openmm")
    from mdpot.openmm import create_force

    save_model(tmp_path / "p.safetensors", make_property())
    with pytest.raises(MdpotError, match=r"predicts a property.*mdpot predict"):
        create_force(tmp_path / "p.safetensors", [8, 1, 1], "python", periodic=False)


# ---- ensembles -------------------------------------------------------------------------


@pytest.fixture
def committee(tmp_path: Path) -> Path:
    """Three potentials with different cutoffs in one file."""
    for index, cutoff in enumerate((3.3, 3.0, 2.7)):
        metadata = {"min_distances": {"H-O": 0.9 - 0.1 * index}, "caution": "only water" if index else ""}
        save_model(tmp_path / f"{index}.safetensors", make_potential(index, cutoff), metadata)
    save_ensemble(tmp_path / "ensemble.safetensors", [tmp_path / f"{index}.safetensors" for index in range(3)])
    return tmp_path / "ensemble.safetensors"


def test_an_ensemble_is_the_mean_of_its_members(committee: Path) -> None:
    structures = [molecule("CH3CH2OH"), molecule("H2O")]
    ensemble = open_model(committee).potential(dtype="float64")
    assert isinstance(ensemble, PotentialEnsemble)
    out = ensemble(*graph(*structures).inputs(), outputs=["forces", "energy_std", "forces_std"])
    # Each member by itself, with a neighbor list of its own cutoff.
    members = [load_potential(committee.with_name(f"{k}.safetensors"), dtype=torch.float64)[0] for k in range(3)]
    single = [member(*graph(*structures, cutoff=member.cutoff).inputs()) for member in members]
    energies = np.array([found["energy"].numpy() for found in single])
    forces = np.array([found["forces"].numpy() for found in single])
    np.testing.assert_allclose(out["energy"], energies.mean(0), atol=1e-10)
    np.testing.assert_allclose(out["forces"], forces.mean(0), atol=1e-10)
    np.testing.assert_allclose(out["energy_std"], energies.std(0) / np.array([9, 3]), atol=1e-10)
    np.testing.assert_allclose(out["forces_std"], forces.std(0), atol=1e-10)
    assert float(out["energy_std"].min()) > 1e-6
    with pytest.raises(MdpotError, match=r"unknown output forces_sd\..*forces_std"):
        ensemble(*graph(*structures).inputs(), outputs=["forces_sd"])


def test_the_calculator_of_an_ensemble_offers_its_spread(committee: Path) -> None:
    atoms = molecule("CH3CH2OH")
    with pytest.warns(UserWarning, match="only water"):
        atoms.calc = MaskedGNNCalculator(committee, dtype="float64", device="cpu")
    out = open_model(committee).potential(dtype="float64")(
        *graph(atoms).inputs(), outputs=["forces", "energy_std", "forces_std"]
    )
    np.testing.assert_allclose(atoms.get_forces(), out["forces"], atol=1e-10)
    assert atoms.calc.results["forces_std"].shape == (9, 3)
    np.testing.assert_allclose(atoms.calc.results["forces_std"], out["forces_std"], atol=1e-10)
    assert atoms.calc.get_property("energy_std", atoms) == pytest.approx(float(out["energy_std"]), abs=1e-12)
    # A lone potential has none.
    atoms.calc = MaskedGNNCalculator(committee.with_name("0.safetensors"))
    atoms.get_forces()
    assert "forces_std" not in atoms.calc.results


def test_the_file_of_an_ensemble(committee: Path) -> None:
    model = open_model(committee)
    assert (model.kind, model.predicts) == ("ensemble", "potential")
    assert model.header["cutoff"] == 3.3
    assert model.header["min_distances"] == {"H-O": pytest.approx(0.7)}
    assert model.cautions == ["only water"]
    assert [part["cutoff"] for part in model.header["members"]] == [3.3, 3.0, 2.7]


def test_an_ensemble_is_exported(committee: Path) -> None:
    with pytest.warns(UserWarning, match="only water"):
        report = export_torchscript(committee, committee.with_name("e.pt"), units="ase", dtype="float64")
    assert report.n_frames > 0  # it is refused where it does not agree
    atoms = molecule("H2O")
    with pytest.warns(UserWarning, match="only water"):
        atoms.calc = MaskedGNNCalculator(committee.with_name("e.pt"))
    expected = open_model(committee).potential(dtype="float64")(*graph(atoms).inputs())
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"], atol=1e-9)


@pytest.mark.parametrize(
    ("second", "match"),
    [
        (lambda: make_potential(elements=[1, 8]), r"must know the same elements; got [A-Z].* and H, O\."),
        (lambda: make_potential().double(), "of one dtype"),
        (lambda: make_potential(model="gns"), "must all have forces that are the gradient"),
        (make_property, "all be potentials or all models of a property"),
        (lambda: build_ensemble([make_potential(), make_potential(1)]), "no ensembles themselves"),
    ],
)
def test_members_that_do_not_go_together(second: Any, match: str) -> None:
    with pytest.raises(MdpotError, match=match):
        build_ensemble([make_potential(), second()])


def test_an_ensemble_needs_two_of_the_same_property() -> None:
    with pytest.raises(MdpotError, match="two or more; got 1"):
        build_ensemble([make_property()])
    with pytest.raises(MdpotError, match="same property; got gap in eV, gap in meV"):
        build_ensemble([make_property(), make_property(unit="meV")])


def test_an_ensemble_is_evaluated_but_not_finetuned(committee: Path) -> None:
    from mdpot.training.run import run_evaluate

    atoms = molecule("CH3CH2OH")
    ensemble = open_model(committee).potential(dtype="float64")
    out = ensemble(*graph(atoms).inputs())
    atoms.calc = SinglePointCalculator(atoms, energy=float(out["energy"]), forces=out["forces"].numpy())
    write(committee.with_name("labeled.extxyz"), [atoms, atoms])
    result = run_evaluate(committee, committee.with_name("labeled.extxyz"), device="cpu")
    table = next(value for value in result.values() if isinstance(value, dict) and "force_rmse" in value)
    assert table["force_rmse"] < 1e-2  # meV/Å
    with pytest.raises(MdpotError, match="holds an ensemble, not one potential"):
        load_potential(committee)
