"""Structures of pymatgen with their labels in json, as MPtrj, MatPES, and CHGNet write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import write
from ase.units import GPa

from mdpot.errors import MdpotError
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.readers.pymatgen import parse_pymatgen

from .metals import coppers
from .outputs import assert_right
from .test_tables import put, pymatgen

NEED = ("energy", "forces")
COPPERS = coppers(12)
KBAR = GPa / 10


def labels(n: int, energy: str, forces: str) -> dict[str, Any]:
    """Of the n-th copper, with VASP's stress."""
    atoms = COPPERS[n]
    stress = -atoms.get_stress(voigt=False) / KBAR
    return {energy: atoms.get_potential_energy(), forces: atoms.get_forces().tolist(), "stress": stress.tolist()}


def test_mptrj(tmp_path: Path) -> None:
    """Of its energies, the one that is not corrected, nor per atom."""
    content: dict[str, dict[str, Any]] = {"mp-1": {}, "mp-2": {}}
    for n, atoms in enumerate(COPPERS):
        entry = {"structure": pymatgen(atoms), **labels(n, "uncorrected_total_energy", "force"), "magmom": None}
        entry |= {"corrected_total_energy": -9.0, "energy_per_atom": -2.0, "ef_per_atom": 0.1, "bandgap": 0.0}
        content[f"mp-{1 + n % 2}"][f"mp-{1 + n % 2}-0-{n}"] = entry
    reading = read_file(put(tmp_path / "mptrj.json.gz", content), need=NEED)
    assert_right(reading, COPPERS[::2] + COPPERS[1::2], stress=True)
    assert reading.doubts() == []
    raw = read_file(tmp_path / "mptrj.json.gz", Asked(energy_key="corrected_total_energy"))
    assert {frame.energy for frame in raw.frames} == {-9.0}


def test_matpes(tmp_path: Path) -> None:
    """Its stress has six numbers in Voigt's order."""
    content = [
        {
            "nsites": len(atoms),
            "structure": pymatgen(atoms),
            **labels(n, "energy", "forces"),
            "stress": (-atoms.get_stress() / KBAR).tolist(),
            "matpes_id": f"matpes-1_{n}",
            "cohesive_energy_per_atom": -3.0,
        }
        for n, atoms in enumerate(COPPERS)
    ]
    reading = read_file(put(tmp_path / "matpes.json", content), need=NEED)
    assert_right(reading, COPPERS, stress=True)


def test_labels_below_the_structure(tmp_path: Path) -> None:
    """As in the sets of Zuo et al. (2020), whose stress is in VASP's order, which nothing says."""
    content = [
        {"structure": pymatgen(atoms), "tag": "train", "outputs": labels(n, "energy", "forces") | {"stress": [1.0] * 6}}
        for n, atoms in enumerate(COPPERS)
    ]
    reading = read_file(put(tmp_path / "training.json", content), need=NEED)
    assert_right(reading, COPPERS)
    assert reading.keys.stress is None
    assert any("stress of outputs is not read" in note for note in reading.notes)


def test_forces_of_the_sites(tmp_path: Path) -> None:
    """As in Alexandria; in capitals, as some systems write endings."""
    entries = []
    for atoms in COPPERS:
        structure = pymatgen(atoms)
        for site, force in zip(structure["sites"], atoms.get_forces().tolist(), strict=True):
            site["properties"] = {"forces": force, "magmom": 0.0}
        entries.append({"energy": atoms.get_potential_energy(), "correction": 0.0, "structure": structure})
    assert_right(read_file(put(tmp_path / "ALEX.JSON", {"entries": entries}), need=NEED), COPPERS)


def test_lists_of_chgnet(tmp_path: Path) -> None:
    rows = [labels(n, "uncorrected_total_energy", "force") for n in range(len(COPPERS))]
    content = {
        "structure": [pymatgen(atoms) for atoms in COPPERS],
        **{key: [row[key] for row in rows] for key in rows[0]},
    }
    content["energy_per_atom"] = [-2.0] * len(COPPERS)
    assert_right(read_file(put(tmp_path / "labels.json", content), need=NEED), COPPERS, stress=True)


def test_the_free_energy_of_an_ionic_step(tmp_path: Path) -> None:
    steps = [
        {"structure": pymatgen(atoms), **labels(n, "e_fr_energy", "forces"), "e_0_energy": 0.5, "e_wo_entrp": 0.6}
        for n, atoms in enumerate(COPPERS)
    ]
    reading = read_file(put(tmp_path / "run.json", {"output": {"ionic_steps": steps}}), need=NEED)
    assert_right(reading, COPPERS, stress=True)


def test_the_stress_of_others_is_in_units_of_ase_or_those_given(tmp_path: Path) -> None:
    content = {"structures": [pymatgen(atoms) for atoms in COPPERS]}
    for key, kind in (("energies", "energy"), ("forces", "forces"), ("stresses", "stress")):
        content[key] = [labels(n, "energy", "forces")[kind] for n in range(len(COPPERS))]
    path = put(tmp_path / "own.json", content)
    assert "--units stress=-kbar" in " ".join(read_file(path, need=NEED).doubts())
    assert_right(read_file(path, Asked(units="stress=-kbar"), need=NEED), COPPERS, stress=True)


def test_the_columns_of_a_table_of_pandas(tmp_path: Path) -> None:
    """Each is by row, in whatever order."""
    rows = [{"structure": pymatgen(atoms), **labels(n, "energy", "forces")} for n, atoms in enumerate(COPPERS)]
    content = {key: {str(n): row[key] for n, row in enumerate(rows)} for key in rows[0]}
    content["energy"] = dict(reversed(content["energy"].items()))
    reading = read_file(put(tmp_path / "own.json", content), Asked(units="stress=-kbar"), need=NEED)
    assert_right(reading, COPPERS, stress=True)


