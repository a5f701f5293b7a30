"""Predicting properties: the class, the command and its tables, and the commands that join models."""

from __future__ import annotations

import csv
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write
from click.testing import CliRunner

from mdpot import (
    MdpotError,
    PropertyPredictor,
    open_model,
    save_model,
)
from mdpot.cli.main import main
from mdpot.modelfile import save_ensemble

from .test_property import graph, make_property, periodic_water


@pytest.fixture
def water() -> Any:
    return periodic_water()


@pytest.fixture
def properties(tmp_path: Path) -> Path:
    for seed, pooling in enumerate(("sum", "mean")):
        save_model(
            tmp_path / f"p{seed}.safetensors", make_property(seed, pooling=pooling), {"provenance": {"seed": seed}}
        )
    save_ensemble(tmp_path / "both.safetensors", [tmp_path / f"p{seed}.safetensors" for seed in range(2)])
    return tmp_path / "both.safetensors"


def test_the_predictor(properties: Path, water: Any) -> None:
    structures = [water, molecule("CH3CH2OH"), molecule("CH4"), water.repeat(2)]
    values = []
    for seed in range(2):
        one = PropertyPredictor(properties.with_name(f"p{seed}.safetensors"), device="cpu")
        assert one.evaluate(structures).std is None
        network = make_property(seed, pooling=("sum", "mean")[seed])
        values.append([float(network(*graph(atoms).inputs())["property"]) for atoms in structures])
        np.testing.assert_allclose(one.predict(structures), values[-1], atol=1e-5)
    # Whatever goes into a batch.
    for batch_atoms in (1, 10, 1000):
        found = PropertyPredictor(properties, device="cpu", batch_atoms=batch_atoms).evaluate(structures)
        np.testing.assert_allclose(found.values, np.mean(values, 0), atol=1e-5)
        assert found.std is not None
        np.testing.assert_allclose(found.std, np.std(values, 0), atol=1e-5)
    single = PropertyPredictor(properties).predict(water)
    assert isinstance(single, float)
    assert single == pytest.approx(float(np.mean(values, 0)[0]), abs=1e-5)
    assert PropertyPredictor(properties).predict([]).shape == (0,)


def test_refusals_of_the_predictor(properties: Path, water: Any) -> None:
    predictor = PropertyPredictor(properties)
    with pytest.raises(MdpotError, match=r"structure 1 holds Si, which .*both.* was not trained for; it knows H, C, O"):
        predictor.predict([water, bulk("Si")])
    with pytest.raises(MdpotError, match=r"structure 0: the cell is a cube of 1 Å.*atoms\.pbc = False"):
        predictor.predict(Atoms(water.numbers, water.positions, cell=[1, 1, 1], pbc=True))
    for near in (0.0, 0.1):
        twice = water + Atoms("O", water.positions[:1] + near / np.sqrt(3))
        with pytest.raises(MdpotError, match=rf"structure 1: atoms overlap: they are {near:.3f} Å apart"):
            PropertyPredictor(properties, batch_atoms=1).predict([water, twice])
    with pytest.raises(MdpotError, match="structure 0 has no atoms"):
        predictor.predict(water[:0])
    with pytest.raises(MdpotError, match="batch_atoms must be at least 1; got 0"):
        PropertyPredictor(properties, batch_atoms=0)


def test_what_a_user_should_know_is_told(tmp_path: Path, water: Any) -> None:
    """A caution of the file, and that some networks see how a structure lies in space."""
    file = tmp_path / "p.safetensors"
    save_model(file, make_property(0, model="gns"), {"caution": "Do not use it."})
    turned = "the predictions of a gns network depend a little on how a structure is turned"
    with pytest.warns(UserWarning, match=turned), pytest.warns(UserWarning, match="Do not use it"):
        predictor = PropertyPredictor(file, device="cpu")
    over = water.copy()
    over.rotate(40, (1, 2, 3), rotate_cell=True)
    assert abs(predictor.predict(over) - predictor.predict(water)) > 1e-5
    write(tmp_path / "s.extxyz", water)
    done = CliRunner().invoke(main, ["predict", str(file), str(tmp_path / "s.extxyz")])
    assert done.exit_code == 0
    assert "p.safetensors: Do not use it." in done.stderr
    assert done.stdout.startswith("index,")


