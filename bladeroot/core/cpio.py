"""Archives that the kernel unpacks as its first root filesystem (cpio, format "newc"). No I/O.

Documentation/driver-api/early-userspace/buffer-format.rst in the kernel's source. The same entries give the
same bytes: inodes are counted, times are zero, everything is root's.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from attrs import frozen

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"


@frozen(kw_only=True)
class Entry:
    """A member: `name` relative, `mode` with its file type; a symbolic link's `data` is its target."""

    name: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def make_directory(name: str, mode: int = 0o755) -> Entry:
    """A directory."""
    return Entry(name=name, mode=stat.S_IFDIR | mode)


def make_file(name: str, data: bytes, mode: int = 0o644) -> Entry:
    """A regular file."""
    return Entry(name=name, mode=stat.S_IFREG | mode, data=data)


def make_link(name: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(name=name, mode=stat.S_IFLNK | 0o777, data=target.encode())


def find_parents(names: Iterable[str]) -> list[str]:
    """The directories that these names stand in, parents first: the kernel makes none by itself."""
    parents = {str(parent) for name in names for parent in PurePosixPath(name).parents}
    return sorted(parents - {"."})


def render_cpio(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The archive, in chunks."""
    for number, entry in enumerate(entries, start=1):
        yield from _render_entry(number, entry)
    yield from _render_entry(0, Entry(name=_TRAILER, mode=0))


def _render_entry(number: int, entry: Entry) -> Iterator[bytes]:
    name = entry.name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    size = len(entry.data)
    fields = (number, entry.mode, 0, 0, links, 0, size, 0, 0, *entry.device, len(name), 0)
    header = _MAGIC + b"".join(b"%08X" % field for field in fields) + name
    yield header + bytes(-len(header) % 4)
    yield entry.data
    yield bytes(-size % 4)
