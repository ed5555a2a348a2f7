"""A bad disk is named in one line, whatever met it first; what is not the disk's fault passes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from bladeroot.core.diskchoice import Disk
from bladeroot.errors import (
    BladerootError,
    DepotError,
    DepotFullError,
    DiskBusyError,
    DiskError,
    DiskTooSmallError,
    ToolError,
    TrustError,
)
from bladeroot.host.kernellog import KernelLog
from bladeroot.ops.brokendisk import explain_broken_disk

DISK = Disk(path=Path("/dev/vda"), size_bytes=1 << 30, serial="blade-07")
INSIDE = Path("/tmp/bladeroot-install-x")


class Log(KernelLog):
    """The kernel's log with one line about the disk, or none."""

    def __init__(self, line: str = "") -> None:
        super().__init__(None)
        self._line = line

    def find_disk_error(self, device: str) -> str:
        return self._line if device == "vda" else ""


def raise_in_step(error: BaseException, log: KernelLog | None = None) -> None:
    with explain_broken_disk(DISK, "vda", "Make filesystems", log or Log(), inside=INSIDE):
        raise error


def make_extraction_error() -> DiskError:
    error = DiskError("/tmp/bladeroot-install-x/slot/usr/bin/a cannot be written: Input/output error")
    error.__cause__ = OSError(errno.EIO, "Input/output error")
    return error


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EIO, os.strerror(errno.EIO)), "input/output error"),
        (OSError(errno.EIO, os.strerror(errno.EIO), "/dev/vda3"), "input/output error"),
        (OSError(errno.EROFS, os.strerror(errno.EROFS), f"{INSIDE}/slot/etc/fstab"), "no more writes"),
        (
            ToolError("mkfs.ext4: Input/output error while writing out and closing file system"),
            "input/output",
        ),
        (ToolError("mkfs.vfat: unable to synchronize /dev/vda2:Input/output error"), "input/output error"),
        (DepotError("runtime: 00012: Input/output error"), "input/output error"),
        (make_extraction_error(), "input/output error"),
    ],
)
def test_what_a_bad_disk_does_is_a_line_that_names_it(error: BaseException, words: str) -> None:
    with pytest.raises(DiskError) as caught:
        raise_in_step(error)
    text = str(caught.value)
    assert text.startswith("disk /dev/vda (1.0 GiB, serial blade-07) fails: ")
    assert words in text
    assert text.endswith("at the step 'Make filesystems'")
    assert caught.value.hint.startswith("replace it")
    assert "\n" not in text + caught.value.hint


def test_a_program_that_does_not_say_why_is_explained_by_the_kernels_log() -> None:
    error = ToolError("mkfs.vfat: failed whilst writing reserved sector")
    with pytest.raises(ToolError, match="reserved sector"):
        raise_in_step(error)
    with pytest.raises(DiskError, match="fails: input/output error"):
        raise_in_step(error, Log("I/O error, dev vda, sector 2048"))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, os.strerror(errno.EIO), "/srv/depot/frames/aa"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        DiskTooSmallError("no room left for BR-A"),
        DepotFullError("no room left for runtime"),
        TrustError("not signed"),
        KeyboardInterrupt(),
    ],
)
def test_what_is_not_the_disks_fault_passes_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        raise_in_step(error)
    assert caught.value is error


@pytest.mark.parametrize("error", [DiskTooSmallError("small"), DepotFullError("full")])
def test_a_full_disk_is_not_a_broken_one_even_if_the_kernel_complains(error: BladerootError) -> None:
    with pytest.raises(type(error)):
        raise_in_step(error, Log("I/O error, dev vda, sector 1"))


def test_a_busy_disk_is_busy() -> None:
    with pytest.raises(DiskBusyError):
        raise_in_step(DiskBusyError("/dev/vda is in use"))
