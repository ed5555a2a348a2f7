"""A UEFI takes the boot entry that is made for a disk, keeps it, and starts the disk by it."""

from __future__ import annotations

import gzip
import shutil
import uuid
from pathlib import Path

import pytest

from bladeroot.core.cpio import Entry, make_directory, make_file, render_cpio
from bladeroot.core.efiboot import BOOT_ORDER, PartitionPath, encode_entry, encode_order, make_entry
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.esp import remove_esp_file
from bladeroot.lab.qemu import provide_variables, start_machine
from bladeroot.lab.qemuplan import NO_TIMER_CHECK, Kernel, MachineSpec, plan_qemu
from tests.blankdisks import needs_loop_devices
from tests.bootworkshop import TIMEOUT_S, Workshop
from tests.toyos import TOY_BOOT_MARKER

pytestmark = [
    pytest.mark.vm,
    needs_loop_devices,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]

GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
NUMBER = 0xB1
DONE = "VARIABLES-WRITTEN"
INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc none /proc; $b mount -t sysfs none /sys
$b insmod /efivarfs.ko
$b mount -t efivarfs none /sys/firmware/efi/efivars
cd /variables
for name in *; do $b dd if=$name of=/sys/firmware/efi/efivars/$name bs=4096 2>/dev/null || echo FAILED; done
for name in *; do $b cmp $name /sys/firmware/efi/efivars/$name || echo FAILED; done
echo {DONE}
$b poweroff -f
"""


def make_writer(workshop: Workshop, variables: dict[str, bytes]) -> bytes:
    """An initramfs that writes the firmware's variables."""
    module = next((workshop.tree / "lib/modules").rglob("efivarfs.ko"))
    entries: list[Entry] = [
        *(make_directory(name) for name in ("bin", "proc", "sys", "variables")),
        make_file("bin/busybox", Path("/usr/bin/busybox").read_bytes(), 0o755),
        make_file("init", INIT.encode(), 0o755),
        make_file("efivarfs.ko", module.read_bytes()),
        *(make_file(f"variables/{name}-{GUID}", b"\7\0\0\0" + data) for name, data in variables.items()),
    ]
    return gzip.compress(b"".join(render_cpio(entries)), compresslevel=1, mtime=0)


def test_the_entry_for_a_disk_boots_it(tmp_path: Path) -> None:
    workshop = Workshop(tmp_path)
    image = workshop.make_disk("disk.img")
    workshop.install(image, "blade20")
    with open_disk(image) as disk:
        remove_esp_file(disk, "/EFI/BOOT/BOOTX64.EFI")  # what a firmware finds without an entry
        table = read_table(disk)
    assert table is not None
    esp = table.partitions[1]
    place = PartitionPath(number=2, start=esp.start_sector, blocks=esp.sectors, guid=uuid.UUID(esp.uuid))
    variables = {f"Boot{NUMBER:04X}": encode_entry(make_entry(place)), BOOT_ORDER: encode_order((NUMBER,))}
    initramfs = tmp_path / "writer"
    initramfs.write_bytes(make_writer(workshop, variables))
    kernel = Kernel(
        image=next((workshop.tree / "boot").glob("vmlinuz-*")),
        initramfs=initramfs,
        command_line=f"console=ttyS0 quiet {NO_TIMER_CHECK}",
    )
    folder = tmp_path / "machine"
    folder.mkdir()
    own = provide_variables("uefi", folder)

    spec = MachineSpec(disk=image, firmware="uefi", reboots=False, kernel=kernel)
    log = tmp_path / "writer.log"
    with start_machine(plan_qemu(spec, variables=own, log=log), folder, log=log) as machine:
        machine.wait_for(DONE, TIMEOUT_S, fails_on="FAILED")
        machine.wait_until_ended(TIMEOUT_S)

    spec = MachineSpec(disk=image, firmware="uefi", reboots=False)
    log = tmp_path / "own.log"
    with start_machine(plan_qemu(spec, variables=own, log=log), folder, log=log) as machine:
        machine.wait_for(rf'starting Boot{NUMBER:04X} "bladeroot" from HD\(2,GPT,{esp.uuid}', TIMEOUT_S)
        machine.wait_for(f"{TOY_BOOT_MARKER} hostname=blade20 says=slot-a", TIMEOUT_S)
