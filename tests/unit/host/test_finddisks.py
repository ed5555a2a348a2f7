"""Disks from sysfs alone, as in an initramfs without udev."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.host import finddisks
from bladeroot.host.finddisks import find_disk_users, find_disks
from bladeroot.host.mounts import parse_mountinfo

GIB_SECTORS = 2 << 20


@pytest.fixture
def sysfs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "sys"
    for folder in ("block", "class/block", "dev/block"):
        (root / folder).mkdir(parents=True)
    monkeypatch.setattr(finddisks, "_SYS", root)
    monkeypatch.setattr(finddisks, "_BY_ID", tmp_path / "no-udev")
    monkeypatch.setattr(finddisks, "find_mounts", list)
    return root


def add(sysfs: Path, name: str, bus: str, facts: dict[str, str | bytes]) -> Path:
    device = sysfs / "devices" / bus / "block" / name
    for path, value in {"size": str(GIB_SECTORS), "queue/rotational": "0", "ro": "0", **facts}.items():
        (device / path).parent.mkdir(parents=True, exist_ok=True)
        (device / path).write_bytes(value if isinstance(value, bytes) else f"{value}\n".encode())
    for folder in ("block", "class/block"):
        (sysfs / folder / name).symlink_to(device)
    return device


def test_facts_of_each_bus(sysfs: Path) -> None:
    add(
        sysfs,
        "nvme0n1",
        "pci0/nvme/nvme0",
        {"device/model": "SAMSUNG MZ1L2  ", "device/serial": "S64 ", "wwid": "eui.0025"},
    )
    add(
        sysfs,
        "sda",
        "pci0/ata1/host0",
        {
            "device/model": "ST8000 NM",
            "device/vpd_pg80": b"\x00\x80\x00\x08ZA1     ",
            "device/wwid": "naa.5000c500a1b2c3d4",
            "queue/rotational": "1",
            "queue/logical_block_size": "4096",
        },
    )
    add(sysfs, "vda", "pci0/virtio1", {"serial": "blade-07", "ro": "1"})
    nvme, sata, virtio = find_disks()
    assert (nvme.path, nvme.transport, nvme.model, nvme.serial) == (
        Path("/dev/nvme0n1"),
        "nvme",
        "SAMSUNG MZ1L2",
        "S64",
    )
    assert nvme.by_id == ("nvme-SAMSUNG_MZ1L2_S64", "nvme-eui.0025")
    assert nvme.size_bytes == 1 << 30
    assert nvme.rotational is False
    assert (sata.transport, sata.serial, sata.rotational, sata.sector_bytes) == ("sata", "ZA1", True, 4096)
    assert sata.by_id == ("ata-ST8000_NM_ZA1", "scsi-35000c500a1b2c3d4", "wwn-0x5000c500a1b2c3d4")
    assert (virtio.transport, virtio.by_id, virtio.read_only) == ("virtio", ("virtio-blade-07",), True)


def test_what_is_not_a_disk_is_not_one(sysfs: Path) -> None:
    for name in ("loop0", "ram3", "zram0", "sr0", "dm-1", "md127", "nbd0", "mmcblk0boot0", "fd0"):
        add(sysfs, name, "virtual", {})
    add(sysfs, "sdb", "pci0/usb1", {"size": "0"})  # a card reader without a card
    add(sysfs, "mmcblk0", "platform/mmc0", {})
    assert [disk.path.name for disk in find_disks()] == ["mmcblk0"]


def test_what_is_built_on_a_partition_holds_the_disk(sysfs: Path) -> None:
    device = add(sysfs, "sda", "pci0/ata1", {"sda2/partition": "2", "holders/none": ""})
    (device / "holders/none").unlink()
    (device / "sda2/holders/dm-0/dm").mkdir(parents=True)
    (device / "sda2/holders/dm-0/dm/name").write_text("vg0-root\n")
    (sysfs / "class/block/sda2").symlink_to(device / "sda2")
    assert find_disk_users("sda") == ("sda2 is part of dm-0 (vg0-root)",)


def test_mounts_are_known_by_number_and_by_source(sysfs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = add(sysfs, "sda", "pci0/ata1", {"sda1/partition": "1", "sda2/partition": "2"})
    (sysfs / "dev/block/8:1").symlink_to(device / "sda1")
    text = (
        "1 0 8:1 / / rw - ext4 /dev/root rw\n"
        "2 0 0:40 / /home rw - btrfs /dev/sda2 rw\n"
        "3 0 0:41 / /proc rw - proc proc rw\n"
        "4 0 8:17 / /other rw - ext4 /dev/sdb1 rw"
    )
    monkeypatch.setattr(finddisks, "find_mounts", lambda: parse_mountinfo(text))
    assert find_disk_users("sda") == ("sda1 on /", "sda2 on /home")
