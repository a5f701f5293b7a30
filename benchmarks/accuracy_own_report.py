"""What `accuracy.py --data` says of its results: a table for each set of test frames, and a picture."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

from accuracy_report import COLORS, WIDTH
from trainers import OWN_TRAINERS

COLUMNS = {
    "force_rmse": "force RMSE (meV/Å)",
    "force_mae": "force MAE",
    "energy_rmse": "energy RMSE (meV/atom)",
    "energy_mae": "energy MAE",
    "energy_rmse_shifted": "energy RMSE, shifted",
    "stress_rmse": "stress RMSE (meV/Å³)",
    "stress_mae": "stress MAE",
}
HATCHES = ("", "//", "..", "xx")


def to_markdown(result: dict[str, Any], picture: str) -> str:
    """The page.

    Args:
        result: of `accuracy.py --data`, as in its JSON file.
        picture: name of the picture beside the page.
    """
    machine = result["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in machine["versions"].items() if v)
    clock = "of processor time (the machine was shared)" if result["clock"] == "cpu" else "by the clock"
    about = (
        "Frames of a file, split as `mdpot train custom` splits them. Each contender is trained by its own trainer on "
        f"the same frames for about {result['minutes']:g} minutes {clock} on {machine['threads']} thread(s) of "
        f"{machine['cpu']}, with a schedule that ends then. One seed ({result['seed']}), no GPU."
    )
    priority = ", at real-time priority" if machine["real_time"] else ""
    notes = (
        "Errors are over all components. *Shifted*: after the mean energy error per atom is taken off. *Step*: energy "
        "and forces by the contender's own ASE calculator, at 0.5 fs a step, neighbor list included, float32, median "
        f"and quartiles{priority}. *Training*: processor time and time by the "
        "clock. *Epochs*: passes over the training frames, in mdpot those of pretraining and finetuning together. "
        "*Load*: average over the last 15 minutes of the training, of all programs on the machine's "
        f"{machine['cores']} cores."
    )
    lines = ["# Accuracy on frames of one's own, at equal training time", "", fill(about, WIDTH), ""]
    lines += [f"![errors by contender]({picture})", ""]
    for data in result["data"]:
        lines += [*_section(data), ""]
    lines += [
        fill(notes, WIDTH),
        "",
        f"Versions: {versions}, Python {machine['python']}; commit {machine['commit']}.",
        "",
    ]
    lines += ["`python benchmarks/accuracy.py --data` writes this page; how it is done, and what is not fair about it:"]
    return "\n".join([*lines, "`benchmarks/README.md`.", ""])


def tables_of(data: dict[str, Any]) -> dict[str, str]:
    """The sets of test frames of a data set: what they are called, and their key in the result of a contender."""
    return {f"{data['name']}, test split": "errors"} | ({data["more"]: "more"} if data["more"] else {})


def _section(data: dict[str, Any]) -> list[str]:
    contenders = data["contenders"]
    frames, n_atoms = contenders[0]["frames"], contenders[0]["n_atoms"]
    lines = [f"## {data['name']}", ""]
    lines += [f"{frames['train']} frames train, {frames['validation']} validate, {frames['test']} test.", ""]
    for title, key in tables_of(data).items():
        lines += [*_errors(title, [c | {"errors": c[key]} for c in contenders]), ""]
    lines += [f"| | step, {n_atoms} atoms (ms) | training (s) | epochs | parameters | load |", "|---|" + "---:|" * 5]
    for c in contenders:
        low, high = c["quartiles_ms"]
        step = f"{_number(c['median_ms'])} ({_number(low)}–{_number(high)})"
        seconds = f"{c['cpu_seconds']:.0f}, {c['seconds']:.0f}"
        cells = [step, seconds, f"{c['passes']:.0f}", f"{c['parameters']:,}", f"{c['load_average'][2]:.1f}"]
        lines.append(f"| {c['label']} | " + " | ".join(cells) + " |")
    missing = [f"- Missing: {OWN_TRAINERS[name].label}: {reason}" for name, reason in data["missing"].items()]
    return [*lines, *([""] if missing else []), *missing]


def _errors(title: str, contenders: list[dict[str, Any]]) -> list[str]:
    known = {key: column for key, column in COLUMNS.items() if key in contenders[0]["errors"]}
    lines = [f"| {title} | " + " | ".join(known.values()) + " |", "|---|" + "---:|" * len(known)]
    best = {key: min(c["errors"][key] for c in contenders) for key in known}
    for c in contenders:
        errors = c["errors"]
        cells = [f"**{_number(errors[key])}**" if errors[key] == best[key] else _number(errors[key]) for key in known]
        lines.append(f"| {c['label']} | " + " | ".join(cells) + " |")
    nothing = [_number(contenders[0]["errors"][f"baseline_{k}"]) if _has_baseline(k) else "" for k in known]
    return [*lines, "| no force, no stress | " + " | ".join(nothing) + " |"]


def _has_baseline(key: str) -> bool:
    return not key.startswith("energy")


def _number(value: float) -> str:
    """Three digits, or all before the point."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def draw(path: Path, result: dict[str, Any]) -> None:
    """A panel for each error, with a group of bars for each set of test frames; lower is better."""
    from matplotlib.figure import Figure

    groups = {title: (data, key) for data in result["data"] for title, key in tables_of(data).items()}
    wanted = {
        "force_rmse": "force RMSE, meV/Å",
        "energy_rmse": "energy RMSE, meV/atom",
        "stress_rmse": "stress RMSE, meV/Å³",
    }
    names = list(dict.fromkeys(c["name"] for data in result["data"] for c in data["contenders"]))
    figure = Figure(figsize=(10.5, 4.2), layout="constrained")
    seen: dict[str, int] = {}
    style = {}
    for name in names:
        package = OWN_TRAINERS[name].package
        style[name] = {"color": COLORS[package], "hatch": HATCHES[seen.get(package, 0)], "edgecolor": "white"}
        seen[package] = seen.get(package, 0) + 1
    width = 0.8 / len(names)
    for axes, (error, title) in zip(figure.subplots(1, len(wanted)), wanted.items(), strict=True):
        for k, name in enumerate(names):
            for at, (data, key) in enumerate(groups.values()):
                found = [c[key].get(error) for c in data["contenders"] if c["name"] == name]
                if found and found[0] is not None:
                    x = at + (k - (len(names) - 1) / 2) * width
                    axes.bar(x, found[0], width, **style[name])
                    axes.annotate(_number(found[0]), (x, found[0]), ha="center", va="bottom", fontsize=8)
        names_of_sets = [name.replace(", ", "\n").replace("_", "_\n") for name in groups]
        axes.set(title=title, xticks=range(len(groups)), xticklabels=names_of_sets)
        axes.tick_params(axis="x", labelsize=8)
        axes.margins(y=0.12)
    bars = [figure.axes[0].bar(0, 0, **style[name], label=OWN_TRAINERS[name].label) for name in names]
    figure.legend(handles=bars, loc="outside lower center", ncols=len(names))
    kind = "processor time" if result["clock"] == "cpu" else "training"
    figure.suptitle(f"{result['minutes']:g} min of {kind} on {result['machine']['threads']} thread(s)")
    figure.savefig(path, dpi=150)
