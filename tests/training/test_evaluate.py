"""Errors of what labels there are, beside those of predicting nothing; tables, report and pictures cope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mdpot.cli.tables import print_errors
from mdpot.training.evaluation import Evaluation, PropertyEvaluation
from mdpot.training.metrics import METRICS, about_offset, worse_than_nothing
from mdpot.training.report import draw_curves, draw_parity, error_table

SIZES = np.array([2, 3])


def _evaluation(energy: bool = True, forces: bool = True, stress: bool = True) -> Evaluation:
    rng = np.random.default_rng(0)
    energies, pulls = rng.normal(size=(2, 2)), rng.normal(size=(2, 5, 3))
    if not energy:
        energies[0] = np.nan
    if not forces:
        pulls[0] = np.nan
    stresses = rng.normal(size=(2, 2 if stress else 0, 3, 3))
    return Evaluation(SIZES, energies, pulls, stresses, energies[0] - 0.5)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0170, "0.0170"), (33.21, "33.2"), (1234.5, "1,234"), (0.0, "0"), (2.5e-31, "2.50e-31"), (8.4e19, "8.40e+19")],
)
def test_errors_of_properties_of_any_size_have_three_digits(value: float, text: str) -> None:
    assert METRICS["property_mae"].text(value) == text
    assert METRICS["baseline_property_rmse"].text(value) == text


def test_the_baseline_is_no_force_and_the_mean_energy() -> None:
    result = _evaluation()
    metrics = result.metrics()
    assert set(metrics) == {key for key in METRICS if "property" not in key}
    off = (result.energy[0] - 0.5) / SIZES
    assert metrics["baseline_energy_rmse"] == pytest.approx(1e3 * np.sqrt(np.mean(off**2)))
    assert metrics["baseline_energy_mae"] == pytest.approx(1e3 * np.mean(np.abs(off)))
    assert metrics["baseline_force_rmse"] == metrics["force_rms"]
    assert metrics["baseline_force_mae"] == pytest.approx(1e3 * np.abs(result.forces[0]).mean())
    assert metrics["baseline_stress_mae"] == pytest.approx(1e3 * np.abs(result.stress[0]).mean())


@pytest.mark.parametrize("absent", ["energy", "forces", "stress"])
def test_labels_that_are_absent_have_no_errors(absent: str, tmp_path: Path, capsys) -> None:
    result = _evaluation(**{absent: False})
    metrics = result.metrics()
    word = absent.removesuffix("s") if absent == "forces" else absent
    assert set(metrics) == {key for key in METRICS if word not in key and "property" not in key}
    assert all(np.isfinite(value) for value in metrics.values())
    assert word not in error_table({"test": metrics}).replace("no force, mean energy", "")
    print_errors({"test": metrics})
    assert f"{word} RMSE" not in capsys.readouterr().out
    draw_parity(tmp_path / "parity.png", {"test": result}, "of a test")
    assert (tmp_path / "parity.png").stat().st_size > 0


@pytest.fixture
def panels(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The panels of the pictures that are drawn, in place of files."""
    drawn: list[Any] = []
    monkeypatch.setattr("mdpot.training.report.save", lambda figure, path: drawn.extend(figure.axes))
    return drawn


def test_the_panels_of_a_parity_plot(panels: list[Any]) -> None:
    result = _evaluation()
    draw_parity(Path("x.png"), {"test": result, "bare": _evaluation(stress=False)}, "of a test")
    names = ["energy − reference (meV/atom)", "force component (eV/Å)", "stress component (eV/Å³)"]
    assert [axis.get_xlabel() for axis in panels] == [f"label: {name}" for name in names]
    points = panels[2].lines[0]
    np.testing.assert_array_equal(points.get_xdata(), result.stress[0].ravel())
    np.testing.assert_array_equal(points.get_ydata(), result.stress[1].ravel())
    assert len(panels[2].lines) == 2  # of the one that has it, and the diagonal


def test_the_parity_plot_of_a_property_names_it(panels: list[Any]) -> None:
    result = PropertyEvaluation(np.array([1, 2]), np.array([[1.0, 2.0], [1.5, 2.5]]), 1.5)
    for unit, shown in (("eV", "gap (eV)"), ("", "gap")):
        panels.clear()
        draw_parity(Path("x.png"), {"test": result}, "of a test", prop={"name": "gap", "unit": unit})
        assert panels[0].get_xlabel() == f"label: {shown}"


@pytest.mark.parametrize("values", [[75.0, 110.0, 120.0], [33.0, 60.0, 140.0], [4.0, 40.0, 400.0]])
def test_a_learning_curve_has_numbers_on_its_axis(panels: list[Any], values: list[float]) -> None:
    draw_curves(Path("x.png"), {"finetune": {"step": [10.0, 20.0, 30.0], "val/property_mae": values}})
    low, high = panels[0].get_ylim()
    assert sum(low <= tick <= high for tick in panels[0].get_yticks()) >= 3
    assert panels[0].get_yscale() == "log"


def test_frames_without_a_label_do_not_touch_those_with_one() -> None:
    whole = _evaluation()
    energy, forces = whole.energy.copy(), whole.forces.copy()
    energy[0, 1], forces[0, 2:] = np.nan, np.nan
    metrics = Evaluation(SIZES, energy, forces, whole.stress, energy[0] - 0.5).metrics()
    alone = Evaluation(SIZES[:1], energy[:, :1], forces[:, :2], whole.stress, energy[0, :1] - 0.5).metrics()
    assert {k: v for k, v in metrics.items() if not k.startswith("n_")} == pytest.approx(
        {k: v for k, v in alone.items() if not k.startswith("n_")}
    )


def test_the_line_is_in_the_tables(capsys) -> None:
    tables = {"test": _evaluation().metrics()}
    assert "| test: no force, mean energy |" in error_table(tables)
    print_errors(tables)
    assert "no force, mean energy:" in capsys.readouterr().out


def test_what_is_worse_than_nothing_is_said() -> None:
    good = {"energy_rmse": 1.0, "baseline_energy_rmse": 2.0, "force_mae": 3.0, "baseline_force_mae": 4.0}
    assert worse_than_nothing({"train": good, "test": {"n_frames": 3.0}}) == ""
    said = worse_than_nothing({"train": good, "test": {**good, "force_mae": 5.0}})
    assert "force MAE of test: 5 against 4 meV/Å" in said
    assert "energy" not in said.split(":", 1)[1]
    assert "train" not in said.split(":", 1)[1].split("Do not")[0]


@pytest.mark.parametrize(("offset", "said"), [(-10943.42, "-10,943.4 meV/atom"), (0.26, "0.26 meV/atom"), (-1e-9, "")])
def test_what_is_taken_off_the_energies_is_said(offset: float, said: str) -> None:
    assert said in about_offset(offset)
    assert bool(said) == bool(about_offset(offset))
