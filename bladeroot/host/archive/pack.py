"""Members of a tree to frames, on all cores."""

from __future__ import annotations

import os
import queue
import stat
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import zstandard
from attrs import frozen

from bladeroot.core.framing import (
    INDEX_NAME,
    Content,
    CutSizes,
    Frame,
    FrameIndex,
    PlannedFrame,
    frame_name,
    make_index,
    plan_frames,
    render_index,
)
from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.core.torrentfile import TorrentFile, hash_file_root
from bladeroot.errors import SnapshotError
from bladeroot.events import Progress, Reporter, ignore
from bladeroot.host.archive.known import FileState, KnownFrame, KnownFrames, Sight, read_state
from bladeroot.host.archive.scan import explain_reading
from bladeroot.host.interrupts import check

Write = Callable[[str, bytes], None]
"""Told a file's name and all of its bytes, from any thread."""
Take = Callable[[TorrentFile], bool]
"""Told, from any thread, of a file that was written before: whether it was there still, and is added."""


@frozen
class PackResult:
    """What an archive came out as; `files` are the frames and the index, as in its torrent."""

    files: tuple[TorrentFile, ...]
    index: FrameIndex
    size_bytes: int
    raw_size_bytes: int
    members: int


def pack_members(
    root: Path,
    members: Sequence[Member],
    write: Write,
    *,
    level: int,
    package_of: Mapping[bytes, str],
    threads: int | None = None,
    cuts: CutSizes | None = None,
    known: KnownFrames | None = None,
    take: Take = lambda _file: False,
    reporter: Reporter = ignore,
    step: str = "pack",
) -> PackResult:
    """Read, compress and hash the members of the tree at `root`; `write` gets every file of the archive.

    The same members and contents give the same bytes. Holds a few frames in memory, not more. A frame that
    is `known` to be made of just this, and that `take` still has, is not made again. Raises SnapshotError
    if a file is not as it was when the tree was scanned.
    """
    check_links(members)
    packing = _Packing(os.fsencode(root), write, level, known, take, reporter, step, members)
    planned = plan_frames(members, package_of, cuts)
    frames = packing.run(planned, threads or len(os.sched_getaffinity(0)))
    index = make_index(frames, members)
    data = render_index(index)
    write(INDEX_NAME, data)
    files = [TorrentFile(frame_name(n), frame.size_bytes, frame.root) for n, frame in enumerate(frames)]
    files.append(TorrentFile(INDEX_NAME, len(data), hash_file_root(data)))
    return PackResult(
        files=tuple(files),
        index=index,
        size_bytes=sum(file.size_bytes for file in files),
        raw_size_bytes=index.raw_size_bytes,
        members=len(members),
    )


def check_links(members: Sequence[Member]) -> None:
    """Raise ValueError unless every hard link's target is among the members."""
    targets = {member.path for member in members if member.kind is not MemberKind.HARDLINK}
    for member in members:
        if member.kind is MemberKind.HARDLINK and member.link_target not in targets:
            raise ValueError(f"hard link {member.path!r} to {member.link_target!r}, which is not packed")


