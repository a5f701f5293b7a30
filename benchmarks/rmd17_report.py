"""The page of `rmd17.py`: its tables, its picture, and the errors it sets ours beside."""

from __future__ import annotations

from pathlib import Path
from textwrap import fill
from typing import Any

# Test MAE of the forces, meV/Å, after 950 training frames: MACE (Batatia et al., NeurIPS 2022, table 2).
MACE = {
    "aspirin": 6.6, "azobenzene": 3.0, "benzene": 0.3, "ethanol": 2.1, "malonaldehyde": 4.1, "naphthalene": 1.6,
    "paracetamol": 4.8, "salicylic": 3.1, "toluene": 1.5, "uracil": 2.1,
}  # fmt: skip
# The best published from random weights: of MACE, Allegro (Musaelian et al., Nat. Commun. 2023) and GotenNet (Aykent
# and Xia, ICLR 2025).
BEST = {
    "aspirin": 5.7, "azobenzene": 2.6, "benzene": 0.2, "ethanol": 2.1, "malonaldehyde": 3.6, "naphthalene": 0.9,
    "paracetamol": 4.8, "salicylic": 2.9, "toluene": 1.1, "uracil": 1.8,
}  # fmt: skip
ALL = 950
OUT_OF_REACH = 1e8
#: So many steps of a pretraining are a column of their own.
LONG = 10_000
STARTS = {
    "scratch": "alone",
    "xtb": "after xTB",
    "long": "after more xTB",
    "all": "all ten together",
    "after": "after all ten",
    "delta": "xTB + network",
}
KINDS = {f"{start}{size}": f"{said}{size}" for start, said in STARTS.items() for size in ("", ", order 2")}
"""How the page calls a training, by what it begins with and its network."""
ABOUT = (
    "Forces in meV/Å, energies of a molecule in meV, of the official test split (1,000 frames). One seed; one thread "
    'of a CPU for each, minutes by the clock of a crowded machine. "Alone" is `mdpot train rmd17-MOLECULE`, 950 frames '
    "of the molecule from random weights, as the published numbers are; its network has order 3, three layers, and "
    "sends l = 2. What is called alone, order 2 was trained before with two layers of `medium` as it is, at a rate of "
    "4e-3, and its energies still have the constant error that is taken off the others. "
    '"After xTB" is `--preset xtb`: before the 950 frames it learns structures of GFN2-xTB\'s dynamics that begin at '
    "these, with GFN2-xTB's labels, and no DFT; for aspirin and ethanol trajectories that are twice as long as they "
    'are now, and coupled less to their bath. "After more xTB" is `--preset xtb-long`, which learns 12,000 to 16,000 '
    "of these structures in 10,000 to 14,000 steps, where the former learns up to 4,000 in as many. "
    '"All ten together" is `mdpot train rmd17-all --preset xtb`, one network '
    "on the ten training splits, 9,500 frames, after 8,000 structures of xTB's dynamics of the ten; with order 2 it "
    'has two layers and sends l = 2. "After all ten" goes on from it with the 950 frames of one molecule '
    '(`--preset after`). Both have seen what the published networks have not. "xTB + network" is `--preset '
    "delta`: the network learns what the labels have beyond GFN2-xTB's, and GFN2-xTB has to run with it (2 ms a "
    "structure of ethanol, 18 of aspirin). Minutes are those of the DFT frames: what was learned before, on "
    "xTB's labels or all ten, is not in them. "
    "MACE's errors are those of its paper (Batatia et al., NeurIPS 2022, table 2); the best published ones without "
    "pretraining are MACE's, Allegro's (Nat. Commun. 2023) or GotenNet's (ICLR 2025). A public rerun of MACE (0.3.14, "
    "1,000 epochs) got 8.9 for aspirin, 2.7 for ethanol and 6.0 for malonaldehyde."
)


def power_law(x: list[float], y: list[float]) -> tuple[float, float]:
    """a and b of y = a x^b, by least squares on the logarithms."""
    import numpy as np

    b, a = np.polyfit(np.log(x), np.log(y), 1)
    return float(np.exp(a)), float(b)


