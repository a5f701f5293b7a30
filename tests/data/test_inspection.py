"""`mdpot data inspect`: the files as people have them are understood right, or refused with the remedy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from click.testing import CliRunner

from mdpot.cli import main
from mdpot.errors import MdpotError
from mdpot.structures import read_structures
from mdpot.training.data.inspection import inspect_file
from mdpot.training.data.labels import Asked
from mdpot.training.data.readers import read_file
from mdpot.training.data.reading import ENERGY_AND_FORCES
from mdpot.training.data.sources import load_dataset

# Frames, labeled ones, keys of energy, forces and stress, isolated atoms; read off the files by eye.
OWN = {
    "LiFePO4-neb-band.xyz": (7, 5, "energy", "forces", "stress", []),
    "SiO_train.extxyz": (900, 900, "energy", "forces", None, []),
    "TiO2_water_input.data": (100, 100, "energy", "forces", None, []),
    "electrolyte_PF6_PBED3.xyz": (500, 500, "energy", "forces", "virial", []),
    "mace_tutorial_solvent_xtb_train_200.xyz": (203, 200, "energy_xtb", "forces_xtb", None, ["H", "C", "O"]),
    "metatrain_water_4fs.xyz": (40, 40, "energy", "forces", "stress", []),
    "mosi2n4_nep_train.xyz": (308, 308, "Energy", "force", "Virial", []),
    "spice_dipep_val.xyz": (55, 55, "energy", "force", None, []),
    "tiny_gap.train_set.xyz": (202, 200, "dft_energy", "dft_forces", None, ["H", "C"]),
    "wfl_EMT_atoms.xyz": (52, 51, "DFT_energy", "DFT_forces", "DFT_stress", ["Cu"]),
}
# What is refused, and with what words.
REFUSED = {
    "Cu2S_unlabelled_input.data": "zero in all frames, so taken as absent",
    "ML_AB": r"add up to 48 atoms, but it has 41 positions\. One of these would fit: Ba 1, Y 1, O 17",
}


@pytest.mark.parametrize("name", OWN)
def test_files_as_people_have_them(data_folder: Path, name: str) -> None:
    frames, labeled, energy, forces, stress, isolated = OWN[name]
    path = data_folder / "own-data" / name
    found = inspect_file(path, Asked())
    assert (found["frames"], found["labeled"]) == (frames, labeled)
    assert (found["energy_key"], found["forces_key"], found["stress_key"]) == (energy, forces, stress)
    assert sorted(found["isolated_atoms"]) == sorted(isolated)
    assert found["first"]["forces_rms"] > 0
    assert len(load_dataset("custom", path)) == labeled


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_are_refused(data_folder: Path, name: str) -> None:
    with pytest.raises(MdpotError, match=REFUSED[name]):
        load_dataset("custom", data_folder / "own-data" / name)


def test_lengths_are_doubted_where_there_are_no_labels_too(data_folder: Path) -> None:
    path = data_folder / "own-data" / "Cu2S_unlabelled_input.data"
    with pytest.raises(MdpotError, match=r"far too close.*S–Cu 1\.\d\d Å \(bohr was taken.*likely in Å: --units ase"):
        load_dataset("custom", path, need=())
    assert len(load_dataset("custom", path, need=(), labels=Asked(units="ase"))) == 26
    assert len(load_dataset("custom", path, need=(), labels=Asked(check=False))) == 26


@pytest.mark.slow
@pytest.mark.parametrize("folder", ["crystals", "crystals/alloys", "crystals/mattersim"])
def test_real_crystals_are_not_doubted(data_folder: Path, folder: str) -> None:
    for path in sorted((data_folder / folder).glob("*.gz")):
        if "pressure_2000x7" not in path.name:  # 14,000 frames, doubted by nothing either
            reading = read_file(path, need=ENERGY_AND_FORCES)
            assert len(reading.frames) > 200
            reading.check()


@pytest.fixture
def odd_file(tmp_path: Path) -> Path:
    """Water with an outlying energy, a bare frame and a decoy."""
    rng = np.random.default_rng(0)
    frames = []
    for n in range(30):
        atoms = Atoms("OH2", [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
        atoms.positions += rng.normal(scale=0.02, size=(3, 3))
        atoms.info = {"REF_energy": -470.0 + 0.1 * rng.normal() - (558.0 if n == 17 else 0.0), "energy": -14.0}
        atoms.arrays["REF_forces"] = rng.normal(size=(3, 3))
        frames.append(atoms)
    del frames[3].info["REF_energy"]
    write(tmp_path / "odd.extxyz", frames)
    return tmp_path / "odd.extxyz"


def test_json_and_text(odd_file: Path) -> None:
    result = CliRunner().invoke(main, ["data", "inspect", str(odd_file), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    wanted = "frames labeled elements energy_key forces_key stress_key units isolated_atoms first warnings"
    assert set(wanted.split()) <= found.keys()
    assert (found["frames"], found["labeled"], found["elements"]) == (30, 29, ["H", "O"])
    assert (found["energy_key"], found["stress_key"], found["other_keys"]) == ("REF_energy", None, ["energy"])
    assert found["units"]["source"] == "assumed"
    assert any("frame 17" in warning for warning in found["warnings"])
    assert any("1 of 30 frames are left out" in warning for warning in found["warnings"])
    shortest = min(atoms.get_distance(0, n) for atoms in read_structures(odd_file) for n in (1, 2))
    assert found["distances"]["H-O"] == pytest.approx(shortest, abs=1e-4)
    text = CliRunner().invoke(main, ["data", "inspect", str(odd_file)]).output
    assert "REF_energy" in text
    assert "also seen:   energy" in text


@pytest.mark.parametrize(
    ("energy", "rule"), [(np.inf, r"finite; got inf"), (1e300, r"less than 1e\+12 in size; got 1e\+300")]
)
def test_an_energy_that_is_none_is_named(odd_file: Path, energy: float, rule: str) -> None:
    frames = read_structures(odd_file)
    frames[5].info["REF_energy"] = energy
    write(odd_file, frames)
    with pytest.raises(MdpotError, match=f"frame 5: energy must be {rule}"):
        load_dataset("custom", odd_file)
    found = inspect_file(odd_file, Asked())
    assert any(re.search(f"frame 5: energy must be {rule}", warning) for warning in found["warnings"])
    assert any("frame 17" in warning for warning in found["warnings"])
    json.dumps(found, allow_nan=False)


def test_families_that_contradict_each_other_are_shown(odd_file: Path) -> None:
    frames = read_structures(odd_file)
    for atoms in frames:
        atoms.arrays["forces"] = atoms.arrays["REF_forces"]
    write(odd_file, frames)
    found = inspect_file(odd_file, Asked())
    assert (found["frames"], found["labeled"], found["energy_key"]) == (30, 0, None)
    assert "--energy-key" in found["warnings"][0]
    with pytest.raises(MdpotError, match="contradict each other"):
        load_dataset("custom", odd_file)
    assert inspect_file(odd_file, Asked(energy_key="REF_energy"))["labeled"] == 29
