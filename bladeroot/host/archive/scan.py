"""A tree on disk as a list of members."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from attrs import evolve

from bladeroot.core.tarformat import HOLE_GRAIN_BYTES, Member, MemberKind, Segments
from bladeroot.errors import PrivilegeError, SnapshotError
from bladeroot.events import Note, Reporter, ignore

Exclude = Callable[[bytes, bool], bool]
"""Told a path and whether it is a directory: True leaves it out, with all that is below it."""

KIND_OF_FORMAT: Mapping[int, MemberKind] = {
    stat.S_IFREG: MemberKind.FILE,
    stat.S_IFDIR: MemberKind.DIRECTORY,
    stat.S_IFLNK: MemberKind.SYMLINK,
    stat.S_IFCHR: MemberKind.CHARACTER_DEVICE,
    stat.S_IFBLK: MemberKind.BLOCK_DEVICE,
    stat.S_IFIFO: MemberKind.FIFO,
}
"""By the file type bits of `st_mode`; sockets are no members."""
_FOREIGN_XATTRS = (b"btrfs.", b"system.", b"xfs.")
"""Ways to talk to one filesystem, not metadata that another could hold."""
_ACLS = (b"system.posix_acl_access", b"system.posix_acl_default")
_READ_BYTES = 1 << 20
_MAX_SEGMENTS = 1 << 16
_DEEPEST = 200
"""Directories above each other: packages have no deeper ones."""
_ZEROS = bytes(_READ_BYTES)


def scan_tree(
    root: Path,
    *,
    one_file_system: bool = True,
    exclude: Exclude | None = None,
    reporter: Reporter = ignore,
) -> list[Member]:
    """All that is in a tree, its top directory (`b""`) first, in the order of paths.

    Of several names of one file the first is the file, the others are hard links to it. With
    `one_file_system` a mount point is an empty directory. Sockets are left out with a note. Raises
    SnapshotError if the tree changes meanwhile, PrivilegeError for what may not be read.
    """
    top = os.fsencode(root)
    with explain_reading(top):
        status = os.stat(top)
        if not stat.S_ISDIR(status.st_mode):
            raise SnapshotError(f"{root} is not a directory")
        found = [(b"", status)]
        device = status.st_dev if one_file_system else None
        _walk(top, b"", device, exclude, reporter, found)
    found.sort(key=lambda item: item[0])
    first_names: dict[tuple[int, int], Member] = {}
    return [_read_member(top, path, status, first_names) for path, status in found]


@contextmanager
def explain_reading(path: bytes) -> Iterator[None]:
    """Turn what goes wrong in reading a snapshot into errors that say so."""
    try:
        yield
    except PermissionError as error:
        raise PrivilegeError(
            f"{_name(error, path)} may not be read", "run it as root, or with sudo"
        ) from error
    except (FileNotFoundError, NotADirectoryError) as error:
        hint = "let nothing else work on the snapshot meanwhile (package managers, services)"
        raise SnapshotError(f"{_name(error, path)} is not there (any more)", hint) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise SnapshotError(f"{_name(error, path)} has become a symlink while it was read") from error
        raise SnapshotError(f"{_name(error, path)} cannot be read: {error.strerror}") from error


def _name(error: OSError, path: bytes) -> str:
    name = error.filename if isinstance(error.filename, str | bytes) else path
    return os.fsdecode(name)


def _walk(
    top: bytes,
    above: bytes,
    device: int | None,
    exclude: Exclude | None,
    reporter: Reporter,
    found: list[tuple[bytes, os.stat_result]],
) -> None:
    pending = [above]
    while pending:
        directory = pending.pop()
        prefix = directory + b"/" if directory else b""
        with os.scandir(top + b"/" + directory) as entries:
            for entry in entries:
                path = prefix + entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if exclude is not None and exclude(path, is_directory):
                    continue
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISSOCK(status.st_mode):
                    reporter(Note(text=f"left out, a socket: {os.fsdecode(path)}"))
                    continue
                found.append((path, status))
                if is_directory and (device is None or status.st_dev == device):
                    pending.append(path)


def _read_member(
    top: bytes, path: bytes, status: os.stat_result, first_names: dict[tuple[int, int], Member]
) -> Member:
    kind = KIND_OF_FORMAT[stat.S_IFMT(status.st_mode)]
    identity = (status.st_dev, status.st_ino)
    linked = status.st_nlink > 1 and kind is not MemberKind.DIRECTORY
    if linked and identity in first_names:
        first = first_names[identity]
        return evolve(
            first, path=path, kind=MemberKind.HARDLINK, link_target=first.path, size=0, segments=None
        )
    full = top + b"/" + path
    with explain_reading(full):
        member = Member(
            path=path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime_ns=status.st_mtime_ns,
            size=status.st_size if kind is MemberKind.FILE else 0,
            link_target=os.readlink(full) if kind is MemberKind.SYMLINK else b"",
            device=_read_device(kind, status),
            xattrs=read_xattrs(full),
            segments=_find_segments(full, status) if kind is MemberKind.FILE else None,
        )
    if linked:
        first_names[identity] = member
    return member


def _read_device(kind: MemberKind, status: os.stat_result) -> tuple[int, int]:
    if kind in (MemberKind.CHARACTER_DEVICE, MemberKind.BLOCK_DEVICE):
        return os.major(status.st_rdev), os.minor(status.st_rdev)
    return 0, 0


def read_xattrs(path: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """What another filesystem could hold of a file's extended attributes, by name."""
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    if not names:
        return ()
    kept = [
        name
        for name in sorted(map(os.fsencode, names))
        if name in _ACLS or not name.startswith(_FOREIGN_XATTRS)
    ]
    return tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in kept)


