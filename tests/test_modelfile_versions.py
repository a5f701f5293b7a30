"""Files of every format version, and the upgraders between them."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from mdpot import modelformat
from mdpot.heads import build_ensemble
from mdpot.modelfile import load_potential, open_model, save_model, save_potential
from mdpot.modelformat import FORMAT_VERSION, member, unpack

from .test_modelfile import METADATA, make, rewrite

FILES = Path(__file__).parent / "files"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_potential(tmp_path / "potential.safetensors", make(), METADATA)
    return tmp_path / "potential.safetensors"


def test_older_versions_go_through_their_upgraders(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modelformat, "FORMAT_VERSION", FORMAT_VERSION + 2)
    steps: list[int] = []

    def upgrade(version: int):
        def step(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
            steps.append(version)
            return {**header, "scale": header["scale"] * 2}

        return step

    upgraders = {version: upgrade(version) for version in (FORMAT_VERSION, FORMAT_VERSION + 1)}
    monkeypatch.setattr(modelformat, "UPGRADERS", upgraders)
    assert load_potential(path)[0].scale == pytest.approx(4 / 3)
    assert steps == [FORMAT_VERSION, FORMAT_VERSION + 1]


def test_each_member_of_an_ensemble_is_upgraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_model(tmp_path / "e.safetensors", build_ensemble([make(), make(cutoff=3.0)]))
    monkeypatch.setattr(modelformat, "FORMAT_VERSION", FORMAT_VERSION + 1)

    def upgrade(header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        tensors["renamed"] = tensors.pop("readout.0.weight")
        return {**header, "scale": header["scale"] * header["cutoff"]}

    monkeypatch.setattr(modelformat, "UPGRADERS", {FORMAT_VERSION: upgrade})
    header, tensors = unpack((tmp_path / "e.safetensors").read_bytes(), "e")
    assert [part["scale"] for part in header["members"]] == pytest.approx([3.3 / 3, 3.0 / 3])
    for index in range(2):
        names = member(index, tensors)
        assert "renamed" in names
        assert "readout.0.weight" not in names


def test_a_file_of_version_1_has_no_pair_energy(path: Path) -> None:
    with safe_open(str(path), framework="pt") as file:
        element, mark = (file.get_tensor(f"embedding.{name}") for name in ("element.weight", "mark"))
    names = {"embedding.element.weight": None, "embedding.mark": None}  # in the backbone up to version 2
    before = {"backbone.embedding.weight": element, "backbone.mark": mark}
    rewrite(path, format_version=1, tensors={"pair": None, **names, **before})
    assert not load_potential(path)[0].has_pair


# What each file says of ethanol, as the mdpot that wrote it had it: energy (eV), sum of the absolute forces (eV/Å),
# property, and their spreads. From version 3 on tests/files/make.py printed them.
WRITTEN: dict[str, dict[str, float]] = {
    "version1": {"energy": -4185.914514236026, "forces": 0.5933680408452346},
    "version2": {"energy": -4185.852672161408, "forces": 0.6261371169348422},
    "version3-potential": {"energy": -4185.462139680855, "forces": 1.0165467582680776},
    "version3-property": {"property": 2.526163585484028},
    "version3-potentials": {
        "energy": -4186.137778492518,
        "forces": 1.1215945994757703,
        "forces_std": 0.46675260741983493,
    },
    "version3-properties": {"property": 2.618681687861681, "property_std": 0.09251810237765312},
    "version4-potential": {"energy": -4185.462139680855, "forces": 1.0165467582680776},
    "version4-property": {"property": 2.526163585484028},
    "version4-potentials": {
        "energy": -4186.137778492518,
        "forces": 1.1215945994757703,
        "forces_std": 0.46675260741983493,
    },
    "version4-properties": {"property": 2.618681687861681, "property_std": 0.09251810237765312},
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_file_that_an_older_mdpot_wrote(name: str) -> None:
    file = FILES / f"{name}.safetensors"
    with safe_open(str(file), framework="np") as raw:
        assert json.loads(raw.metadata()["mdpot"])["format_version"] == int(name[len("version")])
    found = runpy.run_path(str(FILES / "make.py"))["answers"](file)
    assert found == pytest.approx(WRITTEN[name], abs=1e-5)


def test_there_is_a_file_of_every_version_and_kind() -> None:
    """Who raises the version stores its files first."""
    headers = [open_model(file).header for file in FILES.glob("*.safetensors")]
    assert {header["kind"] for header in headers} == set(modelformat.KINDS)
    stored = {int(file.name[len("version")]) for file in FILES.glob("version*.safetensors")}
    assert stored == set(range(1, FORMAT_VERSION + 1))
    assert stored - {FORMAT_VERSION} == set(modelformat.UPGRADERS)
