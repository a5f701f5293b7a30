"""What all tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers share the cores; OpenMP's threads would spin against each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

# Read once, before `hermetic` hides it.
_DATA = os.environ.get("MDPOT_DATA")


@pytest.fixture(autouse=True)
def hermetic(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test depends on what MDPOT_DATA or the user's cache happens to hold."""
    monkeypatch.delenv("MDPOT_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, by the tests and by what they start, also where it is ignored: under `nohup pytest … &`."""
    before = signal.getsignal(signal.SIGINT)
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before == signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder in MDPOT_DATA, with the larger data sets; what needs it is skipped where it is absent."""
    if not _DATA or not Path(_DATA).is_dir():
        pytest.skip("needs the data sets in the folder MDPOT_DATA")
    return Path(_DATA)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the checkout; tests that read its files are skipped elsewhere."""
    root = Path(__file__).resolve().parent.parent
    if not (root / "pyproject.toml").is_file():
        pytest.skip("needs a checkout")
    return root
