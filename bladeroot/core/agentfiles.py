"""The agent artefact: kernel and initramfs as files that are pieces, and how they are put together. No I/O.

A file `initramfs.07` is the eighth part of the initramfs. The last part is a small archive of its own (the
kernel takes several, one behind the other): what is the cluster's, so that the rest stays the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

KERNEL = "vmlinuz"
INITRAMFS = "initramfs"
KERNEL_ARGUMENT = "rootfstype=ramfs"
"""For the agent's kernel: else it unpacks into a tmpfs, which holds half of what memory was free early on,
and on a small UEFI machine that is less than all drivers take (init/do_mounts.c: init_rootfs).
"""
PART_BYTES = 4 << 20
_PART = re.compile(rf"({KERNEL}|{INITRAMFS})\.(\d{{2}})")


def cut_into_parts(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """The parts of the kernel or initramfs, with their names."""
    for number, start in enumerate(range(0, len(data), PART_BYTES)):
        yield f"{name}.{number:02d}", data[start : start + PART_BYTES]


def choose_parts(name: str, file_names: Iterable[str]) -> list[str]:
    """Of an artefact's files those that make up `name`, in order."""
    matches = (_PART.fullmatch(file_name) for file_name in file_names)
    return sorted(match.group() for match in matches if match and match.group(1) == name)