class _Packing:
    """One run: this thread plans frames, workers read, compress and hash them."""

    def __init__(
        self,
        top: bytes,
        write: Write,
        level: int,
        known: KnownFrames | None,
        take: Take,
        reporter: Reporter,
        step: str,
        members: Sequence[Member],
    ) -> None:
        self._top = top
        self._write = write
        self._level = level
        self._known = known
        self._take = take
        self._reporter = reporter
        self._step = step
        self._total = sum(member.data_size for member in members)
        self._done = 0
        self._lock = threading.Lock()
        self._frames: dict[int, Frame] = {}
        self._failure: BaseException | None = None

    def run(self, frames: Iterator[PlannedFrame], threads: int) -> list[Frame]:
        jobs: queue.Queue[tuple[int, PlannedFrame] | None] = queue.Queue(maxsize=threads + 1)
        workers = [threading.Thread(target=self._work, args=(jobs,), daemon=True) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            for number, planned in enumerate(frames):
                check()
                jobs.put((number, planned))
                if self._failure is not None:
                    break
        except BaseException as error:
            self._fail(error)
        for _ in workers:
            jobs.put(None)
        for worker in workers:
            worker.join()
        if self._failure is not None:
            raise self._failure
        return [self._frames[number] for number in range(len(self._frames))]

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error

    def _work(self, jobs: queue.Queue[tuple[int, PlannedFrame] | None]) -> None:
        packer = _Packer(self._top, self._level)
        while (job := jobs.get()) is not None:
            if self._failure is not None:
                continue
            try:
                self._pack(packer, *job)
            except BaseException as error:
                self._fail(error)

    def _pack(self, packer: _Packer, number: int, planned: PlannedFrame) -> None:
        name = frame_name(number)
        sight = self._known.look(self._top, planned, self._level) if self._known else None
        made = self._find(name, sight) or self._make(packer, name, planned, sight)
        frame = Frame(
            size_bytes=made.size_bytes,
            raw_size_bytes=planned.raw_size_bytes,
            root=made.root,
            members=planned.members,
            head_of=planned.head_of,
            range_of=planned.range_of,
        )
        with self._lock:
            self._frames[number] = frame
            self._done += planned.content_bytes
            done = self._done
        self._reporter(Progress(step=self._step, done=done, total=self._total))

    def _find(self, name: str, sight: Sight | None) -> KnownFrame | None:
        if self._known is None or sight is None:
            return None
        found = self._known.find(sight)
        if found is None or not self._take(TorrentFile(name, found.size_bytes, found.root)):
            return None
        return found

    def _make(self, packer: _Packer, name: str, planned: PlannedFrame, sight: Sight | None) -> KnownFrame:
        data, states = packer.pack(planned)
        made = KnownFrame(len(data), hash_file_root(data))
        self._write(name, data)
        if self._known is not None and sight is not None and states == sight.states:
            self._known.note(sight, made)
        return made


class _Packer:
    """A worker's own compressor, and the buffer that it reads into."""

    def __init__(self, top: bytes, level: int) -> None:
        self._top = top
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._buffer = memoryview(bytearray())

    def pack(self, planned: PlannedFrame) -> tuple[bytes, tuple[FileState, ...]]:
        """The frame, and the files that it was made of as they were."""
        if len(self._buffer) < planned.raw_size_bytes:
            self._buffer = memoryview(bytearray(planned.raw_size_bytes))
        raw = self._buffer[: planned.raw_size_bytes]
        states = tuple(self._fill(raw, planned.parts))
        return self._compressor.compress(raw), states

    def _fill(self, raw: memoryview, parts: Sequence[bytes | Content]) -> Iterator[FileState]:
        at = 0
        for part in parts:
            if isinstance(part, bytes):
                end = at + len(part)
                raw[at:end] = part
            else:
                end = at + part.size_bytes
                yield read_state(read_content(self._top, part, raw[at:end]))
            at = end


def read_content(top: bytes, content: Content, into: memoryview) -> os.stat_result:
    """Fill `into` from a member's file. Raises SnapshotError unless it is still what the member says."""
    member = content.member
    path = top + b"/" + member.path
    with explain_reading(path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = os.fstat(descriptor)
            if (
                before.st_mtime_ns != member.mtime_ns
                or before.st_size != member.size
                or not stat.S_ISREG(before.st_mode)
            ):
                raise _make_change_error(member)
            at = 0
            for offset, length in content.segments:
                end = at + length
                while at < end:
                    count = os.preadv(descriptor, [into[at:end]], offset + length - (end - at))
                    if not count:
                        raise _make_change_error(member)
                    at += count
            after = os.fstat(descriptor)
            if (after.st_mtime_ns, after.st_ctime_ns, after.st_size) != (
                before.st_mtime_ns,
                before.st_ctime_ns,
                before.st_size,
            ):
                raise _make_change_error(member)
            return after
        finally:
            os.close(descriptor)


def _make_change_error(member: Member) -> SnapshotError:
    hint = "let nothing else work on the snapshot while it is published, then publish again"
    return SnapshotError(f"{os.fsdecode(member.path)} changed while it was packed", hint)
