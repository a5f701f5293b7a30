"""How the command line fails: one line on stderr and an exit code; no traceback for what a user can mend."""

from __future__ import annotations

import errno
import os
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mdpot.errors import MdpotError

BAD_INPUT = 2
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

EXTRAS = {
    "tensorboard": "tensorboard",
    "openmm": "openmm",
    "openmmml": "openmm",
    "openmmtorch": "torchforce",
}
"""Module to the extra of mdpot that installs it."""


class OneLineErrors(click.Group):
    """A group whose commands end with `error: ...` and exit code 2 on bad input, 130 on Ctrl-C."""

    def main(self, args: Sequence[str] | None = None, **settings: Any) -> Any:  # type: ignore[override]
        """Run the command line; see `click.Command.main`."""
        if not settings.pop("standalone_mode", True):
            return super().main(args, standalone_mode=False, **settings)
        args = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(list(args), standalone_mode=False, **settings)
        except (click.ClickException, MdpotError, ModuleNotFoundError, OSError) as error:
            _fail(error)
        except (_Interrupted, click.Abort) as stop:
            _say(f"interrupted{_reason(stop)}{_remedy(args)}")
            sys.exit(INTERRUPTED)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see `click.Command.invoke`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # click would take it for its own Abort, and lose what it says.
            raise _Interrupted(str(stop)) from stop


class _Interrupted(Exception):
    """Ctrl-C, with what the work that was stopped says about it."""


def _fail(error: Exception) -> NoReturn:
    if isinstance(error, OSError) and error.errno == errno.EPIPE:
        # The reader of our output left, e.g. `mdpot info FILE | head`; nothing may be flushed to it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    if type(error).__name__ == "NoArgsIsHelpError":
        click.echo(str(error), err=True)
        sys.exit(BAD_INPUT)
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name not in EXTRAS:
            raise error
        message = _not_installed(name)
    elif isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "mdpot"
        message = f"{error.format_message()} See: {where} --help"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, OSError):
        message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    else:
        message = str(error)
    _say(f"error: {message}")
    sys.exit(BAD_INPUT)


def _say(text: str) -> None:
    click.echo(" ".join(text.split()), err=True)


def _not_installed(module: str) -> str:
    extra = EXTRAS.get(module, "all")
    return f'{module} is not installed. Install it with: pip install "mdpot[{extra}]"'


def _reason(stop: Exception) -> str:
    reason = str(stop).rstrip(".")
    return f": {reason}" if reason else ""


def _remedy(args: Sequence[str]) -> str:
    """How to go on, for the commands that can."""
    if not args or args[0] not in ("train", "pretrain", "finetune"):
        return ""
    again = [*args, *(() if "--resume" in args else ("--resume",))]
    return f". Go on with: {shlex.join(['mdpot', *again])}"
