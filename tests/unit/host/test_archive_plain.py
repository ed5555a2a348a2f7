"""Overlays' archives: made in memory, put over a tree."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from bladeroot.core.tarformat import Member, MemberKind
from bladeroot.errors import SnapshotError
from bladeroot.host.archive import PlainEntry, extract_plain, make_whiteout, pack_plain
from bladeroot.host.run import run

UID, GID = os.getuid(), os.getgid()


def make_file(path: bytes, content: bytes = b"new", mode: int = 0o640, mtime_ns: int = 7) -> PlainEntry:
    return PlainEntry(Member(path, MemberKind.FILE, mode, UID, GID, mtime_ns), content)


def make_directory(path: bytes, mode: int = 0o750) -> PlainEntry:
    return PlainEntry(Member(path, MemberKind.DIRECTORY, mode, UID, GID, 11))


def make_link(path: bytes, target: bytes) -> PlainEntry:
    return PlainEntry(Member(path, MemberKind.SYMLINK, 0o777, UID, GID, 12, link_target=target))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "etc" / "old.d" / "deep").mkdir(parents=True)
    (root / "etc" / "hostname").write_text("snapshot")
    (root / "etc" / "old.d" / "deep" / "file").write_text("old")
    (root / "etc" / "link").symlink_to("hostname")
    os.utime(root / "etc", ns=(0, 5))
    os.utime(root, ns=(0, 6))
    return root


def test_files_are_put_over_the_tree(tree: Path) -> None:
    entries = [
        make_file(b"etc/hostname", b"blade01"),
        make_file(b"etc/link", b"now a file"),
        make_file(b"srv/deep/new"),
        make_directory(b"etc/new.d"),
        make_link(b"etc/new.d/up", b"../hostname"),
        PlainEntry(Member(b"etc/also", MemberKind.HARDLINK, link_target=b"etc/hostname")),
    ]
    extract_plain(pack_plain(entries), tree)
    assert (tree / "etc/hostname").read_text() == "blade01"
    assert (tree / "etc/hostname").stat().st_mode & 0o7777 == 0o640
    assert (tree / "etc/hostname").stat().st_mtime_ns == 7
    assert (tree / "etc/link").read_text() == "now a file"
    assert (tree / "etc/also").samefile(tree / "etc/hostname")
    assert (tree / "etc/new.d/up").readlink() == Path("../hostname")
    assert (tree / "etc/new.d").stat().st_mode & 0o7777 == 0o750
    assert (tree / "srv/deep").stat().st_mode & 0o7777 == 0o755
    # Directories that were only passed through.
    assert (tree.stat().st_mtime_ns, (tree / "etc").stat().st_mtime_ns) == (6, 5)


def test_a_file_is_replaced_and_not_written_through(tree: Path, tmp_path: Path) -> None:
    os.link(tree / "etc/hostname", tmp_path / "snapshot's own")
    extract_plain(pack_plain([make_file(b"etc/hostname", b"blade01")]), tree)
    assert (tmp_path / "snapshot's own").read_text() == "snapshot"


def test_deletions_come_before_files(tree: Path) -> None:
    entries = [
        make_whiteout(b"etc/old.d"),
        make_file(b"etc/old.d/new"),
        make_whiteout(b"etc/link"),
        make_whiteout(b"etc/never/was/there"),
        make_whiteout(b"etc/old.d/deep"),
    ]
    extract_plain(pack_plain(entries), tree)
    assert sorted(os.listdir(tree / "etc")) == ["hostname", "old.d"]
    assert os.listdir(tree / "etc/old.d") == ["new"]
    assert (tree / "etc/old.d").stat().st_mode & 0o7777 == 0o755


def test_an_opaque_directory_is_emptied(tree: Path) -> None:
    entries = [make_file(b"etc/.wh..wh..opq", b""), make_file(b"etc/only")]
    extract_plain(pack_plain(entries), tree)
    assert os.listdir(tree / "etc") == ["only"]


def test_the_same_bytes_whatever_the_order(tree: Path) -> None:
    entries = [make_file(b"f%d" % number) for number in range(50)]
    entries += [make_directory(b"d"), make_whiteout(b"gone")]
    archive = pack_plain(entries)
    for seed in range(3):
        random.Random(seed).shuffle(entries)
        assert pack_plain(entries) == archive
    path = tree.parent / "archive"
    path.write_bytes(archive)
    extract_plain(path, tree)
    assert len(os.listdir(tree)) == 52


def test_it_is_an_ordinary_tarball() -> None:
    archive = pack_plain([make_file(b"etc/hostname", b"blade01"), make_whiteout(b"etc/link")])
    listing = run(["tar", "--zstd", "-tf", "-"], stdin=archive).stdout
    assert listing.splitlines() == ["etc/.wh.link", "etc/hostname"]


def test_an_empty_overlay(tree: Path) -> None:
    extract_plain(pack_plain([]), tree)
    assert (tree / "etc/hostname").read_text() == "snapshot"


def test_a_directory_does_not_replace_a_symlink(tree: Path) -> None:
    (tree / "lib").symlink_to("usr/lib")
    for entry in (make_directory(b"lib"), make_file(b"lib/x")):
        with pytest.raises(SnapshotError, match="lib is not a directory"):
            extract_plain(pack_plain([entry]), tree)
    assert (tree / "lib").is_symlink()
    extract_plain(pack_plain([make_whiteout(b"lib"), make_directory(b"lib")]), tree)
    assert (tree / "lib").is_dir()
    assert not (tree / "lib").is_symlink()


def test_a_directory_replaces_a_file_and_a_file_a_directory(tree: Path) -> None:
    extract_plain(pack_plain([make_directory(b"etc/hostname"), make_file(b"etc/old.d")]), tree)
    assert (tree / "etc/hostname").is_dir()
    assert (tree / "etc/old.d").read_text() == "new"


def test_one_path_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        pack_plain([make_file(b"f"), make_file(b"f")])
