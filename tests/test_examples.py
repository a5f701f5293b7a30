"""Every example runs, as a user would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parent.parent / "examples").glob("*.py"))


def test_there_are_examples() -> None:
    assert {e.stem for e in EXAMPLES} >= {
        "ase_dynamics",
        "openmm_nvt",
        "openmm_npt",
        "ml_mm",
        "own_data",
        "predict_property",
        "pyg_dataset",
    }


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
