"""A potential file that was changed since it was written is refused, and so is a network that rounds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule
from safetensors import safe_open
from safetensors.torch import save_file

from mdpot import MaskedGNNCalculator
from mdpot.errors import MdpotError
from mdpot.export import export_torchscript, load_exported
from mdpot.files import sealed, sealed_content
from mdpot.modelfile import load_potential, read_metadata, save_potential

from .test_modelfile import both_refuse, make


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_potential(tmp_path / "potential.safetensors", make(width=8, layers=1), {"provenance": {"seed": 3}})
    return tmp_path / "potential.safetensors"


def content_of(path: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    with safe_open(str(path), framework="pt") as file:
        return json.loads(file.metadata()["mdpot"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def put(path: Path, header: dict, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, str(path), metadata={"mdpot": json.dumps(header)})


def test_one_flipped_bit_anywhere(path: Path) -> None:
    """Refused, or, in the padding of a header, without any effect."""
    before = path.read_bytes()
    header, weights = read_metadata(path), load_potential(path)[0].state_dict()
    rng = np.random.default_rng(0)
    said = []
    for place in rng.integers(0, len(before), 400):
        changed = bytearray(before)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            loaded, found = load_potential(path)
        except MdpotError as error:
            said.append(str(error))
        else:
            assert found == header
            assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    assert len(said) > 395
    assert all(path.name in line and "\n" not in line for line in said)


def test_swapped_tensors(path: Path) -> None:
    header, tensors = content_of(path)
    first, second = "backbone.layers.0.center.weight", "backbone.layers.0.neighbor.weight"
    put(path, header, {**tensors, first: tensors[second], second: tensors[first]})
    both_refuse(path, "changed since it was written.*checksum")


@pytest.mark.parametrize("change", [{"scale": 0.5}, {"elements": [1, 6, 9]}, {"provenance": {}}, {"more": 1}])
def test_a_changed_header(path: Path, change: dict) -> None:
    header, tensors = content_of(path)
    put(path, {**header, **change}, tensors)
    both_refuse(path, "changed since it was written.*checksum")


def test_a_header_without_its_checksum(path: Path) -> None:
    header, tensors = content_of(path)
    del header["checksum"]
    put(path, header, tensors)
    both_refuse(path, "changed since it was written.*checksum")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_refused(path: Path, tmp_path: Path, dtype: str) -> None:
    half = getattr(torch, dtype)
    with pytest.raises(MdpotError, match=f"unknown dtype '{dtype}'"):
        save_potential(tmp_path / "half.safetensors", make().to(half))
    for attempt in (
        lambda: load_potential(path, dtype=half),
        lambda: MaskedGNNCalculator(path, dtype=half),
        lambda: MaskedGNNCalculator(path, dtype=dtype),
        lambda: export_torchscript(path, tmp_path / "out.pt", dtype=dtype),
        lambda: export_torchscript(make().to(half), tmp_path / "out.pt"),
    ):
        with pytest.raises(MdpotError, match=f"unknown dtype '{dtype}'"):
            attempt()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_weights_that_are_no_numbers_are_not_saved(tmp_path: Path) -> None:
    potential = make()
    with torch.no_grad():
        potential.readout[0].weight[0, 0] = torch.nan  # type: ignore[index]
    with pytest.raises(MdpotError, match=r"readout\.0\.weight are not finite"):
        save_potential(tmp_path / "nan.safetensors", potential)
    assert not list(tmp_path.iterdir())


def test_an_exported_file_that_was_changed(path: Path, tmp_path: Path) -> None:
    exported = tmp_path / "model.pt"
    export_torchscript(path, exported, units="ase")
    before = exported.read_bytes()
    rng = np.random.default_rng(1)
    for place in rng.integers(0, len(before), 60):
        changed = bytearray(before)
        changed[place] ^= 1 << int(rng.integers(8))
        exported.write_bytes(changed)
        with pytest.raises(MdpotError, match=r"model\.pt") as error:
            MaskedGNNCalculator(exported)
        assert "\n" not in str(error.value)
    exported.write_bytes(before)
    # What torch saves anew has no checksum and is taken.
    module, _ = load_exported(exported)
    torch.jit.save(module, str(exported), _extra_files={"mdpot.json": json.dumps(read_metadata_of(exported))})
    assert MaskedGNNCalculator(exported).metadata["elements"] == [1, 6, 8]


def read_metadata_of(exported: Path) -> dict:
    return load_exported(exported)[1]


def test_a_seal_holds(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content in (b"", b"x", b"some content\n" * 99):
        path.write_bytes(sealed(content))
        assert sealed_content(path) == content
        for wrong in (content, sealed(content)[:-1], sealed(content) + b"\n", b"y" + sealed(content)):
            path.write_bytes(wrong)
            with pytest.raises(MdpotError, match="changed since it was written"):
                sealed_content(path)


# ---- the caller's modes of torch -------------------------------------------------------


@pytest.fixture
def modes():
    return [
        lambda: torch.inference_mode(),
        lambda: torch.no_grad(),
        lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    ]


@pytest.mark.parametrize("kind", ["potential", "exported"])
def test_no_mode_of_torch_touches_a_force(path: Path, tmp_path: Path, modes, kind: str) -> None:
    file = path
    if kind == "exported":
        file = tmp_path / "model.pt"
        export_torchscript(path, file, units="ase")
    atoms = molecule("CH3CH2OH")
    expected = atoms.copy()
    expected.calc = MaskedGNNCalculator(file)
    forces, energy = expected.get_forces(), expected.get_potential_energy()
    for mode in modes:
        inside = atoms.copy()
        with mode():
            inside.calc = MaskedGNNCalculator(file)
            assert np.array_equal(inside.get_forces(), forces)
            assert inside.get_potential_energy() == energy
        # What was loaded inside works outside, too, and goes on after a step.
        inside.rattle(0.01)
        assert np.isfinite(inside.get_forces()).all()
        expected.positions = inside.positions
        assert np.array_equal(inside.get_forces(), expected.get_forces())
        expected.positions = atoms.positions
