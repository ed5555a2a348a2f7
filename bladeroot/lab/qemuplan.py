"""QEMU's command line for a machine. No I/O.

Emulated on purpose: nested virtualisation is not to be had everywhere, and timing is not what is shown.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from attrs import field, frozen

Firmware = Literal["bios", "uefi", "uefi-http"]
"""BIOS netboots by QEMU's iPXE ROM, UEFI by its own PXE over TFTP, `uefi-http` by UEFI HTTP Boot alone."""
Start = Literal["network", "disk", "alone"]
"""What the firmware tries first; `alone` is a machine without a network card."""
Bus = Literal["virtio", "sata", "nvme"]

OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARIABLES = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
_NO_PXE = (
    *("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n"),
    *("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n"),
)
_SECTOR_BYTES = 512
_NEXT_TRY_MS = 5000
"""Where nothing boots, BIOS begins anew, as a server's does: nobody may answer netboot yet."""

NO_TIMER_CHECK = "no_timer_check"
"""For kernels in these machines: on a busy host the emulated timer is late, which stops a kernel that checks
it (its admin-guide/kernel-parameters.txt)."""
KERNEL_COMMAND_LINE = f"console=tty0 console=ttyS0,115200 {NO_TIMER_CHECK}"
"""Of clusters whose blades are such machines."""


@frozen(kw_only=True)
class Kernel:
    """A kernel that QEMU starts itself, in place of any boot loader."""

    image: Path
    initramfs: Path
    command_line: str


@frozen(kw_only=True)
class MachineSpec:
    """What a machine is made of. Without a `tap` it has no network card."""

    disk: Path
    """A raw file."""
    name: str = "machine"
    firmware: Firmware = "bios"
    start: Start = "disk"
    bus: Bus = "virtio"
    drive: Mapping[str, str] = field(factory=dict)
    """More options of QEMU's -drive, such as `readonly=on` or those of `fail_at`."""
    mac: str = ""
    tap: str = ""
    uuid: str = ""
    memory_mib: int = 512
    reboots: bool = True
    """False: where it would restart, it ends."""
    kernel: Kernel | None = None

    @property
    def is_uefi(self) -> bool:
        """Whether its firmware has variables."""
        return self.firmware != "bios"


def plan_qemu(
    spec: MachineSpec, *, variables: Path | None, log: Path, console: str = "", monitor: str = ""
) -> list[str]:
    """QEMU's argv. `variables` is the file of a UEFI's own.

    What the machine writes to its serial console goes to `log`; with `console`, a socket in the current
    directory, whoever connects can read and type too. `monitor` is a socket for QMP.
    """
    board = "q35" if spec.is_uefi else "pc"
    argv = [
        *("qemu-system-x86_64", "-name", spec.name, "-display", "none"),
        # Without graphics BIOS and iPXE talk to the serial console.
        *("-machine", f"{board},graphics=off", "-m", str(spec.memory_mib)),
        *("-accel", "tcg,thread=multi", "-smp", "1"),
        *_plan_console(log, console),
        *(("-qmp", f"unix:{monitor},server=on,wait=off") if monitor else ("-monitor", "none")),
        *("-device", "virtio-rng-pci"),
        *("-smbios", f"type=1,manufacturer=QEMU,product=virtual blade,serial={spec.name}"),
    ]
    if spec.uuid:
        argv += ["-uuid", spec.uuid]
    if not spec.reboots:
        argv += ["-no-reboot"]
    elif spec.start != "alone":
        argv += ["-boot", f"reboot-timeout={_NEXT_TRY_MS}"]
    if spec.kernel is not None:
        argv += ["-kernel", str(spec.kernel.image), "-initrd", str(spec.kernel.initramfs)]
        argv += ["-append", spec.kernel.command_line]
    if spec.is_uefi and variables is not None:
        pflash = "if=pflash,format=raw"
        argv += ["-drive", f"{pflash},unit=0,readonly=on,file={OVMF_CODE}"]
        argv += ["-drive", f"{pflash},unit=1,file={_escape(variables)}"]
    return [*argv, *_plan_network(spec), *_plan_disk(spec)]


def fail_at(
    disk: Path, offsets_bytes: Iterable[int], *, operation: Literal["read", "write"] = "write"
) -> dict[str, str]:
    """Options of a drive on which the operation always fails where it covers one of the places (blkdebug)."""
    options = {
        "file.driver": "blkdebug",
        "file.image.driver": "file",
        "file.image.filename": str(disk.resolve()),
    }
    for number, offset in enumerate(offsets_bytes):
        rule = f"file.inject-error.{number}"
        options |= {
            f"{rule}.event": "none",
            f"{rule}.iotype": operation,
            f"{rule}.errno": str(errno.EIO),
            f"{rule}.sector": str(offset // _SECTOR_BYTES),
        }
    return options


def _plan_console(log: Path, console: str) -> tuple[str, ...]:
    if not console:
        return ("-chardev", f"file,id=console,path={_escape(log)}", "-serial", "chardev:console")
    socket = f"socket,id=console,path={console},server=on,wait=off"
    return ("-chardev", f"{socket},logfile={_escape(log)},logappend=on", "-serial", "chardev:console")


def _plan_network(spec: MachineSpec) -> tuple[str, ...]:
    if not spec.tap or spec.start == "alone":
        return ("-nic", "none")
    # An empty romfile takes QEMU's iPXE away: the firmware's own network boot is used.
    rom = ",romfile=" if spec.is_uefi else ""
    number = 1 if spec.start == "network" else 2
    return (
        *("-netdev", f"tap,id=net,ifname={spec.tap},script=no,downscript=no"),
        *("-device", f"virtio-net-pci,netdev=net,mac={spec.mac},bootindex={number}{rom}"),
        *(_NO_PXE if spec.firmware == "uefi-http" else ()),
    )


def _plan_disk(spec: MachineSpec) -> tuple[str, ...]:
    options = {"if": "none", "id": "disk", "format": "raw", "cache": "unsafe", "discard": "unmap"}
    if not any(key.startswith("file.") for key in spec.drive):
        options["file"] = str(spec.disk.resolve())
    options |= spec.drive
    number = 2 if spec.start == "network" and spec.tap else 1
    device = f"drive=disk,bootindex={number}"
    devices = {
        "virtio": ("-device", f"virtio-blk-pci,{device}"),
        "sata": ("-device", "ahci,id=sata", "-device", f"ide-hd,bus=sata.0,{device}"),
        "nvme": ("-device", f"nvme,serial={spec.name},{device}"),
    }
    text = ",".join(f"{key}={value.replace(',', ',,')}" for key, value in options.items())
    return ("-drive", text, *devices[spec.bus])


def _escape(path: Path) -> str:
    """A path inside a QEMU option: a comma is written twice."""
    return str(path.resolve()).replace(",", ",,")
