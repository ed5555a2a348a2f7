"""Tar members and how they are written: POSIX.1-2001 pax, with GNU's and star's well-known extensions.

Deterministic; pax records only where the plain ustar header cannot say it. Names are bytes. No I/O.
`tarparse` is the inverse.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from attrs import frozen

from bladeroot.core.acltext import ACL_KEYWORDS, render_acl_text
from bladeroot.errors import ArtefactError

BLOCK_BYTES = 512
END_OF_ARCHIVE = bytes(2 * BLOCK_BYTES)
HOLE_GRAIN_BYTES = 4096
"""In a sparse file every aligned, all-zero block of this size is a hole."""

_PATH_MAX = 4096
"""Linux: of a path with the zero byte at its end."""
_MAX_OCTAL_7 = 0o7777777
_MAX_OCTAL_11 = 0o77777777777
SECOND_NS = 1_000_000_000
HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
USTAR = b"ustar\x0000"
XATTR_KEYWORD = b"SCHILY.xattr."
SPARSE_VERSION = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"))

Segments = tuple[tuple[int, int], ...]
"""Parts of a file that hold data: (offset, length) in bytes, ascending, none empty."""


class MemberKind(StrEnum):
    """What a member is. A hard link's `link_target` is the path of the member that has the content."""

    FILE = "file"
    HARDLINK = "hardlink"
    SYMLINK = "symlink"
    CHARACTER_DEVICE = "character-device"
    BLOCK_DEVICE = "block-device"
    DIRECTORY = "directory"
    FIFO = "fifo"


TYPE_OF_KIND = dict(zip(MemberKind, (b"0", b"1", b"2", b"3", b"4", b"5", b"6"), strict=True))


@frozen
class Member:
    """One name of a tree and all that is to be known about it but a file's bytes.

    `path` is relative, without "." or ".." components or a slash at its end; the tree's own top directory
    is `b""`. A hard link repeats the metadata of the file that it is a name of.
    """

    path: bytes
    kind: MemberKind
    mode: int = 0o644
    """The permission bits and setuid, setgid, sticky."""
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    """Of a regular file, holes included; of anything else 0."""
    link_target: bytes = b""
    device: tuple[int, int] = (0, 0)
    """(major, minor)"""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    """By name; ACLs are in here as the kernel has them (system.posix_acl_access, …_default)."""
    segments: Segments | None = None
    """Where a sparse file holds data; None for a file without holes."""

    @property
    def data_size(self) -> int:
        """How many bytes of content the archive holds for it."""
        if self.segments is None:
            return self.size
        return sum(length for _, length in self.segments)

    @property
    def data_segments(self) -> Segments:
        """Where the content goes, holes or not."""
        if self.segments is None:
            return ((0, self.size),) if self.size else ()
        return self.segments


def check_path(path: bytes) -> None:
    """Raise ArtefactError unless the path stays inside of the tree, is spelt in one way only, and is sane."""
    if not path:
        return
    if b"\0" in path or len(path) >= _PATH_MAX:
        raise ArtefactError(f"a member's name is not a path: {path[:80]!r}")
    for part in path.split(b"/"):
        if part in (b"", b".", b"..") or len(part) > 255:
            raise ArtefactError(f"a member's name leads out of the tree, or is odd: {path[:80]!r}")


def check_segments(segments: Iterable[Sequence[int]], size: int) -> None:
    """Raise ArtefactError unless the segments ascend without overlap and end within `size` bytes."""
    end = 0
    for offset, length in segments:
        if offset < end or length <= 0 or offset + length > size:
            raise ArtefactError("the segments of a file overlap or run past its end")
        end = offset + length


def count_padding(size: int) -> int:
    """The zero bytes that follow content of this size."""
    return -size % BLOCK_BYTES


def render_head(member: Member) -> bytes:
    """Everything of a member before its content: pax records, header, and the map of a sparse file."""
    records: list[tuple[bytes, bytes]] = []
    binary = False
    full = spell_path(member.path)
    name, prefix = full, b""
    slash = b"/" if member.kind is MemberKind.DIRECTORY else b""
    sparse_map = b""
    stored = 0
    if member.kind is MemberKind.FILE:
        stored = member.data_size
    if member.segments is not None:
        sparse_map = render_sparse_map(member)
        stored += len(sparse_map)
        records += [
            *SPARSE_VERSION,
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", b"%d" % member.size),
        ]
        binary = not _is_utf8(name)
        name = b"GNUSparseFile.0/" + _short(name)
    elif len(name) + len(slash) > 100:
        name, prefix = _split_name(name, slash)
        if not prefix:
            records.append((b"path", full + slash))
            binary = not _is_utf8(member.path)
            name = _short(member.path)
    link = member.link_target
    if member.kind is MemberKind.HARDLINK:
        link = spell_path(link)
    if len(link) > 100:
        records.append((b"linkpath", link))
        binary = binary or not _is_utf8(link)
        link = _short(link)
    records += _number_records(member, stored)
    records += _xattr_records(member)
    if binary:
        # POSIX.1-2008 pax: the records after this one are not UTF-8. libarchive honours it, GNU tar takes
        # bytes as they are anyway and only warns.
        records.insert(0, (b"hdrcharset", b"BINARY"))
    header = _render_header(
        name + slash, prefix, TYPE_OF_KIND[member.kind], member.mode, member, stored, link
    )
    if not records:
        return header + sparse_map
    body = b"".join(_render_record(key, value) for key, value in records)
    pax_name = b"PaxHeaders/" + _short(member.path)
    pax = _render_header(pax_name, b"", b"x", 0o644, None, len(body), b"")
    return pax + body + bytes(count_padding(len(body))) + header + sparse_map


