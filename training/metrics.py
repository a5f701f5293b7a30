"""Every number by which a network is judged: its name, its unit, how it is written, and what it means.

Tables, reports, progress, comparisons and figures take them from here. A key is the same in metrics.json, in
metrics.jsonl and in the results of experiments.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Metric:
    """A number by which a network is judged.

    Attributes:
        label: of what: energy, force, stress; "" for what is no error of a label.
        title: what tables and axes call it.
        meaning: in a few words.
        unit: "" for a pure number, or where the unit is that of the property.
        decimals: as it is written; None for two below ten and one above.
        digits: in place of decimals, for numbers of any size: how many count.
        root: whether it is the square root of a mean of squares.
    """

    title: str
    meaning: str
    label: str = ""
    unit: str = ""
    decimals: int | None = None
    digits: int | None = None
    root: bool = False

    @property
    def heading(self) -> str:
        """Title and unit, for the head of a column or an axis."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def text(self, value: float, error: float | None = None) -> str:
        """A value, and its standard error where there is one, to the same decimals."""
        form = self._form(value)
        return f"{value:{form}}" + ("" if error is None else f" ± {error:{form}}")

    def _form(self, value: float) -> str:
        """The format of a value, and of its error."""
        if self.digits is None:
            decimals = (2 if abs(value) < 10 else 1) if self.decimals is None else self.decimals
            return f",.{decimals}f"
        if not 1e-4 <= abs(value) < 1e6:
            return f".{self.digits - 1}e" if value and math.isfinite(value) else ".0f"
        return f",.{max(0, self.digits - 1 - math.floor(math.log10(abs(value))))}f"

    def sentence(self, value: float) -> str:
        """Title, value and unit in a row."""
        return f"{self.title} {self.text(value)} {self.unit}".rstrip()

    def of_mean(self, mean: float) -> float:
        """The number, of the mean that was taken over atoms or frames."""
        return math.sqrt(mean) if self.root else mean


def _errors(label: str, what: str, unit: str, suffix: str = "") -> dict[str, Metric]:
    """The two errors of a label."""
    return {
        f"{label}_rmse{suffix}": Metric(f"{label} RMSE", f"root mean square error of {what}", label, unit, root=True),
        f"{label}_mae{suffix}": Metric(f"{label} MAE", f"mean absolute error of {what}", label, unit),
    }


COUNTS = {
    "n_frames": Metric("frames", "number of structures", decimals=0),
    "n_atoms": Metric("atoms", "number of atoms", decimals=0),
}
_ENERGY = _errors("energy", "the energy per atom", "meV/atom")
_DERIVATIVES = {
    **_errors("force", "the force components", "meV/Å"),
    **_errors("stress", "the stress components", "meV/Å³"),
}
_PROPERTY = {
    key: replace(metric, digits=3) for key, metric in _errors("property", "the property, in its own unit", "").items()
}
ERRORS = {
    **_ENERGY,
    **_errors("energy", "the energy of a structure", "meV/structure", "_structure"),
    **_DERIVATIVES,
    **_PROPERTY,
}
"""The errors that tables show, of the labels that frames have."""

BASELINE = "no force, mean energy"
"""What a network must beat: no force, no stress, and the mean energy of the elements in the training frames."""

BASELINE_OF_PROPERTY = "the mean of the training targets"
"""What a model of a property must beat."""

BASELINES = {key: f"baseline_{key}" for key in (*_ENERGY, *_DERIVATIVES, *_PROPERTY)}
"""The key of the same error of the baseline."""

METRICS = {
    **COUNTS,
    **ERRORS,
    "energy_rmse_shifted": Metric("energy RMSE, shifted", "energy_rmse less the mean error", unit="meV/atom"),
    "force_rms": Metric("force RMS", "root mean square of the labels' force components", unit="meV/Å"),
    **{key: replace(ERRORS[of], meaning=f"{of} of the baseline") for of, key in BASELINES.items()},
}
"""What the table of errors of a set of frames holds. The errors of a label that no frame has are not in it."""

LOGGED = {
    "loss": Metric("loss", "what is minimized", decimals=4),
    "cosine": Metric("cosine", "mean cosine between the vectors predicted and those to be predicted", decimals=3),
    "share_masked": Metric("share masked", "share of the molecules, or of the atoms, that are masked", decimals=3),
    **ERRORS,
}
"""What a line of metrics.jsonl holds of the training and of the validation frames, whichever the stage has."""

SHOWN = ("cosine", "force_rmse", "force_mae", "energy_mae", "stress_mae", "property_mae")
"""Those of a log that are worth a look while a stage runs."""

CURVES = ("cosine", "force_rmse", "energy_mae", "property_mae")
"""Those of a log that are drawn over its steps."""


def baseline_of(tables: Mapping[str, Mapping[str, float]], forcefield: str | None = None) -> str:
    """What the baseline of these tables of errors is, in words.

    Args:
        tables: of errors, by name of the set of frames.
        forcefield: that the potential corrects: alone, with the mean energy, it is what has to be beaten.
    """
    about_property = any(METRICS[key].label == "property" for table in tables.values() for key in table)
    if about_property:
        return BASELINE_OF_PROPERTY
    return BASELINE if forcefield is None else f"{forcefield} alone, mean energy"


def about_offset(offset: float) -> str:
    """That a constant was taken off the energies after training, meV/atom, as a sentence; empty where it is nothing."""
    text = ERRORS["energy_mae"].text(offset)
    if not text.strip("-0."):
        return ""
    return (
        f"The median energy error of the training frames, {text} meV/atom, is taken off the finished potential; what "
        "was shown during training, and the learning curves, are from before that."
    )


def worse_than_nothing(tables: Mapping[str, Mapping[str, float]], forcefield: str | None = None) -> str:
    """What a network does worse than its baseline, as a sentence; empty where there is nothing. Arguments as above."""
    found = []
    for name, table in tables.items():
        said = {"stress"}  # many are trained without it; and of the two errors of a label one is enough
        for key, nothing in BASELINES.items():
            metric = METRICS[key]
            if key == "property_rmse":
                continue  # a few outliers decide it, which the absolute error, that is trained on, does not follow
            if metric.label not in said and table.get(key, 0.0) > table.get(nothing, math.inf):
                said.add(metric.label)
                numbers = f"{table[key]:.4g} against {table[nothing]:.4g} {metric.unit}".rstrip()
                found.append(f"{metric.title} of {name}: {numbers}")
    if not found:
        return ""
    nothing = baseline_of(tables, forcefield)
    model = "model" if nothing == BASELINE_OF_PROPERTY else "potential"
    return f"this {model} is worse than {nothing}: {'; '.join(found)}. Do not use it; train longer, or on more frames."
