"""Frames: which members share one, and the index that says what each frame is.

Laid end to end the frames are one tar archive: every directory, the body, hard links, every directory
again (so that GNU tar too restores their times) with those of its symlinks that lead out of it, the end
of the archive. Each is one zstd frame, in a
file of its own; the index is a zstd skippable frame after them. No I/O.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import zstandard
from attrs import Factory, define, frozen

from bladeroot.core import wire
from bladeroot.core.tarformat import (
    END_OF_ARCHIVE,
    HOLE_GRAIN_BYTES,
    Member,
    MemberKind,
    Segments,
    check_path,
    check_segments,
    count_padding,
    render_head,
)
from bladeroot.core.torrentfile import TorrentFile, build_torrent, hash_file_root
from bladeroot.errors import ArtefactError, NetworkError

INDEX_NAME = "index"
MAX_RAW_FRAME_BYTES = 160 << 20
"""What a frame may decompress to, at the most."""
MAX_INDEX_BYTES = 64 << 20

_MIN_CUT_BYTES = 1 << 20
_MAX_CUT_BYTES = 120 << 20
_PACKAGE_SHARE = 8
_NO_PACKAGES: Mapping[bytes, str] = {}
_SLACK_BYTES = 64 << 10
"""Keeps a frame that does not compress, with its header, below a power of two: the torrent's piece."""
_MANY_FRAMES = 2500
_MAX_FRAMES = 100_000
_MAX_FILE_BYTES = 1 << 62
_HASH_RANGE = 1 << 64
# RFC 8878, 3.1.2: skippable frames.
_SKIPPABLE_MAGIC = 0x184D2A5B
_SKIPPABLE = struct.Struct("<II")
_INDEX_VERSION = 2
_INDEX_LEVEL = 19


@frozen
class FileRange:
    """Content of one large file: what a frame holds goes to these segments, one after the other."""

    path: bytes
    segments: Segments


@frozen
class Frame:
    """One frame: its file's size and BEP 52 root, and what it decompresses to."""

    size_bytes: int
    raw_size_bytes: int
    root: bytes
    members: int
    """How many members begin in it."""
    head_of: FileRange | None = None
    """Its last member's content goes on in other frames; this much of it is here."""
    range_of: FileRange | None = None
    """It holds nothing but this, and the padding that ends a member."""


@frozen
class FrameIndex:
    """All frames of an archive, in order. Frame n is the file `frame_name(n)`."""

    version: int
    frames: tuple[Frame, ...]
    members: int
    """Names in the tree."""
    content_bytes: int
    """Of all files together, without holes."""

    @property
    def size_bytes(self) -> int:
        """Of all frames together, as they are in the archive."""
        return sum(frame.size_bytes for frame in self.frames)

    @property
    def raw_size_bytes(self) -> int:
        """Of the tar archive that the frames decompress to."""
        return sum(frame.raw_size_bytes for frame in self.frames)


@frozen
class Content:
    """These parts of a member's file, read from disk."""

    member: Member
    segments: Segments

    @property
    def size_bytes(self) -> int:
        """How much of the file that is."""
        return sum(length for _, length in self.segments)


@frozen
class PlannedFrame:
    """What goes into a frame, before it is read and compressed."""

    parts: tuple[bytes | Content, ...]
    raw_size_bytes: int
    members: int
    head_of: FileRange | None = None
    range_of: FileRange | None = None

    @property
    def content_bytes(self) -> int:
        """What is read of files for it."""
        return sum(part.size_bytes for part in self.parts if isinstance(part, Content))


@frozen
class CutSizes:
    """No frame is cut before `least` bytes, but at the end of a package; none is longer than `most`, headers
    aside.
    """

    least: int
    most: int

    @property
    def least_of_package(self) -> int:
        """No frame is cut before that much, even where a package ends."""
        return self.least // _PACKAGE_SHARE


def frame_name(number: int) -> str:
    """The file that a frame is in."""
    return f"{number:05d}"


def make_index(frames: Sequence[Frame], members: Sequence[Member]) -> FrameIndex:
    """The index of an archive that was made of these members."""
    content = sum(member.data_size for member in members if member.kind is MemberKind.FILE)
    return FrameIndex(_INDEX_VERSION, tuple(frames), len(members), content)


def render_index(index: FrameIndex) -> bytes:
    """The index as the bytes of its file: a zstd frame that decompressors pass over, with one in it."""
    payload = zstandard.ZstdCompressor(level=_INDEX_LEVEL).compress(wire.encode(index))
    return _SKIPPABLE.pack(_SKIPPABLE_MAGIC, len(payload)) + payload