def spell_path(path: bytes) -> bytes:
    """A path as it stands in archives: bsdtar would cut off what looks like a root or a drive of Windows."""
    if path.startswith(b"\\") or path[1:2] == b":":
        return b"./" + path
    return path or b"."


def render_sparse_map(member: Member) -> bytes:
    """GNU sparse format 1.0: the map that stands before the content, padded to whole blocks."""
    segments = member.segments or ()
    end = sum(segments[-1]) if segments else 0
    if end < member.size or not segments:
        segments = (*segments, (member.size, 0))
    text = b"%d\n" % len(segments) + b"".join(b"%d\n%d\n" % segment for segment in segments)
    return text + bytes(count_padding(len(text)))


def _short(path: bytes) -> bytes:
    """A stand-in of at most 80 bytes for where the true name is in a pax record."""
    base = path.rsplit(b"/", 1)[-1] or b"."
    return base if len(base) <= 80 else base[:80]


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _split_name(path: bytes, slash: bytes) -> tuple[bytes, bytes]:
    """(name, prefix) of ustar; the prefix is empty where it does not fit."""
    at = path.find(b"/", max(0, len(path) + len(slash) - 101), 156)
    if at <= 0 or len(path) - at - 1 + len(slash) > 100:
        return path, b""
    return path[at + 1 :], path[:at]


def _number_records(member: Member, stored: int) -> Iterator[tuple[bytes, bytes]]:
    if member.uid > _MAX_OCTAL_7:
        yield b"uid", b"%d" % member.uid
    if member.gid > _MAX_OCTAL_7:
        yield b"gid", b"%d" % member.gid
    if stored > _MAX_OCTAL_11:
        yield b"size", b"%d" % stored
    seconds, rest = divmod(member.mtime_ns, SECOND_NS)
    if rest or not 0 <= seconds <= _MAX_OCTAL_11:
        yield b"mtime", _render_time(member.mtime_ns)


def _render_time(time_ns: int) -> bytes:
    """Decimal seconds; a time before 1970 is the negative number, as POSIX has it."""
    seconds, rest = divmod(abs(time_ns), SECOND_NS)
    sign = b"-" if time_ns < 0 else b""
    return b"%s%d.%09d" % (sign, seconds, rest) if rest else b"%s%d" % (sign, seconds)


def _xattr_records(member: Member) -> Iterator[tuple[bytes, bytes]]:
    for name, value in sorted(member.xattrs):
        text = render_acl_text(value) if name in ACL_KEYWORDS else None
        if text is not None:
            yield ACL_KEYWORDS[name], text
        else:
            # As GNU tar spells a "=" in an attribute's name.
            yield XATTR_KEYWORD + name.replace(b"%", b"%25").replace(b"=", b"%3D"), value


def _render_record(key: bytes, value: bytes) -> bytes:
    """`<length> <key>=<value>\\n`, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + len(b"%d" % rest)
    length = rest + len(b"%d" % length)
    return b"%d %s=%s\n" % (length, key, value)


def _render_header(
    name: bytes, prefix: bytes, flag: bytes, mode: int, member: Member | None, stored: int, link: bytes
) -> bytes:
    uid = gid = seconds = 0
    device = b""
    if member is not None:
        uid = member.uid if member.uid <= _MAX_OCTAL_7 else 0
        gid = member.gid if member.gid <= _MAX_OCTAL_7 else 0
        seconds = min(max(member.mtime_ns // SECOND_NS, 0), _MAX_OCTAL_11)
        if flag in b"34":
            device = b"%07o\0%07o\0" % member.device
    header = bytearray(HEADER.size)
    HEADER.pack_into(
        header, 0, name, b"%07o" % mode, b"%07o" % uid, b"%07o" % gid,
        b"%011o" % min(stored, _MAX_OCTAL_11), b"%011o" % seconds, b"        ", flag, link, USTAR,
        b"", b"", device[:8], device[8:], prefix,
    )  # fmt: skip
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)
