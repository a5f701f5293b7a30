"""The experiments of the paper, and two that it lacks: what is compared, and how it is shown."""

from __future__ import annotations

from functools import partial

from mdpot.training.config import PretrainConfig
from mdpot.training.reproduce.experiments import LONGER, SCRATCH, Arm, Experiment, Paper
from mdpot.training.reproduce.papers.masked import figures, tables
from mdpot.training.reproduce.papers.masked.budgets import BUDGETS
from mdpot.training.reproduce.papers.masked.comparisons import paper_row

WATERS = ("water-rpbe", "water-tip3p")
# The molecules of the paper's table 2, in its order.
MOLECULES = tuple(
    f"rmd17-{name}"
    for name in ("uracil", "benzene", "naphthalene", "aspirin", "malonaldehyde", "ethanol", "toluene", "salicylic")
)
PAPER_MODELS = ("egnn", "gns", "forcenet")

MASK = Arm("mask", "masked", "C0", ("objective=mask",))
DENOISE = Arm("denoise", "denoised", "C1", ("objective=denoise", "sigma=0.5"))
# With the noise of the recipe.
DENOISE_AS_USUAL = Arm("denoise", "denoised", "C1", ("objective=denoise",))
FORCEFIELD = Arm("forcefield", "force field", "C2", ("objective=forcefield",))

RATIOS = {"water-tip3p": (0.25, 0.5, 0.75, 0.9)}


def _masked(ratio: float, vector: str = "") -> Arm:
    keys = ("objective=mask", f"ratio={ratio:g}", *((f"vector={vector}",) if vector else ()))
    return Arm("mask", f"masked, ratio {ratio:g}" + (f", {vector}" if vector else ""), "C0", keys)


def _denoised(sigma: float, vector: str) -> Arm:
    keys = ("objective=denoise", f"sigma={sigma:g}", f"vector={vector}")
    return Arm("denoise", f"denoised, σ {sigma:g} Å, {vector}", "C1", keys)


def _ratios(dataset: str) -> list[Arm]:
    return [SCRATCH, *(_masked(ratio) for ratio in RATIOS.get(dataset, (0.25, 0.5, 0.75)))]


def _objectives(dataset: str) -> list[Arm]:
    vectors = ("derivative", "direct")
    masked = [_masked(ratio, vector) for vector in vectors for ratio in (0.25, 0.5, 0.75)]
    denoised = [_denoised(sigma, vector) for vector in vectors for sigma in (0.05, 0.2, 0.5)]
    return [SCRATCH, *masked, *denoised, FORCEFIELD]


def _pretrained_on(recipe: str) -> str:
    """As in the paper, the molecules of the revised MD17 share a pretraining on all ten."""
    return "rmd17-all" if recipe.startswith("rmd17-") else recipe


def _pretraining_name(stage: PretrainConfig) -> str:
    if stage.objective == "denoise":
        return f"denoise-{stage.sigma:g}-{stage.vector}"
    if stage.objective == "forcefield":
        return f"forcefield-{stage.forcefield}"
    return f"{stage.objective}-{stage.ratio:g}-{stage.vector}"


PAPER = Paper(BUDGETS, published=paper_row, pretraining_name=_pretraining_name, pretrained_on=_pretrained_on)

_of_the_paper = partial(
    Experiment,
    paper=PAPER,
    arms=lambda dataset: (SCRATCH, MASK),
    datasets=WATERS,
    models=(*PAPER_MODELS, "tide"),
    seeds=4,
    table=tables.as_in_the_paper,
    figure=figures.bars,
)
_with_few_labels = partial(
    Experiment,
    paper=PAPER,
    source="",
    datasets=("water-rpbe",),
    models=("tide",),
    seeds=3,
    equal="total",
    notes=(
        "The paper has no such experiment.",
        "The validation frames choose the best state in every training alike; they are labeled, and are not among the "
        "counted frames.",
    ),
)

