"""What frames were packed of, so that what has not changed is neither read nor compressed again.

A record of (what went into a frame, the frame). It is a cache: where it is lost or damaged, the next publish
takes as long as the first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import zstandard
from attrs import frozen

from bladeroot.core.framing import Content, PlannedFrame
from bladeroot.errors import NoRoomError
from bladeroot.host.files import sync_filesystem, write_atomically

PACKING_VERSION = 1
"""Counts changes of what `host.archive.pack` makes of the same plan; those of libzstd count by themselves."""
_SETTLED_NS = 2_000_000_000
"""Not less than the coarsest timestamps there are: a file that was changed later than this before it was
read may have been changed again after that, and look the same."""
_MOST = 20_000
"""Frames that are remembered: those of several generations, however large."""
_KEY_BYTES = 32
_ENTRY = struct.Struct(f"<{_KEY_BYTES}s32sI")
_MAGIC = b"bladeroot packed 1\n"
_PART = struct.Struct("<BQ")
_FILE = struct.Struct("<QQqqQ")
_SEGMENT = struct.Struct("<QQ")


@frozen
class KnownFrame:
    """A frame that was packed before: its file's size and BEP 52 root."""

    size_bytes: int
    root: bytes


class KnownFrames:
    """The record in the file `path` of what is packed of `tree`. Thread-safe, but for `save`.

    A file counts as what it was while its device, inode, size, mtime and ctime are. `now_ns` is the clock
    that ctimes are of. Remembered is only what has not been changed since this was made.
    """

    def __init__(self, path: Path, tree: Path, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._path = path
        self._settled_before_ns = now_ns() - _SETTLED_NS
        try:
            # A write to a mapped page moves the ctime only where the page is clean.
            sync_filesystem(tree)
        except OSError:
            self._settled_before_ns = 0
        self._before = _read(path)
        self._used: dict[bytes, KnownFrame] = {}

    def look(self, top: bytes, planned: PlannedFrame, level: int) -> Sight | None:
        """What a planned frame would be packed of, as it is now; None if that is not what was planned."""
        states: list[FileState] = []
        for part in planned.parts:
            if isinstance(part, bytes):
                continue
            try:
                status = os.lstat(top + b"/" + part.member.path)
            except OSError:
                return None
            if not stat.S_ISREG(status.st_mode) or status.st_mtime_ns != part.member.mtime_ns:
                return None
            states.append(read_state(status))
        is_settled = all(state.ctime_ns < self._settled_before_ns for state in states)
        return Sight(_make_key(planned.parts, states, level), tuple(states), is_settled)

    def find(self, sight: Sight) -> KnownFrame | None:
        """The frame that was made of just this."""
        known = self._used.get(sight.key) or self._before.get(sight.key)
        if known is not None:
            self._used[sight.key] = known
        return known

    def note(self, sight: Sight, frame: KnownFrame) -> None:
        """Remember what a frame was packed of, where that can be told from what came later."""
        if sight.is_settled:
            self._used[sight.key] = frame

    def save(self) -> None:
        """Write the record: what was of use last comes first, and what is too much is forgotten."""
        entries = self._used | {key: frame for key, frame in self._before.items() if key not in self._used}
        data = _render(list(entries.items())[:_MOST])
        with contextlib.suppress(OSError, NoRoomError):
            write_atomically(self._path, data, mode=0o600)


@frozen
class FileState:
    """What tells that a file has changed."""

    device: int
    inode: int
    ctime_ns: int
    mtime_ns: int
    size: int


@frozen
class Sight:
    """A planned frame with its files as they were seen before they were read."""

    key: bytes
    states: tuple[FileState, ...]
    is_settled: bool


def read_state(status: os.stat_result) -> FileState:
    """The state that a status shows."""
    return FileState(status.st_dev, status.st_ino, status.st_ctime_ns, status.st_mtime_ns, status.st_size)


def _make_key(parts: Iterable[bytes | Content], states: Sequence[FileState], level: int) -> bytes:
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    digest.update(repr((PACKING_VERSION, zstandard.ZSTD_VERSION, level)).encode())
    remaining = iter(states)
    for part in parts:
        if isinstance(part, bytes):
            digest.update(_PART.pack(0, len(part)))
            digest.update(part)
        else:
            state, segments = next(remaining), part.segments
            digest.update(_PART.pack(1, len(segments)))
            told = (state.device, state.inode, state.ctime_ns, state.mtime_ns, state.size)
            digest.update(_FILE.pack(*told))
            digest.update(b"".join(_SEGMENT.pack(*segment) for segment in segments))
    return digest.digest()


def _render(entries: Iterable[tuple[bytes, KnownFrame]]) -> bytes:
    body = b"".join(_ENTRY.pack(key, frame.root, frame.size_bytes) for key, frame in entries)
    return _MAGIC + hashlib.sha256(body).digest() + body


def _read(path: Path) -> dict[bytes, KnownFrame]:
    try:
        with path.open("rb") as stream:
            data = stream.read(len(_MAGIC) + 32 + _MOST * _ENTRY.size + 1)
    except OSError:
        return {}
    body = data[len(_MAGIC) + 32 :]
    if data[: -len(body) or None] != _MAGIC + hashlib.sha256(body).digest() or len(body) % _ENTRY.size:
        return {}
    return {key: KnownFrame(size, root) for key, root, size in _ENTRY.iter_unpack(body)}
