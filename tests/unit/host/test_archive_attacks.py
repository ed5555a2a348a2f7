"""Archives that were made to do harm: refused, and nothing outside of the target is touched."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard
from attrs import evolve

from bladeroot.core.framing import FileRange, Frame, FrameIndex
from bladeroot.core.tarformat import END_OF_ARCHIVE, Member, MemberKind, count_padding, render_head
from bladeroot.core.torrentfile import hash_file_root
from bladeroot.errors import ArtefactError, BladerootError
from bladeroot.host.archive import Extraction, PlainEntry, extract_plain, pack_plain
from bladeroot.host.archive.tree import Tree, TreeWriter

FILE, LINK, SYMLINK, DIRECTORY = (
    MemberKind.FILE,
    MemberKind.HARDLINK,
    MemberKind.SYMLINK,
    MemberKind.DIRECTORY,
)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "victim").write_text("untouched")
    path = tmp_path / "target"
    path.mkdir()
    return path


@pytest.fixture(autouse=True)
def _outside_stays_as_it_was(target: Path) -> Iterator[None]:
    yield
    tmp_path = target.parent
    assert sorted(os.listdir(tmp_path)) == ["outside", "target"]
    assert os.listdir(tmp_path / "outside") == ["victim"]
    assert (tmp_path / "outside" / "victim").read_text() == "untouched"
    assert (tmp_path / "outside" / "victim").stat().st_nlink == 1


def make_frame(raw: bytes, members: int = 1) -> tuple[Frame, bytes]:
    data = zstandard.ZstdCompressor(level=1).compress(raw)
    return Frame(len(data), len(raw), hash_file_root(data), members), data


def make_raw(member: Member, content: bytes = b"evil") -> bytes:
    # Any user may run these tests.
    member = evolve(member, uid=member.uid or os.getuid(), gid=member.gid or os.getgid())
    if member.kind is not FILE:
        return render_head(member)
    member = evolve(member, size=len(content))
    return render_head(member) + content + bytes(count_padding(len(content)))


def extract(frames: Sequence[tuple[Frame, bytes]], target: Path) -> None:
    index = FrameIndex(1, tuple(frame for frame, _ in frames), 1, 1)
    with Extraction(index, target, threads=1) as extraction:
        for number, (_, data) in enumerate(frames):
            extraction.submit(number, data)
        extraction.finish()


THROUGH_SYMLINKS = [
    [Member(b"d", SYMLINK, link_target=b"../outside"), Member(b"d/victim", FILE)],
    [Member(b"d", SYMLINK, link_target=b"../outside"), Member(b"d/deep/new", FILE)],
    [Member(b"a/d", SYMLINK, link_target=b"../../outside"), Member(b"a/d/new", FILE)],
    [Member(b"d", SYMLINK, link_target=b"../outside"), Member(b"d", DIRECTORY)],
    [Member(b"d", SYMLINK, link_target=b"../outside"), Member(b"d/l", SYMLINK, link_target=b"x")],
    [Member(b"d", SYMLINK, link_target=b"../outside"), Member(b"d/fifo", MemberKind.FIFO)],
    [Member(b"d", SYMLINK, link_target=b"../outside"), Member(b"stolen", LINK, link_target=b"d/victim")],
]


@pytest.mark.parametrize("members", THROUGH_SYMLINKS)
def test_nothing_goes_through_a_symlink_of_the_archive(members: list[Member], target: Path) -> None:
    for order in itertools.permutations(members):
        with pytest.raises(ArtefactError):
            extract([make_frame(make_raw(member)) for member in order], target)
        with pytest.raises(ArtefactError):
            extract([make_frame(b"".join(map(make_raw, order)), len(members))], target)


def test_a_file_replaces_a_symlink_of_the_same_name(target: Path) -> None:
    members = [Member(b"f", SYMLINK, link_target=b"../outside/victim"), Member(b"f", FILE)]
    extract([make_frame(make_raw(member)) for member in members], target)
    assert (target / "f").read_text() == "evil"


@pytest.mark.parametrize("target_path", [b"missing", b"d", b"no/such"])
def test_a_hard_link_to_nothing(target_path: bytes, target: Path) -> None:
    members = [Member(b"d", DIRECTORY), Member(b"l", LINK, link_target=target_path)]
    with pytest.raises(ArtefactError, match="hard link"):
        extract([make_frame(make_raw(member)) for member in members], target)


def test_a_hard_link_to_a_symlink_does_not_follow_it(target: Path) -> None:
    members = [
        Member(b"s", SYMLINK, link_target=b"../outside/victim"),
        Member(b"l", LINK, link_target=b"s"),
    ]
    extract([make_frame(make_raw(member)) for member in members], target)
    assert os.readlink(target / "l") == "../outside/victim"


def test_a_bomb_is_not_decompressed(target: Path) -> None:
    frame, data = make_frame(bytes(64 << 20), 0)
    with pytest.raises(ArtefactError, match="is not what the frame index says"):
        extract([(evolve(frame, raw_size_bytes=1024), data)], target)


def test_a_bomb_that_does_not_say_its_size(target: Path) -> None:
    data = zstandard.ZstdCompressor(level=1, write_content_size=False).compress(bytes(64 << 20))
    frame = Frame(len(data), 1024, hash_file_root(data), 0)
    with pytest.raises(ArtefactError):
        extract([(frame, data)], target)


@pytest.mark.parametrize("extra", [b"\0", b"x" * 600, zstandard.compress(b"more")])
def test_bytes_after_a_frame(extra: bytes, target: Path) -> None:
    frame, data = make_frame(make_raw(Member(b"f", FILE)))
    data += extra
    frame = evolve(frame, size_bytes=len(data), root=hash_file_root(data))
    with pytest.raises(ArtefactError):
        extract([(frame, data)], target)


def test_a_frame_with_more_or_fewer_members_than_the_index_says(target: Path) -> None:
    for members in (0, 2):
        with pytest.raises(ArtefactError, match="is not what the frame index says"):
            extract([make_frame(make_raw(Member(b"f", FILE)), members)], target)


def test_a_member_that_runs_past_its_frame(target: Path) -> None:
    raw = make_raw(Member(b"f", FILE), b"x" * 2000)
    with pytest.raises(ArtefactError):
        extract([make_frame(raw[:1024])], target)
    with pytest.raises(ArtefactError):
        extract([make_frame(raw[:600])], target)


def split_file(path: bytes, content: bytes, at: int) -> list[tuple[Frame, bytes]]:
    raw = make_raw(Member(path, FILE), content)
    head, rest = make_frame(raw[: 512 + at]), make_frame(raw[512 + at :], 0)
    size = len(content)
    return [
        (evolve(head[0], head_of=FileRange(path, ((0, at),))), head[1]),
        (evolve(rest[0], range_of=FileRange(path, ((at, size - at),))), rest[1]),
    ]


def test_a_split_file_whose_ranges_do_not_fit_its_header(target: Path) -> None:
    (head, head_data), (rest, rest_data) = split_file(b"f", b"x" * 10_000, 4096)
    extract([(head, head_data), (rest, rest_data)], target)
    assert (target / "f").read_bytes() == b"x" * 10_000
    elsewhere = evolve(rest, range_of=FileRange(b"f", ((8192, 5904),)))
    other = evolve(rest, range_of=FileRange(b"g", ((4096, 5904),)))
    shorter = evolve(rest, range_of=FileRange(b"f", ((4096, 5000),)))
    for wrong in (elsewhere, other, shorter):
        for order in ([(head, head_data), (wrong, rest_data)], [(wrong, rest_data), (head, head_data)]):
            with pytest.raises(ArtefactError):
                extract(order, target)
    with pytest.raises(ArtefactError):
        extract([(head, head_data)], target)
    with pytest.raises(ArtefactError):
        extract([(rest, rest_data)], target)


def test_a_split_file_that_is_replaced_half_way(target: Path) -> None:
    head, rest = split_file(b"f", b"x" * 10_000, 4096)
    for intruder in (
        Member(b"f", SYMLINK, link_target=b"../outside/victim"),
        Member(b"f", FILE),
        Member(b"f", MemberKind.FIFO),
    ):
        with pytest.raises(ArtefactError, match="twice"):
            extract([head, make_frame(make_raw(intruder)), rest], target)


def test_a_range_through_a_symlink(target: Path) -> None:
    head, rest = split_file(b"d/victim", b"x" * 10_000, 4096)
    link = make_frame(make_raw(Member(b"d", SYMLINK, link_target=b"../outside")))
    for order in itertools.permutations([head, rest, link]):
        with pytest.raises(ArtefactError):
            extract(order, target)


def test_a_path_of_very_many_directories(target: Path) -> None:
    extract([make_frame(make_raw(Member(b"/".join([b"d"] * 400) + b"/f", FILE)))], target)
    found, depth = os.open(target, os.O_RDONLY), 0
    while "d" in os.listdir(found):
        below = os.open("d", os.O_RDONLY, dir_fd=found)
        os.close(found)
        found, depth = below, depth + 1
    assert os.listdir(found) == ["f"]
    os.close(found)
    assert depth == 400


@pytest.mark.parametrize(
    "change",
    [
        {"uid": 0xFFFFFFFF},
        {"gid": 1 << 40},
        {"link_target": b"a\0b" * 50},
        {"xattrs": ((b"user.a\0b", b""),)},
        {"xattrs": ((b"nonsense", b""),)},
        {"mtime_ns": 10**18 * 10**9 - 1},
    ],
)
def test_impossible_metadata_is_one_clear_error(change: dict[str, Any], target: Path) -> None:
    member = evolve(Member(b"l", SYMLINK, link_target=b"x", uid=os.getuid(), gid=os.getgid()), **change)
    with contextlib.suppress(BladerootError):
        extract([make_frame(make_raw(member))], target)
        # A time may be any that the filesystem can be given; it says itself what it makes of it.
        assert "mtime_ns" in change


def test_no_descriptor_is_left_open(target: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    raw = b"".join(make_raw(Member(b"d%d/e/f" % number, FILE)) for number in range(500))
    extract([make_frame(raw, 500)], target)
    with pytest.raises(ArtefactError):
        extract([make_frame(raw, 499)], target)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", [b"d/victim", b"d/.wh.victim", b"d/deep/new", b"d/.wh..wh..opq"])
def test_an_overlay_does_not_go_through_symlinks(name: bytes, target: Path) -> None:
    (target / "d").symlink_to("../outside")
    entries = [PlainEntry(Member(name, FILE))]
    if b".wh." in name:
        # There is no such file in the tree: nothing to delete.
        extract_plain(pack_plain(entries), target)
    else:
        with pytest.raises(Exception, match="is not a directory"):
            extract_plain(pack_plain(entries), target)


def test_overlays_that_are_torn(target: Path) -> None:
    archive = pack_plain([PlainEntry(Member(b"f", FILE), b"x" * 2000)])
    raw = zstandard.decompress(archive)
    compress = zstandard.ZstdCompressor().compress
    for bad in (b"", b"junk", archive[:-1], archive + b"\0", compress(raw[:1500]), compress(raw[:700])):
        with pytest.raises(ArtefactError):
            extract_plain(bad, target)
    assert os.listdir(target) == []


@pytest.mark.parametrize("path", [b"../x", b"/x", b"a/../../x"])
def test_paths_that_lead_out(path: bytes, target: Path) -> None:
    with pytest.raises(ArtefactError):
        pack_plain([PlainEntry(Member(path, FILE))])
    raw = render_head(Member(path, FILE)) + END_OF_ARCHIVE
    with pytest.raises(ArtefactError):
        extract_plain(zstandard.ZstdCompressor().compress(raw), target)
    with pytest.raises(ArtefactError):
        extract([make_frame(raw)], target)


def test_workers_that_cannot_begin_are_an_error_and_no_endless_wait(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, data = make_frame(make_raw(Member(b"f", FILE)) + END_OF_ARCHIVE)
    opened = []

    def open_first_only(tree: Tree) -> TreeWriter:
        opened.append(tree)
        if len(opened) > 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return TreeWriter(tree)

    monkeypatch.setattr("bladeroot.host.archive.extract.TreeWriter", open_first_only)
    with pytest.raises(OSError, match="Too many open files"):
        extract([(frame, data)] * 50, target)
