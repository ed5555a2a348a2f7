"""Disks on loop devices: taken, refused when busy, cut, kept, and always given back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import Use
from bladeroot.errors import DiskBusyError, DiskError, MissingToolError
from bladeroot.host import blockdev
from bladeroot.host.blockdev import (
    OpenDisk,
    apply_partitions,
    find_disks,
    format_partition,
    open_disk,
    read_table,
)
from bladeroot.host.mounts import find_mounts, mounted, mounted_chroot, parse_mountinfo, read_space
from bladeroot.host.run import run
from tests.blankdisks import cut_disk, make_disk, needs_loop_devices, plan_install

pytestmark = [pytest.mark.system, needs_loop_devices]

LAYOUT = Layout(esp_size_bytes=40 * MIB, slot_size_bytes=48 * MIB, slots=2, data_min_size_bytes=16 * MIB)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "disk.img", 256 * MIB)


def attached(image: Path) -> list[str]:
    return run(["losetup", "--noheadings", "--output", "NAME", "-j", image]).stdout.split()


@contextmanager
def loop_device(image: Path, *options: str) -> Iterator[Path]:
    device = Path(run(["losetup", "--find", "--show", "--partscan", *options, image]).stdout.strip())
    try:
        yield device
    finally:
        run(["partx", "--delete", device], check=False)
        run(["losetup", "--detach", device])


def cut(disk: OpenDisk, *, committed: Use | None = None) -> dict[Use, str]:
    """Partition and format as an install does; the filesystems' UUIDs."""
    return cut_disk(disk, plan_install(disk, LAYOUT, committed=committed))


def test_a_file_is_a_disk_for_as_long_as_it_is_open(image: Path) -> None:
    with open_disk(image) as disk:
        assert (disk.size_bytes, disk.sector_bytes) == (256 * MIB, 512)
        assert read_table(disk) is None
        assert attached(image) == [str(disk.device)]
        cut(disk)
        nodes = [disk.partition(number) for number in range(1, 6)]
        assert all(node.is_block_device() for node in nodes)
    assert attached(image) == []
    assert not any(node.exists() for node in nodes)


def test_it_is_given_back_when_something_fails(image: Path) -> None:
    def fail() -> None:
        with open_disk(image) as disk:
            cut(disk)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert attached(image) == []


