"""Times mdpot, bare and through ASE and OpenMM, beside peers, in one run on one machine. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contenders import Contender

WARM_UP_CALLS = 5  # torch profiles a script in its first calls, and then compiles it
WARM_UP_SECONDS = 3.0  # slow contenders stop at the second call
BACKENDS = {"cpu": ["native", "eager", "torchscript"], "cuda": ["native", "eager", "padded", "aoti"]}
SEED = 0


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    # Before torch is imported: other libraries read it when they load.
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(args.threads)
    warnings.simplefilter("ignore")  # peers have much to say about torch
    import torch
    from speed_report import describe_machine, summarize, to_markdown

    from mdpot.zoo import find_model

    torch.set_num_threads(args.threads)
    began = time.perf_counter()
    machine = describe_machine(args.threads, args.device)
    sizes, text = [], ""
    for index, n_waters in enumerate(args.waters):
        # Evaluations cost in proportion to atoms, so time is shared out in that proportion.
        share = sum(args.waters[: index + 1]) / sum(args.waters)
        sizes.append(time_size(args, n_waters, began + args.seconds * share))
        machine["load_average_after"] = list(os.getloadavg())
        machine["wall_seconds"] = round(time.perf_counter() - began, 1)
        result = summarize(find_model(args.model), machine, sizes, SEED)
        text = to_markdown(result)
        if args.out is not None:  # after every size: a run that is stopped leaves those before
            args.out.parent.mkdir(parents=True, exist_ok=True)
            args.out.write_text(text, encoding="utf-8")
            args.out.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n" + text)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    from peers import FAMILIES

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--model", type=Path, required=True, help="potential file, or name of the zoo, that knows hydrogen and oxygen")
    add("--waters", type=int, nargs="+", default=[64, 258], help="sizes of the boxes, molecules")
    add("--threads", type=int, default=2)
    add("--device", default="cpu", choices=list(BACKENDS))
    choices = ["native", "eager", "torchscript", "padded", "compile", "aoti"]
    add("--backends", nargs="+", default=None, choices=choices, help="without it, those that fit the device")
    add(
        "--peers",
        nargs="*",
        default=list(FAMILIES),
        choices=FAMILIES,
        help="none: --peers with nothing after it",
    )
    add("--rounds", type=int, default=9, help="at most; each round times every contender once")
    add("--min-rounds", type=int, default=3, help="even where that takes longer than --seconds")
    add("--calls", type=int, default=24, help="of mdpot in a block, at least: twice the life of a neighbor list")
    add("--block", type=float, default=0.4, help="seconds one contender runs in a round, one call at least")
    add("--seconds", type=float, default=200.0, help="after which no further round starts")
    add("--out", type=Path, default=None, help="markdown file; a JSON file with all numbers goes beside it")
    args = parser.parse_args(arguments)
    args.backends = args.backends or BACKENDS[args.device]
    return args


def time_size(args: argparse.Namespace, n_waters: int, deadline: float) -> dict[str, Any]:
    """Times all contenders in one box, round-robin.

    Returns:
        "n_waters", "n_atoms", "missing" and "contenders": for each its description, the number of calls in a
        block, and "ms": milliseconds per call of its block in each round.
    """
    from contenders import make_own, make_peers
    from start import make_start

    say(f"{n_waters} waters: preparing")
    start = make_start(args.model, n_waters, SEED)
    with tempfile.TemporaryDirectory() as folder:
        own, missing = make_own(args.model, start, args.backends, args.threads, args.device)
        peers, absent = make_peers(args.peers, start, Path(folder), args.device)
        contenders = [*own, *peers]
        calls, broken = warm_up_all(contenders, args)
        ms = take_turns([c for c in contenders if c.name in calls], calls, broken, args, deadline)
    return {
        "n_waters": n_waters,
        "n_atoms": 3 * n_waters,
        "missing": {**missing, **absent, **broken},
        "contenders": [
            {
                "name": c.name,
                "label": c.label,
                "group": c.group,
                "bare": c.bare,
                "cutoff": c.cutoff,
                "calls_per_block": calls[c.name],
                "ms": ms[c.name],
            }
            for c in contenders
            if c.name in ms
        ],
    }


def warm_up_all(contenders: list[Contender], args: argparse.Namespace) -> tuple[dict[str, int], dict[str, str]]:
    """How many calls of each contender make a block, and why some have none."""
    from contenders import excuse

    calls, broken = {}, {}
    for contender in contenders:
        try:
            each = warm_up(contender)
        except Exception as error:  # whatever another package raises
            if must_work(contender, args):
                raise
            broken[contender.name] = f"in its first calls, {excuse(error)}"
            continue
        least = 1 if contender.group == "peer" else args.calls
        calls[contender.name] = max(least, round(args.block / each))
        say(f"  {contender.label}: {1e3 * each:.3g} ms")
    return calls, broken


def take_turns(
    contenders: list[Contender],
    calls: dict[str, int],
    broken: dict[str, str],
    args: argparse.Namespace,
    deadline: float,
) -> dict[str, list[float]]:
    """Milliseconds per call of each contender's block in each round; what fails goes to the broken ones."""
    import numpy as np
    from contenders import excuse

    ms: dict[str, list[float]] = {c.name: [] for c in contenders}
    rng = np.random.default_rng(SEED)
    for number in range(args.rounds):
        if number >= args.min_rounds and time.perf_counter() > deadline:
            break
        for k in rng.permutation(len(contenders)):  # else each would always follow the same one
            contender = contenders[k]
            if contender.name not in ms:
                continue
            try:
                ms[contender.name].append(block(contender, calls[contender.name]))
            except Exception as error:
                if must_work(contender, args):
                    raise
                broken[contender.name] = f"in round {number + 1}, {excuse(error)}"
                del ms[contender.name]
        say(f"  round {number + 1}")
    return ms


def must_work(contender: Contender, args: argparse.Namespace) -> bool:
    """Whether its failure is one of the whole: mdpot's on a CPU."""
    return contender.group != "peer" and args.device == "cpu"


def block(contender: Contender, calls: int) -> float:
    """Milliseconds per call, from the start where there is one."""
    if contender.reset is not None:
        contender.reset()
    before = time.perf_counter()
    contender.run(calls)
    return 1e3 * (time.perf_counter() - before) / calls


def warm_up(contender: Contender) -> float:
    """Runs a contender until it is as fast as it gets; seconds its last call took."""
    if contender.reset is not None:
        contender.reset()
    took: list[float] = []
    while len(took) < 2 or (len(took) < WARM_UP_CALLS and sum(took) < WARM_UP_SECONDS):
        before = time.perf_counter()
        contender.run(1)
        took.append(time.perf_counter() - before)
    return took[-1]


def say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
