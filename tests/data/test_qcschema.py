"""QCSchema, of which the water is that of Psi4's samples: HF/cc-pVDZ, OH bonds of 1 Å."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpot.errors import MdpotError
from mdpot.training.data.readers import read_file

Y, Z = 1.494187339479985, 1.0274465079245698
GRADIENT = [0.0, 0.0, -0.0595977410, 0.0, -0.0430397863, 0.0297988705, 0.0, 0.0430397863, 0.0297988705]
WATER: dict[str, Any] = {
    "schema_name": "qcschema_output",
    "schema_version": 1,
    "molecule": {
        "symbols": ["O", "H", "H"],
        "geometry": [0.0, 0.0, -0.1294769411935893, 0.0, -Y, Z, 0.0, Y, Z],
        "molecular_charge": 0.0,
        "molecular_multiplicity": 1,
    },
    "driver": "gradient",
    "model": {"method": "HF", "basis": "cc-pVDZ"},
    "properties": {"scf_total_energy": -76.02139738600329, "return_energy": -76.02139738600329},
    "return_result": GRADIENT,
    "success": True,
}
ENERGY = -2068.647602  # eV
FORCES = [[0.0, 0.0, 3.064639], [0.0, 2.213195, -1.532320], [0.0, -2.213195, -1.532320]]  # eV/Å


def changed(**fields: Any) -> dict[str, Any]:
    return copy.deepcopy(WATER) | fields


def moved(n: int) -> dict[str, Any]:
    """The same, with other positions."""
    result = changed()
    result["molecule"]["geometry"][0] = 0.01 * n
    return result


def as_version_2() -> dict[str, Any]:
    result = changed(schema_name="qcschema_atomic_result", schema_version=2)
    result["input_data"] = {"specification": {name: result.pop(name) for name in ("driver", "model")}}
    return result


def put(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "content",
    [
        WATER,
        [WATER],
        {"mine": {"water": WATER}},
        json.dumps(WATER),
        as_version_2(),
        changed(return_result=np.reshape(GRADIENT, (3, 3)).tolist()),
        changed(driver="energy", return_result=-76.02139738600329, properties={"return_gradient": GRADIENT}),
        changed(
            driver="hessian", return_result=[0.0] * 81, properties=WATER["properties"] | {"return_gradient": GRADIENT}
        ),
        {name: value for name, value in WATER.items() if not name.startswith("schema")},
    ],
)
def test_energies_and_gradients_are_in_atomic_units(tmp_path: Path, content: Any) -> None:
    (frame,) = read_file(put(tmp_path / "water.json", content)).frames
    assert frame.energy == pytest.approx(ENERGY, abs=1e-5)
    np.testing.assert_allclose(np.asarray(frame.forces), FORCES, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(frame.positions[1:] - frame.positions[0], axis=1), 1.0, atol=1e-3)
    assert (frame.electrons.charge, frame.electrons.unpaired) == (0, 0)
    assert not frame.pbc.any()


def test_a_gradient_without_an_energy_is_a_label_of_its_own(tmp_path: Path) -> None:
    (frame,) = read_file(put(tmp_path / "water.json", changed(properties={"scf_total_energy": -76.0}))).frames
    assert frame.energy is None
    np.testing.assert_allclose(np.asarray(frame.forces), FORCES, atol=1e-5)


def test_failures_are_counted_and_methods_named(tmp_path: Path) -> None:
    failed = {"success": False, "error": {"error_type": "x"}, "input_data": WATER}
    other = changed(model={"method": "MP2", "basis": "cc-pVDZ"})
    reading = read_file(put(tmp_path / "a.json", [moved(1), failed, other]))
    assert len(reading.frames) == 2
    assert any("not successful" in note and "1 of 3" in note for note in reading.notes)
    assert any("hf/cc-pvdz, mp2/cc-pvdz" in note for note in reading.notes)


def test_optimizations_are_trajectories(tmp_path: Path) -> None:
    several = [{"trajectory": [moved(4 * n + k) for k in range(4)], "success": True} for n in range(10)]
    frames = read_file(put(tmp_path / "a.json", several)).frames
    assert [frame.group for frame in frames] == [str(n) for n in range(10) for _ in range(4)]


def test_a_folder_has_a_file_for_each(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / str(n)).mkdir()
        put(tmp_path / str(n) / "output.json", moved(n))
    put(tmp_path / "2" / "output.json", moved(2) | {"model": {"method": "MP2", "basis": "cc-pVDZ"}})
    reading = read_file(tmp_path)
    assert [frame.energy for frame in reading.frames] == pytest.approx([ENERGY] * 3, abs=1e-5)
    assert any("method differs among the outputs" in note for note in reading.notes)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (changed(molecule=WATER["molecule"] | {"real": [True, True, False]}), "ghosts"),
        (changed(return_result=[1.0, 2.0]), "result 0: no molecule of QCSchema with its labels"),
        (changed(molecule=WATER["molecule"] | {"symbols": ["O", "H", "Q"]}), "'Q'"),
        (WATER["molecule"] | {"schema_name": "qcschema_molecule"}, "no successful result"),
        (changed(molecule="5f3a"), "no successful result"),
        (changed(success=False), "no successful result"),
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: Any, match: str) -> None:
    with pytest.raises(MdpotError, match=match):
        read_file(put(tmp_path / "a.json", content))
    (tmp_path / "a.json").write_text(json.dumps(content)[:-3], encoding="utf-8")
    with pytest.raises(MdpotError, match="truncated"):
        read_file(tmp_path / "a.json")