def test_warnings_for_developers_are_not_told(
    properties: Path, tmp_path: Path, water: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    init = PropertyPredictor.__init__

    def warn_first(self: PropertyPredictor, *args: Any, **settings: Any) -> None:
        for kind in (DeprecationWarning, FutureWarning, ResourceWarning, UserWarning):
            warnings.warn(f"a {kind.__name__}", kind, stacklevel=2)
        init(self, *args, **settings)

    monkeypatch.setattr(PropertyPredictor, "__init__", warn_first)
    write(tmp_path / "s.extxyz", water)
    done = CliRunner().invoke(main, ["predict", str(properties), str(tmp_path / "s.extxyz")])
    assert [line for line in done.stderr.splitlines() if "warning" in line] == ["warning: a UserWarning"]


def test_the_command_writes_a_table(properties: Path, tmp_path: Path, water: Any) -> None:
    structures = [water, molecule("CH4"), molecule("H2O")]
    structures[0].info["gap"], structures[1].info["gap"] = 3.0, math.nan
    structures[2].info["gap"] = 1.5
    table, file = tmp_path / "t.csv", str(tmp_path / "s.extxyz")
    write(file, structures)
    done = CliRunner().invoke(main, ["predict", str(properties), file, "-o", str(table)])
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    assert [row["formula"] for row in rows] == ["H2O", "CH4", "H2O"]
    assert [row["label"] for row in rows] == ["3", "", "1.5"]
    found = PropertyPredictor(properties).evaluate(structures)
    assert found.std is not None
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], found.values, rtol=1e-6)
    np.testing.assert_allclose([float(row["std"]) for row in rows], found.std, rtol=1e-6)
    mae = (abs(found.values[0] - 3.0) + abs(found.values[2] - 1.5)) / 2
    assert f"MAE: {mae:.6g} eV, on 2 structures" in done.output
    # Without a file it is printed; another key is another label.
    single = properties.with_name("p0.safetensors")
    done = CliRunner().invoke(main, ["predict", str(single), file])
    assert done.output.startswith("index,formula,prediction,label\n0,H2O,")
    done = CliRunner().invoke(main, ["predict", str(single), file, "--key", "band"])
    assert done.exit_code == 2
    assert "--key 'band': no structure" in done.output


def test_the_command_reads_the_tables_that_trainings_read(properties: Path, tmp_path: Path, water: Any) -> None:
    """MatBench's json, a list of structures with one target, and a CSV of files give what the structures give."""
    structures = [molecule("CH4"), molecule("H2O")]
    for atoms in structures:
        atoms.center(vacuum=3.0)
        atoms.pbc = True
    expected = PropertyPredictor(properties).predict(structures)
    data = [[pymatgen(atoms), value] for atoms, value in zip(structures, (1.5, None), strict=True)]
    entries = [
        {
            "positions": a.positions.tolist(),
            "cell": a.cell.array.tolist(),
            "atomic_numbers": a.numbers.tolist(),
            "y": 1.5,
        }
        for a in structures
    ]
    contents = {
        "table.json": json.dumps({"index": [4, 7], "columns": ["structure", "gap"], "data": data}),
        "list.json": json.dumps(entries),
        "files.csv": "file,gap\n0.xyz,1.5\n1.xyz,\n",
    }
    for number, atoms in enumerate(structures):
        write(tmp_path / f"{number}.xyz", atoms)
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        done = CliRunner().invoke(main, ["predict", str(properties), str(tmp_path / name)])
        assert done.exit_code == 0, done.output
        rows = list(csv.DictReader(done.output.splitlines()[:3]))
        np.testing.assert_allclose([float(row["prediction"]) for row in rows], expected, atol=1e-5)
        assert [row["label"] for row in rows] == ["1.5", "1.5" if name == "list.json" else ""]
        assert [row["name"] for row in rows] == {"table.json": ["4", "7"], "list.json": ["0", "1"]}.get(
            name, ["0.xyz", "1.xyz"]
        )
    done = CliRunner().invoke(main, ["predict", str(properties), str(tmp_path / "nothing.csv")])
    assert (done.exit_code, "no such file" in done.output) == (2, True)


