"""The command `mdpot`."""

from __future__ import annotations

import click


@click.group()
def main() -> None:
    """Train potentials and run them."""
