"""Revised MD17 (Christensen and von Lilienfeld 2020): one molecule each, with the official splits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mdpot.errors import MdpotError
from mdpot.training.data.frames import Frame
from mdpot.training.data.readers.npz import load_arrays, rmd17_frames

ALL = "all"
MOLECULES = (
    "aspirin",
    "azobenzene",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "paracetamol",
    "salicylic",
    "toluene",
    "uracil",
)
#: The authors ask not to train on more than 1,000 frames: 950 train, 50 validate.
N_TRAIN, N_VALIDATION, N_TEST = 950, 50, 1000
#: Of the masked-pretraining paper; the rest of the 100,000 frames test.
PAPER_TRAIN, PAPER_VALIDATION = 50_000, 1_000
PROTOCOLS = ("official", "paper")
SPLITS = ("train", "validation", "test")
SEED = 0


def read_rmd17(path: Path | str, protocol: str = "official") -> tuple[list[Frame], dict[str, np.ndarray]]:
    """The frames of a molecule, split by the first official split or as the masked-pretraining paper splits them.

    "official": the files have up to 100,000 frames; only those of the split are kept. `index_train_01.csv` gives
    training and validation (950 and 50, drawn at random), `index_test_01.csv` the test. They are looked for in
    `splits/` beside the folder of the npz file, per molecule or common to all. Where they are missing, 2,000
    frames spread evenly over the file stand in, in random order.

    "paper": 50,000 frames train, 1,000 validate and the rest test, drawn at random. Neighbors in time are in different
    splits, so the errors are optimistic, and the authors of the data ask not to train on more than 1,000 frames.

    Args:
        path: `rmd17_<molecule>.npz`.
        protocol: in `PROTOCOLS`.

    Returns:
        The frames in eV and Å, and the frame indices of train, validation and test.

    Raises:
        MdpotError: no such file, damaged, or of another kind; a split that points beyond the file; too few frames for
            the protocol of the paper.
    """
    path = Path(path)
    arrays = load_arrays(path)
    lacking = [key for key in ("nuclear_charges", "coords", "energies", "forces") if key not in arrays]
    if lacking:
        raise MdpotError(f"{path}: an rMD17 archive holds coords, energies, forces, ...; it lacks {lacking}.")
    shapes = {key: arrays[key].shape for key in ("coords", "energies", "forces")}
    if not all(shape and shape[0] == shapes["coords"][0] for shape in shapes.values()):
        raise MdpotError(f"{path}: coords, energies and forces must be of as many frames; their shapes are {shapes}.")
    n_frames = len(arrays["coords"])
    rng = np.random.default_rng(SEED)
    if protocol == "paper":
        if n_frames <= PAPER_TRAIN + PAPER_VALIDATION:
            raise MdpotError(
                f"{path}: the paper's protocol takes {PAPER_TRAIN:,} training frames, and the file holds {n_frames:,} "
                "in all. Get the full file (`mdpot data prepare` downloads it where neither MDPOT_DATA nor the cache "
                "has a smaller one), or take the official split: --set data.size=official."
            )
        ends = PAPER_TRAIN, PAPER_TRAIN + PAPER_VALIDATION
        parts = np.split(np.arange(n_frames), ends)
        return rmd17_frames(path, arrays, rng.permutation(n_frames).tolist()), dict(zip(SPLITS, parts, strict=True))
    tables = official_splits(path)
    if tables is None:
        n_chosen = min(n_frames, N_TRAIN + N_VALIDATION + N_TEST)
        rows = rng.permutation(np.linspace(0, n_frames - 1, n_chosen).astype(np.int64))
        learn, test = rows[: n_chosen // 2], rows[n_chosen // 2 :]
    else:
        learn, test = rng.permutation(tables[0]), tables[1]
    if max(learn.max(initial=0), test.max(initial=0)) >= n_frames:
        raise MdpotError(f"{path}: it has {n_frames} frames, but the official split names later ones: another file?")
    n_validation = max(1, round(len(learn) * N_VALIDATION / (N_TRAIN + N_VALIDATION)))
    ends = np.cumsum([len(learn) - n_validation, n_validation, len(test)])
    parts = np.split(np.arange(ends[-1]), ends[:-1])
    frames = rmd17_frames(path, arrays, np.concatenate([learn, test]).tolist())
    return frames, dict(zip(SPLITS, parts, strict=True))


def read_all_rmd17(files: Sequence[Path], protocol: str = "official") -> tuple[list[Frame], dict[str, np.ndarray]]:
    """The frames of several molecules together, each split as by itself; arguments as `read_rmd17`."""
    frames: list[Frame] = []
    splits: dict[str, list[np.ndarray]] = {name: [] for name in SPLITS}
    for file in files:
        more, parts = read_rmd17(file, protocol)
        for name, indices in parts.items():
            splits[name].append(indices + len(frames))
        frames += more
    return frames, {name: np.concatenate(parts) for name, parts in splits.items()}


def official_splits(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows for learning and for testing [1000] of the first official split; None where its files are not there."""
    molecule = path.name.removeprefix("rmd17_").removesuffix(".npz")
    for folder in (path.parent, path.parent.parent):
        for splits in (folder / "splits" / molecule, folder / "splits"):
            files = [splits / f"index_{kind}_01.csv" for kind in ("train", "test")]
            if all(file.is_file() for file in files):
                try:
                    learn, test = (np.loadtxt(file, dtype=np.int64, ndmin=1) for file in files)
                except ValueError as error:
                    raise MdpotError(f"{splits}: the split files hold one row number a line ({error}).") from None
                return learn, test
    return None
