"""A snapshot's directory tree, looked at one path at a time and remembered."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.errors import SnapshotError
from bladeroot.host.archive.scan import KIND_OF_FORMAT, read_xattrs


class SnapshotTree:
    """A snapshot as `core.overlaytree.SnapshotView`. What was looked at once is taken to stay as it is.

    Raises SnapshotError where the path is not a directory with an `etc` in it.
    """

    def __init__(self, root: Path) -> None:
        if not (root / "etc").is_dir():
            what = "is not a directory" if not root.is_dir() else "has no etc directory in it"
            raise SnapshotError(f"{root} is not a snapshot: it {what}", "name the top of an OS tree")
        self.root = root
        self._members: dict[str, Member | None] = {}
        self._names: dict[str, tuple[str, ...]] = {}

    def member(self, path: str) -> Member | None:
        """What is at the path (a link itself); None for nothing, and for sockets."""
        if path not in self._members:
            self._members[path] = self._look(path)
        return self._members[path]

    def names(self, path: str) -> Sequence[str]:
        """The names in a directory, sorted; none for anything else."""
        if path not in self._names:
            try:
                self._names[path] = tuple(sorted(os.listdir(self.root / path)))
            except (FileNotFoundError, NotADirectoryError):
                self._names[path] = ()
            except OSError as error:
                raise SnapshotError(f"cannot read {self.root / path}: {error.strerror}") from error
        return self._names[path]

    def read(self, path: str) -> bytes:
        """A regular file's content."""
        try:
            descriptor = os.open(self.root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                return file.read()
        except OSError as error:
            raise SnapshotError(f"cannot read {self.root / path}: {error.strerror}") from error

    def _look(self, path: str) -> Member | None:
        full = self.root / path
        try:
            found = full.lstat()
            kind = KIND_OF_FORMAT.get(stat.S_IFMT(found.st_mode))
            if kind is None:
                return None
            target = os.fsencode(os.readlink(full)) if kind is MemberKind.SYMLINK else b""
            return Member(
                os.fsencode(path),
                kind,
                mode=stat.S_IMODE(found.st_mode),
                uid=found.st_uid,
                gid=found.st_gid,
                mtime_ns=found.st_mtime_ns,
                size=found.st_size if kind is MemberKind.FILE else 0,
                link_target=target,
                xattrs=read_xattrs(os.fsencode(full))
                if kind in (MemberKind.FILE, MemberKind.DIRECTORY)
                else (),
            )
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise SnapshotError(f"cannot look at {full}: {error.strerror}") from error
