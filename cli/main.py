"""The command `mdpot`: its subcommands, and how a run that cannot go on ends."""

from __future__ import annotations

import click

from mdpot import __version__
from mdpot.cli.bench import bench
from mdpot.cli.data import data
from mdpot.cli.examine import evaluate, info
from mdpot.cli.export import export
from mdpot.cli.failure import OneLineErrors
from mdpot.cli.md import md
from mdpot.cli.predict import ensemble, predict
from mdpot.cli.reproduce import reproduce
from mdpot.cli.train import finetune, finetune_property, pretrain, train


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="mdpot")
def main() -> None:
    """Graph neural network potentials for molecular dynamics: from a few labeled frames to a file that ASE
    and OpenMM run.

    From frames to a tested potential in one command, two minutes on two cores:

    \b
        mdpot train water-rpbe --preset quick

    With your own frames, in any format that ASE reads:

    \b
        mdpot train custom --data frames.extxyz
    """


for command in (
    train, pretrain, finetune, finetune_property, evaluate, predict, ensemble, info, export, md, bench, data,
    reproduce,
):  # fmt: skip
    main.add_command(command)
