"""Installed disks boot in both firmwares, alone; what is not committed does not."""

from __future__ import annotations

import shutil
from pathlib import Path

import attrs
import pytest

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import Use
from bladeroot.host.blockdev import open_disk
from bladeroot.host.bootloader import LOCAL_LOADER, commit_slot
from bladeroot.host.esp import has_sound_grubenv, read_boot_facts, write_boot_facts
from bladeroot.host.mounts import mounted
from bladeroot.lab.qemu import Firmware, boot
from tests.blankdisks import needs_loop_devices
from tests.bootworkshop import AGENT_MARKER, NOTHING_INSTALLED, TIMEOUT_S, Workshop, booted_as
from tests.toyos import TOY_BOOT_MARKER, TOY_KERNEL_COMMAND_LINE

pytestmark = [
    pytest.mark.vm,
    needs_loop_devices,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("workshop"))


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


def start_agent(image: Path, firmware: Firmware, log: Path) -> str:
    """The kernel command line that the agent was started with."""
    with boot(image, firmware, log=log, snapshot=False) as machine:
        line = machine.wait_for(rf"{AGENT_MARKER} (.*)", TIMEOUT_S).group(1)
        machine.wait_until_ended(TIMEOUT_S)
        return line


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_agent_on_the_disk_is_started_once_when_that_is_ordered(
    firmware: Firmware, workshop: Workshop, tmp_path: Path
) -> None:
    image = workshop.make_disk(f"once-{firmware}.img")
    workshop.install(image, "blade12")
    workshop.give_agent(image)
    with open_disk(image) as disk:
        before = attrs.evolve(read_boot_facts(disk), order=7, visits=1, next_agent=True)
        write_boot_facts(disk, before)
    line = start_agent(image, firmware, tmp_path / "agent.log")
    assert f"{TOY_KERNEL_COMMAND_LINE} bladeroot.from=disk" in line
    with open_disk(image) as disk:
        assert read_boot_facts(disk) == attrs.evolve(before, next_agent=False)
        assert has_sound_grubenv(disk)
        write_boot_facts(disk, read_boot_facts(disk).with_visit())
        assert read_boot_facts(disk).visits == 2
    assert booted_as(image, firmware, tmp_path / "own.log") == ("blade12", "slot-a")


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_agent_is_started_from_a_disk_whose_install_was_cut_off(
    firmware: Firmware, workshop: Workshop, tmp_path: Path
) -> None:
    image = workshop.make_disk(f"cut-{firmware}.img")
    workshop.install(image, "blade13")
    workshop.give_agent(image)
    with open_disk(image) as disk:
        commit_slot(disk, None)
        assert read_boot_facts(disk) == BootFacts()
    assert "bladeroot.from=disk" in start_agent(image, firmware, tmp_path / "agent.log")


def test_a_disk_that_cannot_be_written_boots_its_slot_and_not_the_agent(
    workshop: Workshop, tmp_path: Path
) -> None:
    image = workshop.make_disk("read-only.img")
    workshop.install(image, "blade14")
    workshop.give_agent(image)
    with open_disk(image) as disk:
        write_boot_facts(disk, attrs.evolve(read_boot_facts(disk), next_agent=True))
    extra = ("-set", "drive.disk.readonly=on")
    log = tmp_path / "console.log"
    with boot(image, "bios", log=log, snapshot=False, extra_arguments=extra) as machine:
        machine.wait_for("the agent is not started", TIMEOUT_S)
        machine.wait_for(f"{TOY_BOOT_MARKER} hostname=blade14 says=slot-a", TIMEOUT_S)


def netboots_local_loader(workshop: Workshop) -> tuple[str, ...]:
    """A network card that the firmware boots from first; iPXE gets the loader from a root's boot payload."""
    netdev = f"user,id=net,restrict=on,tftp={workshop.payload},bootfile={LOCAL_LOADER}"
    return ("-netdev", netdev, "-device", "virtio-net-pci,netdev=net,bootindex=0")


def test_a_uefi_blade_that_netboots_is_sent_to_its_own_disk(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.make_disk("local.img")
    workshop.install(image, "blade15")
    log = tmp_path / "console.log"
    with boot(image, "uefi", log=log, extra_arguments=netboots_local_loader(workshop)) as machine:
        machine.wait_for(r"bladeroot: \(hd\d,gpt2\)/EFI/bladeroot/grubx64.efi", TIMEOUT_S)
        machine.wait_for(f"{TOY_BOOT_MARKER} hostname=blade15 says=slot-a", TIMEOUT_S)


def test_a_uefi_machine_without_a_loader_comes_back_from_its_disk(workshop: Workshop, tmp_path: Path) -> None:
    image = workshop.make_disk("blank.img")
    log = tmp_path / "console.log"
    with boot(image, "uefi", log=log, extra_arguments=netboots_local_loader(workshop)) as machine:
        machine.wait_for("bladeroot: no disk has a boot loader", TIMEOUT_S)
