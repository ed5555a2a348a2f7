"""The agent artefact: kernel and initramfs as files that are pieces, and how they are put together. No I/O.

A file `initramfs.07` is the eighth part of the initramfs. The kernel takes several archives, one behind the
other; each is cut by itself, so that where one changes the parts of those before it stay. The last, a part of
its own, is what is the cluster's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

KERNEL = "vmlinuz"
INITRAMFS = "initramfs"
WHOLE_FILES = (KERNEL, INITRAMFS)
"""What parts make up."""
KERNEL_ARGUMENT = "rootfstype=ramfs"
"""For the agent's kernel: else it unpacks into a tmpfs, which holds half of what memory was free early on,
and on a small UEFI machine that is less than all drivers take (init/do_mounts.c: init_rootfs).
"""
PART_BYTES = 4 << 20
_PART = re.compile(rf"({KERNEL}|{INITRAMFS})\.(\d{{2}})")


def cut_into_parts(name: str, *pieces: bytes) -> Iterator[tuple[str, bytes]]:
    """The parts of the kernel or initramfs, with their names; no part has bytes of two pieces."""
    chunks = (
        piece[start : start + PART_BYTES] for piece in pieces for start in range(0, len(piece), PART_BYTES)
    )
    for number, chunk in enumerate(chunks):
        yield f"{name}.{number:02d}", chunk


def choose_parts(name: str, file_names: Iterable[str]) -> list[str]:
    """Of an artefact's files those that make up `name`, in order."""
    matches = (_PART.fullmatch(file_name) for file_name in file_names)
    return sorted(match.group() for match in matches if match and match.group(1) == name)


def join_parts(file_names: Iterable[str]) -> list[str]:
    """An artefact's files as a person sees them: every part is the file that it is of, once."""
    matches = ((name, _PART.fullmatch(name)) for name in file_names)
    return list(dict.fromkeys(match.group(1) if match else name for name, match in matches))
