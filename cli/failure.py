"""How the command line fails: one line on stderr and an exit code; a traceback goes to a file."""

from __future__ import annotations

import codecs
import errno
import os
import re
import shlex
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mdpot.cli.options import SEVERAL_FILES, RecipeCommand
from mdpot.errors import MdpotError

BAD_INPUT = 2
OUR_FAULT = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

EXTRAS = {
    "tensorboard": "tensorboard",
    "openmm": "openmm",
    "openmmml": "openmm",
    "openmmtorch": "torchforce",
    "torch_geometric": "pyg",
    "h5py": "hdf5",
}
"""Module to the extra of mdpot that installs it."""

PLAIN = {"Å": "A", "³": "^3", "²": "^2", "±": "+-", "·": "*", "×": "x", "°": "deg", "σ": "sigma", "∝": "~", "…": "..."}
PLAIN |= dict.fromkeys("–—−‑", "-") | dict.fromkeys("“”„", '"') | dict.fromkeys("‘’", "'")
"""What stands for a letter on a terminal that does not know it."""


class OneLineErrors(click.Group):
    """A group whose commands end with `error: ...` and exit code 2 on bad input, 130 on Ctrl-C, 70 where mdpot itself
    is at fault."""

    def main(self, args: Sequence[str] | None = None, **settings: Any) -> Any:  # type: ignore[override]
        """Run the command line; see `click.Command.main`."""
        if not settings.pop("standalone_mode", True):
            return super().main(args, standalone_mode=False, **settings)
        args = list(sys.argv[1:] if args is None else args)
        print_anything()
        try:
            code = super().main(list(args), standalone_mode=False, **settings)
        except (click.ClickException, MdpotError, ModuleNotFoundError, OSError) as error:
            _fail(error)
        except (_Interrupted, click.Abort) as stop:
            _say(f"interrupted{_reason(stop)}{self._remedy(args)}")
            sys.exit(INTERRUPTED)
        except Exception as error:
            if _out_of_memory(error):
                _say("error: there is not enough memory. Take a smaller network, smaller batches or less data.")
                sys.exit(BAD_INPUT)
            _say(_last_words(error, args))
            sys.exit(OUR_FAULT)
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see `click.Command.invoke`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            # click would take it for its own Abort, and lose what it says.
            raise _Interrupted(str(stop)) from stop

    def _remedy(self, args: Sequence[str]) -> str:
        """How to go on, for the commands that can."""
        if not args or not isinstance(self.commands.get(args[0]), RecipeCommand):
            return ""
        again = [*args, *(() if "--resume" in args else ("--resume",))]
        return f". Go on with: {shlex.join(['mdpot', *again])}"


def print_anything() -> None:
    """Has stdout and stderr take every text: what their encoding does not know, e.g. Å in ASCII, is written plainly."""
    codecs.register_error("mdpot", _plainly)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="mdpot")  # type: ignore[union-attr]


def _plainly(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(PLAIN.get(letter, "?") for letter in error.object[error.start : error.end]), error.end


def _out_of_memory(error: Exception) -> bool:
    # torch has its own errors for it, some without a name.
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text


def _last_words(error: Exception, args: Sequence[str]) -> str:
    """The line for an error that nobody foresaw; its traceback goes to a file."""
    what = f"{type(error).__name__}: {error}"[:200]
    told = f"mdpot {shlex.join(args)}\n\n{''.join(traceback.format_exception(error))}"
    try:
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", prefix="mdpot-error-", suffix=".txt", delete=False
        ) as file:
            file.write(told)
    except OSError:
        return f"error: mdpot failed in a way that nobody foresaw: {what}. Please report it to its developers."
    return (
        f"error: mdpot failed in a way that nobody foresaw: {what}. Please report it to its developers with the file "
        f"{file.name}, which says where."
    )


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
            _say(_last_words(error, sys.argv[1:]))
            sys.exit(OUR_FAULT)
        message = _not_installed(name)
    elif isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "mdpot"
        message = f"{error.format_message()}{_hint(error)} See: {where} --help"
    elif isinstance(error, click.ClickException):
        message = error.format_message()
    elif isinstance(error, OSError):
        message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    else:
        message = str(error)
    _say(f"error: {message}")
    sys.exit(BAD_INPUT)


def _hint(error: click.UsageError) -> str:
    """What to do about files too many: their `--data` is missing, or a shell made them of a pattern without quotes."""
    extra = re.search(r"unexpected extra arguments? \((.*)\)", error.format_message())
    option = next((p for p in error.ctx.command.params if "--data" in p.opts), None) if error.ctx else None
    files = list(filter(os.path.exists, extra[1].split())) if extra else []
    if error.ctx is None or option is None or not files:
        return ""
    given = error.ctx.params.get(option.name or "") is not None
    said = "" if given else f" Give files by --data, as in --data {shlex.quote(files[0])}."
    return f".{said}" + (f" {SEVERAL_FILES}" if given or len(files) > 1 else "")


def _say(text: str) -> None:
    click.echo(" ".join(text.split()), err=True)


def _not_installed(module: str) -> str:
    extra = EXTRAS.get(module, "all")
    return f'{module} is not installed. Install it with: pip install "mdpot[{extra}]"'


def _reason(stop: Exception) -> str:
    reason = str(stop).rstrip(".")
    return f": {reason}" if reason else ""
