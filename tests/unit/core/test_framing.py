"""Where archives are cut, and the index that says so."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import zstandard
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from bladeroot.core.framing import (
    Content,
    CutSizes,
    FileRange,
    Frame,
    FrameIndex,
    PlannedFrame,
    choose_cut_sizes,
    cut_segments,
    frame_name,
    make_index,
    parse_index,
    plan_frames,
    render_index,
)
from bladeroot.core.tarformat import END_OF_ARCHIVE, Member, MemberKind
from bladeroot.errors import ArtefactError

MIB = 1 << 20


def make_members(count: int, seed: int = 1) -> list[Member]:
    chance = random.Random(seed)
    names = [b"usr/share/p%03d/file%05d" % (number // 40, number) for number in range(count)]
    return [
        Member(name, MemberKind.FILE, size=int(chance.paretovariate(0.9) * 4000) % 3_000_000)
        for name in names
    ]


def contents(frame: PlannedFrame) -> tuple[object, ...]:
    return tuple(part if isinstance(part, bytes) else (part.member, part.segments) for part in frame.parts)


def test_frames_are_one_to_four_mebibytes() -> None:
    frames = list(plan_frames(make_members(20_000), {}))
    sizes = [frame.raw_size_bytes for frame in frames]
    assert max(sizes) <= 4 * MIB
    assert 1.5 * MIB < sum(sizes) / len(sizes) < 3 * MIB
    # Only what stands before a large file, or at a section's end, may be shorter.
    assert sum(size < MIB for size in sizes) < 0.05 * len(sizes)


def test_large_trees_have_larger_frames() -> None:
    members = [Member(b"f%06d" % number, MemberKind.FILE, size=3 * MIB) for number in range(20_000)]
    assert sum(1 for _ in plan_frames(members, {})) < 3_000
    huge = [Member(b"f", MemberKind.FILE, size=1 << 45)]
    assert choose_cut_sizes(huge).most < 128 * MIB


@pytest.mark.parametrize("by_package", [True, False])
def test_a_change_leaves_most_frames_as_they_were(by_package: bool) -> None:
    members = make_members(20_000)
    chance = random.Random(9)
    package_of = {member.path: f"p{index % 500:03d}" for index, member in enumerate(members)}
    updated = set(chance.sample(range(500), 25))
    changed = [
        evolve(member, size=max(0, member.size + chance.randrange(-500, 500)), mtime_ns=10**18)
        if index % 500 in updated
        else member
        for index, member in enumerate(members)
    ]
    used = package_of if by_package else {}
    before = {contents(frame) for frame in plan_frames(members, used)}
    after = [contents(frame) for frame in plan_frames(changed, used)]
    kept = sum(frame in before for frame in after) / len(after)
    assert kept > 0.8 if by_package else kept < 0.5


def make_packages(count: int, files: int, size: int) -> tuple[list[Member], dict[bytes, str]]:
    members = [
        Member(b"usr/lib/p%04d-%02d" % (package, number), MemberKind.FILE, size=size)
        for number in range(files)
        for package in range(count)
    ]
    return members, {member.path: member.path[8:13].decode() for member in members}


def test_a_package_begins_a_frame_unless_little_is_before_it() -> None:
    members, package_of = make_packages(100, 10, 30_000)
    frames = list(plan_frames(members, package_of))
    assert len(frames) == 100 + 1, "the last is the archive's end"
    before = {contents(frame) for frame in frames}
    changed = [
        evolve(member, mtime_ns=10**18) if package_of[member.path] == "p0042" else member
        for member in members
    ]
    assert sum(contents(frame) not in before for frame in plan_frames(changed, package_of)) == 1
    members, package_of = make_packages(1000, 2, 1000)
    assert sum(1 for _ in plan_frames(members, package_of)) < 50


def test_many_packages_are_not_too_many_frames() -> None:
    members, package_of = make_packages(9_000, 2, 400_000)
    assert sum(1 for _ in plan_frames(members, package_of)) < 3_000


def test_the_order_of_members_does_not_matter() -> None:
    members = [
        *make_members(500),
        Member(b"", MemberKind.DIRECTORY),
        Member(b"usr", MemberKind.DIRECTORY),
        Member(b"link", MemberKind.HARDLINK, link_target=b"usr/share/p000/file00000"),
    ]
    shuffled = members.copy()
    random.Random(4).shuffle(shuffled)
    assert list(plan_frames(members, {})) == list(plan_frames(shuffled, {}))


def test_a_file_larger_than_a_frame_is_cut_into_ranges() -> None:
    large = Member(b"large", MemberKind.FILE, size=10 * MIB + 5)
    cuts = CutSizes(MIB, 4 * MIB)
    frames = [frame for frame in plan_frames([large], {}, cuts) if frame.head_of or frame.range_of]
    assert frames[0].head_of is not None
    assert [frame.range_of is not None for frame in frames[1:]] == [True, True]
    segments = [
        part for frame in frames for part in (frame.head_of or frame.range_of or FileRange(b"", ())).segments
    ]
    assert sum(length for _, length in segments) == large.size
    assert [offset for offset, _ in segments] == [
        sum(length for _, length in segments[:number]) for number in range(len(segments))
    ]
    assert max(frame.raw_size_bytes for frame in frames) <= 4 * MIB


def test_an_empty_archive_is_its_end() -> None:
    (frame,) = plan_frames([], {})
    assert frame.parts == (END_OF_ARCHIVE,)


def test_symlinks_that_gnu_tar_makes_late_follow_their_directory() -> None:
    members = [
        Member(b"d", MemberKind.DIRECTORY),
        Member(b"d/absolute", MemberKind.SYMLINK, link_target=b"/x"),
        Member(b"d/inside", MemberKind.SYMLINK, link_target=b"x"),
    ]
    first, body, last = plan_frames(members, {})
    assert (first.members, body.members, last.members) == (1, 1, 2)


@given(
    lengths=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 200)), max_size=8),
    first=st.integers(1, 300),
    rest=st.integers(1, 300),
)
@settings(deadline=None)
def test_segments_cut_and_laid_together_are_the_same_bytes(
    lengths: Sequence[tuple[int, int]], first: int, rest: int
) -> None:
    segments, at = [], 0
    for hole, length in lengths:
        segments.append((at + hole, length))
        at += hole + length
    runs = list(cut_segments(tuple(segments), first, rest))
    sizes = [sum(length for _, length in run) for run in runs]
    assert all(size == (rest if number else first) for number, size in enumerate(sizes[:-1]))
    covered = [byte for run in runs for offset, length in run for byte in range(offset, offset + length)]
    assert covered == [byte for offset, length in segments for byte in range(offset, offset + length)]


def make_frame() -> Frame:
    return Frame(size_bytes=10, raw_size_bytes=1024, root=b"r" * 32, members=1)


def test_an_index_and_back() -> None:
    part = FileRange(b"\xff/large", ((0, 100), (200, 300)))
    frames = [make_frame(), evolve(make_frame(), head_of=part), evolve(make_frame(), range_of=part)]
    index = make_index(frames, [Member(b"f", MemberKind.FILE, size=7)])
    data = render_index(index)
    assert data[:4] == bytes.fromhex("5b2a4d18")
    assert parse_index(data) == index
    assert index.size_bytes == 30
    assert frame_name(7) == "00007"


@pytest.mark.parametrize(
    "change",
    [
        {"raw_size_bytes": 1 << 40},
        {"raw_size_bytes": 0},
        {"size_bytes": 0},
        {"root": b"short"},
        {"members": -1},
        {"range_of": FileRange(b"../x", ((0, 1),))},
        {"range_of": FileRange(b"/x", ((0, 1),))},
        {"range_of": FileRange(b"", ((0, 1),))},
        {"range_of": FileRange(b"x", ((5, 1), (0, 1)))},
        {"range_of": FileRange(b"x", ((-5, 1),))},
        {"range_of": FileRange(b"x", ((0, 4000),))},
        {"head_of": FileRange(b"x", ((0, 1),)), "range_of": FileRange(b"x", ((1, 1),))},
    ],
)
def test_an_index_that_makes_no_sense(change: dict[str, object]) -> None:
    frame = evolve(make_frame(), **change)  # type: ignore[arg-type]
    with pytest.raises(ArtefactError):
        parse_index(render_index(FrameIndex(2, (frame,), 1, 1)))


def test_an_index_of_another_version_or_without_frames() -> None:
    with pytest.raises(ArtefactError, match="version 3"):
        parse_index(render_index(FrameIndex(3, (make_frame(),), 1, 1)))
    with pytest.raises(ArtefactError, match="0 frames"):
        parse_index(render_index(FrameIndex(2, (), 1, 1)))


def test_an_index_that_would_fill_the_memory() -> None:
    bomb = zstandard.ZstdCompressor(write_content_size=True).compress(bytes(65 << 20))
    with pytest.raises(ArtefactError, match="too large"):
        parse_index(b"\x5b\x2a\x4d\x18" + len(bomb).to_bytes(4, "little") + bomb)


@given(data=st.binary(max_size=200))
@settings(deadline=None)
def test_junk_is_no_index(data: bytes) -> None:
    for junk in (data, b"\x5b\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data):
        with pytest.raises(ArtefactError):
            parse_index(junk)


def test_content_is_what_is_read_from_disk() -> None:
    member = Member(b"f", MemberKind.FILE, size=5)
    body = next(iter(plan_frames([member], {})))
    assert Content(member, ((0, 5),)) in body.parts
