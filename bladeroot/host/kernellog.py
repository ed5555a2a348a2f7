"""What the kernel says of a disk, since programs often do not say why they fail.

Documentation/ABI/testing/dev-kmsg in the kernel's source.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_KMSG = Path("/dev/kmsg")
_RECORD_BYTES = 8192
"""More than any record has; a shorter read would fail."""
_TEXT = re.compile(r"[^;]*;([^\n]*)")


class KernelLog:
    """The kernel's log from the moment that it was opened on; silent where it cannot be read."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def find_disk_error(self, device: str) -> str:
        """The first new line about an I/O error of that disk or a partition of it (`sda`); empty for none."""
        name = rf"{re.escape(device)}(p?\d+)?\b"
        pattern = re.compile(rf"(I/O|critical \w+|protection) error.*\bdev {name}|fs error \(device {name}")
        return next((line for line in self._read() if pattern.search(line)), "")

    def _read(self) -> Iterator[str]:
        while self._descriptor is not None:
            try:
                record = os.read(self._descriptor, _RECORD_BYTES)
            except BrokenPipeError:
                continue  # records were overwritten before they were read: the next read gets the oldest
            except OSError:
                return  # nothing more, for now
            match = _TEXT.match(record.decode(errors="replace"))
            if match is None:
                return
            yield match.group(1)


@contextmanager
def follow_kernel_log(path: Path = _KMSG) -> Iterator[KernelLog]:
    """The kernel's log from now on."""
    with contextlib.ExitStack() as stack:
        descriptor = None
        with contextlib.suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            stack.callback(os.close, descriptor)
            os.lseek(descriptor, 0, os.SEEK_END)
        yield KernelLog(descriptor)
