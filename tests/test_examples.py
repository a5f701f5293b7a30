"""Every example runs, as a user would run it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert {e.stem for e in EXAMPLES} >= {
        "aspirin",
        "ase_dynamics",
        "bulk_modulus",
        "openmm_nvt",
        "openmm_npt",
        "ml_mm",
        "own_data",
        "predict_property",
        "pyg_dataset",
    }


@pytest.mark.slow
def test_a_potential_has_the_lattice_and_bulk_modulus_of_its_labels(tmp_path: Path) -> None:
    example = next(path for path in EXAMPLES if path.stem == "bulk_modulus")
    done = subprocess.run(
        [sys.executable, str(example), "--steps", "400"], cwd=tmp_path, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    (lattice, modulus), (true_lattice, true_modulus) = (
        [float(word) for word in re.findall(r"(\d+\.?\d*) (?:Å|GPa)", line)] for line in done.stdout.splitlines()[-2:]
    )
    assert lattice == pytest.approx(true_lattice, abs=0.02)
    assert modulus == pytest.approx(true_modulus, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(example: Path, tmp_path: Path) -> None:
    text = example.read_text(encoding="utf-8")
    for module in ("openmm", "openmmml", "torch_geometric"):
        if f"import {module}" in text or f"from {module}" in text:
            pytest.importorskip(module)
    done = subprocess.run(
        [sys.executable, str(example), "--steps", "40"], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
