"""Pretrained against scratch: the same seeds, the same finetuning, the difference with its standard error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from mdpot.errors import MdpotError
from mdpot.files import write_text
from mdpot.training import folder as files
from mdpot.training.data.frames import Dataset
from mdpot.training.listener import SILENT, Listener
from mdpot.training.metrics import CURVES, METRICS
from mdpot.training.report import REPORT, label_validation, new_figure, read_log, save
from mdpot.training.run import run_train
from mdpot.training.schema import Recipe
from mdpot.training.together import SOLO, Team

ARMS = ("pretrained", "scratch")
COMPARISON, PICTURE = "comparison.json", "comparison.png"
QUANTITIES = ("force_rmse", "force_mae", "energy_rmse", "energy_mae", "property_rmse", "property_mae")


def run_compare(
    recipe: Recipe,
    *,
    data: Path | str | Dataset | None,
    out: Path | str,
    seed: int = 0,
    seeds: int = 1,
    device: str | None = None,
    resume: bool = False,
    listener: Listener = SILENT,
    team: Team = SOLO,
) -> dict[str, Any]:
    """Runs a recipe with and without its pretraining, for several seeds, and compares the test errors.

    Both arms of a seed have the same split, the same fresh weights and the same finetuning; the scratch arm only
    leaves the pretraining out. Runs that are finished are not run again on resuming.

    Args:
        recipe: with a pretraining stage.
        data: file or folder with the frames, or the frames themselves; None searches.
        out: folder; receives seedN/pretrained and seedN/scratch, comparison.json, comparison.png and report.md.
        seed: the first seed.
        seeds: how many; a standard error needs two.
        device: torch device.
        resume: go on with what is in `out`.
        listener: hears of the progress.
        team: the processes that train.

    Returns:
        The content of comparison.json: for each quantity of the test split the values of both arms by seed, their
        means and standard errors, and the mean difference pretrained - scratch with its standard error.

    Raises:
        MdpotError: as `run_train`, or a recipe without pretraining.
    """
    if recipe.pretrain.objective == "none":
        raise MdpotError(f"--compare-scratch needs pretraining, and recipe {recipe.name!r} has none.")
    out = Path(out)
    nothing = recipe.pretrain.model_copy(update={"objective": "none"})
    arms = {"pretrained": recipe, "scratch": recipe.model_copy(update={"pretrain": nothing})}
    chosen = list(range(seed, seed + seeds))
    with files.claimed(out, resume):
        files.open_folder(out, recipe, seed, "compare", resume)
        tables: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
        labels = ""
        for number, arm in product(chosen, ARMS):
            listener.note(f"seed {number}, {arm}")
            where: dict[str, Any] = {"out": out / f"seed{number}" / arm, "seed": number, "device": device}
            metrics = run_train(arms[arm], data=data, resume=True, listener=listener, team=team, **where)
            tables[arm].append(metrics["errors"].get("test", metrics["errors"]["validation"]))
            labels = metrics["labels"]
        # A label that frames do not have is not scored.
        scored = [key for key in QUANTITIES if all(key in table for some in tables.values() for table in some)]
        result = {
            "recipe": recipe.name,
            "preset": recipe.preset,
            "model": recipe.model.name,
            "labels": labels,
            "seeds": chosen,
            "test": {key: compare(*([t[key] for t in tables[arm]] for arm in ARMS)) for key in scored},
        }
        files.write_json(out / COMPARISON, result)
        draw(out / PICTURE, out, chosen)
        write_text(out / REPORT, _report(result))
        return result


def compare(pretrained: Sequence[float], scratch: Sequence[float]) -> dict[str, Any]:
    """Means, standard errors and the paired difference of two arms that ran with the same seeds.

    The standard error is the sample standard deviation over the square root of the number of seeds; None for one seed.
    """
    a, b = np.asarray(pretrained, dtype=float), np.asarray(scratch, dtype=float)
    parts = {"pretrained": a, "scratch": b, "difference": a - b}
    return {
        name: {"values": x.tolist(), "mean": float(x.mean()), "standard_error": standard_error(x)}
        for name, x in parts.items()
    }


def standard_error(values: np.ndarray) -> float | None:
    """Sample standard deviation over the square root of the number of values; None for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def draw(path: Path, out: Path, seeds: Sequence[int]) -> None:
    """The validation curves of both arms, a thin line a seed and a thick one for their mean."""
    every = {arm: [read_log(out / f"seed{number}" / arm / "finetune") for number in seeds] for arm in ARMS}
    shown = [key for key in CURVES if all(f"val/{key}" in x for logs in every.values() for x in logs)]
    figure, axes = new_figure(len(shown))
    for axis, key in zip(axes, shown, strict=True):
        for (arm, logs), color in zip(every.items(), ("C0", "C1"), strict=True):
            length = min(len(log["step"]) for log in logs)
            curves = np.array([log[f"val/{key}"][:length] for log in logs])
            steps = logs[0]["step"][:length]
            if len(seeds) > 1:
                axis.plot(steps, curves.T, color=color, linewidth=0.6, alpha=0.5)
            axis.plot(steps, curves.mean(0), color=color, linewidth=2, label=arm)
        label_validation(axis, key)
    save(figure, path)


def _report(result: Mapping[str, Any]) -> str:
    rows = [
        f"| {METRICS[key].heading} | "
        + " | ".join(_value(key, result["test"][key][part]) for part in (*ARMS, "difference"))
        + " |"
        for key in QUANTITIES
        if key in result["test"]
    ]
    n = len(result["seeds"])
    spread = "mean ± standard error" if n > 1 else "one seed, hence no standard error"
    return f"""# {result["recipe"]}, preset {result["preset"]}: pretrained against scratch

Network `{result["model"]}`, seeds {", ".join(map(str, result["seeds"]))}; test split, {spread}.
Labels: {result["labels"]}.
A negative difference means that pretraining helped.

| | pretrained | scratch | difference (paired by seed) |
|---|---:|---:|---:|
{chr(10).join(rows)}

![learning curves]({PICTURE})
"""


def _value(key: str, part: Mapping[str, Any]) -> str:
    return METRICS[key].text(part["mean"], part["standard_error"])
