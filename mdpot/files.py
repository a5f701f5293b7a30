"""Files that are whole or not there at all, that know when they were changed, and that one process at a time writes."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from mdpot.errors import MdpotError

_SEAL = re.compile(rb"\nmdpot sha256 ([0-9a-f]{64})\n\Z")
_SEAL_LENGTH = len(b"\nmdpot sha256 \n") + 64
LEFTOVER = re.compile(r"\..*\.\d+\.part(\.[^.]*)?")
"""Names of the files that `atomic` writes to."""
_UNWRITTEN = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO", "EROFS", "EACCES", "EPERM", "ENAMETOOLONG", "ENOTDIR", "EEXIST")
    if hasattr(errno, name)
}


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A path to write to, beside `path`; when the block ends well it takes the place of `path`, else it is removed.

    The folder is made where it is missing.

    >>> with atomic("report.md") as temporary:
    ...     temporary.write_text("...")

    Raises:
        MdpotError: `path` is there and no regular file, or it cannot be written: a full disk, a folder that allows no
            writing. What was there is as it was.
    """
    path = Path(path)
    require_regular(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        # Some writers make files that only their owner may read.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except Exception as error:
        if (reason := _why_unwritten(error, (temporary, path, path.parent))) is None:
            raise
        kept = " What was there is as it was." if path.is_file() else ""
        raise MdpotError(f"cannot write {str(path)!r}: {reason}.{kept}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def appending(path: Path | str) -> Iterator[None]:
    """Says which file could not be written while the block appends to it: a full disk, a limit on its size.

    Raises:
        MdpotError: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        if (reason := _why_unwritten(error, (Path(path),))) is None:
            raise
        raise MdpotError(f"cannot write {str(path)!r}: {reason}.") from error


def require_regular(path: Path | str) -> None:
    """Refuses to put a file in the place of what is none: a folder, a device, a pipe.

    Raises:
        MdpotError: `path` is there and is no regular file.
    """
    path = Path(path)
    if path.is_dir():
        raise MdpotError(f"cannot write {str(path)!r}: it is a folder. Name a file.")
    if path.exists() and not path.is_file():
        raise MdpotError(f"cannot write {str(path)!r}: it is no regular file. Name another.")


def _why_unwritten(error: Exception, paths: tuple[Path, ...]) -> str | None:
    """Why one of some paths could not be written, if that is what an error says; None for any other error."""
    if isinstance(error, OSError):
        ours = error.filename is None or any(str(error.filename) == str(path) for path in paths)
        if ours and error.errno in _UNWRITTEN:
            return error.strerror
    return None


def remove_leftovers(folder: Path) -> None:
    """Removes what `atomic` left below a folder where its process was killed; for whoever alone writes there."""
    for path in folder.rglob(".*.part*"):
        if LEFTOVER.fullmatch(path.name) and path.is_file():
            with suppress(OSError):
                path.unlink()


def write_bytes(path: Path | str, content: bytes) -> None:
    """Writes `content` to `path`, atomically.

    What torch saves goes through here: on a full disk its own writer kills the process.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def sealed(content: bytes) -> bytes:
    """The content of a file with its checksum at the end; formats that know their end, as zip, are read as before."""
    return content + f"\nmdpot sha256 {hashlib.sha256(content).hexdigest()}\n".encode()


def sealed_content(path: Path) -> bytes:
    """What `sealed` was given, of a file.

    A zip file that ends as those of before there were checksums is taken as it is.

    Raises:
        MdpotError: the content is not what was sealed.
    """
    return unsealed(path.read_bytes(), str(path))


def unsealed(raw: bytes, name: str) -> bytes:
    """`sealed_content` of the bytes of a file that is called `name`."""
    if found := _SEAL.search(raw, max(len(raw) - _SEAL_LENGTH, 0)):
        content = raw[:-_SEAL_LENGTH]
        if hashlib.sha256(content).hexdigest().encode() == found[1]:
            return content
    elif raw[-22:-18] == b"PK\x05\x06":
        return raw
    raise MdpotError(f"{name!r} was changed since it was written: its checksum does not fit its content")


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Holds the lock of a file while the block runs; where the system has no locks, there is none.

    The lock ends with the process, however that dies.

    Args:
        path: the file, made where it is missing.
        wait: whether to wait for another process that holds it.

    Returns:
        Whether the lock is held; always, after waiting.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as file:
            held = _lock(file, wait)
            if held or not wait:
                yield held
                return


def _lock(file: TextIO, wait: bool) -> bool:
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    # Who held it before may have removed the file: then this is the lock of nothing.
    try:
        return os.path.samestat(os.stat(file.name), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def write_text(path: Path | str, text: str) -> None:
    """Writes `text` to `path`, atomically."""
    with atomic(path) as temporary:
        # Names of files may hold bytes that are no text; escaped so, JSON reads them back.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
