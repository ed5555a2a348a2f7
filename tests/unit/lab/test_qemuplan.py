from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bladeroot.lab.qemuplan import Bus, Kernel, MachineSpec, Start, fail_at, plan_qemu

SPEC = MachineSpec(disk=Path("/d/disk.img"), name="web01", mac="52:54:00:77:00:01", tap="tap0")
VARIABLES = Path("/d/variables.fd")


def plan(spec: MachineSpec, console: str = "") -> str:
    return " ".join(plan_qemu(spec, variables=VARIABLES, log=Path("/d/log"), console=console))


@pytest.mark.parametrize(("start", "nic", "disk"), [("network", 1, 2), ("disk", 2, 1)])
def test_what_the_firmware_tries_first(start: Start, nic: int, disk: int) -> None:
    text = plan(attrs.evolve(SPEC, start=start))
    assert f"virtio-net-pci,netdev=net,mac=52:54:00:77:00:01,bootindex={nic}" in text
    assert f"virtio-blk-pci,drive=disk,bootindex={disk}" in text


@pytest.mark.parametrize("spec", [attrs.evolve(SPEC, start="alone"), attrs.evolve(SPEC, tap="")])
def test_alone_is_without_a_network_card(spec: MachineSpec) -> None:
    text = plan(spec)
    assert "-nic none" in text
    assert "-netdev" not in text
    assert "drive=disk,bootindex=1" in text


def test_each_firmware_boots_over_the_network_its_own_way() -> None:
    bios, uefi, http = (
        plan(attrs.evolve(SPEC, firmware=name, start="network")) for name in ("bios", "uefi", "uefi-http")
    )
    assert "OVMF" not in bios
    assert "romfile" not in bios, "BIOS netboots by QEMU's iPXE"
    for text in (uefi, http):
        assert f"unit=1,file={VARIABLES}" in text
        assert ",romfile=" in text
    assert "IPv4PXESupport" not in uefi
    assert "IPv4PXESupport,string=n" in http


@pytest.mark.parametrize(("bus", "device"), [("sata", "ide-hd,bus=sata.0"), ("nvme", "nvme,serial=web01")])
def test_other_buses(bus: Bus, device: str) -> None:
    assert f"{device},drive=disk,bootindex=1" in plan(attrs.evolve(SPEC, bus=bus))


def test_a_drive_that_fails_in_one_place() -> None:
    drive = fail_at(Path("/d/disk.img"), [1 << 20, 2 << 20])
    text = plan(attrs.evolve(SPEC, drive=drive))
    assert "file.driver=blkdebug,file.image.driver=file,file.image.filename=/d/disk.img" in text
    assert "inject-error.0.sector=2048" in text
    assert "inject-error.1.sector=4096" in text
    assert ",file=/d/disk.img" not in text, "the file is given once"


def test_paths_with_commas_and_more_options_of_the_drive() -> None:
    spec = attrs.evolve(SPEC, disk=Path("/a,b"), drive={"readonly": "on"})
    assert "file=/a,,b,readonly=on" in plan(spec)


def test_the_console_is_a_log_or_a_log_and_a_socket() -> None:
    assert "file,id=console,path=/d/log" in plan(SPEC)
    text = plan(SPEC, "console.sock")
    assert "socket,id=console,path=console.sock,server=on,wait=off,logfile=/d/log,logappend=on" in text


def test_a_kernel_started_directly_and_a_machine_that_may_not_restart() -> None:
    kernel = Kernel(image=Path("/k"), initramfs=Path("/i"), command_line="quiet panic=-1")
    argv = plan_qemu(attrs.evolve(SPEC, kernel=kernel, reboots=False), variables=None, log=Path("/d/log"))
    assert argv[argv.index("-append") + 1] == "quiet panic=-1"
    assert "-no-reboot" in argv
