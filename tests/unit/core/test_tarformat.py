"""Members as bytes and back; what Python's own tarfile makes of them; what is no archive."""

from __future__ import annotations

import io
import struct
import tarfile
from typing import Any

import pytest
from attrs import evolve
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bladeroot.core.acltext import parse_acl_text, render_acl_text
from bladeroot.core.tarformat import (
    END_OF_ARCHIVE,
    Member,
    MemberKind,
    check_path,
    check_segments,
    count_padding,
    render_head,
)
from bladeroot.core.tarparse import parse_head, parse_heads
from bladeroot.errors import ArtefactError

_unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

_parts = st.binary(min_size=1, max_size=255).filter(
    lambda part: part not in (b".", b"..") and b"/" not in part and b"\0" not in part
)
_paths = st.lists(_parts, min_size=1, max_size=6).map(b"/".join)
_xattrs = st.dictionaries(
    st.text("abc=%.é", min_size=1, max_size=12).map(lambda text: b"user." + text.encode()),
    st.binary(max_size=50),
    max_size=3,
).map(lambda found: tuple(sorted(found.items())))


@st.composite
def members(draw: st.DrawFn) -> Member:
    kind = draw(st.sampled_from(list(MemberKind)))
    size, segments = 0, None
    if kind is MemberKind.FILE:
        size = draw(st.one_of(st.integers(0, 10**6), st.integers(0, 1 << 60)))
        if draw(st.booleans()):
            edges = draw(st.lists(st.integers(0, size), max_size=8, unique=True).map(sorted))
            segments = tuple((a, b - a) for a, b in zip(edges[::2], edges[1::2], strict=False))
    is_device = kind in (MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE)
    target = b""
    if kind is MemberKind.HARDLINK:
        target = draw(_paths)
    elif kind is MemberKind.SYMLINK:
        target = draw(st.binary(min_size=1, max_size=300).filter(lambda text: b"\0" not in text))
    return Member(
        path=draw(_paths),
        kind=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 2)),
        gid=draw(st.integers(0, 2**32 - 2)),
        mtime_ns=draw(st.integers(-(2**33) * 10**9, 2**40 * 10**9)),
        size=size,
        link_target=target,
        device=(draw(st.integers(0, 4095)), draw(st.integers(0, 2**20 - 1))) if is_device else (0, 0),
        xattrs=draw(_xattrs),
        segments=segments,
    )


@given(member=members())
@_unhurried
def test_what_is_written_is_what_is_read(member: Member) -> None:
    raw = render_head(member)
    head = parse_head(memoryview(raw), 0)
    assert head.member == member
    assert head.data_start == len(raw)
    assert head.data_size == (member.data_size if member.kind is MemberKind.FILE else 0)
    assert len(raw) % 512 == 0


@given(member=members())
@_unhurried
def test_python_reads_the_same(member: Member) -> None:
    if member.segments is not None or b"=" in b"".join(name for name, _ in member.xattrs):
        return
    raw = render_head(member) + bytes(0 if member.size > 10**6 else member.size)
    with tarfile.open(fileobj=io.BytesIO(raw), encoding="utf-8", errors="surrogateescape") as archive:
        found = archive.next()
        assert found is not None
    name = found.name.encode("utf-8", "surrogateescape")
    assert name.removeprefix(b"./").rstrip(b"/") == member.path.rstrip(b"/")
    assert (found.uid, found.gid, found.mode) == (member.uid, member.gid, member.mode)
    assert found.size == member.size


def test_a_plain_member_is_one_block() -> None:
    member = Member(b"\xff" * 100, MemberKind.FILE, uid=2097151, mtime_ns=5 * 10**9, size=8 * 2**30 - 1)
    assert len(render_head(member)) == 512
    assert len(render_head(evolve(member, path=b"d" * 155 + b"/" + b"n" * 100))) == 512


@pytest.mark.parametrize(
    "change",
    [
        {"uid": 2097152},
        {"gid": 2097152},
        {"size": 8 * 2**30},
        {"mtime_ns": 1},
        {"mtime_ns": -(10**9)},
        {"path": b"n" * 101},
        {"path": b"d" * 156 + b"/n"},
    ],
)
def test_pax_records_only_where_needed(change: dict[str, Any]) -> None:
    member = Member(b"name", MemberKind.FILE)
    assert len(render_head(member)) == 512
    raw = render_head(evolve(member, **change))
    assert len(raw) == 3 * 512
    assert parse_head(memoryview(raw), 0).member == evolve(member, **change)


@pytest.mark.parametrize("path", [b"\\", b"\\x/y", b"c:", b"c:\\x"])
def test_names_that_look_like_windows(path: bytes) -> None:
    for kind in MemberKind:
        member = Member(path, kind, link_target=path if kind in ("hardlink", "symlink") else b"")
        raw = render_head(member)
        assert raw.startswith(b"./" + path)
        assert parse_head(memoryview(raw), 0).member == member