def test_it_is_given_back_when_the_process_is_killed(image: Path) -> None:
    program = (
        "import sys, pathlib; from bladeroot.host.blockdev import open_disk\n"
        "with open_disk(pathlib.Path(sys.argv[1])) as disk:\n"
        "    print(disk.device, flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, image], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline().strip() in attached(image)
    finally:
        child.kill()
        child.communicate()
    deadline = time.monotonic() + 20
    while attached(image):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_one_installer_a_disk(image: Path) -> None:
    with (
        open_disk(image),
        pytest.raises(DiskBusyError, match=r"disk\.img is being installed on"),
        open_disk(image),
    ):
        pass


def test_a_file_that_is_attached_already_is_busy(image: Path) -> None:
    with loop_device(image) as device:
        with pytest.raises(DiskBusyError, match=f"in use as {device}$"), open_disk(image):
            pass
        assert attached(image) == [str(device)]


def test_a_device_that_is_mounted_is_busy_and_says_where(image: Path, tmp_path: Path) -> None:
    with open_disk(image) as disk:
        cut(disk)
    with loop_device(image) as device:
        with open_disk(device) as disk, mounted(disk.partition(3), tmp_path / "mnt"):
            users = rf"{device.name}p3 on {tmp_path}/mnt"
            with pytest.raises(DiskBusyError, match=users):
                blockdev._check_whole_and_idle(device)
        with open_disk(device) as disk:
            assert disk.device == device
            with (
                pytest.raises(DiskError, match=f"is a partition.*|{device.name}") as caught,
                open_disk(disk.partition(3)),
            ):
                pass
            assert device.name in caught.value.hint


def test_what_is_in_use_unseen_is_busy_too(image: Path) -> None:
    with loop_device(image) as device:
        holder = os.open(device, os.O_RDONLY | os.O_EXCL)
        try:
            with (
                pytest.raises(DiskBusyError, match="something that this process cannot see"),
                open_disk(device),
            ):
                pass
        finally:
            os.close(holder)


@pytest.mark.parametrize("name", ["/dev/null", "/", "/nonexistent/disk"])
def test_what_is_not_a_disk(name: str) -> None:
    with pytest.raises(DiskError), open_disk(Path(name)):
        pass


def test_a_file_that_is_no_disk_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a disk")
    with pytest.raises(DiskError, match="10 bytes: not a disk"), open_disk(path):
        pass
    assert path.read_text() == "not a disk"


def test_an_install_that_was_cut_off_finds_its_partitions_and_data(image: Path, tmp_path: Path) -> None:
    with open_disk(image) as disk:
        first = cut(disk)
        with mounted(disk.partition(5), tmp_path / "mnt") as data:
            (data / "depot").write_text("frames")
        with mounted(disk.partition(3), tmp_path / "mnt") as slot:
            (slot / "boots").write_text("now")
    before = image.read_bytes()[:MIB]
    with open_disk(image) as disk:
        second = cut(disk, committed=Use.SLOT_A)
        with mounted(disk.partition(5), tmp_path / "mnt") as data:
            assert (data / "depot").read_text() == "frames"
        with mounted(disk.partition(3), tmp_path / "mnt") as slot:
            assert (slot / "boots").read_text() == "now"
    assert image.read_bytes()[:MIB] == before
    assert {use for use in first if first[use] == second[use]} == {Use.ESP, Use.SLOT_A, Use.DATA}


def test_a_changed_layout_keeps_data_and_wipes_what_was(image: Path, tmp_path: Path) -> None:
    with open_disk(image) as disk:
        cut(disk)
        with mounted(disk.partition(5), tmp_path / "mnt") as data:
            (data / "depot").write_text("frames")
        table = read_table(disk)
        one_slot = Layout(esp_size_bytes=48 * MIB, slot_size_bytes=32 * MIB, data_min_size_bytes=16 * MIB)
        plan = plan_install(disk, one_slot)
        assert not plan.table_matches
        apply_partitions(disk, plan)
        after = read_table(disk)
        assert after is not None
        assert [(part.name, part.filesystem) for part in after.partitions] == [
            ("BR-BIOS", None),
            ("BR-ESP", None),
            ("BR-A", None),
            ("BR-DATA", "ext4"),
        ]
        assert table is not None
        assert after.partitions[3].uuid == table.partitions[4].uuid
        with mounted(disk.partition(4), tmp_path / "mnt") as data:
            assert (data / "depot").read_text() == "frames"
        assert not disk.partition(5).exists()


def test_an_old_loader_and_old_filesystems_are_gone(image: Path) -> None:
    run(["mkfs.btrfs" if _has("mkfs.btrfs") else "mkfs.ext4", "-q", image])
    with image.open("r+b") as stream:
        stream.write(b"\xeb\x63" + b"GRUB" * 100)
    with open_disk(image) as disk:
        cut(disk)
        found = run(["wipefs", "--noheadings", "--output", "TYPE", disk.device]).stdout.split()
    assert set(found) == {"gpt", "PMBR"}
    assert image.read_bytes()[:440] == b"\xcd\x18\xf4\xeb\xfd".ljust(440, b"\0"), "the BIOS goes on"


def test_filesystems_are_as_planned(image: Path) -> None:
    with open_disk(image) as disk:
        uuids = cut(disk)
        table = read_table(disk)
    assert table is not None
    assert {
        part.label: (part.filesystem, part.filesystem_uuid) for part in table.partitions if part.label
    } == {
        "BR-ESP": ("vfat", uuids[Use.ESP]),
        "BR-A": ("ext4", uuids[Use.SLOT_A]),
        "BR-B": ("ext4", uuids[Use.SLOT_B]),
        "BR-DATA": ("ext4", uuids[Use.DATA]),
    }
    assert len(set(uuids.values())) == 4


def test_disks_with_sectors_of_4096_bytes(tmp_path: Path) -> None:
    image = make_disk(tmp_path / "disk.img", 512 * MIB)
    with loop_device(image, "--sector-size", "4096") as device:
        with open_disk(device) as disk:
            assert disk.sector_bytes == 4096
            uuids = cut(disk)
            with mounted(disk.partition(5), tmp_path / "mnt") as data:
                assert read_space(data).total_bytes > 128 * MIB
        with open_disk(device) as disk:
            assert cut(disk)[Use.DATA] == uuids[Use.DATA]


def test_a_filesystem_whose_tools_are_missing(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, **how: None if name == "mkfs.xfs" else find(name, **how)
    )
    layout = Layout(
        esp_size_bytes=40 * MIB, slot_size_bytes=48 * MIB, data_min_size_bytes=MIB, filesystem="xfs"
    )
    with open_disk(image) as disk:
        plan = plan_install(disk, layout)
        apply_partitions(disk, plan)
        with pytest.raises(MissingToolError, match=r"mkfs\.xfs"):
            format_partition(disk, plan, plan.partition(Use.SLOT_A))


def test_disks_of_this_machine_are_whole_and_in_use_is_seen() -> None:
    disks = find_disks()
    assert not any(disk.path.name.startswith(("loop", "zram", "ram")) for disk in disks)
    assert all(disk.size_bytes > 0 and disk.path.is_block_device() for disk in disks)
    root = next(mount for mount in find_mounts() if mount.target == Path("/"))
    for disk in disks:
        assert (f"{disk.path.name} on /" in disk.in_use_by) == (root.source == str(disk.path))


def test_mountinfo_with_odd_names() -> None:
    line = r"36 35 98:0 / /mnt/a\040b\134c rw,noatime shared:1 - ext3 /dev/sda\0401 rw,errors=continue"
    (mount,) = parse_mountinfo(line)
    assert mount.target == Path("/mnt/a b\\c")
    assert (mount.source, mount.device, mount.filesystem) == ("/dev/sda 1", "98:0", "ext3")
    assert mount.options == ("rw", "noatime")


def test_unmounting_what_is_busy_says_so(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bladeroot.host.mounts._UNMOUNT_DEADLINE_S", 0.1)
    target = tmp_path / "mnt"
    with open_disk(image) as disk:
        cut(disk)
        stream = None
        try:
            with (
                pytest.raises(DiskBusyError, match=f"{target} is still in use"),
                mounted(disk.partition(3), target),
            ):
                stream = (target / "open").open("w")
            assert not os.path.ismount(target)
        finally:
            if stream:
                stream.close()


def test_not_a_filesystem_is_one_clear_line(image: Path, tmp_path: Path) -> None:
    with (
        loop_device(image) as device,
        pytest.raises(DiskError, match=f"cannot mount {device} on"),
        mounted(device, tmp_path / "mnt"),
    ):
        pass


def test_programs_run_inside_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/busybox").write_bytes(Path("/usr/bin/busybox").read_bytes())
    (tree / "bin/busybox").chmod(0o755)
    before = {mount.target for mount in find_mounts()}
    with mounted_chroot(tree):
        inside = run(["chroot", tree, "/bin/busybox", "head", "-c", "4", "/dev/zero"])
        assert inside.stdout == "\0" * 4
        assert run(["chroot", tree, "/bin/busybox", "cat", "/proc/self/comm"]).stdout.strip() == "busybox"
    assert {mount.target for mount in find_mounts()} == before
    assert list((tree / "dev").iterdir()) == []


def _has(tool: str) -> bool:
    try:
        run([tool, "-V"], check=False)
    except MissingToolError:
        return False
    return True