def parse_index(data: bytes) -> FrameIndex:
    """The index that a file holds. Raises ArtefactError unless all of it makes sense."""
    if len(data) < _SKIPPABLE.size:
        raise ArtefactError("the frame index is torn")
    magic, size = _SKIPPABLE.unpack_from(data)
    if magic != _SKIPPABLE_MAGIC or size != len(data) - _SKIPPABLE.size:
        raise ArtefactError("the frame index is torn or is something else")
    try:
        index = wire.decode(FrameIndex, _decompress_index(data[_SKIPPABLE.size :]), MAX_INDEX_BYTES)
    except NetworkError as error:
        raise ArtefactError(f"the frame index makes no sense: {error}", error.hint) from error
    if index.version != _INDEX_VERSION:
        hint = "install with the version of bladeroot that published it, or a newer one"
        raise ArtefactError(f"the frame index is of version {index.version}, not {_INDEX_VERSION}", hint)
    if not 0 < len(index.frames) <= _MAX_FRAMES:
        raise ArtefactError(f"the frame index lists {len(index.frames)} frames")
    for number, frame in enumerate(index.frames):
        _check_frame(number, frame)
    return index


def rebuild_torrent(name: str, index_data: bytes) -> bytes:
    """The `.torrent` of the artefact of that name that has this index. Raises ArtefactError.

    Both say the same of every frame; so only one of them has to be sent.
    """
    frames = parse_index(index_data).frames
    files = [TorrentFile(frame_name(n), frame.size_bytes, frame.root) for n, frame in enumerate(frames)]
    return build_torrent(name, [*files, TorrentFile(INDEX_NAME, len(index_data), hash_file_root(index_data))])


def _decompress_index(payload: bytes) -> bytes:
    try:
        if not 0 < zstandard.frame_content_size(payload) <= MAX_INDEX_BYTES:
            raise ArtefactError("the frame index is empty, or too large")
        return zstandard.ZstdDecompressor().decompress(payload)
    except zstandard.ZstdError as error:
        hint = "it may come from another version of bladeroot, or be damaged"
        raise ArtefactError(f"the frame index makes no sense: {error}", hint) from error


def _check_frame(number: int, frame: Frame) -> None:
    if not (frame.size_bytes > 0 and 0 < frame.raw_size_bytes <= MAX_RAW_FRAME_BYTES):
        raise ArtefactError(f"frame {frame_name(number)} has an impossible size in the index")
    if len(frame.root) != 32 or frame.members < 0 or (frame.head_of and frame.range_of):
        raise ArtefactError(f"frame {frame_name(number)} makes no sense in the index")
    for part in (frame.head_of, frame.range_of):
        if part is not None:
            check_path(part.path)
            check_segments(part.segments, _MAX_FILE_BYTES)
            if not part.path or sum(length for _, length in part.segments) > frame.raw_size_bytes:
                raise ArtefactError(f"frame {frame_name(number)} makes no sense in the index")


def choose_cut_sizes(members: Iterable[Member], package_of: Mapping[bytes, str] = _NO_PACKAGES) -> CutSizes:
    """1 to 4 MiB; more for trees so large that the artefact would have over about 3,000 frames."""
    sizes: Counter[str] = Counter()
    for member in members:
        sizes[package_of.get(member.path, "")] += member.data_size + 1024
    packages = [sizes[name] for name in sorted(sizes)]
    cuts = CutSizes(_MIN_CUT_BYTES, 4 * _MIN_CUT_BYTES - _SLACK_BYTES)
    while _guess_frames(packages, cuts) > _MANY_FRAMES and 4 * cuts.least < _MAX_CUT_BYTES:
        least = 2 * cuts.least
        cuts = CutSizes(least, min(4 * least, _MAX_CUT_BYTES) - _SLACK_BYTES)
    return cuts


def _guess_frames(packages: Iterable[int], cuts: CutSizes) -> float:
    """By the sizes of packages in their order: of cuts where one begins, and of those by hash."""
    total = frames = filled = 0
    for size in packages:
        if filled >= cuts.least_of_package:
            frames, filled = frames + 1, 0
        total, filled = total + size, filled + size
    return frames + total / (2 * cuts.least)


def plan_frames(
    members: Sequence[Member], package_of: Mapping[bytes, str], cuts: CutSizes | None = None
) -> Iterator[PlannedFrame]:
    """The frames of an archive of these members, in order, whatever order the members come in.

    Lazy: holds no more than a frame's headers at a time.
    """
    cuts = cuts or choose_cut_sizes(members, package_of)
    sections = _sort_members(members, package_of)
    yield from _plan_section(sections.directories, {}, cuts)
    yield from _plan_section(sections.body, package_of, cuts)
    yield from _plan_section(sections.last, {}, cuts, tail=END_OF_ARCHIVE)


@frozen
class _Sections:
    """The members in the order of the archive."""

    directories: list[Member]
    body: list[Member]
    last: list[Member]