def test_the_command_reads_databases_and_folders(properties: Path, tmp_path: Path) -> None:
    """Rows of a database, records of pymatgen, and the folder of CGCNN, with the labels under a key."""
    crystals = [molecule("CH4"), molecule("H2O")]
    (tmp_path / "folder").mkdir()
    database = connect(tmp_path / "rows.db")
    for number, atoms in enumerate(crystals):
        atoms.center(vacuum=3.0)
        atoms.pbc = True
        database.write(atoms, band=number + 1.5)
        write(tmp_path / "folder" / f"c{number}.vasp", atoms, format="vasp")
    records = [{"structure": pymatgen(atoms), "band": n + 1.5} for n, atoms in enumerate(crystals)]
    (tmp_path / "records.json").write_text(json.dumps(records))
    (tmp_path / "folder" / "id_prop.csv").write_text("c0,1.5\nc1,2.5\n")
    expected = PropertyPredictor(properties).predict(crystals)
    (tmp_path / "cifs").mkdir()
    for name, atoms in zip(("c2.cif", "c10.cif"), crystals, strict=True):
        write(tmp_path / "cifs" / name, atoms)
    done = CliRunner().invoke(main, ["predict", str(properties), str(tmp_path / "cifs")])
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert [row["name"] for row in rows] == ["c2.cif", "c10.cif"]
    np.testing.assert_allclose([float(row["prediction"]) for row in rows], expected, atol=1e-4)
    for name in ("rows.db", "records.json", "folder"):
        done = CliRunner().invoke(main, ["predict", str(properties), str(tmp_path / name), "--key", "band"])
        assert done.exit_code == 0, done.output
        rows = list(csv.DictReader(done.output.splitlines()[:3]))
        assert [row["label"] for row in rows] == ["1.5", "2.5"]
        np.testing.assert_allclose([float(row["prediction"]) for row in rows], expected, atol=1e-4)


def test_the_command_says_what_of_a_folder_it_does_not_read(properties: Path, tmp_path: Path) -> None:
    atoms = molecule("H2O", vacuum=3.0, pbc=True)
    folder = tmp_path / "cifs"
    folder.mkdir()
    write(folder / "a.CIF", atoms, format="cif")
    write(folder / "b.vasp", atoms, format="vasp")
    (folder / "c.cif").write_text("data_c\n")
    done = CliRunner().invoke(main, ["predict", str(properties), str(folder)])
    assert [row["name"] for row in csv.DictReader(done.stdout.splitlines())] == ["a.CIF"]
    assert "1 CIF: a.CIF; not read: 1 other file\n" in done.stderr
    assert "warning: 1 files cannot be read and are left out: c.cif (" in done.stderr


def pymatgen(atoms: Any) -> dict[str, Any]:
    """A structure as pymatgen writes it."""
    sites = [
        {"species": [{"element": s, "occu": 1}], "abc": abc.tolist()}
        for s, abc in zip(atoms.symbols, atoms.get_scaled_positions(), strict=True)
    ]
    return {"lattice": {"matrix": atoms.cell.array.tolist()}, "sites": sites}


def test_the_commands_that_join_and_describe(properties: Path, tmp_path: Path) -> None:
    files = [str(properties.with_name(f"p{seed}.safetensors")) for seed in range(2)]
    done = CliRunner().invoke(main, ["ensemble", *files, "-o", str(tmp_path / "joined.safetensors")])
    assert (done.exit_code, done.output.strip().endswith("an ensemble of 2")) == (0, True)
    assert open_model(tmp_path / "joined.safetensors").sha256 == open_model(properties).sha256
    done = CliRunner().invoke(main, ["ensemble", files[0], files[0], "-o", str(tmp_path / "same.safetensors")])
    assert done.exit_code == 2
    assert "members must differ" in done.stderr
    done = CliRunner().invoke(main, ["ensemble", files[0], "-o", str(tmp_path / "one.safetensors")])
    assert done.exit_code == 2
    assert "two or more; got 1" in done.output
    text = CliRunner().invoke(main, ["info", files[0]]).output
    assert all(word in text for word in ("property", "gap", "eV", "sum", "egnn"))
    text = CliRunner().invoke(main, ["info", str(properties)]).output
    assert all(word in text for word in ("ensemble", "member 1", "seed 1", "gap"))
    header = json.loads(CliRunner().invoke(main, ["info", "--json", str(properties)]).output)
    assert header["kind"] == "ensemble"


def test_a_damaged_member_is_named_as_damage(properties: Path) -> None:
    content = bytearray(properties.read_bytes())
    content[-3] ^= 1
    properties.write_bytes(content)
    with pytest.raises(MdpotError, match="damaged: it was changed since it was written"):
        open_model(properties)
