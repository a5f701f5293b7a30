"""Downloads without a network: what is unpacked, and how failures read."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import requests

from mdpot.errors import MdpotError
from mdpot.training.data import download
from mdpot.training.data.catalog import WATER_RPBE_DOWNLOAD
from mdpot.training.data.download import Download, fetch, unpack_members, unpack_runner
from mdpot.training.data.readers.runner import read_runner


def _tar(path: Path, files: dict[str, str], packing: str = "gz") -> Path:
    with tarfile.open(path, f"w:{packing}") as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))
    return path


def _download(address: str, checksum: str | None) -> Download:
    return Download(
        page="https://example.org/record",
        archives=("set.tar.gz",),
        resolve=lambda archive: (address, checksum),
        unpack=partial(unpack_runner, words=("rpbe", "d3"), others=("blyp",)),
        by_hand="put it at {folder}/input.data.",
    )


@pytest.fixture
def server(tmp_path: Path, runner_text: str):
    """A web server on this machine with one archive; gives its address and the archive."""
    root = tmp_path / "www"
    root.mkdir()
    archive = _tar(root / "set.tar.gz", {"data/RPBE-D3/input.data": runner_text, "data/BLYP-D3/input.data": "x"})

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root)) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/set.tar.gz", archive
        httpd.shutdown()
        thread.join()


def test_fetch_unpacks_the_set_that_is_meant(server, tmp_path: Path) -> None:
    address, archive = server
    checksum = "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()
    fetch("water", _download(address, checksum), tmp_path / "target")
    assert len(read_runner(tmp_path / "target" / "input.data.gz")) == 12


def test_a_wrong_checksum_is_refused(server, tmp_path: Path) -> None:
    address, _ = server
    with pytest.raises(MdpotError, match=r"water: the download failed .*hash.* Fetch set\.tar\.gz by hand") as caught:
        fetch("water", _download(address, "md5:" + "0" * 32), tmp_path / "target")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "target" / "input.data.gz").exists()


@pytest.mark.parametrize(
    ("packing", "how"), [("gz", "cut off"), ("bz2", "cut off"), ("bz2", "changed"), ("xz", "changed")]
)
def test_a_damaged_archive_is_fetched_again(server, tmp_path: Path, packing: str, how: str) -> None:
    address, archive = server
    whole = archive.read_bytes()
    texts = {f"{n}/RPBE-D3": np.random.default_rng(n).bytes(20_000).hex() for n in range(30)}
    packed = _tar(archive, texts, packing).read_bytes()
    at = len(packed) - 1000
    archive.write_bytes(packed[:at] if how == "cut off" else packed[:at] + bytes(500) + packed[at + 500 :])
    with pytest.raises(MdpotError, match=r"water: the download failed .* Fetch set\.tar\.gz by hand"):
        fetch("water", _download(address, None), tmp_path / "target")
    archive.write_bytes(whole)
    fetch("water", _download(address, None), tmp_path / "target")
    assert len(read_runner(tmp_path / "target" / "input.data.gz")) == 12


def test_a_missing_file_on_the_server(server, tmp_path: Path) -> None:
    address, _ = server
    with pytest.raises(MdpotError, match="404"):
        fetch("water", _download(address + "x", None), tmp_path / "target")


def test_no_network_costs_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_ANSWER", 0.2)
    silent = Download("page", ("set.tar.gz",), lambda archive: time.sleep(3) or ("", None), unpack_runner, "do it.")  # type: ignore
    start = time.perf_counter()
    with pytest.raises(MdpotError, match="no answer in time"):
        fetch("water", silent, tmp_path)
    assert time.perf_counter() - start < 2


def test_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise requests.ConnectionError("a long story")

    monkeypatch.setattr(requests, "get", refuse)
    with pytest.raises(MdpotError) as caught:
        fetch("water-rpbe", WATER_RPBE_DOWNLOAD, tmp_path / "cache")
    message = str(caught.value)
    for part in (
        "no connection",
        "zenodo.org/records/2634098",
        str(tmp_path / "cache" / "input.data"),
        "--data",
    ):
        assert part in message
    assert "\n" not in message


def test_zenodo_says_address_and_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    class Answer:
        def raise_for_status(self) -> None:
            pass

        def json(self) -> dict:
            return {"files": [{"key": "a.tgz", "checksum": "md5:12", "links": {"self": "https://z/a.tgz"}}]}

    monkeypatch.setattr(requests, "get", lambda *_, **__: Answer())
    assert download.zenodo_address("1", "a.tgz") == ("https://z/a.tgz", "md5:12")
    with pytest.raises(ValueError, match=r"record 1 holds a\.tgz"):
        download.zenodo_address("1", "b.tgz")


def test_an_archive_that_leaves_a_choice(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tgz", {"RPBE-D3/input.data.1": "x", "RPBE-D3/input.data.2": "x"})
    with pytest.raises(ValueError, match=r"input\.data\.1, RPBE-D3/input\.data\.2, and mdpot cannot tell"):
        unpack_runner(archive, tmp_path, ("rpbe",), ())


def test_members_keep_the_names_of_their_folders(tmp_path: Path) -> None:
    archive = _tar(tmp_path / "a.tgz", {"rmd17/npz_data/a.npz": "a", "rmd17/splits/b.csv": "b", "../x/c.csv": "c"})
    unpack_members(archive, tmp_path / "out", lambda name: name.endswith((".npz", "b.csv")))
    found = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*"))
    assert found == ["npz_data/a.npz", "splits/b.csv"]
