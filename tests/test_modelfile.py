"""The potential file: what comes back, and what is refused."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase.build import molecule
from safetensors import safe_open
from safetensors.torch import save_file

from mdpot.errors import MdpotError
from mdpot.files import atomic, write_text
from mdpot.graph import Graph
from mdpot.heads import Potential, build_potential
from mdpot.modelfile import load_potential, read_metadata, save_potential
from mdpot.modelformat import FORMAT_VERSION, checksum
from mdpot.models import MODELS

ELEMENTS = [1, 6, 8]
# With all digits that float64 has.
WALL = [[1.5123, 0.9, 0.8], [0.9, 1.2, 1.1], [0.8, 1.1, 2.2]]
SHIFT = [-13.605693122994, -1030.123456789012345, -2043.987654321098765]
METADATA = {"provenance": {"seed": 3, "data": {"origin": "Å, ü"}}, "min_distances": {"H-O": 0.8}}


def make(model: str = "egnn", dtype: torch.dtype = torch.float32, **hyperparameters: Any) -> Potential:
    torch.manual_seed(0)
    sizes = {"width": 16, "layers": 2} if model != "tide" else {}
    chosen = {"cutoff": 3.3, **sizes, **hyperparameters}
    return build_potential(model, chosen, ELEMENTS, SHIFT, 1 / 3, WALL).to(dtype)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_potential(tmp_path / "potential.safetensors", make(), METADATA)
    return tmp_path / "potential.safetensors"


def outputs(potential: Potential, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    graph = Graph.from_atoms(molecule("CH3CH2OH"), 3.3, dtype)
    return potential.eval()(*graph.inputs(), outputs=["forces", "vector"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("model", "hyperparameters"), [*((name, {}) for name in MODELS), ("tide", {"sent_order": 2})], ids=str
)
def test_round_trip_is_exact(tmp_path: Path, model: str, hyperparameters: dict[str, int], dtype: torch.dtype) -> None:
    potential = make(model, dtype, **hyperparameters)
    save_potential(tmp_path / "a.safetensors", potential, METADATA)
    loaded, header = load_potential(tmp_path / "a.safetensors")
    for (name, weight), (same, other) in zip(potential.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == same
        assert weight.dtype == other.dtype
        assert torch.equal(weight, other)
    expected, found = outputs(potential, dtype), outputs(loaded, dtype)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert loaded.shift.tolist() == SHIFT
    assert loaded.scale == potential.scale
    assert loaded.has_wall == potential.has_wall
    assert (loaded.model, loaded.elements, loaded.cutoff) == (model, ELEMENTS, 3.3)
    assert loaded.hyperparameters == potential.hyperparameters
    assert not loaded.training
    assert not any(weight.requires_grad for weight in loaded.parameters())
    # The same potential gives the same file, but for the order in the header.
    save_potential(tmp_path / "b.safetensors", loaded, METADATA)
    assert read_metadata(tmp_path / "b.safetensors") == header


def test_the_header_says_what_the_file_is(path: Path) -> None:
    header = read_metadata(path)
    assert header["format_version"] == FORMAT_VERSION
    assert header["model"] == "egnn"
    assert header["hyperparameters"] == {"cutoff": 3.3, "width": 16, "layers": 2}
    assert header["elements"] == ELEMENTS
    assert header["cutoff"] == 3.3
    assert header["conservative"] is True
    assert header["scale"] == 1 / 3
    assert header["reference_energies"] == dict(zip(map(str, ELEMENTS), SHIFT, strict=True))
    assert header["dtype"] == "float32"
    assert header["units"] == {"energy": "eV", "length": "Å", "time": "fs"}
    assert {key: header[key] for key in METADATA} == METADATA
    # It is plain safetensors, for any tool to read.
    with safe_open(str(path), framework="np") as file:
        assert json.loads(file.metadata()["mdpot"]) == header
        assert "shift" in file.keys()  # noqa: SIM118


def test_metadata_may_have_numbers_for_keys(tmp_path: Path) -> None:
    save_potential(tmp_path / "a.safetensors", make(), {"charges": {10: 1, 2: 3}, "pair": (1, 2)})
    header = read_metadata(tmp_path / "a.safetensors")
    assert (header["charges"], header["pair"]) == ({"10": 1, "2": 3}, [1, 2])


def test_metadata_cannot_replace_what_the_file_needs(tmp_path: Path) -> None:
    save_potential(tmp_path / "a", make(), {"model": "other", "format_version": 99, "cutoff": 1.0})
    assert read_metadata(tmp_path / "a")["model"] == "egnn"
    assert load_potential(tmp_path / "a")[0].cutoff == 3.3


@pytest.mark.parametrize("saved", [torch.float32, torch.float64])
@pytest.mark.parametrize("wanted", [None, torch.float32, torch.float64])
def test_reference_energies_stay_in_float64(tmp_path: Path, saved, wanted) -> None:
    save_potential(tmp_path / "a.safetensors", make(dtype=saved))
    loaded, header = load_potential(tmp_path / "a.safetensors", dtype=wanted)
    assert header["dtype"] == str(saved).removeprefix("torch.")
    assert next(loaded.parameters()).dtype == (wanted or saved)
    for potential in (loaded, loaded.to(torch.float32), loaded.float(), loaded.double(), loaded.to("cpu")):
        assert potential.shift.dtype == torch.float64
        assert potential.shift.tolist() == SHIFT
    energies = outputs(loaded.double(), torch.float64)
    assert energies["energy"].dtype == torch.float64


def test_float32_weights_in_float64_are_the_same_numbers(path: Path) -> None:
    single, double = load_potential(path)[0], load_potential(path, dtype=torch.float64)[0]
    for a, b in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(a.double(), b)
    expected, found = outputs(single, torch.float64), outputs(double, torch.float64)
    np.testing.assert_allclose(found["forces"], expected["forces"], atol=1e-5)


# ---- refusals --------------------------------------------------------------------------


def both_refuse(path: Path, match: str) -> None:
    for read in (read_metadata, load_potential):
        with pytest.raises(MdpotError, match=match) as error:
            read(path)
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    both_refuse(tmp_path / "nowhere.safetensors", "is not there")


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    both_refuse(tmp_path / "run", r"holds no potential\.safetensors or property\.safetensors; is the run finished\?")
    (tmp_path / "run" / "pretrained.safetensors").touch()
    both_refuse(tmp_path / "run", r"its pretraining is .*pretrained\.safetensors'")
    save_potential(tmp_path / "run" / "potential.safetensors", make(), METADATA)
    assert load_potential(tmp_path / "run")[0].elements == ELEMENTS


@pytest.mark.parametrize("share", [0.0, 1e-4, 0.01, 0.1, 0.5, 0.9, 0.9999])
def test_a_truncated_file(path: Path, share: float) -> None:
    content = path.read_bytes()
    for length in {int(share * len(content)), int(share * len(content)) + 7}:
        path.write_bytes(content[: min(length, len(content) - 1)])
        with pytest.raises(MdpotError, match="damaged or of another format"):
            load_potential(path)


def test_one_byte_short_or_long(path: Path) -> None:
    content = path.read_bytes()
    for changed in (content[:-1], content + b"\0"):
        path.write_bytes(changed)
        both_refuse(path, "damaged or of another format")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a torch file", b"begin\nlattice 1 0 0\n" * 50, b"\xff" * 4096])
def test_a_file_of_another_format(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    both_refuse(tmp_path / "a.pt", "damaged or of another format")


def test_a_torch_file(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "a.pt")
    both_refuse(tmp_path / "a.pt", "damaged or of another format")


@pytest.mark.parametrize("metadata", [None, {}, {"format": "pt"}])
def test_a_safetensors_file_of_others(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"weight": torch.zeros(3)}, str(tmp_path / "a.safetensors"), metadata=metadata)
    both_refuse(tmp_path / "a.safetensors", "not one that mdpot wrote")


def rewrite(path: Path, tensors: dict[str, Any] | None = None, raw: str | None = None, **header: Any) -> None:
    """Changes a potential file as mdpot could have written it: tensors set or, with None, left out; keys of the header
    likewise; and the checksum that goes with them."""
    with safe_open(str(path), framework="pt") as file:
        old = json.loads(file.metadata()["mdpot"])
        all_tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    new = {k: v for k, v in {**old, **header}.items() if v is not None}
    kept = {k: v for k, v in {**all_tensors, **(tensors or {})}.items() if v is not None}
    new["checksum"] = checksum(new, kept)
    save_file(kept, str(path), metadata={"mdpot": json.dumps(new) if raw is None else raw})


def test_a_newer_file(path: Path) -> None:
    rewrite(path, format_version=FORMAT_VERSION + 1)
    both_refuse(path, rf"format version {FORMAT_VERSION + 1}; this mdpot reads up to {FORMAT_VERSION}.*[Uu]pgrade")


@pytest.mark.parametrize("raw", ["", "{", "[]", "null", '"egnn"', "not json"])
def test_a_header_that_is_none(path: Path, raw: str) -> None:
    rewrite(path, raw=raw)
    both_refuse(path, "damaged")


@pytest.mark.parametrize("version", [-1, 0, "1", 1.5, None])
def test_a_version_that_is_none(path: Path, version: object) -> None:
    rewrite(path, format_version=version)
    both_refuse(path, "damaged|format version")


@pytest.mark.parametrize("key", ["model", "hyperparameters", "elements", "scale", "dtype"])
def test_a_header_that_lacks_a_key(path: Path, key: str) -> None:
    rewrite(path, **{key: None})
    with pytest.raises(MdpotError, match=rf"damaged: it lacks '{key}'"):
        load_potential(path)


@pytest.mark.parametrize(
    "change",
    [
        {"elements": [1, 8]},
        {"elements": [8, 6, 1]},
        {"elements": [1, 6, 6]},
        {"elements": [1, 6, 0]},
        {"elements": [1, 6, True]},
        {"elements": [1, 7, 8]},
        {"dtype": "float16"},
        {"dtype": "bfloat16"},
        {"scale": float("nan")},
        {"scale": True},
        {"cutoff": 4.0},
        {"conservative": False},
        {"units": {"energy": "kcal/mol", "length": "Å", "time": "fs"}},
        {"hyperparameters": {"cutoff": 3.3, "width": 0, "layers": 2}},
        {"hyperparameters": {"cutoff": 3.3, "width": 10**12, "layers": 2}},
        {"hyperparameters": {"cutoff": "3.3", "width": 16, "layers": 2}},
        {"tensors": {"readout.0.bias": torch.full([16], math.nan)}},
        {"tensors": {"embedding.mark": torch.full([16], math.inf)}},
        {"tensors": {"wall": torch.full([3, 3], math.inf)}},
        {"tensors": {"pair": torch.zeros(1, 2, 3)}},
        {"elements": ["H", "C", "O"]},
        {"dtype": "floaty"},
        {"dtype": "nn"},
        {"scale": "big"},
        {"hyperparameters": {"cutoff": 3.3, "width": 16, "layers": 2, "colour": 1}},
        {"hyperparameters": {"cutoff": 3.3, "width": 16, "layers": 3}},
        {"hyperparameters": {"cutoff": 3.3, "width": 32, "layers": 2}},
        {"hyperparameters": [1]},
        {"tensors": {"embedding.mark": torch.zeros(3)}},
        {"tensors": {"embedding.mark": None}},
        {"tensors": {"shift": None}},
        {"tensors": {"wall": None}},
        {"tensors": {"wall": torch.zeros(2, 2)}},
        {"tensors": {"shift": torch.zeros(2)}},
        {"tensors": {"more": torch.zeros(2)}},
    ],
    ids=str,
)
def test_contents_that_do_not_fit(path: Path, change: dict[str, Any]) -> None:
    rewrite(path, **change)
    with pytest.raises(MdpotError, match=r"potential\.safetensors.* is damaged|(shift|wall) must") as error:
        load_potential(path)
    assert "\n" not in str(error.value)


def test_a_model_of_another_time(path: Path) -> None:
    rewrite(path, model="egn")
    with pytest.raises(MdpotError, match=r"unknown model 'egn'.*Did you mean 'egnn'"):
        load_potential(path)


# ---- whole files or none ---------------------------------------------------------------


def test_a_failed_write_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def half_written(file: Path, content: bytes) -> int:
        with file.open("wb") as half:
            half.write(content[:99])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half_written)
    with pytest.raises(MdpotError, match=rf"{path.name}.*No space left on device.*What was there is as it was"):
        save_potential(path, make(), {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    with pytest.raises(MdpotError, match=r"new\.safetensors.*No space left on device\.$"):
        save_potential(path.with_name("new.safetensors"), make(), {})
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_metadata_that_is_not_json_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        save_potential(tmp_path / "a.safetensors", make(), {"when": object()})
    assert list(tmp_path.iterdir()) == []


def test_an_existing_file_is_replaced_in_one_go(path: Path) -> None:
    inode = path.stat().st_ino
    with path.open("rb") as reader:
        head = reader.read(8)
        save_potential(path, make(width=24), METADATA)
        assert path.stat().st_ino != inode
        reader.seek(0)
        assert reader.read(8) == head  # who was reading goes on with the old file
    assert load_potential(path)[0].hyperparameters["width"] == 24


def test_atomic_leaves_no_trace_of_what_failed(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "first, Å")

    def fail() -> None:
        with atomic(tmp_path / "a.txt") as temporary:
            temporary.write_text("second")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "first, Å"
    assert os.listdir(tmp_path) == ["a.txt"]
    with atomic(tmp_path / "b.tar.gz") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".gz"
        assert not (tmp_path / "b.tar.gz").exists()
        temporary.write_text("b")
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "b.tar.gz"]