def curve(results: list[dict[str, Any]], molecule: str, key: str) -> tuple[list[float], list[float]]:
    """Test force MAE from scratch over "frames" at the longest training, or over "steps" at all frames."""
    mine = [r for r in results if r["molecule"] == molecule and kind_of(r) == "scratch, order 2"]
    longest = max((r["steps"] for r in mine), default=0)
    chosen = [r for r in mine if (r["frames"] == ALL if key == "steps" else r["steps"] == longest)]
    chosen.sort(key=lambda r: r[key])
    return [r[key] for r in chosen], [r["errors"]["test"]["force_mae"] for r in chosen]


def draw(path: Path, results: list[dict[str, Any]]) -> None:
    """Test errors of each molecule by how it was trained, beside the published ones."""
    from mdpot.training.report import new_figure, readable_log, save

    figure, (axis,) = new_figure(1)
    molecules = [m for m in MACE if any(r["molecule"] == m for r in results)]
    shown = [kind for kind in KINDS if best_of(results, kind)]
    for n, kind in enumerate(shown):
        best, title = best_of(results, kind), KINDS[kind]
        here = [(k, best[m]["errors"]["test"]["force_mae"]) for k, m in enumerate(molecules) if m in best]
        axis.plot(*zip(*here, strict=True), "o", color=f"C{n}", label=title)
    for marker, title, errors in (("_", "MACE", MACE), ("x", "best published", BEST)):
        axis.plot(range(len(molecules)), [errors[m] for m in molecules], marker, color="k", label=title)
    axis.set_yscale("log")
    readable_log(axis.yaxis)
    axis.set_xticks(range(len(molecules)), molecules, rotation=40, ha="right")
    axis.set_ylabel("test force MAE (meV/Å)")
    axis.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    save(figure, path)


def kind_of(result: dict[str, Any]) -> str:
    """The key in `KINDS`."""
    start = result.get("start", "scratch")
    if start == "xtb" and result["recipe"]["pretrain"]["max_steps"] >= LONG:
        start = "long"
    larger = result["recipe"]["model"]["hyperparameters"].get("order", 2) > 2
    return start if larger else f"{start}, order 2"