EXPERIMENTS: tuple[Experiment, ...] = (
    _of_the_paper(
        name="table1",
        title="Masked pretraining on water",
        question="How much does masked pretraining lower the test errors on water, after the same finetuning?",
        source="table 1",
        notes=(
            "The paper's energy error is that of a whole box, and so is the column beside it; its boxes of RPBE hold "
            "27 waters on average, those of Tip3p 258.",
            "The paper does not say whether its splits keep the frames of a trajectory together. Here they do, which "
            "is harder.",
        ),
    ),
    _of_the_paper(
        name="table2",
        title="Masked pretraining on organic molecules",
        question="How much does masked pretraining lower the test errors on the revised MD17?",
        source="table 2",
        datasets=MOLECULES,
        models=("egnn",),
        seeds=2,
        notes=(
            "The paper pretrains on 500,000 frames of ten molecules at once and finetunes on 50,000 frames of one, as "
            "the budget `paper` does where the full files are there. The budget `small` pretrains on the 9,500 frames "
            "of the ten official training splits and finetunes on the 950 of one: the authors of the data ask not to "
            "train on more than 1,000, for frames that are close in time are alike.",
        ),
    ),
    _of_the_paper(
        name="extended-epochs",
        title="Pretraining against a longer training",
        question="Does training from scratch for as long as pretraining and finetuning together close the gap?",
        source="figure 2; numbers only for what is in table 1",
        arms=lambda dataset: (SCRATCH, LONGER, MASK),
        models=("egnn", "gns"),
        table=tables.extended,
        figure=figures.extended,
        notes=(
            "The paper trains from scratch for 400 instead of 300 epochs (RPBE), and for 75 instead of 50 (Tip3p): as "
            "long as pretraining and finetuning together.",
        ),
    ),
    _of_the_paper(
        name="denoising",
        title="Masking against denoising",
        question="Is masking the better pretraining, beside denoising with Gaussian noise of 0.5 Å?",
        source="figure 3; numbers only for what is in table 1 and section 3.4",
        arms=lambda dataset: (SCRATCH, MASK, DENOISE),
        models=("egnn", "gns"),
        notes=("Section 3.4 gives the 2442.75 of denoised EGNN on Tip3p in meV/Å, but speaks of the energy RMSE.",),
    ),
    _of_the_paper(
        name="masking-ratio",
        title="The masking ratio",
        question="Which share of the molecules should lose a hydrogen?",
        source="figures 1 and 2 of the supplement; numbers only for what is in table 1",
        arms=_ratios,
        models=("egnn",),
        figure=figures.ratios,
        notes=(
            "The paper has numbers for the ratio it chose alone. Its comparison on uracil (section 3.5) is "
            "`--datasets rmd17-uracil`.",
        ),
    ),
    _of_the_paper(
        name="convergence",
        title="Convergence",
        question="Does a pretrained network get faster to the error at which training from scratch ends?",
        source="section 3.2 and figure 3 of the supplement, without numbers",
        models=PAPER_MODELS,
        table=tables.convergence,
        figure=figures.convergence,
        notes=(
            "The supplement says that ForceNet fluctuates from scratch and is smooth when pretrained; it has curves, "
            "no numbers.",
        ),
    ),
    _of_the_paper(
        name="regime",
        title="Masking in the paper's own regime",
        question="Does masking pay where the paper looked: AdamW with batches of 16 frames at a rate of 1e-4, at which "
        "training from scratch has hardly begun?",
        source="table 1, figures 2 and 3",
        arms=lambda dataset: (SCRATCH, LONGER, MASK, DENOISE),
        datasets=("water-rpbe",),
        models=("egnn",),
        seeds=3,
        table=tables.regime,
        figure=figures.convergence,
        notes=(
            "For `--budget paper`: its optimizer is the question. The budget `small` trains by SOAP, which leaves "
            "little for a pretraining to do.",
        ),
    ),
    _of_the_paper(
        name="cost",
        title="What it costs",
        question="How long do pretraining, finetuning and a step of dynamics take?",
        source="table 1 of the supplement",
        seeds=1,
        table=tables.cost,
        figure=figures.cost,
        notes=(
            "The paper's times are of one RTX 4090, of 5,792, 8,000 and, for the revised MD17 (`--datasets "
            "rmd17-uracil --models egnn`), 500,000 frames, width 128. Seconds here include the validations of a stage "
            "and, with several jobs, what these took from each other.",
        ),
        dynamics=True,
    ),
    _with_few_labels(
        name="learning-curve",
        title="Test errors over the number of labeled frames",
        question="How many labels does a pretraining save? It sees all structures of the training split and none of "
        "their labels; the finetuning sees a few labels.",
        arms=lambda dataset: (SCRATCH, MASK, DENOISE_AS_USUAL, FORCEFIELD),
        frames=(10, 30, 100, 300, None),
        table=tables.learning,
        figure=figures.learning,
    ),
    _with_few_labels(
        name="objectives",
        title="Pretraining objectives",
        question="Which pretraining helps most where labels are few? It sees all structures of the training split and "
        "none of their labels; the finetuning sees a few labels.",
        arms=_objectives,
        frames=(100,),
        table=tables.as_in_the_paper,
        figure=figures.objectives,
    ),
)
