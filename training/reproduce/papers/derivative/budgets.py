"""How long the runs of the experiments train, and with which sizes: the one table to change."""

from __future__ import annotations

from mdpot.training.reproduce.budgets import Budget

BUDGETS: dict[str, Budget] = {
    # Two cores: table 2 on two properties in about half an hour.
    "small": Budget(
        "quick",
        (
            ("*", "*", ("pretrain.optimizer=soap", "pretrain.batch_atoms=200", "pretrain.lr=3e-3")),
            ("*", "*", ("pretrain.lr_min=1e-5", "pretrain.warmup_steps=100")),
            ("*", "*", ("pretrain.clip_norm=10.0", "pretrain.ema_decay=0.99")),
            ("*", "*", ("pretrain.max_steps=1500", "pretrain.eval_every=500")),
            ("*", "*", ("finetune.max_steps=400", "finetune.eval_every=50", "finetune.ema_decay=0.98")),
            ("*", "*", ("model.cutoff=5.0", "property.pooling=sum")),
            ("matbench-dielectric", "*", ("data.max_frames=1500",)),
            ("matbench-perovskites", "*", ("data.max_frames=1500",)),
            ("2d-workfunction", "*", ("data.max_frames=1500",)),
            # After 400 steps its loss is 2.86 at this rate, 3.17 at that of the others.
            ("*", "cgcnn", ("pretrain.lr=1e-2",)),
            ("*", "cgcnn", ("model.hyperparameters.width=64", "model.hyperparameters.layers=3")),
            # At these sizes a step of its finetuning takes 30 ms of a core, as one of CGCNN's does; pretraining takes
            # it far longer, so that is shorter.
            ("*", "et", ("model.hyperparameters.width=32", "model.hyperparameters.layers=2")),
            ("*", "et", ("model.hyperparameters.heads=4", "model.hyperparameters.n_basis=16")),
            ("*", "et", ("pretrain.batch_atoms=100", "pretrain.max_steps=1000")),
        ),
    ),
    # One GPU: the paper's data, epochs, batches, optimizers and sizes; where it lowers the rate on a plateau, a cosine.
    "paper": Budget(
        "full",
        (
            ("crystals", "*", ("data.source=mpf-2021",)),
            ("*", "*", ("pretrain.optimizer=adamw", "pretrain.epochs=100", "pretrain.batch_frames=50")),
            ("*", "*", ("pretrain.lr=2e-3", "pretrain.lr_min=1e-5", "pretrain.warmup_steps=0")),
            ("*", "*", ("pretrain.clip_norm=10.0", "pretrain.ema_decay=none", "pretrain.eval_every=none")),
            ("*", "*", ("finetune.epochs=200", "finetune.batch_frames=32", "finetune.lr=2e-3", "finetune.lr_min=1e-5")),
            ("*", "*", ("finetune.ema_decay=none", "finetune.eval_every=none", "property.pooling=sum")),
            ("*", "cgcnn", ("model.cutoff=8.0", "model.hyperparameters.width=100", "model.hyperparameters.layers=4")),
            ("*", "cgcnn", ("model.hyperparameters.norm=batch", "model.hyperparameters.smooth=false")),
            ("*", "et", ("model.cutoff=8.0", "model.hyperparameters.width=128", "model.hyperparameters.layers=8")),
            ("*", "et", ("pretrain.lr=2e-4", "finetune.lr=2e-4", "model.hyperparameters.smooth=false")),
        ),
    ),
}
