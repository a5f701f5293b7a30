"""Fetching public data into the cache, when asked to; a network that is not there costs seconds."""

from __future__ import annotations

import gzip
import lzma
import shutil
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mdpot.errors import MdpotError
from mdpot.files import atomic

#: Seconds for the first answer, and between two pieces of a file.
FIRST_ANSWER, NEXT_PIECE = 6.0, 20.0

#: What reading a damaged archive raises; of bzip2 an OSError, which a full disk raises as well.
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError)

T = TypeVar("T")


@dataclass(frozen=True)
class Download:
    """Public archives, and how their files get into the cache.

    Attributes:
        page: where a person finds them.
        archives: their file names.
        resolve: takes one of these, gives its (address, checksum or None); may ask the network.
        unpack: takes (archive, folder of the source in the cache) and writes the files the source looks for.
        by_hand: what to put where, for the message when it fails; `{folder}` is the folder in the cache.
    """

    page: str
    archives: tuple[str, ...]
    resolve: Callable[[str], tuple[str, str | None]]
    unpack: Callable[[Path, Path], None]
    by_hand: str


def cache_folder() -> Path | None:
    """The folder of mdpot in the platform's cache; None where pooch, which knows it, is not installed."""
    try:
        import pooch
    except ModuleNotFoundError:
        return None
    return Path(pooch.os_cache("mdpot"))


def fetch(name: str, download: Download, folder: Path) -> None:
    """Downloads the archives of a source and unpacks them into its folder in the cache.

    Args:
        name: of the source, for messages.
        download: what to fetch.
        folder: of the source in the cache; made where it is missing.

    Raises:
        MdpotError: no network, an error of the server, a wrong checksum or an archive that holds something
            else. One line that says what to fetch by hand and where to put it.
        ModuleNotFoundError: pooch is not installed.
    """
    import pooch
    import requests

    remedy = download.by_hand.format(folder=folder)
    by_hand = f"Fetch {' and '.join(download.archives)} by hand from {download.page}: {remedy}"
    pooch.get_logger().setLevel("WARNING")  # The bar and the error say what its log would.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name_of_file in download.archives:
            address, checksum = _within(FIRST_ANSWER, partial(download.resolve, name_of_file))
            archive = pooch.retrieve(
                address,
                known_hash=checksum,
                fname=name_of_file,
                path=folder,
                # pooch's annotations leave out bars of one's own, which its manual describes.
                downloader=pooch.HTTPDownloader(  # type: ignore[arg-type]
                    progressbar=_Bar(f"{name}: {name_of_file}"),  # type: ignore[arg-type]
                    chunk_size=1 << 16,
                    timeout=(FIRST_ANSWER, NEXT_PIECE),
                ),
            )
            _unpack(download, Path(archive), folder)
    except (requests.RequestException, OSError, ValueError, KeyError, *DAMAGED) as error:
        raise MdpotError(f"{name}: the download failed ({_reason(error)}). {by_hand}") from None


def _unpack(download: Download, archive: Path, folder: Path) -> None:
    """Unpacks an archive; a damaged one is removed, or it would be taken for whole the next time."""
    try:
        download.unpack(archive, folder)
    except (OSError, *DAMAGED) as error:
        if getattr(error, "errno", None) is None:
            archive.unlink(missing_ok=True)
        raise


def zenodo_address(record: str, archive: str) -> tuple[str, str | None]:
    """Address and checksum of a file of a Zenodo record, both as Zenodo's own interface states them."""
    file = _listed(f"https://zenodo.org/api/records/{record}", "key", archive, f"record {record}")
    return file["links"]["self"], file.get("checksum")


def figshare_address(article: str, archive: str) -> tuple[str, str | None]:
    """Address and checksum of a file of a figshare article, both as figshare's own interface states them."""
    file = _listed(f"https://api.figshare.com/v2/articles/{article}", "name", archive, f"article {article}")
    checksum = file.get("computed_md5") or file.get("supplied_md5")
    return file["download_url"], f"md5:{checksum}" if checksum else None


def _listed(address: str, key: str, archive: str, where: str) -> dict[str, Any]:
    """What an interface says of one of the files that it lists, each of which has its name under a key.

    Raises:
        ValueError: it is not among them.
    """
    import requests

    answer = requests.get(address, timeout=FIRST_ANSWER)
    answer.raise_for_status()
    files = {file[key]: file for file in answer.json()["files"]}
    if archive not in files:
        raise ValueError(f"{where} holds {', '.join(sorted(files))}")
    return files[archive]


def keep(archive: Path, folder: Path) -> None:
    """Unpacks nothing: the archive is the file, and was fetched to its place."""


def unpack_runner(archive: Path, folder: Path, words: Iterable[str], others: Iterable[str]) -> None:
    """Takes the one RuNNer file out of a tar archive whose path has all `words` and none of `others`.

    Raises:
        ValueError: none, or several.
    """
    with tarfile.open(archive) as tar:
        files = [m for m in tar.getmembers() if m.isfile() and Path(m.name).name.startswith("input.data")]
        fits = [m for m in files if all(w in m.name.lower() for w in words)]
        fits = [m for m in fits if not any(w in m.name.lower() for w in others)]
        if len(fits) != 1:
            held = ", ".join(m.name for m in files) or "no input.data"
            raise ValueError(f"{archive} holds {held}, and mdpot cannot tell which to take")
        content = tar.extractfile(fits[0])
        if content is None:
            raise ValueError(f"{archive}: cannot read {fits[0].name}")
        with atomic(folder / "input.data.gz") as partial:
            packed = fits[0].name.endswith(".gz")
            with partial.open("wb") if packed else gzip.open(partial, "wb") as file:
                shutil.copyfileobj(content, file)


def unpack_members(archive: Path, folder: Path, wanted: Callable[[str], bool]) -> None:
    """Takes the wanted files out of a tar archive, to folder/<name of their folder there>/<their name>."""
    with tarfile.open(archive) as tar:
        for member in tar:
            if member.isfile() and wanted(member.name):
                content = tar.extractfile(member)
                target = folder.joinpath(*Path(member.name).parts[-2:])
                target.parent.mkdir(parents=True, exist_ok=True)
                if content is not None:
                    with atomic(target) as partial, partial.open("wb") as file:
                        shutil.copyfileobj(content, file)


def _within(seconds: float, function: Callable[[], T]) -> T:
    """The result of a function, given up after some seconds (looking up a host has no limit of its own)."""
    results: list[T] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if results:
        return results[0]
    raise errors[0] if errors else TimeoutError(f"no answer within {seconds:.0f} s")


def _reason(error: Exception) -> str:
    """What went wrong, in a few words on one line."""
    import requests

    if isinstance(error, requests.Timeout | TimeoutError):
        return "no answer in time"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return " ".join(str(error).split())[:300] or type(error).__name__


class _Bar:
    """A rich progress bar on stderr in the shape that pooch wants."""

    def __init__(self, text: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._progress.add_task(text, total=None)

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, value: float) -> None:
        self._progress.update(self._task, total=value or None)
        self._progress.start()

    def update(self, n_bytes: int) -> None:
        self._progress.advance(self._task, n_bytes)

    def reset(self) -> None:
        self._progress.reset(self._task, start=True)

    def close(self) -> None:
        self._progress.stop()
