"""A snapshot as it looks with layers laid over it: which entry wins, what is deleted, where a path leads.

Paths are relative to the snapshot, without a leading slash. Symbolic links in a path's parents are
followed inside of the snapshot, so that `/lib/x` lands in `/usr/lib` where the snapshot has it so.
No I/O: the snapshot is what its caller passes in.
"""

from __future__ import annotations

import fnmatch
import posixpath
from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import Protocol

from attrs import evolve, frozen

from bladeroot.core.linkpaths import follow_links
from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.errors import OverlayError

SNAPSHOT = "snapshot"
"""Stands among the layers that an entry overrides for a file of the snapshot itself."""


class SnapshotView(Protocol):
    """What the merge wants to know of a snapshot. Parents in the paths are real directories, never links."""

    def member(self, path: str) -> Member | None:
        """What is there (a link itself, not its target), or None."""

    def names(self, path: str) -> Sequence[str]:
        """The names in a directory; none for anything else."""

    def read(self, path: str) -> bytes:
        """A regular file's content."""


class NoSnapshot:
    """The view for when there is no snapshot to look at: nothing exists."""

    def member(self, path: str) -> Member | None:  # noqa: ARG002
        """Nothing."""
        return None

    def names(self, path: str) -> Sequence[str]:  # noqa: ARG002
        """Nothing."""
        return ()

    def read(self, path: str) -> bytes:
        """Never called: there is nothing to read."""
        raise OverlayError(f"no snapshot to read /{path} from")


class EntryKind(StrEnum):
    """What an overlay does at a path."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    DELETION = "deletion"


@frozen(kw_only=True)
class OverlayEntry:
    """One path of a blade's overlay, and who put it there."""

    path: str
    kind: EntryKind
    layer: str
    source: str = ""
    """The file that it comes from, for people."""
    content: bytes = b""
    target: str = ""
    mode: int = 0o644
    owner: str = "root"
    group: str = "root"
    uid: int = 0
    gid: int = 0
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    overrides: tuple[str, ...] = ()
    """The layers whose entry or deletion this one replaces; `snapshot` for the snapshot's own file."""


