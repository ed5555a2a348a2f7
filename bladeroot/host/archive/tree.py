"""Members placed into a tree on disk, never outside of it.

Directories are opened one component at a time without following symlinks, and everything is created
relative to them; what stood at a name is removed first, never written through.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.errors import ArtefactError, SnapshotError
from bladeroot.host.archive.metadata import (
    apply_metadata,
    explain_writing,
    has_default_acl,
    remove_acls,
    remove_other_xattrs,
    write_all,
    write_segments,
)

_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CACHED_DIRECTORIES = 128


class Tree:
    """What all writers of one target share. Thread-safe."""

    def __init__(self, target: Path, *, replace_in_the_way: bool) -> None:
        self.target = target
        self.replace_in_the_way = replace_in_the_way
        """Whether something else that stands where a directory has to be is removed, or is an error."""
        self.times_before: dict[bytes, tuple[int, int]] = {}
        """Directories that were there and have been opened: atime and mtime as they were."""
        self.created: set[bytes] = set()
        """Directories that were made because something had to go into them."""
        self.symlinks: set[bytes] = set()
        """Symlinks placed; nothing may lead through them."""
        self.inheriting: set[bytes] = set()
        """Directories whose default ACL new files get, which is not what the archive says."""
        self._lock = threading.Lock()

    def note_symlink(self, path: bytes) -> None:
        """A symlink is about to be placed. Raises ArtefactError where this archive has a directory."""
        with self._lock:
            if path in self.created or path in self.times_before:
                raise ArtefactError(f"{os.fsdecode(path)} is both a symlink and a directory in the archive")
            self.symlinks.add(path)

    def note_directory(self, path: bytes, status: os.stat_result | None) -> None:
        """A directory has been opened (`status`), or has just been made (None)."""
        with self._lock:
            self._refuse_symlink(path)
            if status is None:
                self.created.add(path)
            elif path not in self.created:
                self.times_before.setdefault(path, (status.st_atime_ns, status.st_mtime_ns))

    def forget(self, path: bytes) -> None:
        """What has this name and what is below it is removed."""
        below = path + b"/"
        with self._lock:
            for known in [*self.times_before, *self.created, *self.inheriting]:
                if known == path or known.startswith(below):
                    self.times_before.pop(known, None)
                    self.created.discard(known)
                    self.inheriting.discard(known)

    def _refuse_symlink(self, path: bytes) -> None:
        if path in self.symlinks:
            raise ArtefactError(f"the archive leads through its own symlink {os.fsdecode(path)}")

    def check_in_the_way(self, path: bytes) -> None:
        """Something that is no directory stands where one has to be: raise unless it is to be replaced."""
        with self._lock:
            self._refuse_symlink(path)
        if not self.replace_in_the_way:
            raise SnapshotError(
                f"{self.target / os.fsdecode(path)} is not a directory, but files are to go into it",
                "if it is a symlink, name the files by where it points to",
            )


class TreeWriter:
    """One thread's hands in a tree: a bounded cache of open directories. Close it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        with explain_writing(tree.target, b""):
            self._top = os.open(tree.target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._open: dict[bytes, int] = {}
        try:
            self._note_found(b"", self._top)
        except BaseException:
            os.close(self._top)
            raise

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every directory."""
        for descriptor in (*self._open.values(), self._top):
            os.close(descriptor)
        self._open.clear()

    def open_directory(self, path: bytes) -> int:
        """A descriptor of a directory, made if need be with all above it; the cache owns it."""
        descriptor = self._descend(path, make=True)
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return descriptor

    def make_directory(self, path: bytes) -> None:
        """Make sure that it is there."""
        if path not in self._tree.created and path not in self._tree.times_before:
            self.open_directory(path)

    def find_directory(self, path: bytes) -> int | None:
        """As `open_directory`, but None where there is no such directory."""
        return self._descend(path, make=False)

    def _descend(self, path: bytes, *, make: bool) -> int | None:
        """From the deepest directory that is open already, one component at a time."""
        known, cut = path, len(path)
        while known and known not in self._open:
            cut = max(path.rfind(b"/", 0, cut), 0)
            known = path[:cut]
        descriptor = self._top
        if known:
            # The cache's order is the order of use.
            descriptor = self._open[known] = self._open.pop(known)
        while cut < len(path):
            above, start = path[:cut], cut + 1 if cut else 0
            cut = path.find(b"/", start)
            cut = len(path) if cut < 0 else cut
            below = path[:cut]
            opened = self._enter(descriptor, above, path[start:cut], below, make=make)
            if opened is None:
                return None
            descriptor = self._remember(below, opened)
        return descriptor

    def _remember(self, path: bytes, descriptor: int) -> int:
        if len(self._open) >= _CACHED_DIRECTORIES:
            # The half that was not used for longest; what a caller still holds is in the other one.
            for old in list(self._open)[: _CACHED_DIRECTORIES // 2]:
                os.close(self._open.pop(old))
        self._open[path] = descriptor
        return descriptor

    def _enter(self, parent: int, above: bytes, name: bytes, path: bytes, *, make: bool) -> int | None:
        try:
            return self._open_found(parent, name, path)
        except FileNotFoundError:
            if not make:
                return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            if not make:
                return None
            self._tree.check_in_the_way(path)
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):  # another thread was quicker
                os.unlink(name, dir_fd=parent)
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:  # as above
            return self._open_found(parent, name, path)
        self._tree.note_directory(path, None)
        descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        if above in self._tree.inheriting:
            remove_acls(descriptor)
        return descriptor

    def _open_found(self, parent: int, name: bytes, path: bytes) -> int:
        descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=parent)
        try:
            self._note_found(path, descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _note_found(self, path: bytes, descriptor: int) -> None:
        tree = self._tree
        if path in tree.created or path in tree.times_before:
            return
        # Before its time is noted: from then on other threads take it for looked at.
        if has_default_acl(descriptor):
            tree.inheriting.add(path)
        tree.note_directory(path, os.fstat(descriptor))

    def remove(self, path: bytes) -> None:
        """Make sure that nothing has this name. A directory goes with all that is in it."""
        parent, _, name = path.rpartition(b"/")
        directory = self.find_directory(parent)
        if directory is not None:
            self._forget(path)
            with contextlib.suppress(FileNotFoundError):
                self._remove(directory, name, path)

    def clear_directory(self, path: bytes) -> None:
        """Remove all that is in a directory, if there is one."""
        directory = self.find_directory(path)
        if directory is not None:
            for name in map(os.fsencode, os.listdir(directory)):
                self.remove(path + b"/" + name if path else name)

    def replace_by_directory(self, path: bytes) -> None:
        """A directory, in place of a file but not of a symlink. Raises SnapshotError for that."""
        parent, _, name = path.rpartition(b"/")
        if path and self.find_directory(path) is None:
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self.open_directory(parent), follow_symlinks=False)
                if not stat.S_ISLNK(status.st_mode):
                    self.remove(path)
        self.open_directory(path)

    def _remove(self, directory: int, name: bytes, path: bytes) -> None:
        try:
            os.unlink(name, dir_fd=directory)
        except IsADirectoryError as error:
            if path in self._tree.created or path in self._tree.times_before:
                text = f"{os.fsdecode(path)} is both a directory and something else in the archive"
                raise ArtefactError(text) from error
            shutil.rmtree(name, dir_fd=directory)

    def _forget(self, path: bytes) -> None:
        """A directory is about to go: its descriptors, and what is known of it and of those below."""
        below = path + b"/"
        for known in [known for known in self._open if known == path or known.startswith(below)]:
            os.close(self._open.pop(known))
        self._tree.forget(path)

    def create_file(self, path: bytes) -> int:
        """A new, empty file to write to, in place of whatever had the name; the caller closes it."""
        parent, _, name = path.rpartition(b"/")
        directory = self.open_directory(parent)
        try:
            descriptor = os.open(name, _CREATE_FLAGS, 0o600, dir_fd=directory)
        except FileExistsError:
            self._remove(directory, name, path)
            descriptor = os.open(name, _CREATE_FLAGS, 0o600, dir_fd=directory)
        if parent in self._tree.inheriting:
            remove_acls(descriptor)
        return descriptor

    def reopen_file(self, path: bytes, identity: tuple[int, int]) -> int:
        """A file made before, to write more to; `identity` is its device and inode.

        Raises ArtefactError if another has its name now.
        """
        parent, _, name = path.rpartition(b"/")
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        found = os.open(name, flags, dir_fd=self.open_directory(parent))
        try:
            status = os.fstat(found)
            if (status.st_dev, status.st_ino) != identity or not stat.S_ISREG(status.st_mode):
                raise ArtefactError(f"{os.fsdecode(path)} is in the archive twice")
            return os.open(b"/proc/self/fd/%d" % found, os.O_WRONLY | os.O_CLOEXEC)
        finally:
            os.close(found)

    def place_file(self, member: Member, content: memoryview) -> None:
        """A regular file, whole. `content` is its data without holes."""
        descriptor = self.create_file(member.path)
        try:
            if member.segments is None:
                write_all(descriptor, content, 0)
            else:
                write_segments(descriptor, member.segments, content)
                os.ftruncate(descriptor, member.size)
            apply_metadata(descriptor, member)
        finally:
            os.close(descriptor)

    def place_special(self, member: Member) -> None:
        """A symlink, fifo or device node."""
        parent, _, name = member.path.rpartition(b"/")
        directory = self.open_directory(parent)
        try:
            self._make_special(member, name, directory)
        except FileExistsError:
            self._remove(directory, name, member.path)
            self._make_special(member, name, directory)
        times = (member.mtime_ns, member.mtime_ns)
        if member.kind is MemberKind.SYMLINK:
            os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
            for attribute, value in member.xattrs:
                # There is no system call for this relative to a directory.
                place = b"/proc/self/fd/%d/%s" % (directory, name)
                os.setxattr(place, attribute, value, follow_symlinks=False)
            os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
            return
        descriptor = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            # O_PATH: a device must not be opened to be described.
            place = b"/proc/self/fd/%d" % descriptor
            if parent in self._tree.inheriting:
                remove_acls(place)
            os.chown(place, member.uid, member.gid)
            for attribute, value in member.xattrs:
                os.setxattr(place, attribute, value)
            os.chmod(place, member.mode)
            os.utime(place, ns=times)
        finally:
            os.close(descriptor)

    def _make_special(self, member: Member, name: bytes, directory: int) -> None:
        if member.kind is MemberKind.SYMLINK:
            self._tree.note_symlink(member.path)
            os.symlink(member.link_target, name, dir_fd=directory)
        elif member.kind is MemberKind.FIFO:
            os.mkfifo(name, 0o600, dir_fd=directory)
        else:
            character = member.kind is MemberKind.CHARACTER_DEVICE
            kind = stat.S_IFCHR if character else stat.S_IFBLK
            os.mknod(name, 0o600 | kind, os.makedev(*member.device), dir_fd=directory)

    def place_hard_link(self, member: Member) -> None:
        """Another name of a file that is there. Raises ArtefactError if it is not."""
        parent, _, name = member.path.rpartition(b"/")
        target_parent, _, target_name = member.link_target.rpartition(b"/")
        self.open_directory(parent)
        source = self.find_directory(target_parent)
        directory = self.open_directory(parent)
        if source is None or _is_directory(target_name, source):
            raise ArtefactError(f"{os.fsdecode(member.path)} is a hard link to what is no file")
        try:
            self._link(source, target_name, directory, name)
        except FileExistsError:
            if member.path == member.link_target:
                raise ArtefactError(f"{os.fsdecode(member.path)} is a hard link to itself") from None
            self._remove(directory, name, member.path)
            self._link(source, target_name, directory, name)
        except FileNotFoundError as error:
            text = f"{os.fsdecode(member.path)} is a hard link to a file that is not there"
            raise ArtefactError(text) from error

    @staticmethod
    def _link(source: int, target_name: bytes, directory: int, name: bytes) -> None:
        os.link(target_name, name, src_dir_fd=source, dst_dir_fd=directory, follow_symlinks=False)

    def finish_directories(self, members: Sequence[Member]) -> None:
        """Make what is missing of these directories, then give all that were touched their metadata."""
        described = {member.path: member for member in members}
        for path in sorted(described):
            with explain_writing(self._tree.target, path):
                self.make_directory(path)
        touched = {*described, *self._tree.created, *self._tree.times_before}
        # Deepest first: a parent may become unsearchable.
        for path in sorted(touched, reverse=True):
            with explain_writing(self._tree.target, path):
                self._finish_directory(path, described.get(path))

    def _finish_directory(self, path: bytes, member: Member | None) -> None:
        descriptor = self.find_directory(path)
        if descriptor is None:
            return
        if member is not None:
            if path not in self._tree.created:
                remove_other_xattrs(descriptor, member)
            apply_metadata(descriptor, member)
        elif path in self._tree.created:
            os.fchmod(descriptor, 0o755)
        else:
            os.utime(descriptor, ns=self._tree.times_before[path])


def _is_directory(name: bytes, directory: int) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False