def _sort_members(members: Sequence[Member], package_of: Mapping[bytes, str]) -> _Sections:
    ordered = sorted(members, key=lambda member: member.path)
    directories = [member for member in ordered if member.kind is MemberKind.DIRECTORY]
    links = [member for member in ordered if member.kind is MemberKind.HARDLINK]
    linked = {member.link_target for member in links}
    late: dict[bytes, list[Member]] = {member.path: [] for member in directories}
    body = []
    for member in ordered:
        parent = member.path.rpartition(b"/")[0]
        if _is_linked_late(member) and member.path not in linked and parent in late:
            late[parent].append(member)
        elif member.kind not in (MemberKind.DIRECTORY, MemberKind.HARDLINK):
            body.append(member)
    # Files of packages together: an update of a few packages then touches few frames. The rest comes last.
    body.sort(key=lambda member: package_of.get(member.path, "\U0010ffff"))
    again = [member for directory in directories for member in (directory, *late[directory.path])]
    return _Sections(directories, body, links + again)


def _is_linked_late(member: Member) -> bool:
    """Symlinks that GNU tar makes at its very end (extract.c, `create_placeholder_file`).

    It gets their directory's time right only if they follow the directory's last entry.
    """
    if member.kind is not MemberKind.SYMLINK:
        return False
    return member.link_target.startswith(b"/") or b".." in member.link_target.split(b"/")


@define
class _Filling:
    """A frame being filled."""

    parts: list[bytes | Content] = Factory(list)
    bytes_after: list[bytes] = Factory(list)
    """What follows the parts, not made one yet."""
    size: int = 0
    members: int = 0

    def add(self, part: bytes) -> None:
        self.size += len(part)
        self.bytes_after.append(part)

    def add_content(self, member: Member, segments: Segments) -> FileRange:
        self._join()
        self.parts.append(Content(member, segments))
        self.size += sum(length for _, length in segments)
        return FileRange(member.path, segments)

    def _join(self) -> None:
        if self.bytes_after:
            self.parts.append(b"".join(self.bytes_after))
            self.bytes_after.clear()

    def finish(self, head_of: FileRange | None = None, range_of: FileRange | None = None) -> PlannedFrame:
        self._join()
        return PlannedFrame(tuple(self.parts), self.size, self.members, head_of, range_of)


def _plan_section(
    members: Iterable[Member], package_of: Mapping[bytes, str], cuts: CutSizes, tail: bytes = b""
) -> Iterator[PlannedFrame]:
    filling = _Filling()
    package = None
    for member in members:
        package_before, package = package, package_of.get(member.path)
        head = render_head(member)
        content = member.data_size if member.kind is MemberKind.FILE else 0
        size = len(head) + content + count_padding(content)
        is_first = package != package_before
        if filling.size and _is_cut_before(member, is_first, size, filling.size, cuts):
            yield filling.finish()
            filling = _Filling()
        filling.add(head)
        filling.members += 1
        if size > cuts.most and content:
            yield from _plan_split(member, filling, content, cuts)
            filling = _Filling()
        elif content:
            filling.add_content(member, member.data_segments)
            filling.add(bytes(count_padding(content)))
    filling.add(tail)
    if filling.size:
        yield filling.finish()


def _is_cut_before(member: Member, is_first: bool, size: int, filled: int, cuts: CutSizes) -> bool:
    """Where to cut hangs on the names of members near by, so that a change somewhere moves no cut elsewhere.

    Every byte has the same chance: frames come out at 2 `least` on average, of small files or large. But the
    first file of a package begins a frame, unless very little is before it: packages change one by one.
    """
    if filled + size > cuts.most or (is_first and filled >= cuts.least_of_package):
        return True
    if filled < cuts.least:
        return False
    digest = hashlib.blake2b(member.path, digest_size=8).digest()
    return int.from_bytes(digest, "big") * cuts.least < size * _HASH_RANGE


def _plan_split(member: Member, filling: _Filling, content: int, cuts: CutSizes) -> Iterator[PlannedFrame]:
    grain = HOLE_GRAIN_BYTES
    first = max(cuts.most // grain - -(-filling.size // grain), 1) * grain
    ranges = list(cut_segments(member.data_segments, first, cuts.most // grain * grain))
    if len(ranges) == 1:
        # Only its header made it large.
        filling.add_content(member, ranges[0])
        filling.add(bytes(count_padding(content)))
        yield filling.finish()
        return
    yield filling.finish(head_of=filling.add_content(member, ranges[0]))
    for number, segments in enumerate(ranges[1:], 2):
        part = _Filling()
        what = part.add_content(member, segments)
        if number == len(ranges):
            part.add(bytes(count_padding(content)))
        yield part.finish(range_of=what)


def cut_segments(segments: Segments, first: int, rest: int) -> Iterator[Segments]:
    """Segments in runs that hold `first` bytes, then `rest` bytes each (the last one what is left)."""
    run: list[tuple[int, int]] = []
    room = first
    for start, length in segments:
        offset, left = start, length
        while left:
            taken = min(left, room)
            run.append((offset, taken))
            offset, left, room = offset + taken, left - taken, room - taken
            if not room:
                yield tuple(run)
                run, room = [], rest
    if run:
        yield tuple(run)
