"""The command line: parse, call one function, print."""

from mdpot.cli.main import main

__all__ = ["main"]