def test_the_top_directory() -> None:
    raw = render_head(Member(b"", MemberKind.DIRECTORY, mode=0o755))
    assert raw.startswith(b"./\0")
    assert parse_head(memoryview(raw), 0).member.path == b""
    for name in (b"", b"./"):
        nameless = bytearray(render_head(Member(b"x", MemberKind.FILE)))
        nameless[: len(name) + 1] = name + b"\0"
        nameless[148:156] = b"        "
        nameless[148:156] = b"%06o\0 " % sum(nameless)
        with pytest.raises(ArtefactError, match="without a name"):
            parse_head(memoryview(nameless), 0)


@pytest.mark.parametrize(
    "path", [b"/etc/passwd", b"../x", b"a/../b", b"a/..", b".", b"a//b", b"a/./b", b"a/", b"a\0b", b"x" * 256]
)
def test_paths_that_are_refused(path: bytes) -> None:
    with pytest.raises(ArtefactError):
        check_path(path)
    for kind in (MemberKind.FILE, MemberKind.DIRECTORY, MemberKind.SYMLINK):
        raw = render_head(Member(b"n" * 120, kind, link_target=b"t" if kind == "symlink" else b""))
        bad = raw.replace(b"=" + b"n" * 120, b"=" + path.ljust(120, b"/"))
        assert bad != raw
        with pytest.raises(ArtefactError):
            parse_head(memoryview(bad), 0)


@given(position=st.integers(0, 511), value=st.integers(0, 255))
@_unhurried
def test_a_changed_header_is_refused_or_the_same(position: int, value: int) -> None:
    raw = bytearray(render_head(Member(b"some/name", MemberKind.FILE, size=0, uid=7)))
    if raw[position] == value or 148 <= position < 156:
        return
    raw[position] = value
    with pytest.raises(ArtefactError):
        list(parse_heads(memoryview(bytes(raw))))


@given(junk=st.binary(max_size=2000))
@_unhurried
def test_junk_is_refused(junk: bytes) -> None:
    if junk and junk != END_OF_ARCHIVE:
        with pytest.raises(ArtefactError):
            list(parse_heads(memoryview(junk)))


@given(records=st.binary(min_size=1, max_size=200))
@_unhurried
def test_junk_in_pax_records_is_refused_or_sane(records: bytes) -> None:
    template = render_head(Member(b"name", MemberKind.FILE, mtime_ns=1))
    raw = bytearray(template[:512] + records + bytes(count_padding(len(records))) + template[1024:])
    raw[124:136] = b"%011o\0" % len(records)
    raw[148:156] = b"        "
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    try:
        found = list(parse_heads(memoryview(bytes(raw))))
    except ArtefactError:
        return
    check_path(found[0].member.path)


def test_members_follow_each_other() -> None:
    one = Member(b"one", MemberKind.FILE, size=700)
    two = Member(b"two", MemberKind.FIFO)
    raw = render_head(one) + b"x" * 700 + bytes(count_padding(700)) + render_head(two) + END_OF_ARCHIVE
    assert [head.member for head in parse_heads(memoryview(raw))] == [one, two]
    with pytest.raises(ArtefactError):
        list(parse_heads(memoryview(raw + b"more")))


def test_a_sparse_map_that_lies() -> None:
    member = Member(b"name", MemberKind.FILE, size=1 << 20, segments=((0, 4096), (8192, 4096)))
    raw = render_head(member)
    for old, new in ((b"\n8192\n", b"\n1024\n"), (b"\n4096\n8192", b"\n4097\n8192"), (b"3\n0\n", b"9\n0\n")):
        assert old in raw
        with pytest.raises(ArtefactError):
            parse_head(memoryview(raw.replace(old, new)), 0)
    with pytest.raises(ArtefactError):
        check_segments(((0, 10), (5, 10)), 100)
    with pytest.raises(ArtefactError):
        check_segments(((0, 101),), 100)


def test_acls_as_text() -> None:
    entries = [(1, 7, 0xFFFFFFFF), (2, 5, 1000), (4, 0, 0xFFFFFFFF), (16, 7, 0xFFFFFFFF), (32, 1, 0xFFFFFFFF)]
    value = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)
    text = render_acl_text(value)
    assert text == b"user::rwx,user:1000:r-x,group::---,mask::rwx,other::--x"
    assert parse_acl_text(text) == value
    assert render_acl_text(value[:-1]) is None
    assert render_acl_text(struct.pack("<I", 3) + value[4:]) is None
    for wrong in (b"user:x:rwx", b"who::rwx", b"user::rwxx", b"user:99999999999:rwx"):
        with pytest.raises(ValueError, match="ACL"):
            parse_acl_text(wrong)
