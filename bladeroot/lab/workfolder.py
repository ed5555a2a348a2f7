"""Where a lab works: a folder that is emptied first, but only if a lab made it, and no lab runs in it."""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bladeroot.errors import ToolError, UsageError

_POLL_S = 0.1


def make_work_folder(work: Path, marker_name: str) -> Path:
    """Make the folder, or empty it if it has the marker; returns the marker.

    Raises UsageError for a folder that anybody else made.
    """
    marker = work / marker_name
    if work.exists() and not marker.exists() and (not work.is_dir() or any(work.iterdir())):
        raise UsageError(f"{work} is there, and nothing of its kind made it", "name a new folder: --work DIR")
    try:
        if marker.exists():
            for path in work.iterdir():
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                elif path != marker:
                    path.unlink()
        work.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise ToolError(f"cannot work in {work}: {error.strerror}") from error
    return marker


@contextmanager
def occupied_work_folder(work: Path, marker_name: str) -> Iterator[Path]:
    """The folder, emptied of what an earlier run left, and nobody else's until the block ends.

    Raises UsageError where somebody works in it now.
    """
    marker = work / marker_name
    if marker.exists():  # before anything of it is removed
        with _locked(marker, work):
            make_work_folder(work, marker_name)
            yield work
    else:
        make_work_folder(work, marker_name)
        with _locked(marker, work):
            yield work


def wait_until_free(work: Path, marker_name: str, timeout_s: float) -> bool:
    """Wait until nobody works in the folder; False when the time is over."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            with _locked(work / marker_name, work):
                return True
        except UsageError:
            time.sleep(_POLL_S)
    return False


@contextmanager
def _locked(marker: Path, work: Path) -> Iterator[None]:
    with marker.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = "`bladeroot lab down` ends it, or name another folder: --work DIR"
            raise UsageError(f"a lab is running in {work}", hint) from None
        yield
