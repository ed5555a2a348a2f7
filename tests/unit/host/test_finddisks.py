"""Disks from sysfs alone, as in an initramfs without udev."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.core.cluster import DiskRule
from bladeroot.core.diskchoice import choose_disk
from bladeroot.core.disklayout import make_partition_path
from bladeroot.errors import DiskChoiceError
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


def make_ata_page(model: str, serial: str) -> bytes:
    """A VPD page 0x89 as libata gives it: IDENTIFY DEVICE's texts have the bytes of each word swapped."""
    identity = bytearray(512)
    for start, size, text in ((20, 20, serial.rjust(20)), (54, 40, model.ljust(40))):
        field = text.encode()
        identity[start : start + size] = b"".join(field[at : at + 2][::-1] for at in range(0, len(field), 2))
    return b"\x00\x89\x02\x38" + bytes(56) + bytes(identity)


def test_an_ata_disks_model_is_whole_as_udev_has_it(sysfs: Path) -> None:
    facts: dict[str, str | bytes] = {"device/model": "ST8000NM0055-1RM", "device/vendor": "ATA"}
    page = make_ata_page("ST8000NM0055-1RM112 (x)", "ZA1")
    add(sysfs, "sda", "pci0/ata1/host0", {**facts, "device/vpd_pg89": page})
    add(sysfs, "sdb", "pci0/ata2/host1", {**facts, "device/vpd_pg89": page[:100]})
    whole, torn = find_disks()
    assert (whole.model, whole.serial) == ("ST8000NM0055-1RM112 (x)", "ZA1")
    assert whole.by_id == ("ata-ST8000NM0055-1RM112__x__ZA1",)
    assert (torn.model, torn.serial, torn.by_id) == ("ST8000NM0055-1RM", None, ())


def test_what_qemus_sata_disk_says_of_itself(sysfs: Path) -> None:
    """The beginning of the page as Linux 6.1 showed it."""
    texts = bytes.fromhex("4d51303030302035 202020202020202020202020 030000020400 2e322b352020 2020")
    texts += bytes.fromhex("4551554d4820 5241444453 49204b") + b" " * 26
    page = b"\x00\x89\x02\x38" + bytes(76) + texts + bytes(600)
    facts: dict[str, str | bytes] = {"device/vpd_pg89": page, "device/wwid": "t10.ATA     QEMU HARDDISK"}
    add(sysfs, "sda", "pci0000:00/0000:00:04.0/ata1/host0", facts)
    assert find_disks()[0].by_id == ("ata-QEMU_HARDDISK_QM00005",)


def test_a_rule_by_id_holds_where_there_is_no_udev(sysfs: Path) -> None:
    add(sysfs, "nvme0n1", "pci0/nvme/nvme0", {"device/model": "QEMU NVMe Ctrl  ", "device/serial": "one  "})
    add(sysfs, "vda", "pci0/virtio1", {"serial": "two"})
    page = make_ata_page("QEMU HARDDISK", "three")
    add(sysfs, "sda", "pci0/ata1/host0", {"device/vpd_pg89": page, "device/wwid": "naa.5000c500A1B2C3D4"})
    add(sysfs, "sdb", "pci0/ata2/host0", {"size": "999999"})
    disks = find_disks()
    for rule, name in (
        (DiskRule(by_id="nvme-QEMU_NVMe_Ctrl_one"), "nvme0n1"),
        (DiskRule(by_id="/dev/disk/by-id/virtio-two"), "vda"),
        (DiskRule(by_id="ata-*_three"), "sda"),
        (DiskRule(wwn="0x5000c500a1b2c3d4"), "sda"),
        (DiskRule(serial="one"), "nvme0n1"),
        (DiskRule(model="QEMU HARD*"), "sda"),
        (DiskRule(transport="nvme"), "nvme0n1"),
        (DiskRule(max_size_bytes=1 << 29), "sdb"),
    ):
        assert choose_disk(rule, disks).path == Path("/dev") / name
    with pytest.raises(DiskChoiceError, match="fits 2 disks"):
        choose_disk(DiskRule(transport="sata"), disks)
    assert make_partition_path(Path("/dev/nvme0n1"), 2) == Path("/dev/nvme0n1p2")
    assert make_partition_path(Path("/dev/sda"), 2) == Path("/dev/sda2")


def test_what_is_not_a_disk_is_not_one(sysfs: Path) -> None:
    for name in ("loop0", "ram3", "zram0", "sr0", "dm-1", "md127", "nbd0", "mmcblk0boot0", "fd0"):
        add(sysfs, name, "virtual", {})
    add(sysfs, "sdb", "pci0/usb1", {"size": "0"})  # a card reader without a card
    add(sysfs, "mmcblk0", "platform/mmc0", {})
    add(sysfs, "nvme0n1", "pci0/nvme/nvme0", {"hidden": "0"})
    add(sysfs, "nvme0c0n1", "pci0/nvme/nvme0", {"hidden": "1"})  # one of two paths to the same disk
    assert [disk.path.name for disk in find_disks()] == ["mmcblk0", "nvme0n1"]


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
