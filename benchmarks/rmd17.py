"""Trains the default network on molecules of revised MD17 and draws its errors beside MACE's. See README.md."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rmd17_report import ALL, MACE, draw, to_markdown

from mdpot import load_potential
from mdpot.cli.progress import TerminalListener
from mdpot.errors import MdpotError
from mdpot.stopping import Stopped
from mdpot.training import folder as files
from mdpot.training.config import load_recipe, recipe_to_dict
from mdpot.training.data.rmd17 import ALL as TOGETHER
from mdpot.training.data.sources import load_dataset
from mdpot.training.evaluate import evaluate, store_for
from mdpot.training.reproduce import grid
from mdpot.training.reproduce.worker import launch

EVALUATIONS = 6  # of the validation frames in a run


class Run(NamedTuple):
    """A training: its molecule, its training frames of each molecule, its optimizer steps and how it is done:
    "scratch", "xtb" (from a network that has learned dynamics by GFN2-xTB), "all" (so for all ten molecules together),
    "after" (from the network of all ten), or "delta" (of what the labels have beyond GFN2-xTB's, to be added to it)."""

    molecule: str
    frames: int
    steps: int
    start: str = "scratch"


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    together = joint_run(args)
    runs = [(run, grid_run(run, args, together)) for run in plan(args)]
    if not args.tables_only:
        everything = [run for _, run in runs] + ([together] if together else [])
        work = grid.Work(args.jobs, threads=1, device=args.device)
        try:
            with TerminalListener() as listener:
                grid.run_grid(everything, args.work, work, listener, launch)
        except (MdpotError, Stopped) as error:
            raise SystemExit(str(error)) from None
    finished = [(run, read(in_grid, args)) for run, in_grid in runs]
    results = [{**run._asdict(), "set": args.set, **found} for run, found in finished if found is not None]
    results += by_molecule(together, args) if together else []
    results = kept(results, args.out.with_suffix(".json"))
    if not results:
        raise SystemExit(f"nothing is finished in {args.work}")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    picture = args.out.with_suffix(".png")
    draw(picture, results)
    args.out.write_text(to_markdown(results, picture.name), encoding="utf-8")
    args.out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(args.out.read_text(encoding="utf-8"))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    some = ("aspirin", "ethanol", "malonaldehyde")
    add("--molecules", nargs="+", default=some, choices=tuple(MACE), metavar="NAME", help=", ".join(MACE))
    add("--steps", nargs="*", type=int, default=(2000, 8000), help=f"lengths of the trainings on {ALL} frames")
    add("--frames", nargs="*", type=int, default=(100, 300), help="fewer frames, each for the longest of --steps")
    add(
        "--together",
        type=int,
        metavar="STEPS",
        help="first train one network on all ten molecules, after GFN2-xTB's dynamics of them, and test it on each",
    )
    add("--after", nargs="*", type=int, default=(), metavar="STEPS", help="lengths of trainings that begin with it")
    add(
        "--xtb",
        nargs="*",
        type=int,
        default=(),
        metavar="STEPS",
        help="lengths of trainings after GFN2-xTB's dynamics",
    )
    add(
        "--delta",
        nargs="*",
        type=int,
        default=(),
        metavar="STEPS",
        help="lengths of trainings on what the labels have beyond GFN2-xTB's",
    )
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a key of the recipe")
    add("--jobs", type=int, default=2, help="trainings at a time, each on one thread")
    add("--device", default="cpu", help="torch device")
    add("--tables-only", action="store_true", help="train nothing; write the page of what is finished")
    add("--work", type=Path, default=Path("runs/rmd17"), help="folder of the runs; what is there goes on or is kept")
    add("--out", type=Path, required=True, help="markdown file; a JSON file, whose other runs are kept, and a picture "
        "go beside it")  # fmt: skip
    args = parser.parse_args(arguments)
    if args.after and args.together is None:
        parser.error("--after needs --together")
    return args


def plan(args: argparse.Namespace) -> list[Run]:
    """The runs of one molecule each, the short ones first."""
    runs = [Run(m, ALL, steps) for steps in sorted(args.steps) for m in args.molecules]
    if args.steps:
        runs += [Run(m, frames, max(args.steps)) for frames in sorted(args.frames) for m in args.molecules]
    runs += [Run(m, ALL, steps, "xtb") for steps in sorted(args.xtb) for m in args.molecules]
    runs += [Run(m, ALL, steps, "delta") for steps in sorted(args.delta) for m in args.molecules]
    return runs + [Run(m, ALL, steps, "after") for steps in sorted(args.after) for m in args.molecules]


def joint_run(args: argparse.Namespace) -> grid.Run | None:
    """The training on all molecules, if there is one."""
    if args.together is None:
        return None
    every = max(1, args.together // EVALUATIONS)
    keys = [f"finetune.max_steps={args.together}", f"finetune.eval_every={every}", *args.set]
    changed = "".join(f"-{key}" for key in args.set)
    return grid.Run(f"all/{args.together}steps{changed}", "train", load_recipe("rmd17-all", "xtb", keys), seed=0)


def grid_run(run: Run, args: argparse.Namespace, together: grid.Run | None) -> grid.Run:
    """The training as a run in a folder."""
    keys = [f"finetune.max_steps={run.steps}", f"finetune.eval_every={max(1, run.steps // EVALUATIONS)}", *args.set]
    if run.frames < ALL:
        keys.append(f"data.max_train_frames={run.frames}")
    changed = "".join(f"-{key}" for key in args.set)
    folder = f"{run.molecule}/{run.frames}frames-{run.steps}steps{changed}"
    if run.start == "scratch":
        return grid.Run(folder, "train", load_recipe(f"rmd17-{run.molecule}", "full", keys), seed=0)
    if run.start == "xtb":
        name = f"rmd17-{run.molecule}"
        first = grid.Run(f"{run.molecule}/xtb{changed}", "pretrain", load_recipe(name, "xtb", args.set), seed=0)
        return grid.Run(f"{folder}-xtb", "finetune", load_recipe(name, "xtb", keys), seed=0, parent=first)
    if run.start == "delta":
        return grid.Run(f"{folder}-delta", "train", load_recipe(f"rmd17-{run.molecule}", "delta", keys), seed=0)
    assert together is not None
    recipe = load_recipe(f"rmd17-{run.molecule}", "after", keys)
    return grid.Run(f"{folder}-after{args.together}", "finetune", recipe, seed=0, parent=together)


def read(run: grid.Run, args: argparse.Namespace) -> dict[str, Any] | None:
    """What a finished run left."""
    folder = grid.folder_of(run, args.work)
    if not (folder / files.METRICS).is_file():
        return None
    metrics = json.loads((folder / files.METRICS).read_text(encoding="utf-8"))
    errors = {name: metrics["errors"][name] for name in ("train", "test")}
    how = {"set": args.set} if args.set else {}
    return {"seconds": metrics["finetune_seconds"], **how, "recipe": recipe_to_dict(run.recipe), "errors": errors}


def by_molecule(run: grid.Run, args: argparse.Namespace) -> list[dict[str, Any]]:
    """What the network of all molecules has for errors on each; kept beside its run, for it takes a while."""
    whole, folder = read(run, args), grid.folder_of(run, args.work)
    if whole is None:
        return []
    table = folder.with_name(f"{folder.name}-by-molecule.json")
    if not table.is_file():
        errors = {molecule: _errors(folder / files.POTENTIAL, molecule) for molecule in MACE}
        table.write_text(json.dumps(errors), encoding="utf-8")
    errors = json.loads(table.read_text(encoding="utf-8"))
    return [{**Run(m, ALL, args.together, TOGETHER)._asdict(), **whole, "errors": errors[m]} for m in MACE]


def _errors(potential: Path, molecule: str) -> dict[str, dict[str, float]]:
    dataset, network = load_dataset(f"rmd17-{molecule}"), load_potential(potential)[0]
    parts = {name: [dataset.frames[n] for n in dataset.splits[name]] for name in ("train", "test")}
    stores = {name: store_for(network, replace(dataset, frames=part)) for name, part in parts.items()}
    return {name: evaluate(network, store).metrics() for name, store in stores.items()}


def kept(results: list[dict[str, Any]], file: Path) -> list[dict[str, Any]]:
    """The results and those of the page as it was, where there are no new ones."""
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    found = {_key(r): r for r in [*before, *results]}
    return [found[key] for key in sorted(found)]


def _key(result: dict[str, Any]) -> tuple[Any, ...]:
    return *(result.get(name, "scratch") for name in Run._fields), tuple(result.get("set", ()))


if __name__ == "__main__":
    main()
