"""Installed disks boot in both firmwares, alone; what is not committed does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import DiskPlan, Use
from bladeroot.host.blockdev import OpenDisk, open_disk
from bladeroot.host.bootloader import (
    build_boot_payload,
    commit_slot,
    install_boot_code,
    read_committed,
    release_slot,
    write_slot_config,
)
from bladeroot.host.kernels import find_kernels
from bladeroot.host.mounts import mounted
from bladeroot.lab.qemu import Firmware, boot
from tests.blankdisks import cut_disk, make_disk, needs_loop_devices, plan_install
from tests.toyos import TOY_BOOT_MARKER, TOY_KERNEL_COMMAND_LINE, TOY_SAYS_FILE, build_toy_os

pytestmark = [
    pytest.mark.vm,
    needs_loop_devices,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

LAYOUT = Layout(esp_size_bytes=48 * MIB, slot_size_bytes=48 * MIB, slots=2, data_min_size_bytes=16 * MIB)
IMAGE_BYTES = 20 * MIB
TIMEOUT_S = 240.0
NOTHING_INSTALLED = "nothing is installed on this disk"


class Workshop:
    """The toy OS and the boot payload, and how a disk becomes a blade with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree, self.payload = folder / "tree", folder / "payload"
        build_toy_os(self.tree, links=True)
        build_boot_payload(self.tree, self.payload)

    def make_disk(self, name: str) -> Path:
        return make_disk(self.folder / name, 192 * MIB)

    def install(self, image: Path, hostname: str, *, upto: str = "commit", layout: Layout = LAYOUT) -> Use:
        """Install as far as the named step: "format", "boot code" or "commit"; the slot it went to."""
        with open_disk(image) as disk:
            plan = plan_install(disk, layout, image_bytes=IMAGE_BYTES, committed=read_committed(disk))
            release_slot(disk, plan)
            uuids = cut_disk(disk, plan)
            if upto != "format":
                self._fill(disk, plan, hostname, uuids[plan.slot])
            if upto == "commit":
                commit_slot(disk, plan.slot)
            return plan.slot

    def _fill(self, disk: OpenDisk, plan: DiskPlan, hostname: str, uuid: str) -> None:
        number = plan.partition(plan.slot).number
        with mounted(disk.partition(number), self.folder / "mnt") as slot:
            shutil.copytree(self.tree, slot, symlinks=True, dirs_exist_ok=True)
            (slot / "etc/hostname").write_text(f"{hostname}\n")
            (slot / TOY_SAYS_FILE).write_text(f"slot-{plan.slot}\n")
        install_boot_code(disk, self.payload, kernel_command_line=TOY_KERNEL_COMMAND_LINE)
        write_slot_config(
            disk,
            plan.slot,
            partition_number=number,
            filesystem_uuid=uuid,
            kernels=find_kernels(self.tree),
            kernel_command_line=TOY_KERNEL_COMMAND_LINE,
        )


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


def booted_as(image: Path, firmware: Firmware, log: Path, *extra_arguments: str) -> tuple[str, str]:
    """Which host name and which slot the machine says it is, after it has switched itself off."""
    with boot(image, firmware, log=log, extra_arguments=extra_arguments) as machine:
        match = machine.wait_for(rf"{TOY_BOOT_MARKER} hostname=(\S+) says=(\S+)", TIMEOUT_S)
        machine.wait_until_ended(TIMEOUT_S)
        return match.group(1), match.group(2)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_an_installed_disk_boots_as_its_blade(firmware: Firmware, workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.make_disk(f"{firmware}.img")
    workshop.install(image, "blade07")
    before = image.read_bytes()
    assert booted_as(image, firmware, tmp_path / "console.log") == ("blade07", "slot-a")
    assert image.read_bytes() == before, "booting with snapshot=True must not change the disk"


def test_bios_says_that_nothing_is_committed(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.make_disk("uncommitted.img")
    workshop.install(image, "blade08", upto="boot code")
    with boot(image, "bios", log=tmp_path / "console.log") as machine:
        machine.wait_for(NOTHING_INSTALLED, TIMEOUT_S)
        assert "vmlinuz" not in machine.read_console()


def test_uefi_passes_over_a_disk_that_is_not_committed(workshop: Workshop, tmp_path: Path) -> None:
    first, second = workshop.make_disk("first.img"), workshop.make_disk("second.img")
    workshop.install(first, "blade09", upto="boot code")
    workshop.install(second, "blade10")
    drive = f"if=none,id=second,file={second},format=raw,snapshot=on"
    extra = ("-drive", drive, "-device", "virtio-blk-pci,drive=second,bootindex=2")
    assert booted_as(first, "uefi", tmp_path / "console.log", *extra) == ("blade10", "slot-a")


@pytest.mark.parametrize(("firmware", "step"), [("bios", "boot code"), ("uefi", "format")])
def test_the_committed_slot_boots_while_the_other_is_half_installed(
    firmware: Firmware, step: str, workshop: Workshop, tmp_path: Path
) -> None:
    image = workshop.make_disk(f"half-{firmware}.img")
    assert workshop.install(image, "before") is Use.SLOT_A
    assert workshop.install(image, "after", upto=step) is Use.SLOT_B
    assert booted_as(image, firmware, tmp_path / "console.log") == ("before", "slot-a")


def test_the_next_install_goes_to_the_other_slot_and_back(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.make_disk("turns.img")
    assert workshop.install(image, "one") is Use.SLOT_A
    assert workshop.install(image, "two") is Use.SLOT_B
    assert booted_as(image, "bios", tmp_path / "second.log") == ("two", "slot-b")
    assert workshop.install(image, "three") is Use.SLOT_A
    assert booted_as(image, "uefi", tmp_path / "third.log") == ("three", "slot-a")


def test_with_one_slot_a_reinstall_that_was_cut_off_boots_nothing(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.make_disk("one-slot.img")
    layout = Layout(esp_size_bytes=48 * MIB, slot_size_bytes=48 * MIB, data_min_size_bytes=16 * MIB)
    workshop.install(image, "before", layout=layout)
    workshop.install(image, "after", layout=layout, upto="boot code")
    with boot(image, "bios", log=tmp_path / "console.log") as machine:
        machine.wait_for(NOTHING_INSTALLED, TIMEOUT_S)
    workshop.install(image, "after", layout=layout)
    assert booted_as(image, "bios", tmp_path / "done.log") == ("after", "slot-a")


def test_a_slots_own_kernel_by_name_when_its_links_are_gone(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.make_disk("links.img")
    workshop.install(image, "blade11")
    with open_disk(image) as disk, mounted(disk.partition(3), workshop.folder / "mnt") as slot:
        (slot / "initrd.img").unlink()
    with boot(image, "bios", log=tmp_path / "console.log") as machine:
        machine.wait_for(r"slot a, /boot/vmlinuz-\d", TIMEOUT_S)
        machine.wait_for(f"{TOY_BOOT_MARKER} hostname=blade11", TIMEOUT_S)
