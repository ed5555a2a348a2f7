"""Disks that boot, for tests of boot loaders: the toy OS, GRUB, and an agent that says how it was started."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.cpio import make_directory, make_file, render_cpio
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
from bladeroot.host.espagent import write_agent
from bladeroot.host.kernels import find_kernels
from bladeroot.host.mounts import mounted
from bladeroot.lab.qemu import Firmware, boot
from tests.blankdisks import cut_disk, make_disk, plan_install
from tests.toyos import TOY_BOOT_MARKER, TOY_KERNEL_COMMAND_LINE, TOY_SAYS_FILE, build_toy_os

AGENT_MARKER = "AGENT-STARTED"
"""Begins the line `AGENT-STARTED <kernel command line>` that `make_toy_agent`'s initramfs writes."""
_AGENT_INIT = f"""#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs none /dev; $b mount -t proc none /proc
echo "{AGENT_MARKER} $($b cat /proc/cmdline)"
$b poweroff -f
"""

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

    def give_agent(self, image: Path) -> None:
        """Put the toy agent on the disk's ESP, as an install does it."""
        initramfs = self.folder / "agent-initramfs"
        initramfs.write_bytes(make_toy_agent())
        with open_disk(image) as disk:
            kernel = next((self.tree / "boot").glob("vmlinuz-*"))
            write_agent(disk, [kernel], [initramfs], TOY_KERNEL_COMMAND_LINE)
            install_boot_code(disk, self.payload, kernel_command_line=TOY_KERNEL_COMMAND_LINE)

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


def booted_as(image: Path, firmware: Firmware, log: Path, *extra_arguments: str) -> tuple[str, str]:
    """Which host name and which slot the machine says it is, after it has switched itself off."""
    with boot(image, firmware, log=log, extra_arguments=extra_arguments) as machine:
        match = machine.wait_for(rf"{TOY_BOOT_MARKER} hostname=(\S+) says=(\S+)", TIMEOUT_S)
        machine.wait_until_ended(TIMEOUT_S)
        return match.group(1), match.group(2)


def make_toy_agent() -> bytes:
    """An initramfs for the toy OS's kernel that says how it was started, and switches the machine off."""
    busybox = Path("/usr/bin/busybox").read_bytes()
    entries = [
        *(make_directory(name) for name in ("bin", "dev", "proc")),
        make_file("bin/busybox", busybox, 0o755),
        make_file("init", _AGENT_INIT.encode(), 0o755),
    ]
    return gzip.compress(b"".join(render_cpio(entries)), compresslevel=1, mtime=0)
