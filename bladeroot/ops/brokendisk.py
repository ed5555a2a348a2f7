"""A disk that fails during an install: whatever met it first, it is one clear line that names the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bladeroot.core.diskchoice import Disk, describe_disk
from bladeroot.errors import DepotError, DepotFullError, DiskError, DiskTooSmallError, ToolError
from bladeroot.host.kernellog import KernelLog

_WORDS = {
    errno.EIO: "input/output error",
    errno.EREMOTEIO: "input/output error",
    errno.EILSEQ: "its data does not fit its checksums",
    errno.EUCLEAN: "its filesystem came back damaged",
    errno.EBADMSG: "its filesystem came back damaged",
    errno.EROFS: "it takes no more writes",
    errno.ENXIO: "it is gone",
    errno.ENODEV: "it is gone",
}
"""What the block layer and the filesystems say of a bad disk (blk_errors in the kernel's blk-core.c)."""
_SAID = {os.strerror(number): words for number, words in _WORDS.items()}


@contextmanager
def explain_broken_disk(
    disk: Disk, device: str, title: str, log: KernelLog, *, inside: Path
) -> Iterator[None]:
    """Turn what a bad disk does to the step of that title into a DiskError that says so; let others pass.

    `device` is the kernel's name of the disk, and what is below the folder `inside` is on it.
    """
    try:
        yield
    except (OSError, ToolError, DiskError, DepotError) as error:
        words = _find_words(error, inside)
        is_full = isinstance(error, DiskTooSmallError | DepotFullError)
        if words is None and not is_full and log.find_disk_error(device):
            words = _WORDS[errno.EIO]
        if words is None:
            raise
        raise DiskError(
            f"disk {describe_disk(disk)} fails: {words}, at the step {title!r}",
            f"replace it; `dmesg` has what the kernel saw; here it was: {error}",
        ) from error


def _find_words(error: BaseException, inside: Path) -> str | None:
    """What the error says of the disk, or what it was raised from does; None for nothing."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError):
            return _WORDS.get(cause.errno or 0) if _may_be_on_disk(cause, inside) else None
        cause = cause.__cause__
    return next((words for said, words in _SAID.items() if said.lower() in str(error).lower()), None)


def _may_be_on_disk(error: OSError, inside: Path) -> bool:
    """Most errors name no file. One that names a file elsewhere is about another disk."""
    if not isinstance(error.filename, str | bytes):
        return True
    path = Path(os.fsdecode(error.filename))
    return not path.is_absolute() or path.is_relative_to("/dev") or path.is_relative_to(inside)
