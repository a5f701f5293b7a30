"""The numbers of the paper: Zhang, Li, Barati Farimani, "Masked pretraining strategy for neural potentials".

Only what the paper gives as numbers is here; where it has nothing but a curve or a bar, there is nothing. Forces are in
meV/Å, energies in meV of a whole structure: the box of water (table 1), the molecule (table 2).
"""

from __future__ import annotations

from dataclasses import dataclass

from mdpot.training.data.rmd17 import MOLECULES
from mdpot.training.reproduce.results import Value


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        force: error of the forces, meV/Å; None where the paper has a dash or no number.
        energy: error of the energies, meV per structure.
        source: where in the paper.
        diverges: the paper has a dash, for "several orders of magnitude higher".
    """

    force: Value | None = None
    energy: Value | None = None
    source: str = "table 1"
    diverges: bool = False


_DASH = Row(diverges=True)

#: Table 1: force and energy RMSE on the test split, means (standard errors) of four seeds; the splits are by frame.
TABLE_1: dict[tuple[str, str, str], Row] = {
    ("water-rpbe", "egnn", "scratch"): Row(Value(221.0, 81.3), Value(1570.1, 660.7)),
    ("water-rpbe", "egnn", "mask"): Row(Value(90.9, 8.3), Value(907.6, 96.1)),
    ("water-rpbe", "gns", "scratch"): Row(Value(214.2, 74.8), Value(1842.2, 616.4)),
    ("water-rpbe", "gns", "mask"): Row(Value(103.2, 1.3), Value(2216.4, 76.9)),
    ("water-rpbe", "forcenet", "scratch"): _DASH,
    ("water-rpbe", "forcenet", "mask"): Row(Value(231.3, 5.1), None),
    ("water-tip3p", "egnn", "scratch"): Row(Value(61.5, 4.0), Value(685.1, 55.8)),
    ("water-tip3p", "egnn", "mask"): Row(Value(39.3, 2.0), Value(241.9, 27.3)),
    ("water-tip3p", "gns", "scratch"): Row(Value(52.0, 0.2), Value(638.2, 11.6)),
    ("water-tip3p", "gns", "mask"): Row(Value(49.1, 0.3), Value(540.4, 8.1)),
    ("water-tip3p", "forcenet", "scratch"): _DASH,
    ("water-tip3p", "forcenet", "mask"): _DASH,
}

#: The ratios that belong to the pretrained lines of table 1.
TABLE_1_RATIOS: dict[tuple[str, str], float] = {
    ("water-rpbe", "egnn"): 0.25,
    ("water-rpbe", "gns"): 0.5,
    ("water-rpbe", "forcenet"): 0.5,
    ("water-tip3p", "egnn"): 0.9,
    ("water-tip3p", "gns"): 0.5,
    ("water-tip3p", "forcenet"): 0.5,
}

#: Table 2: force and energy MAE of EGNN, finetuned on 50,000 frames of a molecule after pretraining on ten molecules.
TABLE_2: dict[tuple[str, str, str], Row] = {
    (f"rmd17-{molecule}", "egnn", arm): Row(Value(force), Value(energy), "table 2")
    for molecule, scratch, masked in (
        ("uracil", (22.0, 11.8), (19.0, 10.7)),
        ("benzene", (14.6, 5.4), (7.7, 6.2)),
        ("naphthalene", (14.6, 30.3), (18.5, 14.7)),
        ("aspirin", (46.7, 25.2), (29.5, 16.0)),
        ("malonaldehyde", (32.9, 14.4), (11.7, 8.3)),
        ("ethanol", (16.8, 8.8), (10.7, 4.7)),
        ("toluene", (17.9, 13.7), (12.1, 10.2)),
        ("salicylic", (27.5, 25.9), (17.6, 13.2)),
    )
    for arm, (force, energy) in (("scratch", scratch), ("mask", masked))
}

#: Section 3.4 gives one number of figure 3. It prints the unit meV/Å, but speaks of the energy RMSE.
DENOISING: dict[tuple[str, str, str], Row] = {
    ("water-tip3p", "egnn", "denoise"): Row(None, Value(2442.75), "section 3.4"),
}

#: Table 1 of the supplement: hours of pretraining and of finetuning from scratch, on one RTX 4090; the latter "varies
#: for each molecule" of the revised MD17.
HOURS: dict[tuple[str, str], tuple[float, float | None]] = {
    ("water-rpbe", "egnn"): (0.57, 2.36),
    ("water-rpbe", "forcenet"): (0.51, 2.14),
    ("water-rpbe", "gns"): (0.64, 2.13),
    ("water-tip3p", "egnn"): (0.76, 2.72),
    ("water-tip3p", "forcenet"): (0.7, 1.75),
    ("water-tip3p", "gns"): (0.6, 1.83),
    **{(f"rmd17-{molecule}", "egnn"): (1.75, None) for molecule in MOLECULES},
}

#: Epochs of pretraining and finetuning behind table 1 and behind the hours.
EPOCHS: dict[str, tuple[int, int]] = {
    "water-rpbe": (100, 300),
    "water-tip3p": (25, 50),
    **{f"rmd17-{molecule}": (15, 200) for molecule in MOLECULES},
}


def find_row(dataset: str, model: str, arm: str, ratio: float | None = None) -> Row | None:
    """The paper's numbers for a way to train.

    Args:
        dataset: name of the recipe.
        model: key of `mdpot.MODELS`.
        arm: "scratch", "mask", "denoise", or another, for which the paper has no numbers.
        ratio: masking ratio of the arm "mask"; the paper's tables have one for each network.

    Returns:
        None where the paper gives no number.
    """
    key = (dataset, model, arm)
    if arm == "mask" and ratio is not None and ratio != TABLE_1_RATIOS.get((dataset, model), 0.5):
        return None
    return TABLE_1.get(key) or TABLE_2.get(key) or DENOISING.get(key)