def test_a_list_of_another_length_is_refused(tmp_path: Path) -> None:
    content = {"structures": [pymatgen(atoms) for atoms in COPPERS[:3]], "names": ["a"], "energies": [1.0, 2.0, 3.0]}
    content["force"] = [atoms.get_forces().tolist() for atoms in COPPERS[:2]]
    with pytest.raises(MdpotError, match="force has 2 values, and there are 3 structures beside it"):
        read_file(put(tmp_path / "a.json", content))
    del content["force"]
    assert [frame.energy for frame in read_file(put(tmp_path / "a.json", content)).frames] == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("other", ["uncorrected_total_energy", "e_0_energy"])
@pytest.mark.parametrize("last", [False, True])
def test_an_energy_by_its_own_name_goes_before_others(tmp_path: Path, other: str, last: bool) -> None:
    content = []
    for n, atoms in enumerate(COPPERS):
        entry = {"structure": pymatgen(atoms), **labels(n, "energy", "forces")}
        content.append(entry | {other: -9.0} if last else {other: -9.0} | entry)
    reading = read_file(put(tmp_path / "a.json", content), need=NEED)
    assert_right(reading, COPPERS, stress=True)
    asked = read_file(tmp_path / "a.json", Asked(energy_key=other, forces_key="forces", check=False))
    assert {frame.energy for frame in asked.frames} == {-9.0}


def test_what_is_said_of_other_files_is_said_of_these(tmp_path: Path) -> None:
    """Energies that are text, charges that differ, kinds, and properties."""
    content = [
        {"structure": pymatgen(atoms), **labels(n, "energy", "forces"), "charge": n % 2, "gap": n / 2, "subset": "a"}
        for n, atoms in enumerate(COPPERS)
    ]
    content[3]["energy"] = "none"
    reading = read_file(put(tmp_path / "a.json", content), Asked(check=False))
    assert any(note.startswith("energy is not a number in 1 of 12 frames") for note in reading.notes)
    assert any(note.startswith("charge differs among the frames (0, 1)") for note in reading.notes)
    assert reading.frames[1].electrons.charge == 1
    assert reading.frames[1].kind == "a"
    raw = parse_pymatgen(tmp_path / "a.json", Asked(property_key="gap"), want_labels=False)
    assert [frame.properties["gap"] for frame in raw.frames] == [n / 2 for n in range(12)]


@pytest.mark.parametrize(("moments", "noted"), [([0.6] * 4, False), ([0.6, -0.6] * 2, True), ([0.6, None] * 2, False)])
def test_moments_of_the_atoms_are_looked_at(tmp_path: Path, moments: list[float | None], noted: bool) -> None:
    """Magnetic orders that differ, where the atoms of all structures have numbers."""
    content = [
        {"structure": pymatgen(atoms), **labels(n, "energy", "forces"), "magmom": moments if n == 3 else [0.6] * 4}
        for n, atoms in enumerate(COPPERS)
    ]
    content[4]["magmom"] = ["up"] * 4
    notes = read_file(put(tmp_path / "a.json", content), Asked(check=False)).notes
    assert any("net magnetic moments of Cu are 0 to 0.6" in note for note in notes) == noted


def test_what_is_no_structure_is_named(tmp_path: Path) -> None:
    shared = {"structure": pymatgen(COPPERS[0]), **labels(0, "energy", "forces")}
    shared["structure"]["sites"][2]["species"][0]["occu"] = 0.5
    with pytest.raises(MdpotError, match=r"structure 0: a site is occupied by 0.5 Cu"):
        read_file(put(tmp_path / "a.json", [shared]))
    (tmp_path / "a.json").write_text(json.dumps([shared])[:-9])
    with pytest.raises(MdpotError, match="no json, truncated or damaged"):
        read_file(tmp_path / "a.json")
    with pytest.raises(MdpotError, match="give the file itself"):
        read_file(tmp_path)


def as_cif(atoms: Atoms, path: Path) -> str:
    write(path, atoms, format="cif")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("layout", ["records", "lists", "columns", "cifs"])
def test_a_property_beside_structures(tmp_path: Path, layout: str) -> None:
    """Records of pandas or of a database, lists by key, columns of pandas, and MEGNet's, with CIFs as text."""
    crystals = [bulk("Si"), bulk("NaCl", "rocksalt", 5.64), bulk("Mo", cubic=True)]
    structures: list[Any] = [pymatgen(atoms) for atoms in crystals]
    if layout == "cifs":
        structures = [as_cif(atoms, tmp_path / "x.cif") for atoms in crystals]
    gaps = [1.1, None, 0.0]
    content: Any = [{"structure": s, "gap": g, "id": "x"} for s, g in zip(structures, gaps, strict=True)]
    if layout == "lists":
        content = {"structures": structures, "gap": gaps}
    elif layout == "columns":
        content = {key: {str(n): row[key] for n, row in enumerate(content)} for key in ("gap", "structure")}
    path = put(tmp_path / "gaps.json.gz", content)
    found = read_file(path, Asked(property_key="gap"), {"gap"})
    assert [(str(Atoms(frame.numbers).symbols), frame.properties["gap"]) for frame in found.frames] == [
        ("Si2", 1.1),
        ("Mo2", 0.0),
    ]
    assert inspect_file(path, Asked())["numbers"] == {"gap": [0.0, 1.1]}
