"""Starts of the zoo: networks that know many elements, and from which trainings with few frames had better go on."""

from __future__ import annotations

from mdpot.modelfile import open_model
from mdpot.training.prepared import Prepared
from mdpot.training.schema import Recipe
from mdpot.zoo import find_model

CRYSTALS, MOLECULES = "crystals-pbe-small", "molecules-xtb-small"

#: For crystals: from so many elements on, with fewer training frames than so many for each.
MANY_ELEMENTS, FRAMES_OF_AN_ELEMENT = 6, 50
#: For molecules: with one of these elements, and fewer training frames.
ORGANIC, FRAMES_OF_MOLECULES = {1, 6}, 200


def suggested_start(recipe: Recipe, prepared: Prepared) -> str:
    """What to tell who trains from scratch on few frames that a start knows the elements of; empty where none does.

    What was measured: docs/results/from-crystals.md and docs/results/from-molecules.md.
    """
    elements, n, pbc = set(prepared.elements), len(prepared.train), prepared.train.pbc
    few = f"only {n} training frames"
    if elements & ORGANIC and not pbc.any() and n < FRAMES_OF_MOLECULES and recipe.model.baseline is None:
        start = MOLECULES
    elif (
        pbc.all(1).float().mean() > 0.5 and len(elements) >= MANY_ELEMENTS and n < FRAMES_OF_AN_ELEMENT * len(elements)
    ):
        start, few = CRYSTALS, f"{len(elements)} elements, and {few}"
    else:
        return ""
    known = open_model(find_model(start)).header
    if recipe.model.name != known["model"] or not elements <= set(known["elements"]):
        return ""
    command = f"mdpot finetune custom --preset after --from {start} --data ..."
    return f"{few}: a start that knows these elements is often more accurate, `{command}`"
