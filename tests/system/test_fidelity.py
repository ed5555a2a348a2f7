"""Everything that only root can make, through our own extraction, GNU tar and bsdtar."""

from __future__ import annotations

import os
import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from bladeroot.core.framing import frame_name
from bladeroot.errors import DiskTooSmallError
from bladeroot.host.archive import Extraction, open_index, pack_members, scan_tree
from bladeroot.host.run import run
from tests.treecompare import find_tree_differences
from tests.treemaker import Node, make_acl, make_tree, spare_bsdtar, trees
from tests.unit.host.test_archive import SMALL_CUTS, shuffled

pytestmark = pytest.mark.system

_MANY = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def filesystem(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An ext4 of our own: what this machine's /tmp can hold does not matter."""
    folder = tmp_path_factory.mktemp("fidelity")
    image, mount = folder / "image", folder / "mount"
    mount.mkdir()
    with image.open("wb") as stream:
        stream.truncate(2 << 30)
    run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1", "-O", "ea_inode", image])
    run(["mount", "-o", "loop", image, mount])
    try:
        yield mount
    finally:
        run(["umount", mount])


def pack(root: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    pack_members(root, scan_tree(root), files.__setitem__, level=1, package_of={}, cuts=SMALL_CUTS)
    return files


def extract_with_tar(files: dict[str, bytes], target: Path) -> None:
    archive = b"".join(files[name] for name in sorted(files))
    options = ["--zstd", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner"]
    run(["tar", *options, "-xpf", "-", "-C", target], stdin=archive)


def extract_with_bsdtar(files: dict[str, bytes], target: Path) -> None:
    archive = b"".join(files[name] for name in sorted(files))
    run(["bsdtar", "--numeric-owner", "-xpf", "-", "-C", target], stdin=archive)


def extract_with_bladeroot(files: dict[str, bytes], target: Path) -> None:
    index = open_index(files["index"])
    with Extraction(index, target) as extraction:
        for number in shuffled(index, len(files)):
            extraction.submit(number, files[frame_name(number)])
        extraction.finish()


@given(tree=trees(as_root=True))
@_MANY
def test_what_is_packed_is_what_is_extracted(filesystem: Path, tree: Node) -> None:
    with tempfile.TemporaryDirectory(dir=filesystem) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        make_tree(source, tree, as_root=True)
        target.mkdir()
        files = pack(source)
        extract_with_bladeroot(files, target)
        assert find_tree_differences(source, target) == []
        assert pack(target) == files
        # Once more over what is there.
        extract_with_bladeroot(files, target)
        assert find_tree_differences(source, target) == []


@given(tree=trees(as_root=True))
@_MANY
def test_gnu_tar_extracts_the_same_tree(filesystem: Path, tree: Node) -> None:
    with tempfile.TemporaryDirectory(dir=filesystem) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        # GNU tar makes symlinks late; of those with two names it forgets a directory's time.
        make_tree(source, tree, as_root=True, link_symlinks=False)
        target.mkdir()
        extract_with_tar(pack(source), target)
        assert find_tree_differences(source, target) == []


@given(tree=trees(as_root=True).map(spare_bsdtar))
@_MANY
def test_bsdtar_extracts_the_same_tree(filesystem: Path, tree: Node) -> None:
    with tempfile.TemporaryDirectory(dir=filesystem) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        make_tree(source, tree, as_root=True)
        target.mkdir()
        extract_with_bsdtar(pack(source), target)
        assert find_tree_differences(source, target) == []


def make_difficult_tree(top: Path) -> None:
    """What chance rarely finds."""
    top.mkdir()
    long_directory = b"/".join([b"n" * 200, b"\xff" * 200, b"m" * 255])
    deep = os.fsencode(top) + b"/" + long_directory
    os.makedirs(deep)
    with open(deep + b"/\xe9 large and sparse\n", "wb") as stream:
        for number in range(30):
            stream.seek(number * (1 << 20))
            stream.write(random.Random(number).randbytes(70_000))
        stream.truncate(60 << 20)
    large = top / "large, setuid and capable"
    large.write_bytes(random.Random(1).randbytes(200_000))
    os.chown(large, 3_000_000, 4_000_000)
    large.chmod(0o6755)
    os.setxattr(large, "security.capability", struct.pack("<5I", 0x02000001, 0x2000, 0, 0, 0))
    os.setxattr(large, "system.posix_acl_access", make_acl(3))
    os.setxattr(large, "user.long", b"v" * 3000)
    os.utime(large, ns=(0, -1))
    os.link(large, deep + b"/another name")
    os.symlink(b"t" * 4000, deep + b"/" + b"l" * 255)
    (top / "only a hole").touch()
    os.truncate(top / "only a hole", 1 << 26)
    shared = top / "shared"
    shared.mkdir()
    os.setxattr(shared, "system.posix_acl_default", make_acl(1))
    (shared / "no acl of its own").write_text("x")
    os.removexattr(shared / "no acl of its own", "system.posix_acl_access")
    (shared / "no acl of its own").chmod(0o640)
    shared.chmod(0o3070)
    os.utime(shared, ns=(0, 123_456_789))


@pytest.mark.parametrize(
    "extract", [extract_with_bladeroot, extract_with_tar, extract_with_bsdtar], ids=lambda f: f.__name__
)
def test_a_difficult_tree(filesystem: Path, extract: Callable[[dict[str, bytes], Path], None]) -> None:
    with tempfile.TemporaryDirectory(dir=filesystem) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        make_difficult_tree(source)
        if extract is extract_with_bsdtar:
            os.utime(source / "large, setuid and capable", ns=(0, 1))
        target.mkdir()
        files = pack(source)
        extract(files, target)
        assert find_tree_differences(source, target) == []
        assert pack(target) == files
        assert (target / "only a hole").stat().st_blocks == 0


def test_a_default_acl_is_not_inherited_by_what_is_extracted_into_it(filesystem: Path) -> None:
    with tempfile.TemporaryDirectory(dir=filesystem) as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        make_difficult_tree(source)
        target.mkdir()
        os.setxattr(target, "system.posix_acl_default", make_acl(5))
        (target / "shared").mkdir()
        os.setxattr(target / "shared", "user.old", b"goes away")
        extract_with_bladeroot(pack(source), target)
        assert find_tree_differences(source, target) == []


def test_a_full_disk_is_said_to_be_full(tmp_path: Path) -> None:
    source, image, mount = tmp_path / "source", tmp_path / "image", tmp_path / "mount"
    source.mkdir()
    mount.mkdir()
    (source / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    with image.open("wb") as stream:
        stream.truncate(2 << 20)
    run(["mkfs.ext4", "-q", image])
    run(["mount", "-o", "loop", image, mount])
    try:
        with pytest.raises(DiskTooSmallError, match=r"no room left for .*/large"):
            extract_with_bladeroot(pack(source), mount)
    finally:
        run(["umount", mount])


def test_a_mount_point_is_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    run(["mount", "-t", "tmpfs", "none", tmp_path / "proc"])
    try:
        (tmp_path / "proc" / "inside").touch()
        assert [member.path for member in scan_tree(tmp_path)] == [b"", b"proc"]
        everywhere = scan_tree(tmp_path, one_file_system=False)
        assert [member.path for member in everywhere] == [b"", b"proc", b"proc/inside"]
    finally:
        run(["umount", tmp_path / "proc"])
