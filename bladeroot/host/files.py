"""Files that are either whole and on disk, or not there."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bladeroot.errors import BladerootError, NoRoomError
from bladeroot.host import interrupts

_WRITE_BACK_PAUSE_S = 0.3
_libc = ctypes.CDLL(None, use_errno=True)


def write_atomically(path: Path, data: bytes | str, *, mode: int = 0o644) -> None:
    """Replace `path` by these bytes at once: after a crash it is the old file or the new one.

    The new file is private until it is whole. Raises NoRoomError where there is no room.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    payload = data.encode() if isinstance(data, str) else data
    try:
        with explain_full_disk(path):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as stream:
                stream.write(payload)
                stream.flush()
                os.fchmod(descriptor, mode)
                os.fsync(descriptor)
            temporary.rename(path)
            sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise


@contextmanager
def scratch_folder(name: str, inside: Path | None = None) -> Iterator[Path]:
    """A new private folder for the length of the block, however that ends; `name` begins its own.

    It is in `inside`, or else where temporary files belong. Raises NoRoomError.
    """
    with ExitStack() as stack:
        with interrupts.uninterrupted(), explain_full_disk(inside or Path(tempfile.gettempdir())):
            folder = Path(tempfile.mkdtemp(prefix=name, dir=inside))
            stack.callback(_remove_folder, folder)
        yield folder


def _remove_folder(folder: Path) -> None:
    with interrupts.uninterrupted():
        shutil.rmtree(folder, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """Make renames in a directory last."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def explain_full_disk(
    path: Path, error_class: type[BladerootError] = NoRoomError, hint: str = "make room there"
) -> Iterator[None]:
    """Turn "no space" and "quota exceeded" inside the block into an error that names `path`."""
    try:
        yield
    except (OSError, NoRoomError) as error:
        if isinstance(error, NoRoomError) or is_full(error):
            raise error_class(f"no room left for {path}", hint) from error
        raise


def is_full(error: OSError) -> bool:
    """Whether it says that there is no room: no blocks, no inodes, or no quota left."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def allow_many_files() -> None:
    """Let this process open as many files and connections as its hard limit allows (getrlimit(2))."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@contextmanager
def writing_back(*paths: Path) -> Iterator[None]:
    """Keep what is written to these filesystems going to their disks for the length of the block: a sync at
    its end has little left to do. Raises the OSError that a disk has answered with.
    """
    over = threading.Event()
    failures: list[OSError] = []

    def write_back() -> None:
        while not failures and not over.wait(_WRITE_BACK_PAUSE_S):
            for path in paths:
                try:
                    sync_filesystem(path)
                except OSError as error:  # told once: the next sync would know nothing of it
                    failures.append(error)

    thread = threading.Thread(target=write_back, name="write-back", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if failures:
        raise failures[0]


def sync_filesystem(path: Path) -> None:
    """Put everything of the filesystem that `path` is on onto its disk, and nothing of others (syncfs(2))."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
