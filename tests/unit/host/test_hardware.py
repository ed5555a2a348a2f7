"""Hardware and what drivers it wants, read from a made-up /sys and /proc."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.core.hardware import FoundDisk, Nic
from bladeroot.host import hardware
from bladeroot.host.coldplug import find_aliases
from bladeroot.host.hardware import read_hardware

CPUINFO = (
    "processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\n\nprocessor\t: 1\nmodel name\t: Some  CPU @ 2 GHz\n"
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "proc/cpuinfo": CPUINFO,
        "proc/meminfo": "MemTotal:        2048 kB\nMemFree: 1 kB\n",
        "sys/class/dmi/id/product_uuid": "12345678-1234-4234-8234-123456789ABC\n",
        "sys/class/dmi/id/sys_vendor": "Acme\n",
        "sys/class/dmi/id/product_name": "To be filled by O.E.M.\n",
        "sys/class/dmi/id/product_serial": "0000000\n",
        "sys/class/dmi/id/bios_version": "1.2\n",
        "sys/class/net/lo/type": "772\n",
        "sys/class/net/eth0/type": "1\n",
        "sys/class/net/eth0/address": "52:54:00:00:00:01\n",
        "sys/class/net/eth0/carrier": "1\n",
        "sys/class/net/eth0/speed": "1000\n",
        "sys/class/net/eth0/device/vendor": "0x1af4\n",
        "sys/class/net/eth1/type": "1\n",
        "sys/class/net/eth1/address": "52:54:00:00:00:02\n",
        "sys/class/net/eth1/speed": "-1\n",
        "sys/class/net/eth1/device/vendor": "0x1af4\n",
        "sys/class/net/br0/type": "1\n",
        "sys/class/net/br0/address": "52:54:00:00:00:03\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    driver = tmp_path / "sys/bus/drivers/virtio_net"
    driver.mkdir(parents=True)
    (tmp_path / "sys/class/net/eth0/device/driver").symlink_to(driver)
    monkeypatch.setattr(hardware, "find_disks", list)
    return tmp_path


def test_what_the_machine_tells(root: Path) -> None:
    found = read_hardware(root)
    assert (found.vendor, found.firmware, found.firmware_version) == ("Acme", "bios", "1.2")
    assert found.uuid == "12345678-1234-4234-8234-123456789abc"
    assert (found.cpu_model, found.cpus, found.memory_bytes) == ("Some CPU @ 2 GHz", 2, 2 << 20)
    assert found.nics == (
        Nic(name="eth0", mac="52:54:00:00:00:01", driver="virtio_net", has_link=True, speed_mbits=1000),
        Nic(name="eth1", mac="52:54:00:00:00:02"),
    )


def test_what_vendors_leave_blank_is_blank(root: Path) -> None:
    found = read_hardware(root)
    assert (found.product, found.serial) == ("", "")


def test_a_uuid_that_was_never_set_is_none(root: Path) -> None:
    (root / "sys/class/dmi/id/product_uuid").write_text("00000000-0000-0000-0000-000000000000\n")
    assert read_hardware(root).uuid == ""


def test_a_machine_that_tells_nothing_is_told_of_all_the_same(root: Path) -> None:
    empty = root / "nothing"
    (empty / "sys/firmware/efi").mkdir(parents=True)
    found = read_hardware(empty)
    assert (found.firmware, found.uuid, found.cpus, found.nics) == ("uefi", "", 0, ())


def test_this_machine_is_read_without_an_error() -> None:
    found = read_hardware()
    assert found.cpus >= 1
    assert found.memory_bytes > 64 << 20
    assert all(isinstance(disk, FoundDisk) and disk.size_bytes > 0 for disk in found.disks)


def test_aliases_are_found_at_any_depth(tmp_path: Path) -> None:
    for name, text in (
        ("pci0/0/modalias", "pci:v1\n"),
        ("pci0/0/virtio0/modalias", "virtio:d1\n"),
        ("x/modalias", "\n"),
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert find_aliases(tmp_path) == {"pci:v1", "virtio:d1"}