class OverlayTree:
    """The snapshot and the entries laid over it so far."""

    def __init__(self, snapshot: SnapshotView) -> None:
        self.snapshot = snapshot
        self.entries: dict[str, OverlayEntry] = {}
        self.deletions: dict[str, OverlayEntry] = {}

    def node(self, path: str) -> OverlayEntry | Member | None:
        """What a canonical path (see `resolve`) is now: an entry, the snapshot's own member, or nothing."""
        if path in self.entries:
            return self.entries[path]
        if self._deletion_over(path) is not None:
            return None
        return self.snapshot.member(path)

    def was_deleted(self, path: str) -> bool:
        """Whether the path, or a directory that it is in, was taken away."""
        return self._deletion_over(path) is not None

    def is_directory(self, path: str) -> bool:
        """Whether a canonical path is a directory."""
        node = self.node(path)
        return not path or (node is not None and node.kind.value == EntryKind.DIRECTORY.value)

    def link_target(self, path: str) -> str | None:
        """Where a canonical path points to if it is a symbolic link."""
        node = self.node(path)
        if isinstance(node, OverlayEntry):
            return node.target if node.kind is EntryKind.SYMLINK else None
        if node is not None and node.kind is MemberKind.SYMLINK:
            return node.link_target.decode("utf-8", "surrogateescape")
        return None

    def names(self, path: str) -> list[str]:
        """The names in a directory (a canonical path) as it is now, sorted."""
        prefix = f"{path}/" if path else ""
        names = {one[len(prefix) :].partition("/")[0] for one in self.entries if one.startswith(prefix)}
        if self._deletion_over(path) is None:
            names.update(name for name in self.snapshot.names(path) if self.node(prefix + name) is not None)
        return sorted(names)

    def read(self, path: str) -> bytes | None:
        """The content of the regular file at any path, links followed; None where there is none."""
        real = self.resolve(path, follow_last=True)
        node = self.node(real)
        if isinstance(node, OverlayEntry):
            return node.content if node.kind is EntryKind.FILE else None
        if node is not None and node.kind in (MemberKind.FILE, MemberKind.HARDLINK):
            return self.snapshot.read(real)
        return None

    def resolve(self, path: str, *, follow_last: bool = False) -> str:
        """The canonical path: parents (and the last part, if asked) with symbolic links followed."""
        real = follow_links(path, self.link_target, follow_last=follow_last)
        if real is None:
            raise OverlayError(f"/{path}: symbolic links go round in a circle")
        return real

    def put(self, entry: OverlayEntry) -> OverlayEntry | None:
        """Lay one entry over the tree, with the parents that it needs; the entry as it came to stand.

        A directory that is already there stays as it is (None). Raises OverlayError where a file would
        replace a directory or the other way round.
        """
        path = self.resolve(entry.path, follow_last=entry.kind is EntryKind.DIRECTORY)
        if self.is_directory(path):
            if entry.kind is EntryKind.DIRECTORY:
                return None
            hint = f'delete = ["/{path}"] in that layer\'s overlay.toml makes room'
            raise OverlayError(f"{entry.source}: /{path} is a directory {self._whose(path)}", hint)
        if entry.kind is EntryKind.DIRECTORY and self.node(path) is not None:
            hint = f'delete = ["/{path}"] in that layer\'s overlay.toml makes room'
            raise OverlayError(f"{entry.source}: /{path} is not a directory {self._whose(path)}", hint)
        self._make_parents(path, entry)
        placed = evolve(entry, path=path, overrides=self._overridden(path))
        if entry.kind is not EntryKind.DIRECTORY and not self._is_snapshot_directory(path):
            self.deletions.pop(path, None)  # what stands there replaces it
        self.entries[path] = placed
        return placed

    def delete(self, path: str, layer: str, source: str = "") -> bool:
        """Take away what is at a canonical path, and all below it. False where there is nothing."""
        if self.node(path) is None:
            return False
        overrides = [
            entry.layer
            for entry in (*self._pop_below(self.entries, path), *self._pop_below(self.deletions, path))
        ]
        if self._deletion_over(path) is None and self.snapshot.member(path) is not None:
            self.deletions[path] = OverlayEntry(
                path=path,
                kind=EntryKind.DELETION,
                layer=layer,
                source=source,
                overrides=tuple(dict.fromkeys((SNAPSHOT, *overrides))),
            )
        return True

    def glob(self, pattern: str) -> list[str]:
        """The canonical paths that fit a shell pattern: `*` stays within a name, `**` is any directories.

        Links in the fixed and in the matched parents are followed, the last name's is not.
        """
        return sorted(set(self._glob("", [part for part in pattern.split("/") if part])))

    def _glob(self, directory: str, parts: Sequence[str]) -> Iterator[str]:
        head, rest = parts[0], parts[1:]
        prefix = f"{directory}/" if directory else ""
        if head == "**":
            yield from self._glob(directory, rest or ["*"])
            for name in self.names(directory):
                if self.is_directory(prefix + name):
                    yield from self._glob(prefix + name, parts)
            return
        wild = any(character in head for character in "*?[")
        for name in fnmatch.filter(self.names(directory), head) if wild else [head]:
            if self.node(prefix + name) is None:
                continue
            if not rest:
                yield prefix + name
                continue
            below = self.resolve(prefix + name, follow_last=True)
            if self.is_directory(below):
                yield from self._glob(below, rest)

    def all_entries(self) -> tuple[OverlayEntry, ...]:
        """Deletions first, then the rest; each by path, so that parents come before what is in them."""
        return (
            *(self.deletions[path] for path in sorted(self.deletions)),
            *(self.entries[path] for path in sorted(self.entries)),
        )

    def _make_parents(self, path: str, entry: OverlayEntry) -> None:
        parent = posixpath.dirname(path)
        if self.is_directory(parent):
            return
        directory = OverlayEntry(
            path=parent, kind=EntryKind.DIRECTORY, layer=entry.layer, source=entry.source, mode=0o755
        )
        self.put(directory)

    def _overridden(self, path: str) -> tuple[str, ...]:
        replaced = self.entries.get(path) or self._deletion_over(path)
        if replaced is not None:
            return tuple(dict.fromkeys((*replaced.overrides, replaced.layer)))
        return (SNAPSHOT,) if self.snapshot.member(path) is not None else ()

    def _deletion_over(self, path: str) -> OverlayEntry | None:
        while path:
            if path in self.deletions:
                return self.deletions[path]
            path = posixpath.dirname(path)
        return None

    def _is_snapshot_directory(self, path: str) -> bool:
        member = self.snapshot.member(path)
        return member is not None and member.kind is MemberKind.DIRECTORY

    def _whose(self, path: str) -> str:
        entry = self.entries.get(path)
        return f"of the layer {entry.layer}" if entry else "in the snapshot"

    @staticmethod
    def _pop_below(entries: dict[str, OverlayEntry], path: str) -> list[OverlayEntry]:
        below = [one for one in entries if one == path or one.startswith(path + "/")]
        return [entries.pop(one) for one in below]