def best_of(results: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The longest training of a kind on all frames of each molecule."""
    chosen = [r for r in results if kind_of(r) == kind and r["frames"] == ALL]
    return {r["molecule"]: r for r in sorted(chosen, key=lambda r: r["steps"])}


def to_markdown(results: list[dict[str, Any]], picture: str) -> str:
    """The page: all errors, and where the curves point."""
    model = results[0]["recipe"]["model"]
    about = f"`{model['name']}`, {model['hyperparameters']['size']}, cutoff {model['cutoff']:g} Å. {ABOUT}"
    lines = ["# Revised MD17", "", fill(about, 118), "", f"![test errors by molecule]({picture})", ""]
    lines += [
        *summary(results),
        "",
        fill(verdict(results), 118),
        "",
        "## All trainings",
        "",
        *table(results),
        *pointers(results),
    ]
    return "\n".join([*lines, "", "```bash", *commands(results), "```", ""])


def summary(results: list[dict[str, Any]]) -> list[str]:
    """The test force MAE of each molecule after the longest training of each kind."""
    here = [kind for kind in KINDS if any(kind_of(r) == kind for r in results)]
    lines = [
        f"| molecule | {' | '.join(KINDS[kind] for kind in here)} | MACE | best published |",
        "|---|" + "---:|" * (len(here) + 2),
    ]
    found = [best_of(results, kind) for kind in here]
    for m in MACE:
        ours = [f"{part[m]['errors']['test']['force_mae']:.1f}" if m in part else "" for part in found]
        lines.append(f"| {m} | {' | '.join(ours)} | {MACE[m]:.1f} | {BEST[m]:.1f} |")
    return lines


def verdict(results: list[dict[str, Any]]) -> str:
    """How our best of each molecule compare with MACE's, of networks alone and together with GFN2-xTB."""
    said = " ".join(
        _compared(how, [r for r in results if r["frames"] == ALL and (r.get("start") == "delta") == with_xtb])
        for how, with_xtb in (("by the network alone", False), ("by GFN2-xTB and a network", True))
    )
    longest = max(r["steps"] for r in results)
    said += f" The columns have the longest training of each kind, of {longest:,} steps or fewer."
    if any("engine" not in r["recipe"]["finetune"] for r in results):
        said += " Those alone of order 2 are from before there were kernels for training: their minutes are torch's."
    return said


def _compared(how: str, results: list[dict[str, Any]]) -> str:
    """A sentence or two on how many of some results reach MACE's error."""
    ours: dict[str, float] = {}
    for r in results:
        error = round(r["errors"]["test"]["force_mae"], 1)
        ours[r["molecule"]] = min(error, ours.get(r["molecule"], error))
    if not ours:
        return ""
    reached = [m for m in MACE if m in ours and ours[m] <= MACE[m]]
    above = sorted((ours[m] / MACE[m], m) for m in ours if m not in reached)
    said = f"At or below MACE's error {how}: {', '.join(reached) or 'none'}."
    if len(above) == 1:
        said += f" {above[0][1].capitalize()} is {above[0][0]:.2f} times as large."
    elif above:
        (least, near), (most, far) = above[0], above[-1]
        said += f" {'The others' if reached else 'All'} are {least:.2f} ({near}) to {most:.2f} ({far}) times as large."
    return said


def table(results: list[dict[str, Any]]) -> list[str]:
    """A row for each training and molecule."""
    lines = [
        "| molecule | trained | its frames | steps | minutes | force MAE, train | force MAE, test | force RMSE, test | "
        "energy MAE, test |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for r in sorted(results, key=lambda r: (r["molecule"], kind_of(r), r["frames"], r["steps"])):
        e, t = r["errors"]["test"], r["errors"]["train"]
        lines.append(
            f"| {r['molecule']} | {KINDS[kind_of(r)]} | {r['frames']} | {r['steps']:,} | "
            f"{r['seconds'] / 60:.0f} | {t['force_mae']:.1f} | {e['force_mae']:.1f} | {e['force_rmse']:.1f} | "
            f"{e['energy_mae_structure']:.1f} |"
        )
    return lines


def pointers(results: list[dict[str, Any]]) -> list[str]:
    """Where the power laws over frames and steps lead."""
    lines = []
    for molecule in dict.fromkeys(r["molecule"] for r in results):
        for key in ("frames", "steps"):
            x, y = curve(results, molecule, key)
            if len(x) > 1:
                a, b = power_law(x, y)
                needed = (MACE[molecule] / a) ** (1 / b) if b < 0 else float("inf")
                said = f"at {float(f'{needed:.1g}'):,.0f} {key}" if needed < OUT_OF_REACH else f"at no number of {key}"
                text = (
                    f"- {molecule}, alone, order 2, over {key}: MAE ∝ {key}^{b:.2f} ({len(x)} points); MACE's "
                    f"{MACE[molecule]:.1f} meV/Å would come {said}, if it went on like that."
                )
                lines.append(fill(text, 118, subsequent_indent="  "))
    return ["", "## Where the curves point", "", *lines] if lines else []


def commands(results: list[dict[str, Any]]) -> list[str]:
    """What trains all of the page; each adds to what the page holds already."""
    groups: dict[str, list[str]] = {}
    together = max((r["steps"] for r in results if r.get("start") == "all"), default=0)
    for r in results:
        if (start := r.get("start", "scratch")) == "scratch":
            fewer = "" if r["frames"] == ALL else f" {r['frames']}"
            how = f"--steps {r['steps']} --frames{fewer}"
        elif start in ("xtb", "delta"):
            how = f"--steps --{start} {r['steps']}"
        elif start == "after":
            how = f"--steps --together {together} --after {r['steps']}"
        else:
            how = f"--steps --together {r['steps']}"
        how += "".join(f" --set {key}" for key in r.get("set", ()))
        groups.setdefault(how, []).append(r["molecule"])
    return [f"python benchmarks/rmd17.py \\\n  --molecules {' '.join(m)} \\\n  {how} --out docs/results/rmd17.md"
            for how, m in groups.items()]  # fmt: skip
