"""Overlays' archives: ordinary `.tar.zst`, made in memory, with deletions as OCI whiteouts.

OCI image layer specification, "Whiteouts": an empty file `.wh.NAME` deletes NAME of the layers below,
`.wh..wh..opq` all that is in its directory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import zstandard
from attrs import evolve, frozen

from bladeroot.core.tarformat import (
    END_OF_ARCHIVE,
    Member,
    MemberKind,
    check_path,
    count_padding,
    render_head,
)
from bladeroot.core.tarparse import Head, parse_heads
from bladeroot.errors import ArtefactError
from bladeroot.host.archive.metadata import explain_writing
from bladeroot.host.archive.tree import Tree, TreeWriter

WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"
MAX_PLAIN_BYTES = 2 << 30
"""What an overlay may decompress to: it is handled in memory."""


@frozen
class PlainEntry:
    """A member with its content, which only a regular file has. The member's own `size` does not matter."""

    member: Member
    content: bytes = b""


def make_whiteout(path: bytes) -> PlainEntry:
    """The entry that deletes `path`, whatever it is."""
    check_path(path)
    parent, _, name = path.rpartition(b"/")
    hidden = WHITEOUT_PREFIX + name
    return PlainEntry(Member(parent + b"/" + hidden if parent else hidden, MemberKind.FILE))


def pack_plain(entries: Iterable[PlainEntry], *, level: int = 12) -> bytes:
    """The entries as one `.tar.zst`: the same bytes whatever their order.

    Raises ArtefactError for a path that leads out of the tree, ValueError for one that is there twice.
    """
    ordered = sorted(entries, key=lambda entry: (entry.member.kind is MemberKind.HARDLINK, entry.member.path))
    pieces: list[bytes] = []
    seen: set[bytes] = set()
    for entry in ordered:
        member = entry.member
        check_path(member.path)
        if member.path in seen:
            raise ValueError(f"{member.path!r} is there twice")
        seen.add(member.path)
        if member.kind is MemberKind.FILE:
            member = evolve(member, size=len(entry.content), segments=None)
        elif entry.content:
            raise ValueError(f"{member.path!r} is no regular file, but has content")
        pieces += (render_head(member), entry.content, bytes(count_padding(len(entry.content))))
    pieces.append(END_OF_ARCHIVE)
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
    return compressor.compress(b"".join(pieces))


def read_plain_files(archive: bytes, below: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The regular files below a directory of the tree, as (path in that directory, content).

    Raises ArtefactError for what is no such archive.
    """
    with memoryview(_decompress(archive)) as view:
        for head in parse_heads(view):
            member, end = head.member, head.data_start + head.data_size
            if end > len(view):
                raise ArtefactError("an overlay's archive is torn")
            if member.kind is MemberKind.FILE and member.path.startswith(below + b"/"):
                yield member.path[len(below) + 1 :], bytes(view[head.data_start : end])


def extract_plain(
    archive: bytes | Path, target: Path, only: Callable[[str], bool] = lambda _path: True
) -> None:
    """Put an overlay's archive over a tree: deletions first, then files in place of what was there.

    `only` says of each path, without a leading slash, whether to. Directories that it only passes through
    keep their times. Raises ArtefactError for what is no such
    archive, SnapshotError for a file whose path goes through what is no directory there (a symlink).
    """
    data = archive if isinstance(archive, bytes) else archive.read_bytes()
    raw = _decompress(data)
    tree = Tree(target, replace_in_the_way=False)
    with memoryview(raw) as view, TreeWriter(tree) as writer:
        heads = list(parse_heads(view))
        if heads and heads[-1].data_start + heads[-1].data_size > len(raw):
            raise ArtefactError("an overlay's archive is torn")
        heads = [head for head in heads if only(os.fsdecode(_meant(head.member)))]
        for head in heads:
            if _base(head.member).startswith(WHITEOUT_PREFIX):
                with explain_writing(target, head.member.path):
                    _delete(writer, head.member)
        rest = [head for head in heads if not _base(head.member).startswith(WHITEOUT_PREFIX)]
        for head in rest:
            with explain_writing(target, head.member.path):
                _place(writer, head, view)
        writer.finish_directories([head.member for head in rest if head.member.kind is MemberKind.DIRECTORY])


def _decompress(data: bytes) -> bytes:
    try:
        if not 0 < zstandard.frame_content_size(data) <= MAX_PLAIN_BYTES:
            raise ArtefactError("an overlay's archive is too large, or does not say how large it is")
        return zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise ArtefactError(f"an overlay's archive cannot be decompressed: {error}") from error


def list_plain(archive: bytes) -> list[str]:
    """Every path that the archive makes or deletes, without a leading slash."""
    with memoryview(_decompress(archive)) as view:
        return [os.fsdecode(_meant(head.member)) for head in parse_heads(view)]


def _meant(member: Member) -> bytes:
    """The path that a member is about: a whiteout is about what it deletes."""
    parent, slash, name = member.path.rpartition(b"/")
    if name == OPAQUE_NAME:
        return parent
    return parent + slash + name.removeprefix(WHITEOUT_PREFIX)


def _base(member: Member) -> bytes:
    return member.path.rpartition(b"/")[2]


def _delete(writer: TreeWriter, member: Member) -> None:
    parent, _, name = member.path.rpartition(b"/")
    if name == OPAQUE_NAME:
        writer.clear_directory(parent)
        return
    hidden = name[len(WHITEOUT_PREFIX) :]
    path = parent + b"/" + hidden if parent else hidden
    if not hidden:
        raise ArtefactError(f"{os.fsdecode(member.path)} deletes nothing")
    check_path(path)
    writer.remove(path)


def _place(writer: TreeWriter, head: Head, view: memoryview) -> None:
    member = head.member
    if member.kind is MemberKind.DIRECTORY:
        writer.replace_by_directory(member.path)
    elif member.kind is MemberKind.FILE:
        writer.place_file(member, view[head.data_start : head.data_start + head.data_size])
    elif member.kind is MemberKind.HARDLINK:
        writer.place_hard_link(member)
    else:
        writer.place_special(member)
