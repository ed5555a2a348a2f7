"""Two trees compared by other means than the product's own: rsync, lstat and the xattr calls."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from pathlib import Path

from bladeroot.host.run import run


def find_tree_differences(a: Path, b: Path, *, ignore: frozenset[bytes] = frozenset()) -> list[str]:
    """
    In what the trees differ, a line each; empty if in nothing that a copy could keep.

    Compares names, kinds, contents, owners, modes, nanosecond times of change, hard links, devices,
    symlinks and extended attributes (ACLs and capabilities are such). `ignore` holds paths left out, with
    all that is below them.
    """
    differences = _compare_with_rsync(a, b, ignore)
    left, right = _list_tree(os.fsencode(a), ignore), _list_tree(os.fsencode(b), ignore)
    for path in sorted(left.keys() | right.keys()):
        name = os.fsdecode(path) or "."
        if path not in right:
            differences.append(f"{name}: only in {a}")
        elif path not in left:
            differences.append(f"{name}: only in {b}")
        else:
            one, two = left[path], right[path]
            differences += [
                f"{name}: {key} {one[key]!r} / {two[key]!r}" for key in one if one[key] != two[key]
            ]
    differences += _compare_links(os.fsencode(a), os.fsencode(b), left.keys() & right.keys())
    return differences


def _compare_with_rsync(a: Path, b: Path, ignore: frozenset[bytes]) -> list[str]:
    excludes = [b"--exclude=/" + path for path in sorted(ignore)]
    argv: list[str | bytes] = [
        "rsync",
        "-aHAXn",
        "--numeric-ids",
        "--checksum",
        "--delete",
        "--itemize-changes",
    ]
    completed = run([*argv, *excludes, f"{a}/", f"{b}/"])
    return [f"rsync: {line}" for line in completed.stdout.splitlines() if line]


def _list_tree(top: bytes, ignore: frozenset[bytes]) -> dict[bytes, dict[str, object]]:
    found: dict[bytes, dict[str, object]] = {b"": _describe(top)}
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in os.listdir(os.path.join(top, directory)):
            path = os.path.join(directory, name)
            if path in ignore:
                continue
            found[path] = _describe(os.path.join(top, path))
            if stat.S_ISDIR(os.lstat(os.path.join(top, path)).st_mode):
                pending.append(path)
    return found


def _describe(path: bytes) -> dict[str, object]:
    status = os.lstat(path)
    is_directory = stat.S_ISDIR(status.st_mode)
    is_link = stat.S_ISLNK(status.st_mode)
    return {
        "mode": oct(status.st_mode),
        "owner": (status.st_uid, status.st_gid),
        "mtime": status.st_mtime_ns,
        "size": None if is_directory else status.st_size,
        "device": status.st_rdev,
        "target": os.readlink(path) if is_link else None,
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        },
    }


def _compare_links(a: bytes, b: bytes, paths: set[bytes]) -> list[str]:
    one, two = _group_links(a, paths), _group_links(b, paths)
    return [
        f"hard links {[os.fsdecode(p) for p in sorted(group)]} are not the same in both"
        for group in one ^ two
    ]


def _group_links(top: bytes, paths: set[bytes]) -> set[frozenset[bytes]]:
    groups: dict[tuple[int, int], set[bytes]] = defaultdict(set)
    for path in paths:
        status = os.lstat(os.path.join(top, path))
        if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
            groups[status.st_dev, status.st_ino].add(path)
    return {frozenset(group) for group in groups.values()}
