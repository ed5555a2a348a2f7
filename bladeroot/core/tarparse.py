"""Tar members read back from bytes: what `tarformat` writes, and not a byte of it believed. No I/O."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from attrs import evolve, frozen

from bladeroot.core.acltext import ACL_XATTRS, parse_acl_text
from bladeroot.core.tarformat import (
    BLOCK_BYTES,
    END_OF_ARCHIVE,
    HEADER,
    SECOND_NS,
    SPARSE_VERSION,
    TYPE_OF_KIND,
    USTAR,
    XATTR_KEYWORD,
    Member,
    MemberKind,
    check_path,
    check_segments,
    count_padding,
)
from bladeroot.errors import ArtefactError

_MAX_PAX_BYTES = 16 << 20
_MAX_SIZE_BYTES = 1 << 62
_NO_ID = 0xFFFFFFFF
"""Linux: uid_t and gid_t are 32 bits, and this value means "leave it"."""
_NUMBER = re.compile(rb"[0-9]{1,19}")
_TIME = re.compile(rb"(-?)([0-9]{1,18})(?:\.([0-9]{1,9}))?")
_KIND_OF_TYPE = {flag: kind for kind, flag in TYPE_OF_KIND.items()}


@frozen
class Head:
    """A member as it stands in an archive: its header is followed by `data_size` bytes and padding."""

    member: Member
    data_size: int
    data_start: int
    """Where in the parsed buffer the content begins."""


def parse_heads(buffer: memoryview) -> Iterator[Head]:
    """The members of a buffer that begins with a header.

    The last member's content may run past the buffer's end, which is for the caller to judge. Stops after
    the end-of-archive blocks. Raises ArtefactError.
    """
    at, end = 0, len(buffer)
    while at < end:
        if end - at < BLOCK_BYTES:
            raise ArtefactError("a tar member is torn")
        if buffer[at] == 0:
            _check_end(buffer[at:])
            return
        head = parse_head(buffer, at)
        yield head
        at = head.data_start + head.data_size + count_padding(head.data_size)


def _check_end(rest: memoryview) -> None:
    if bytes(rest) != END_OF_ARCHIVE:
        raise ArtefactError("something stands where the tar archive should end")


def parse_head(buffer: memoryview, at: int) -> Head:
    """The member whose header, or whose pax records, begin at `at`. Raises ArtefactError."""
    try:
        return _parse_head(buffer, at)
    except (ValueError, struct.error, KeyError) as error:
        raise ArtefactError(f"a tar header makes no sense: {error}") from error


def _parse_head(buffer: memoryview, at: int) -> Head:
    records: dict[bytes, bytes] = {}
    fields = _unpack_header(buffer, at)
    at += BLOCK_BYTES
    if fields[7] == b"x":
        size = _octal(fields[4])
        if size > _MAX_PAX_BYTES or at + size > len(buffer):
            raise ValueError("pax records are torn or too large")
        records = dict(parse_records(bytes(buffer[at : at + size])))
        at += size + count_padding(size)
        fields = _unpack_header(buffer, at)
        at += BLOCK_BYTES
    name, mode, uid, gid, size_field, seconds, _, flag, link, _, _, _, major, minor, prefix = fields
    kind = _KIND_OF_TYPE[flag]
    path = name.rstrip(b"\0")
    if prefix[0]:
        path = prefix.rstrip(b"\0") + b"/" + path
    size = _octal(size_field)
    if kind is not MemberKind.FILE and size:
        raise ValueError(f"a {kind} with content")
    member = Member(
        path=path,
        kind=kind,
        mode=_octal(mode) & 0o7777,
        uid=_octal(uid),
        gid=_octal(gid),
        mtime_ns=_octal(seconds) * SECOND_NS,
        size=size,
        link_target=link.rstrip(b"\0"),
        device=(_octal(major), _octal(minor)) if flag in b"34" else (0, 0),
    )
    if records:
        member = _apply_records(member, records)
        if b"GNU.sparse.major" in records:
            return _parse_sparse(buffer, at, member, records)
    return Head(_normalise(member), member.size, at)


def _normalise(member: Member) -> Member:
    path = member.path
    if member.kind is MemberKind.DIRECTORY:
        path = path.removesuffix(b"/")
        path = b"" if path == b"." else path
    path = path.removeprefix(b"./")
    if not path and member.kind is not MemberKind.DIRECTORY:
        raise ValueError("a member without a name")
    if path is not member.path:
        member = evolve(member, path=path)
    check_path(path)
    if member.kind is MemberKind.HARDLINK:
        member = evolve(member, link_target=member.link_target.removeprefix(b"./"))
        check_path(member.link_target)
    if member.kind in (MemberKind.HARDLINK, MemberKind.SYMLINK) and not member.link_target:
        raise ValueError("a link to nothing")
    if b"\0" in member.link_target or any(b"\0" in name for name, _ in member.xattrs):
        raise ValueError("a zero byte in a name")
    if max(member.uid, member.gid) >= _NO_ID:
        raise ValueError("an owner's number is too large")
    return member


def _unpack_header(buffer: memoryview, at: int) -> tuple[bytes, ...]:
    block = bytes(buffer[at : at + BLOCK_BYTES])  # summing up a view takes four times as long
    fields: tuple[bytes, ...] = HEADER.unpack(block)
    checksum = fields[6]
    if fields[9] != USTAR or sum(block) - sum(checksum) + 8 * 32 != int(checksum[:6], 8):
        raise ValueError("the checksum is wrong")
    return fields


def _octal(field: bytes) -> int:
    digits = field[:-1]
    if not digits.isdigit():
        raise ValueError(f"not an octal number: {field!r}")
    return int(digits, 8)


def parse_records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The pax records of an extended header. Raises ValueError."""
    at = 0
    while at < len(body):
        space = body.index(b" ", at, at + 12)
        length = _decimal(body[at:space])
        record = body[space + 1 : at + length]
        if len(record) != at + length - space - 1 or not record.endswith(b"\n"):
            raise ValueError("a pax record is torn")
        key, equals, value = record[:-1].partition(b"=")
        if not equals:
            raise ValueError("a pax record without a value")
        yield key, value
        at += length


