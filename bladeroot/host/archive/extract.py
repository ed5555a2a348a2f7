"""Frames to a tree, in whatever order they come, on all cores."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path

import zstandard
from attrs import define, field, frozen

from bladeroot.core.framing import FileRange, Frame, FrameIndex, frame_name
from bladeroot.core.tarformat import BLOCK_BYTES, Member, MemberKind, Segments
from bladeroot.core.tarparse import Head, parse_heads
from bladeroot.core.torrentfile import hash_file_root
from bladeroot.errors import ArtefactError
from bladeroot.events import Progress, Reporter, ignore
from bladeroot.host.archive.metadata import apply_metadata, explain_writing, write_segments
from bladeroot.host.archive.tree import Tree, TreeWriter

_FETCH_HINT = "fetch it again, or check the depot with `bladeroot generations verify`"


@frozen
class ExtractResult:
    """What an extraction has written."""

    members: int
    content_bytes: int


@define(eq=False)
class _SplitFile:
    """A file whose content comes in several frames."""

    segments: Segments
    """As the index has them; the header must agree."""
    missing: int
    """Parts that have not come yet."""
    lock: threading.Lock = field(factory=threading.Lock)
    identity: tuple[int, int] | None = None
    """Device and inode of the file, once it is made."""
    member: Member | None = None


class Extraction:
    """An archive being extracted into `target`: `submit` every frame, in any order, then `finish`.

    Thread-safe; holds a few frames in memory, not more. What exists is replaced, not written through.
    Directories get their metadata, and hard links are made, by `finish`. `are_verified` says that whoever
    submits frames has compared them with their roots (a swarm has); else it is done here. Use it in a
    `with` block: leaving it stops the workers.
    """

    def __init__(
        self,
        index: FrameIndex,
        target: Path,
        *,
        threads: int | None = None,
        are_verified: bool = False,
        reporter: Reporter = ignore,
        step: str = "extract",
    ) -> None:
        self._index = index
        self._tree = Tree(target, replace_in_the_way=True)
        self._reporter = reporter
        self._step = step
        self._are_verified = are_verified
        self._total = index.raw_size_bytes
        self._done = 0
        self._lock = threading.Lock()
        self._submitted: set[int] = set()
        self._directories: dict[bytes, Member] = {}
        self._links: list[Member] = []
        self._splits = _find_splits(index)
        self._failure: BaseException | None = None
        self._stopped = False
        count = threads or len(os.sched_getaffinity(0))
        self._jobs: queue.Queue[tuple[int, bytes] | None] = queue.Queue(maxsize=count + 1)
        with TreeWriter(self._tree):
            pass  # The target is there and is a directory, or this raises.
        self._workers = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for worker in self._workers:
            worker.start()

    def __enter__(self) -> Extraction:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is not None:
            self._fail(error)
        self._stop()

    def submit(self, number: int, frame: bytes) -> None:
        """Take the bytes of file `frame_name(number)`; one that came before is passed over.

        Waits while others are being worked on.

        Raises what an earlier frame has failed with: ArtefactError if it is not the one of the index,
        DiskTooSmallError, PrivilegeError, DiskError.
        """
        if not 0 <= number < len(self._index.frames):
            raise ArtefactError(f"the archive has no frame {number}")
        with self._lock:
            if self._failure is not None:
                raise self._failure
            if self._stopped:
                raise ValueError("the extraction is over")
            if number in self._submitted:
                return
            self._submitted.add(number)
        self._jobs.put((number, frame))

    def finish(self) -> ExtractResult:
        """Wait for all frames, then link, and give directories their metadata. Raises as `submit` does."""
        self._stop()
        if self._failure is not None:
            raise self._failure
        missing = len(self._index.frames) - len(self._submitted)
        if missing:
            raise ArtefactError(f"{missing} of {len(self._index.frames)} frames are missing", _FETCH_HINT)
        for path, split in self._splits.items():
            if split.missing or split.member is None:
                raise ArtefactError(f"the content of {os.fsdecode(path)} does not fit the frame index")
        with TreeWriter(self._tree) as writer:
            for member in sorted(self._links, key=lambda member: member.path):
                with explain_writing(self._tree.target, member.path):
                    writer.place_hard_link(member)
            writer.finish_directories(list(self._directories.values()))
        return ExtractResult(self._index.members, self._index.content_bytes)

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            for _ in self._workers:
                self._jobs.put(None)
        for worker in self._workers:
            worker.join()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error

    def _work(self) -> None:
        try:
            decompressor, writer = zstandard.ZstdDecompressor(), TreeWriter(self._tree)
        except BaseException as error:
            self._fail(error)
            while self._jobs.get() is not None:
                pass  # whoever submits must not wait for a worker that is not there
            return
        with writer:
            while (job := self._jobs.get()) is not None:
                if self._failure is not None:
                    continue
                number, data = job
                try:
                    self._extract(writer, decompressor, number, data)
                except BaseException as error:
                    self._fail(error)

    def _extract(
        self, writer: TreeWriter, decompressor: zstandard.ZstdDecompressor, number: int, data: bytes
    ) -> None:
        frame = self._index.frames[number]
        raw = open_frame(decompressor, number, frame, data, are_verified=self._are_verified)
        with memoryview(raw) as view:
            if frame.range_of is not None:
                size = sum(length for _, length in frame.range_of.segments)
                if len(raw) - size >= BLOCK_BYTES:
                    raise _make_mismatch(number)
                self._write_part(writer, frame.range_of, view[:size])
            else:
                self._place_members(writer, number, frame, view)
        with self._lock:
            self._done += len(raw)
            done = self._done
        self._reporter(Progress(step=self._step, done=done, total=self._total))

    def _place_members(self, writer: TreeWriter, number: int, frame: Frame, view: memoryview) -> None:
        count = 0
        head_seen = frame.head_of is None
        for head in parse_heads(view):
            count += 1
            with explain_writing(self._tree.target, head.member.path):
                if head.data_start + head.data_size > len(view):
                    self._place_head(writer, number, frame, head, view[head.data_start :])
                    head_seen = True
                else:
                    self._place(writer, head, view)
        if count != frame.members or not head_seen:
            raise _make_mismatch(number)

    def _place(self, writer: TreeWriter, head: Head, view: memoryview) -> None:
        member = head.member
        if member.path in self._splits:
            raise ArtefactError(f"{os.fsdecode(member.path)} is in the archive twice")
        if member.kind is MemberKind.FILE:
            writer.place_file(member, view[head.data_start : head.data_start + head.data_size])
        elif member.kind is MemberKind.DIRECTORY:
            with self._lock:
                self._directories[member.path] = member
        elif member.kind is MemberKind.HARDLINK:
            with self._lock:
                self._links.append(member)
        else:
            writer.place_special(member)

    def _place_head(
        self, writer: TreeWriter, number: int, frame: Frame, head: Head, content: memoryview
    ) -> None:
        part = frame.head_of
        if part is None or part.path != head.member.path:
            raise _make_mismatch(number)
        split = self._splits[part.path]
        if len(content) != sum(length for _, length in part.segments):
            raise _make_mismatch(number)
        if split.segments != _glue(head.member.data_segments):
            raise _make_mismatch(number)
        split.member = head.member
        self._write_part(writer, part, content)

    def _write_part(self, writer: TreeWriter, part: FileRange, content: memoryview) -> None:
        """Write a part of a split file; whoever brings the last one gives the file its metadata."""
        split = self._splits[part.path]
        with explain_writing(self._tree.target, part.path):
            descriptor = self._open_split(writer, part.path, split)
            try:
                write_segments(descriptor, part.segments, content)
                with split.lock:
                    split.missing -= 1
                    is_last = split.missing == 0
                if is_last and split.member is not None:
                    os.ftruncate(descriptor, split.member.size)
                    apply_metadata(descriptor, split.member)
            finally:
                os.close(descriptor)

    @staticmethod
    def _open_split(writer: TreeWriter, path: bytes, split: _SplitFile) -> int:
        with split.lock:
            if split.identity is None:
                descriptor = writer.create_file(path)
                status = os.fstat(descriptor)
                split.identity = (status.st_dev, status.st_ino)
                return descriptor
        return writer.reopen_file(path, split.identity)


def open_frame(
    decompressor: zstandard.ZstdDecompressor,
    number: int,
    frame: Frame,
    data: bytes,
    *,
    are_verified: bool = False,
) -> bytes:
    """What a frame holds. Raises ArtefactError unless it is exactly the frame of the index."""
    if len(data) != frame.size_bytes or not (are_verified or hash_file_root(data) == frame.root):
        raise ArtefactError(f"frame {frame_name(number)} is torn or tampered with", _FETCH_HINT)
    try:
        if zstandard.frame_content_size(data) != frame.raw_size_bytes:
            raise _make_mismatch(number)
        raw = decompressor.decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArtefactError(f"frame {frame_name(number)} cannot be decompressed: {error}") from error
    if len(raw) != frame.raw_size_bytes:
        raise _make_mismatch(number)
    return raw


def _make_mismatch(number: int) -> ArtefactError:
    return ArtefactError(f"frame {frame_name(number)} is not what the frame index says", _FETCH_HINT)


def _find_splits(index: FrameIndex) -> Mapping[bytes, _SplitFile]:
    splits: dict[bytes, _SplitFile] = {}
    for frame in index.frames:
        part = frame.head_of or frame.range_of
        if part is None:
            continue
        split = splits.setdefault(part.path, _SplitFile((), 0))
        split.segments += part.segments
        split.missing += 1
    for split in splits.values():
        split.segments = _glue(split.segments)
    return splits


def _glue(segments: Segments) -> Segments:
    """Segments with those that touch made one: how a file was cut leaves no trace."""
    glued: list[tuple[int, int]] = []
    for offset, length in segments:
        if glued and sum(glued[-1]) == offset:
            glued[-1] = (glued[-1][0], glued[-1][1] + length)
        else:
            glued.append((offset, length))
    return tuple(glued)
