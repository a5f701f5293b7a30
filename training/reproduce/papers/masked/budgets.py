"""How long the runs of the experiments train, and with which sizes: the one table to change."""

from __future__ import annotations

from mdpot.training.reproduce.budgets import Budget, Rule

# The paper's masking ratios (table 1; section 3.5 for rMD17); what it has no number for takes that of its EGNN on RPBE.
MASKING: tuple[Rule, ...] = (
    ("*", "*", ("pretrain.ratio=0.25",)),
    ("water-tip3p", "*", ("pretrain.ratio=0.9",)),
    ("*", "gns", ("pretrain.ratio=0.5", "pretrain.vector=direct")),
    ("*", "forcenet", ("pretrain.ratio=0.5", "pretrain.vector=direct")),
    ("rmd17-*", "*", ("pretrain.ratio=0.5", "pretrain.unit=atom")),
)
# For recipes that pretrain nothing by themselves.
OPTIMIZER = ("optimizer=soap", "batch_atoms=150", "lr=4e-3", "warmup_steps=50", "clip_norm=10.0", "ema_decay=0.998")

BUDGETS: dict[str, Budget] = {
    # Two cores: table 1 with four seeds in about an hour.
    "small": Budget(
        "quick",
        (
            *MASKING,
            ("rmd17-*", "*", tuple(f"pretrain.{text}" for text in OPTIMIZER)),
            ("*", "*", ("pretrain.max_steps=500", "pretrain.eval_every=250")),
            ("*", "*", ("finetune.max_steps=1000", "finetune.eval_every=250")),
            ("water-tip3p", "*", ("pretrain.max_steps=200", "pretrain.eval_every=100")),
            ("water-tip3p", "*", ("finetune.max_steps=500", "finetune.eval_every=250")),
            ("*", "egnn", ("model.hyperparameters.width=64", "model.hyperparameters.layers=3")),
            # As the paper has it: the network alone, nothing fitted before it.
            ("*", "egnn", ("model.pair=false", "model.repulsion=false")),
            ("*", "gns", ("model.hyperparameters.width=64", "model.hyperparameters.layers=4")),
            ("*", "forcenet", ("model.hyperparameters.width=64", "model.hyperparameters.layers=3")),
            ("water-*", "gns", ("model.cutoff=3.4",)),
            ("water-*", "forcenet", ("model.cutoff=3.4",)),
        ),
    ),
    # One GPU: the paper's epochs, batches, learning rates and sizes, as the recipes' preset has them.
    "paper": Budget("paper", MASKING),
}
