"""Tables of structures with properties: MatBench's json, lists of structures, CSV with file names, a key of `info`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write

from mdpot import MdpotError
from mdpot.training.data.checks import validate_frames
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file

CRYSTALS = [bulk("Si"), bulk("NaCl", "rocksalt", 5.64), bulk("Mo", cubic=True)]


def pymatgen(atoms: Atoms) -> dict[str, Any]:
    """A structure as pymatgen writes it; its `xyz` is not to be trusted, MatBench rounds it."""
    sites = [
        {"species": [{"element": s, "occu": 1}], "abc": abc.tolist(), "label": s, "xyz": [0.0, 0.0, 0.0]}
        for s, abc in zip(atoms.symbols, atoms.get_scaled_positions(wrap=False), strict=True)
    ]
    kind = {"@module": "pymatgen.core.structure", "@class": "Structure"}
    return {**kind, "lattice": {"matrix": atoms.cell.array.tolist()}, "sites": sites}


def table(values: list[Any], index: list[int]) -> dict[str, Any]:
    rows = [[pymatgen(atoms), value] for atoms, value in zip(CRYSTALS, values, strict=True)]
    return {"index": index, "columns": ["structure", "gap"], "data": rows}


def put(path: Path, content: Any) -> Path:
    data = json.dumps(content).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["gaps.json", "gaps.json.gz"])
def test_a_table_of_pandas(tmp_path: Path, name: str) -> None:
    found = read_file(put(tmp_path / name, table([1.1, 8.5, 0], [3, 5, 9])), need={"gap"})
    assert [frame.properties for frame in found.frames] == [{"gap": 1.1}, {"gap": 8.5}, {"gap": 0.0}]
    assert [frame.index for frame in found.frames] == [3, 5, 9]
    for frame, atoms in zip(found.frames, CRYSTALS, strict=True):
        assert (frame.numbers == atoms.numbers).all()
        assert frame.pbc.all()
        np.testing.assert_allclose(frame.cell, atoms.cell.array)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-12)


@pytest.mark.parametrize("column", ["upload_id", "nomad_version", "section_run"])
def test_columns_with_names_of_nomad(tmp_path: Path, column: str) -> None:
    content = table([1.1, 8.5, 0], [3, 5, 9])
    content["columns"].append(column)
    content["data"] = [[*row, "a7"] for row in content["data"]]
    path = put(tmp_path / "gaps.json", {key: content[key] for key in ("columns", "index", "data")})
    assert len(read_file(path, need={"gap"}).frames) == 3


def test_rows_without_the_property_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read_file(put(tmp_path / "gaps.json", table([1.1, None, "no"], [0, 1, 2])), need={"gap"})
    assert [frame.index for frame in found.frames] == [0]
    assert "2 of 3 frames are left out" in " ".join(found.notes)


def test_a_list_of_structures(tmp_path: Path) -> None:
    entries = [
        {"structure_id": f"s{n}", "positions": a.positions.tolist(), "cell": a.cell.array.tolist(), "y": [float(n)]}
        | {"atomic_numbers": a.numbers.tolist()}
        for n, a in enumerate(CRYSTALS)
    ]
    found = read_file(put(tmp_path / "list.json", entries), need={"y"})
    assert [frame.properties["y"] for frame in found.frames] == [0.0, 1.0, 2.0]
    np.testing.assert_array_equal(found.frames[1].positions, CRYSTALS[1].positions)
    two = [entry | {"y": [1.0, 2.0]} for entry in entries]
    assert read_file(put(tmp_path / "two.json", two)).frames[0].properties == {"y0": 1.0, "y1": 2.0}
    entries[1]["positions"] = entries[1]["positions"][:1]
    with pytest.raises(MdpotError, match="entry 1: 2 atomic numbers, but 1 positions"):
        read_file(put(tmp_path / "short.json", entries))


def test_forces_in_a_list_are_refused(tmp_path: Path) -> None:
    """They would be taken for absent."""
    entry = {"positions": [[0, 0, 0], [0, 0, 1.1]], "atomic_numbers": [7, 7], "energy": -9.0, "forces": [[0] * 3] * 2}
    with pytest.raises(MdpotError, match="labels of atoms, forces, are not read from a list in json"):
        read_file(put(tmp_path / "a.json", [entry]))
    (frame,) = read_file(put(tmp_path / "a.json", [entry | {"y": 1.5}])).frames
    assert frame.properties == {"y": 1.5}


def test_a_table_with_names_of_files(tmp_path: Path) -> None:
    for n, atoms in enumerate(CRYSTALS):
        write(tmp_path / f"{n}.cif", atoms)
    (tmp_path / "t.csv").write_text(
        "gap,file,remark,mu\n1.5,0.cif,fine,2\n,1.cif,,3\n0.0,2.cif,x,4\n", encoding="utf-8"
    )
    found = read_file(tmp_path / "t.csv")
    assert [frame.properties for frame in found.frames] == [{"gap": 1.5, "mu": 2}, {"mu": 3}, {"gap": 0.0, "mu": 4}]
    assert [len(frame) for frame in found.frames] == [2, 2, 2]
    (tmp_path / "bad.csv").write_text("gap,file\n1.5,nowhere.cif\n", encoding="utf-8")
    with pytest.raises(MdpotError, match="no column of its table names files"):
        read_file(tmp_path / "bad.csv")
    write(tmp_path / "many.xyz", CRYSTALS, format="extxyz")
    (tmp_path / "many.csv").write_text("gap,file\n1.5,many.xyz\n", encoding="utf-8")
    with pytest.raises(MdpotError, match="a row is one structure"):
        read_file(tmp_path / "many.csv")


def test_a_key_of_extended_xyz(tmp_path: Path) -> None:
    atoms = [a.copy() for a in CRYSTALS]
    for n, a in enumerate(atoms[:2]):
        a.info["exfoliation"] = 10.0 * n
    write(tmp_path / "p.extxyz", atoms, format="extxyz")
    asked = Asked(property_key="exfoliation")
    found = read_file(tmp_path / "p.extxyz", asked, {"exfoliation"})
    assert [frame.properties["exfoliation"] for frame in found.frames] == [0.0, 10.0]
    wrong = read_file(tmp_path / "p.extxyz", Asked(property_key="exfol"), {"exfol"})
    assert "no frame has the property 'exfol'" in wrong.refusal
    assert not read_file(tmp_path / "p.extxyz", Asked(), ()).frames[0].properties


def test_what_is_no_table_says_what_one_is(tmp_path: Path) -> None:
    for name, content, message in (
        ("number.json", [1, 2], "its json is neither"),
        ("empty.json", [], "its json is neither"),
        ("none.json", {"index": [0], "columns": ["gap"], "data": [[1.0]]}, "one column must hold structures"),
        ("cut.json", None, "truncated or damaged"),
    ):
        path = put(tmp_path / name, content)
        if content is None:
            path.write_bytes(json.dumps(table([1, 2, 3], [0, 1, 2])).encode()[:-40])
        with pytest.raises(MdpotError, match=message):
            read_file(path)
    mixed = table([1, 2, 3], [0, 1, 2])
    mixed["data"][1][0]["sites"][0]["species"] = [{"element": "Na", "occu": 0.5}]
    with pytest.raises(MdpotError, match=r"row 1: a site is occupied by 0\.5 Na"):
        read_file(put(tmp_path / "mixed.json", mixed))


def test_inspection_shows_properties(tmp_path: Path) -> None:
    found = inspect_file(put(tmp_path / "gaps.json", table([1.1, 8.5, 0], [3, 5, 9])), Asked())
    assert found["properties"] == {"gap": [0.0, 8.5]}
    assert found["labeled"] == 3
    assert not found["warnings"]


@pytest.mark.parametrize("cartesian", [False, True])
def test_a_list_of_jarvis(tmp_path: Path, cartesian: bool) -> None:
    entries = [
        {
            "jid": f"JVASP-{n}",
            "atoms": {
                "lattice_mat": a.cell.array.tolist(),
                "coords": (a.positions if cartesian else a.get_scaled_positions(wrap=False)).tolist(),
                "elements": list(a.symbols),
                "cartesian": cartesian,
            },
            "gap": value,
            "magmom": n,
            "dimension": "3D",
        }
        for n, (a, value) in enumerate(zip(CRYSTALS, [1.1, "na", 0.0], strict=True))
    ]
    found = read_file(put(tmp_path / "jdft.json", entries), need=None)
    assert [f.properties for f in found.frames] == [{"gap": 1.1, "magmom": 0}, {"magmom": 1}, {"gap": 0, "magmom": 2}]
    for frame, atoms in zip(found.frames, CRYSTALS, strict=True):
        assert (frame.numbers == atoms.numbers).all()
        assert frame.pbc.all()
        np.testing.assert_allclose(frame.cell, atoms.cell.array)
        np.testing.assert_allclose(frame.positions, atoms.positions, atol=1e-12)
    entries[1]["atoms"]["coords"].pop()
    with pytest.raises(MdpotError, match="entry 1: 2 elements, but 1 coords"):
        read_file(put(tmp_path / "jdft.json", entries))


def test_inspection_shows_numbers_that_may_be_properties(tmp_path: Path) -> None:
    atoms = [a.copy() for a in CRYSTALS]
    for n, a in enumerate(atoms):
        a.info.update(gap=n / 2, metal=True, name="x", DFT_energy=-1.0 - n)
    write(tmp_path / "p.extxyz", atoms, format="extxyz")
    found = inspect_file(tmp_path / "p.extxyz", Asked())
    assert found["numbers"] == {"gap": [0.0, 1.0]}
    wrong = read_file(tmp_path / "p.extxyz", Asked(property_key="metal"), {"metal"})
    assert "no frame has the property 'metal', a number, which text, True, and False are not" in wrong.refusal
    assert "there are numbers under gap" in wrong.refusal


def test_repeats_whose_properties_differ_are_told(tmp_path: Path) -> None:
    for values, differ in (([1.0, 8.5, 0.0, 1.0001], False), ([1.0, 8.5, 0.0, 2.0], True)):
        content = table(values[:3], [0, 1, 2])
        content["index"].append(3)
        content["data"].append([pymatgen(CRYSTALS[0]), values[3]])
        (note,) = read_file(put(tmp_path / "gaps.json", content), need={"gap"}).notes
        assert note.startswith("1 of 4 frames are repeats of others")
        assert ("They differ in gap: a network learns something between." in note) == differ


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([1.1, "2.07(1)", 0.5], "gap is not a number in 1 of 3 frames, e.g. '2.07(1)'"),
        ([1.1, "1.2 eV", 0.5], "gap is not a number in 1 of 3 frames, e.g. '1.2 eV'"),
        ([1.1, True, False], "gap is not a number in 2 of 3 frames, e.g. 'True'"),
        ([1.1, "N/A", None], ""),
    ],
)
def test_what_is_no_number_is_quoted(tmp_path: Path, values: list[Any], said: str) -> None:
    """In tables and in `info` alike, by the reading and by the inspection."""
    atoms = [a.copy() for a in CRYSTALS]
    for a, value in zip(atoms, values, strict=True):
        a.info.update({} if value is None else {"gap": value})
    write(tmp_path / "gaps.extxyz", atoms, format="extxyz")
    json_file = put(tmp_path / "gaps.json", table(values, [0, 1, 2]))
    for path in (json_file, tmp_path / "gaps.extxyz"):
        notes = " ".join(read_file(path, Asked(property_key="gap"), {"gap"}).notes)
        assert ("is not a number" in notes) == bool(said)
        assert said in notes
    assert said in " ".join(inspect_file(json_file, Asked())["warnings"])


def test_classes_in_words_are_refused_and_quoted(tmp_path: Path) -> None:
    path = put(tmp_path / "gaps.json", table(["yes", "no", "yes"], [0, 1, 2]))
    assert "gap is not a number in 3 of 3 frames, e.g. 'yes': write" in read_file(path, need={"gap"}).refusal
    (warning,) = inspect_file(path, Asked())["warnings"]
    assert warning.startswith("gap is not a number in 3 of 3 frames")


def rows_of(values: list[float]) -> dict[str, Any]:
    """A table of crystals that differ a little, with these numbers."""
    rows = [[pymatgen(bulk("Cu", a=3.5 + 0.01 * n)), value] for n, value in enumerate(values)]
    return {"index": list(range(len(values))), "columns": ["structure", "gap"], "data": rows}


def test_numbers_that_stand_for_absent_ones_are_told(tmp_path: Path) -> None:
    spread = [1.0 + 0.1 * n for n in range(20)]
    for values, said in (
        ([*spread, -9999.0, -9999.0], "gap is -9999 in 2 of 22 frames, and about 1.475 to 2.425 in others: if"),
        ([*spread, -9999.0], "gap is -9999 in 1 of 21 frames"),
        ([*spread[:10], *[-9999.0] * 10], "gap is -9999 in 10 of 20 frames"),
        ([*spread[:5], *[-999.0] * 15], "gap is -999 in 15 of 20 frames"),
        ([0.0, 0.0, 0.0, 0.0, 99999.0], "gap is 99999 in 1 of 5 frames"),
        ([*spread, 77.7, 77.7], "gap is 77.7 in 2 of 22 frames"),
        ([1000.0 * n + 999.0 for n in range(20)], ""),  # 9999 among them
        ([5e19, 1e20, 2e20], ""),
        ([*spread, 500.0], ""),  # an outlier
        ([*spread, 3.5, 3.5], ""),
        ([0.1] * 20, "gap is 0.1 in all frames: there is nothing to learn."),
    ):
        path = put(tmp_path / "gaps.json", rows_of(values))
        found = [" ".join(read_file(path, need={"gap"}).notes), " ".join(inspect_file(path, Asked())["warnings"])]
        assert all(said in notes if said else not notes for notes in found)


def test_properties_of_any_size_beside_columns_of_other_names(tmp_path: Path) -> None:
    """A concentration is large; a number under "forces" beside the property is none of the atoms' labels."""
    content = table([1e20, 2e20, 5e19], [0, 1, 2])
    content["columns"].append("forces")
    content["data"] = [[*row, 0.1] for row in content["data"]]
    found = read_file(put(tmp_path / "gaps.json", content), need={"gap"})
    validate_frames(found.frames, need={"gap"})
    assert [frame.labels for frame in found.frames] == [{"gap": 1e20}, {"gap": 2e20}, {"gap": 5e19}]
    found.frames[0].properties["gap"] = 1e200
    with pytest.raises(MdpotError, match=r"gap must be less than 1e\+100 in size; got 1e\+200"):
        validate_frames(found.frames, need={"gap"})


def test_single_atoms_with_the_property_are_frames(tmp_path: Path) -> None:
    """Where energies are learned, they are references."""
    atoms = [Atoms("H", info={"gap": 9.0}), Atoms("O"), *(a.copy() for a in CRYSTALS)]
    for n, a in enumerate(atoms[2:]):
        a.info["gap"] = float(n)
    write(tmp_path / "p.extxyz", atoms, format="extxyz")
    found = read_file(tmp_path / "p.extxyz", Asked(property_key="gap"), {"gap"})
    assert [frame.properties["gap"] for frame in found.frames] == [9.0, 0.0, 1.0, 2.0]
    assert found.n_isolated == 1