def _find_segments(path: bytes, status: os.stat_result) -> Segments | None:
    """Where a sparse file holds data; None unless it has holes.

    What is a hole hangs on the content alone once a file is sparse, so that a copy on another filesystem is
    the same member again.
    """
    if status.st_blocks * 512 >= status.st_size:
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.lseek(descriptor, 0, os.SEEK_HOLE) >= status.st_size:
            return None
        grain = HOLE_GRAIN_BYTES
        segments = _merge(_iter_data(descriptor, status.st_size, grain))
    finally:
        os.close(descriptor)
    while len(segments) > _MAX_SEGMENTS:
        grain *= 2
        segments = _coarsen(segments, grain, status.st_size)
    return tuple(segments)


def _iter_data(descriptor: int, size: int, grain: int) -> Iterator[tuple[int, int]]:
    """The aligned blocks that are not all zero, as (offset, length)."""
    buffer = bytearray(_READ_BYTES)
    at = 0
    while at < size:
        try:
            start = os.lseek(descriptor, at, os.SEEK_DATA) // grain * grain
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        at = max(at, start)
        count = os.preadv(descriptor, [buffer], at)
        count = min(count, size - at)
        if at + count < size:
            count -= count % grain
        if count <= 0:
            raise SnapshotError("a file became shorter while it was read")
        if buffer[:count] != _ZEROS[:count]:
            for offset in range(0, count, grain):
                length = min(grain, count - offset)
                if buffer[offset : offset + length] != _ZEROS[:length]:
                    yield at + offset, length
        at += count


def _merge(blocks: Iterator[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for offset, length in blocks:
        if merged and sum(merged[-1]) == offset:
            merged[-1] = (merged[-1][0], merged[-1][1] + length)
        else:
            merged.append((offset, length))
    return merged


def _coarsen(segments: list[tuple[int, int]], grain: int, size: int) -> list[tuple[int, int]]:
    """The same data with holes only where a whole, aligned block of `grain` is empty."""
    coarse: list[tuple[int, int]] = []
    for offset, length in segments:
        start = offset // grain * grain
        end = min(-(-(offset + length) // grain) * grain, size)
        if coarse and sum(coarse[-1]) >= start:
            coarse[-1] = (coarse[-1][0], end - coarse[-1][0])
        else:
            coarse.append((start, end - start))
    return coarse


def read_package_order(root: Path) -> Mapping[bytes, str]:
    """Path -> name of the package that it belongs to, from dpkg's database; empty where there is none.

    What cannot be a path, in a damaged database, is passed over. Paths are as they are on disk: what a
    package lists as /bin/x is usr/bin/x where /bin is a symlink.
    """
    top = os.fsencode(root)
    folder = b"var/lib/dpkg/info"
    package_of: dict[bytes, str] = {}
    real_directories: dict[bytes, bytes] = {b"": b""}
    try:
        names = sorted(os.listdir(top + b"/" + folder))
    except (FileNotFoundError, NotADirectoryError):
        return package_of
    for name in names:
        package = os.fsdecode(name.rsplit(b".", 1)[0])
        package_of[folder + b"/" + name] = package
        if not name.endswith(b".list"):
            continue
        with explain_reading(name), open(top + b"/" + folder + b"/" + name, "rb") as stream:
            for line in stream.read().split(b"\n"):
                directory, _, base = line.lstrip(b"/").rpartition(b"/")
                if base in (b"", b".", b"..") or b"\0" in line or line.count(b"/") > _DEEPEST:
                    continue
                real = _find_real_directory(top, directory, real_directories, 0)
                package_of.setdefault(real + b"/" + base if real else base, package)
    return package_of


def _find_real_directory(top: bytes, directory: bytes, known: dict[bytes, bytes], depth: int) -> bytes:
    """Where in the tree a directory is, symlinks of the tree followed within the tree."""
    real = known.get(directory)
    if real is not None:
        return real
    above, _, base = directory.rpartition(b"/")
    above = _find_real_directory(top, above, known, depth)
    real = above + b"/" + base if above else base
    if depth < 40:
        try:
            target = os.readlink(top + b"/" + real)
        except OSError:
            pass
        else:
            joined = target if target.startswith(b"/") else above + b"/" + target
            inside = os.path.normpath(b"/" + joined).lstrip(b"/")
            real = _find_real_directory(top, inside, known, depth + 1)
    known[directory] = real
    return real
