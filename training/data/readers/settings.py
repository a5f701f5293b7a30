"""Settings of calculations that their energies depend on: outputs with several of them do not go together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mdpot.packed import head
from mdpot.structures import decode
from mdpot.training.data.readers.search import OUTCAR, VASPRUN, Output

#: Bytes of an output in which it states its settings.
START = 400_000
#: By what an output is, names of settings and where they are stated.
SETTINGS = {
    VASPRUN: {
        "ENCUT": re.compile(r'<i name="ENMAX">\s*([\d.]+)'),
        "GGA": re.compile(r'<i type="string" name="GGA">\s*(\w+)'),
        "LHFCALC": re.compile(r'<i type="logical" name="LHFCALC">\s*([TF])'),
    },
    OUTCAR: {
        "ENCUT": re.compile(r"^\s+ENCUT\s*=\s*([\d.]+)", re.M),
        "GGA": re.compile(r"^\s+GGA\s*=\s*(\w+)", re.M),
        "LHFCALC": re.compile(r"^\s+LHFCALC\s*=\s*([TF])", re.M),
    },
    "ORCA": {"keywords": re.compile(r"^\|\s*\d+>\s*!(.*)", re.M)},
    "Gaussian": {"method": re.compile(r"^ #(?:[PNT](?=\s))?(?:.*?\s)?\s*((?!iop)[\w()+-]+/\S+)", re.M | re.I)},
    "Quantum ESPRESSO": {
        "cutoff": re.compile(r"kinetic-energy cutoff\s*=\s*([\d.]+)"),
        "functional": re.compile(r"Exchange-correlation\s*=\s*(.+?)\s*(?:\(|$)", re.M),
    },
    "QCSchema": {name: re.compile(rf'"{name}"\s*:\s*"([^"]+)"') for name in ("method", "basis")},
}
#: Keywords of ORCA that say what is computed, not how.
_TASKS = re.compile(
    r"PAL\d+|SP|ENGRAD|(?:TIGHT|LOOSE|NORMAL|VERYTIGHT)?OPT|FREQ|NUMFREQ|MD|\w*PRINT|PRINT\w+|MOREAD", re.I
)
#: By what an output is, where it begins a further job, and lines of jobs that nobody asked for.
_JOBS = {
    "ORCA": (re.compile(r"^\|\s*\d+>\s*\$new_job", re.M | re.I), None),
    "Gaussian": (re.compile(r"^ 1\\1\\GINC", re.M), re.compile(r"^ #.*\bGenChk\b.*", re.M | re.I)),
}


def settings_notes(outputs: Sequence[Output]) -> Iterator[str]:
    """A note on each setting that is not the same in all outputs that state it."""
    stated: dict[str, dict[str, list[str]]] = {}
    for output in outputs:
        known = SETTINGS.get(output.kind)
        if known is None:
            continue
        text = decode(head(output.path, START))
        for name, pattern in known.items():
            if found := pattern.findall(text):
                stated.setdefault(name, {}).setdefault(_value(found), []).append(output.name)
    for name, values in stated.items():
        if len(values) > 1:
            said = [f"{value} in {len(files):,} ({files[0]})" for value, files in values.items()]
            more = f", and {len(said) - 4} others" if len(said) > 4 else ""
            yield (
                f"{name} differs among the outputs: {', '.join(said[:4])}{more}. Energies of several settings do not "
                "go together: keep the outputs of one."
            )


def jobs_notes(kind: str, text: str) -> Iterator[str]:
    """A note on each setting that is not the same in all jobs of an output that state it.

    Args:
        kind: what it is.
        text: the whole of it.
    """
    begin, inner = _JOBS[kind]
    jobs = begin.split(text if inner is None else inner.sub("", text))
    for name, pattern in SETTINGS[kind].items():
        values = list(dict.fromkeys(_value(found) for job in jobs if (found := pattern.findall(job))))
        if len(values) > 1:
            yield (
                f"{name} differs among the jobs of one output: {', then '.join(values)}. Energies of several settings "
                "do not go together: take the jobs of one."
            )


def _value(found: Sequence[str]) -> str:
    """What a setting is: a number, or words in any order and case."""
    words = sorted({word.upper() for part in found for word in part.split() if not _TASKS.fullmatch(word)})
    try:
        return f"{float(found[0]):g}"
    except ValueError:
        return " ".join(words)
