"""Files that are whole or not there: full disks, places that are no files, locks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mdpot.errors import MdpotError
from mdpot.export import export_torchscript
from mdpot.files import atomic, locked, remove_leftovers, write_bytes, write_text


@pytest.fixture
def small_disk(tmp_path: Path):
    """A file system of 100 kB; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, check=False)
    except OSError:
        pytest.skip("needs mount")
    if done.returncode:
        pytest.skip("may not mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_leaves_what_was_there(small_disk: Path) -> None:
    """And is a line: by itself torch's writer kills the process there."""
    from mdpot.training.state import save

    file = small_disk / "model"
    write_text(file, "what was there")
    big = {"weight": torch.zeros(100_000)}
    for attempt in (
        lambda: write_bytes(file, bytes(200_000)),
        lambda: write_text(file, "x" * 200_000),
        lambda: save(file, big),
        lambda: export_torchscript("water-rpbe-small", file, units="ase", check=False),
    ):
        with pytest.raises(MdpotError, match=r"cannot write .*model': No space left.*What was there is as it was\.$"):
            attempt()
        assert file.read_text() == "what was there"
        assert os.listdir(small_disk) == ["model"]


@pytest.mark.parametrize("kind", ["folder", "pipe", "device"])
def test_what_is_no_file_is_not_replaced(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
    elif kind == "pipe":
        os.mkfifo(place)
    else:
        place = Path(os.devnull)
    for attempt in (
        lambda: write_text(place, "x"),
        lambda: export_torchscript("water-rpbe-small", place, units="ase", check=False),
    ):
        with pytest.raises(MdpotError, match=r"cannot write .*: it is (a folder|no regular file)\. Name"):
            attempt()
    assert not place.is_file()
    assert [path.name for path in tmp_path.iterdir()] == ([] if kind == "device" else ["place"])


def test_errors_of_others_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic(tmp_path / "a"):
        (tmp_path / "nowhere").read_text()
    with pytest.raises(PermissionError, match="theirs"), atomic(tmp_path / "a"):
        raise PermissionError(13, "Permission denied", "theirs")
    assert not list(tmp_path.iterdir())
    with pytest.raises(MdpotError, match=r"cannot write .*Permission denied"), atomic(tmp_path / "a") as temporary:
        raise PermissionError(13, "Permission denied", str(temporary))


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    code = (
        "import os, signal\nfrom mdpot.files import atomic\n"
        f"with atomic({str(tmp_path / 'last.pt')!r}) as file:\n"
        "    file.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    (tmp_path / "mine.part").write_text("mine")
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.part"]


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    code = (
        "import sys\nfrom pathlib import Path\nfrom mdpot.files import locked\n"
        f"with locked(Path({str(path)!r}), wait=False) as ours:\n"
        "    print(ours, flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with locked(path, wait=False) as ours:
        assert not ours
    holder.kill()
    holder.communicate()
    with locked(path, wait=False) as ours:
        assert ours
        # Whoever comes while the file is removed, and another is made, gets no lock of nothing.
        path.unlink()
        with locked(path, wait=False) as other:
            assert other
