"""The MatBench tasks on structures with a number to predict, and their official folds.

Dunn et al., npj Computational Materials 6, 138 (2020). Addresses, row counts and checksums are those that matminer
states (its `dataset_metadata.json`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from mdpot.errors import MdpotError
from mdpot.training.data.download import Download, keep
from mdpot.training.data.frames import Frame

N_FOLDS = 5
#: The seed of MatBench's folds.
SEED = 18012019


@dataclass(frozen=True)
class Task:
    """A task of MatBench.

    Attributes:
        column: of the target in the file, and its name here.
        unit: of the target; "" where it has none.
        n_rows: structures in the official file.
        sha256: of the official file.
        what: the target in words, and who computed it.
    """

    column: str
    unit: str
    n_rows: int
    sha256: str
    what: str


TASKS = {
    "jdft2d": Task(
        "exfoliation_en",
        "meV/atom",
        636,
        "26057dc4524e193e32abffb296ce819b58b6e11d1278cae329a2f97817a4eddf",
        "exfoliation energies of layered crystals, OptB88vdW DFT",
    ),
    "phonons": Task(
        "last phdos peak",
        "1/cm",
        1265,
        "4db551f21ec5f577e6202725f10e34dfc509aa7df3a6bdaac497da7f6dbbb9b3",
        "frequencies of the highest peak of the phonons, DFPT",
    ),
    "dielectric": Task(
        "n",
        "",
        4764,
        "83befa09bc2ec2f4b6143afc413157827a90e5e2e42c1eb507ccfa01bf26a1d6",
        "refractive indices, DFPT",
    ),
    "log_gvrh": Task(
        "log10(G_VRH)",
        "log10(GPa)",
        10987,
        "098af941f4c663270f1fe21abf20ffad6fb85ecbfcba5786ceac03983ac29da7",
        "logarithms of shear moduli, DFT",
    ),
    "log_kvrh": Task(
        "log10(K_VRH)",
        "log10(GPa)",
        10987,
        "44b113ddb7e23aa18731a62c74afa7e5aa654199e0db5f951c8248a00955c9cd",
        "logarithms of bulk moduli, DFT",
    ),
    "perovskites": Task(
        "e_form",
        "eV",
        18928,
        "4641e2417f8ec8b50096d2230864468dfa08278dc9d257c327f65d0305278483",
        "heats of formation of cells of five atoms, RPBE DFT",
    ),
    "mp_gap": Task(
        "gap pbe",
        "eV",
        106113,
        "58b65746bd88329986ed66031a2ac1369c7c522f7bc9f9081528e07097c2c057",
        "band gaps, PBE DFT",
    ),
    "mp_e_form": Task(
        "e_form",
        "eV/atom",
        132752,
        "dedcb1d4ba2e3e50dbdd45ba5bc647a00e9c2bcf8f8bf556dc8e92caa39eb21f",
        "formation energies, PBE DFT",
    ),
}


def official_folds(task: Task, frames: Sequence[Frame]) -> list[np.ndarray]:
    """The test frames of each of the five official folds.

    The folds are those of scikit-learn's `KFold(5, shuffle=True, random_state=18012019)` over the rows of the official
    file. Of a file that holds some of these rows only, each fold holds those of its rows that are there.

    Args:
        task: of MatBench.
        frames: of its file; `index` is the official row.

    Returns:
        Five arrays of indices into the frames, ascending.

    Raises:
        MdpotError: a row that the official file does not have.
    """
    rows = np.array([frame.index for frame in frames], np.int64)
    if len(rows) and (rows.min() < 0 or rows.max() >= task.n_rows):
        raise MdpotError(f"rows of this task go from 0 to {task.n_rows - 1}; got {rows.min()} to {rows.max()}.")
    shuffled = np.arange(task.n_rows)
    np.random.RandomState(SEED).shuffle(shuffled)
    return [np.flatnonzero(np.isin(rows, part)) for part in np.array_split(shuffled, N_FOLDS)]


def download(name: str) -> Download:
    """Where the official file of a task is, with its checksum."""
    archive = f"matbench_{name}.json.gz"
    return Download(
        page="https://matbench.materialsproject.org",
        archives=(archive,),
        resolve=partial(_address, TASKS[name].sha256),
        unpack=keep,
        by_hand="put it at {folder}/" + archive + ", or give its path by --data.",
    )


def _address(sha256: str, archive: str) -> tuple[str, str]:
    return f"https://ml.materialsproject.org/projects/{archive}", f"sha256:{sha256}"
