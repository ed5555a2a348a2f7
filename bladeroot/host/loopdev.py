"""A loop device for a file: it goes with this process, however and at whatever instant that ends.

Not by losetup(8): between its attaching a device and our knowing which one, a signal would leave it behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bladeroot.errors import DiskError

_CONTROL = Path("/dev/loop-control")
# linux/loop.h
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_READ_ONLY = 1
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_PARTSCAN = 8
_CONFIG_BYTES = 304
_FLAGS_OFFSET = 60
_NAME_OFFSET = 64
_NAME_BYTES = 63
_ATTEMPTS = 64
"""Another process may take the free device that the kernel named, before we do."""


@contextmanager
def attached_loop(file: Path, *, read_only: bool = False) -> Iterator[Path]:
    """The loop device that shows the file, for the length of the block; its partitions go with it.

    It is let go of by its last user (LO_FLAGS_AUTOCLEAR): there is nothing to undo. Raises DiskError.
    """
    mode = os.O_RDONLY if read_only else os.O_RDWR
    with ExitStack() as stack:
        try:
            backing = _open(stack, file, mode)
            device, number = _configure(stack, backing, file, mode)
        except OSError as error:
            raise DiskError(
                f"{file}: no loop device for it: {error.strerror}", "is the module loop loaded? `losetup -a`"
            ) from error
        yield device
        if not read_only:
            os.fsync(number)


def find_loops(file: Path) -> list[Path]:
    """The loop devices that show the file already."""
    wanted = file.stat()
    found = []
    for facts in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            backing = os.stat(facts.read_text(encoding="utf-8", errors="surrogateescape").rstrip("\n"))
        except OSError:
            continue
        if (backing.st_dev, backing.st_ino) == (wanted.st_dev, wanted.st_ino):
            found.append(Path("/dev") / facts.parts[3])
    return sorted(found)


def _configure(stack: ExitStack, backing: int, file: Path, mode: int) -> tuple[Path, int]:
    flags = _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_PARTSCAN | (_LO_FLAGS_READ_ONLY if mode == os.O_RDONLY else 0)
    config = bytearray(_CONFIG_BYTES)
    struct.pack_into("=I", config, 0, backing)
    struct.pack_into("=I", config, _FLAGS_OFFSET, flags)
    name = os.fsencode(file)[:_NAME_BYTES]
    config[_NAME_OFFSET : _NAME_OFFSET + len(name)] = name
    control = _open(stack, _CONTROL, os.O_RDWR)
    for _attempt in range(_ATTEMPTS):
        device = Path(f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}")
        with ExitStack() as unless_taken:  # another's device stays as long as we have it open
            number = _open(unless_taken, device, mode)
            try:
                fcntl.ioctl(number, _LOOP_CONFIGURE, bytes(config))
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
            else:
                stack.push(unless_taken.pop_all())
                return device, number
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _open(stack: ExitStack, path: Path, mode: int) -> int:
    number = os.open(path, mode | os.O_CLOEXEC)
    stack.callback(os.close, number)
    return number
