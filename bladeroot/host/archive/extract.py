"""Frames to a tree, in whatever order they come, on all cores."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import zstandard
from attrs import define, field, frozen

from bladeroot.core.framing import FileRange, Frame, FrameIndex, frame_name
from bladeroot.core.tarformat import BLOCK_BYTES, Member, MemberKind, Segments
from bladeroot.core.tarparse import Head, parse_heads
from bladeroot.core.torrentfile import hash_file_root
from bladeroot.errors import ArtefactError
from bladeroot.host.archive.framequeue import FrameJob, FrameQueue
from bladeroot.host.archive.metadata import apply_metadata, explain_writing, write_segments
from bladeroot.host.archive.tree import Tree, TreeWriter

_BOUND_BYTES = 160 << 20
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
    """An archive being extracted into `target`: hand in every frame, in any order, then `finish`.

    Thread-safe; has frames of `_BOUND_BYTES` in memory, packed and unpacked, or a single one that is larger.
    What exists is replaced, not written through. Directories get their metadata, and hard links are made,
    by `finish`. `are_verified` says that whoever submits frames has compared them with their roots (a swarm
    has); else it is done here. `on_extracted` is told the number of each frame that is in the tree, from any
    thread. Use it in a `with` block: leaving it stops the workers.
    """

    def __init__(
        self,
        index: FrameIndex,
        target: Path,
        *,
        threads: int | None = None,
        are_verified: bool = False,
        on_extracted: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self._index = index
        self._tree = Tree(target, replace_in_the_way=True)
        self._on_extracted = on_extracted
        self._are_verified = are_verified
        self._lock = threading.Lock()
        self._taken: set[int] = set()
        self._directories: dict[bytes, Member] = {}
        self._links: list[Member] = []
        self._splits = _find_splits(index)
        self._failure: BaseException | None = None
        self._is_over = False
        self._queue = FrameQueue(_BOUND_BYTES)
        with TreeWriter(self._tree):
            pass  # The target is there and is a directory, or this raises.
        count = threads or len(os.sched_getaffinity(0))
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
        self._check(number)
        if self._claim(number):
            self._queue.put(self._make_job(number, frame))

    def submit_file(self, number: int, path: Path) -> None:
        """Take the file for the frame if it has its bytes: it is read and compared when its turn comes.

        If not, or if the frame comes by `submit` before, the file is passed over. Raises as `submit` does.
        """
        self._check(number)
        self._queue.put(self._make_job(number, path))

    def wait(self) -> list[int]:
        """Wait for all that was handed in; the frames that are still to come. Raises as `submit` does."""
        self._queue.wait_until_idle()
        if self._failure is not None:
            raise self._failure
        return [number for number in range(len(self._index.frames)) if number not in self._taken]

    def finish(self) -> ExtractResult:
        """Wait for all frames, then link, and give directories their metadata. Raises as `submit` does."""
        self._stop()
        missing = self.wait()
        if missing:
            text = f"{len(missing)} of {len(self._index.frames)} frames are missing"
            raise ArtefactError(text, _FETCH_HINT)
        for path, split in self._splits.items():
            if split.missing or split.member is None:
                raise ArtefactError(f"the content of {os.fsdecode(path)} does not fit the frame index")
        with TreeWriter(self._tree) as writer:
            for member in sorted(self._links, key=lambda member: member.path):
                with explain_writing(self._tree.target, member.path):
                    writer.place_hard_link(member)
            writer.finish_directories(list(self._directories.values()))
        return ExtractResult(self._index.members, self._index.content_bytes)

    def _check(self, number: int) -> None:
        if not 0 <= number < len(self._index.frames):
            raise ArtefactError(f"the archive has no frame {number}")
        if self._failure is not None:
            raise self._failure
        if self._is_over:
            raise ValueError("the extraction is over")

    def _claim(self, number: int) -> bool:
        """Whether the frame is the caller's to extract: each is extracted once."""
        with self._lock:
            is_news = number not in self._taken
            self._taken.add(number)
        return is_news

    def _make_job(self, number: int, data: bytes | Path) -> FrameJob:
        frame = self._index.frames[number]
        return FrameJob(number, data, frame.size_bytes + frame.raw_size_bytes)

    def _stop(self) -> None:
        self._is_over = True
        self._queue.close()
        for worker in self._workers:
            worker.join()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self._failure = self._failure or error
        self._queue.drop_waiting()

    def _work(self) -> None:
        try:
            decompressor, writer = zstandard.ZstdDecompressor(), TreeWriter(self._tree)
        except BaseException as error:
            self._fail(error)
            while (job := self._queue.take()) is not None:
                # Whoever submits must not wait for a worker that is not there.
                self._queue.done(job.cost_bytes)
            return
        with writer:
            while self._do_next(writer, decompressor):
                pass

    def _do_next(self, writer: TreeWriter, decompressor: zstandard.ZstdDecompressor) -> bool:
        """A function of its own: who waits for the next frame must not keep the bytes of the last."""
        job = self._queue.take()
        if job is None:
            return False
        cost_bytes = job.cost_bytes
        try:
            if self._failure is None:
                self._do(writer, decompressor, job.number, job.data)
        except BaseException as error:
            self._fail(error)
        finally:
            del job
            self._queue.done(cost_bytes)
        return True

    def _do(
        self, writer: TreeWriter, decompressor: zstandard.ZstdDecompressor, number: int, data: bytes | Path
    ) -> None:
        if isinstance(data, Path):
            frame = None if number in self._taken else _read_frame(data, self._index.frames[number])
            if frame is None or not self._claim(number):
                return
            self._extract(writer, decompressor, number, frame, are_verified=True)
        else:
            self._extract(writer, decompressor, number, data, are_verified=self._are_verified)
        self._on_extracted(number)

    def _extract(
        self,
        writer: TreeWriter,
        decompressor: zstandard.ZstdDecompressor,
        number: int,
        data: bytes,
        *,
        are_verified: bool,
    ) -> None:
        frame = self._index.frames[number]
        raw = open_frame(decompressor, number, frame, data, are_verified=are_verified)
        with memoryview(raw) as view:
            if frame.range_of is not None:
                size = sum(length for _, length in frame.range_of.segments)
                if len(raw) - size >= BLOCK_BYTES:
                    raise _make_mismatch(number)
                self._write_part(writer, frame.range_of, view[:size])
            else:
                self._place_members(writer, number, frame, view)

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
            writer.make_directory(member.path)
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


def _read_frame(path: Path, frame: Frame) -> bytes | None:
    """The file's bytes, if they are the frame's."""
    try:
        if path.stat().st_size != frame.size_bytes:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    return data if len(data) == frame.size_bytes and hash_file_root(data) == frame.root else None


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
