"""What is known of a file besides its name, put onto open files; and what goes wrong with that."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bladeroot.core.tarformat import Member
from bladeroot.errors import ArtefactError, DiskError, DiskTooSmallError, PrivilegeError

_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_OWN_XATTRS = ("user.", "trusted.", "security.capability", *_ACLS)
"""Attributes that are there because someone set them, not because the filesystem or the kernel did."""


def apply_metadata(descriptor: int, member: Member) -> None:
    """Owner, attributes, mode and time of an open file or directory, in the order in which they stick."""
    # chown drops setuid and capabilities; chmod would keep the user from setting attributes.
    os.fchown(descriptor, member.uid, member.gid)
    for name, value in member.xattrs:
        os.setxattr(descriptor, name, value)
    os.fchmod(descriptor, member.mode)
    os.utime(descriptor, ns=(member.mtime_ns, member.mtime_ns))


def write_all(descriptor: int, content: memoryview, offset: int) -> None:
    """Write all of `content` from `offset` on."""
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


def write_segments(descriptor: int, segments: Sequence[tuple[int, int]], content: memoryview) -> None:
    """Write content to where the segments are, one after the other."""
    at = 0
    for offset, length in segments:
        write_all(descriptor, content[at : at + length], offset)
        at += length


@contextmanager
def explain_writing(target: Path, path: bytes) -> Iterator[None]:
    """Turn what goes wrong in writing a member into errors that say where, and what to do."""
    try:
        yield
    except (ValueError, OverflowError) as error:
        raise ArtefactError(f"{os.fsdecode(path)} is described in an impossible way: {error}") from error
    except OSError as error:
        where = target / os.fsdecode(path)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskTooSmallError(f"no room left for {where}", "take a larger disk or slot") from error
        if error.errno in (errno.EPERM, errno.EACCES):
            text = f"{where} may not be written as it should be: {error.strerror}"
            raise PrivilegeError(text, "run it as root, or with sudo") from error
        if error.errno == errno.EOPNOTSUPP:
            hint = "use a filesystem that can hold extended attributes and ACLs (ext4, xfs, btrfs)"
            raise DiskError(f"{where}: the filesystem cannot hold its attributes", hint) from error
        raise DiskError(f"{where} cannot be written: {error.strerror}") from error


def has_default_acl(descriptor: int) -> bool:
    """Whether what is made in this directory gets an ACL by itself."""
    try:
        return bool(os.getxattr(descriptor, _ACLS[1]))
    except OSError:
        return False


def remove_acls(where: int | bytes) -> None:
    """Take away what an open file, or one at a path, may have inherited."""
    for name in _ACLS:
        with contextlib.suppress(OSError):
            os.removexattr(where, name)


def remove_other_xattrs(descriptor: int, member: Member) -> None:
    """Take away what an existing directory has and the member has not."""
    try:
        names = os.listxattr(descriptor)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return
        raise
    wanted = {name for name, _ in member.xattrs}
    for name in names:
        if name.startswith(_OWN_XATTRS) and os.fsencode(name) not in wanted:
            os.removexattr(descriptor, name)