def _decimal(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"not a number: {text[:20]!r}")
    number = int(text)
    if number > _MAX_SIZE_BYTES:
        raise ValueError(f"too large a number: {number}")
    return number


def _apply_records(member: Member, records: dict[bytes, bytes]) -> Member:
    changes: dict[str, object] = {}
    xattrs: list[tuple[bytes, bytes]] = []
    for key, value in records.items():
        if key == b"path":
            changes["path"] = value
        elif key == b"linkpath":
            changes["link_target"] = value
        elif key == b"mtime":
            changes["mtime_ns"] = _parse_time(value)
        elif key in (b"uid", b"gid", b"size"):
            changes[key.decode()] = _decimal(value)
        elif key in ACL_XATTRS:
            xattrs.append((ACL_XATTRS[key], parse_acl_text(value)))
        elif key.startswith(XATTR_KEYWORD):
            name = key[len(XATTR_KEYWORD) :].replace(b"%3D", b"=").replace(b"%25", b"%")
            xattrs.append((name, value))
        elif key != b"hdrcharset" and not key.startswith(b"GNU.sparse."):
            raise ValueError(f"unknown pax record {key[:40]!r}")
    if xattrs:
        changes["xattrs"] = tuple(sorted(xattrs))
    return evolve(member, **changes)  # type: ignore[arg-type]


def _parse_time(text: bytes) -> int:
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"not a time: {text[:40]!r}")
    sign, seconds, fraction = match.groups()
    time_ns = int(seconds) * SECOND_NS + int((fraction or b"0").ljust(9, b"0"))
    return -time_ns if sign else time_ns


def _parse_sparse(buffer: memoryview, at: int, member: Member, records: dict[bytes, bytes]) -> Head:
    if member.kind is not MemberKind.FILE or any(records.get(key) != value for key, value in SPARSE_VERSION):
        raise ValueError("not a sparse file of GNU's format 1.0")
    size = _decimal(records[b"GNU.sparse.realsize"])
    numbers, map_size = _parse_sparse_map(buffer, at)
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    segments = tuple((offset, length) for offset, length in pairs if length)
    check_segments(segments, size)
    sparse = evolve(member, path=records[b"GNU.sparse.name"], size=size, segments=segments)
    stored = member.size - map_size
    if stored != sparse.data_size:
        raise ValueError("a sparse file's map does not fit its content")
    return Head(_normalise(sparse), stored, at + map_size)


def _parse_sparse_map(buffer: memoryview, at: int) -> tuple[list[int], int]:
    """The numbers of the map after the count, and the map's size in bytes."""
    text = bytes(buffer[at : at + BLOCK_BYTES])
    count = _decimal(text.split(b"\n", 1)[0])
    while text.count(b"\n") < 2 * count + 1:
        more = bytes(buffer[at + len(text) : at + max(2 * len(text), len(text) + BLOCK_BYTES)])
        if not more:
            raise ValueError("a sparse file's map is torn")
        text += more
    lines = text.split(b"\n", 2 * count + 1)[: 2 * count + 1]
    used = sum(map(len, lines)) + len(lines)
    return [_decimal(line) for line in lines[1:]], used + count_padding(used)
