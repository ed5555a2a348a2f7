"""GRUB on a disk, for BIOS and UEFI at once, and which slot it boots.

The BIOS boot code is written here, not by grub-bios-setup: so it needs no map of devices, is right on
loop devices, and changes over with one write of one sector.
"""

from __future__ import annotations

import io
import os
import re
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bladeroot.core.bootplan import (
    BIOS_BOOT_NUMBER,
    EFI_LOADERS,
    GRUB_CFG,
    LOCAL_CFG,
    KernelFiles,
    Platform,
    plan_local_mkimage,
    plan_mkimage,
    render_grub_cfg,
    render_local_cfg,
    render_slot_cfg,
    slot_cfg_path,
)
from bladeroot.core.disklayout import BIOS_BOOT_SIZE_BYTES, DiskPlan, Use
from bladeroot.errors import ArtefactError, DiskError, SnapshotError
from bladeroot.host.blockdev import OpenDisk
from bladeroot.host.efiloaders import PARKED_SUFFIX, park_loaders, unpark_loaders
from bladeroot.host.esp import (
    ensure_grubenv,
    has_esp_file,
    read_boot_facts,
    read_esp_file,
    write_boot_facts,
    write_esp_file,
)
from bladeroot.host.espagent import find_agent
from bladeroot.host.files import scratch_folder
from bladeroot.host.run import find_tool, run

__all__ = [
    "BOOT_FILES",
    "LOCAL_LOADER",
    "build_boot_payload",
    "commit_slot",
    "install_boot_code",
    "read_committed",
    "read_esp_file",
    "release_slot",
    "write_esp_file",
    "write_slot_config",
]

BOOT_FILES = ("boot.img", "core.img", "grubx64.efi")
LOCAL_LOADER = "local.efi"
"""What a root gives a UEFI machine that shall boot its own disk."""

SECTOR_BYTES = 512
_BOOT_CODE_BYTES = 440
# GRUB 2.06, include/grub/i386/pc/boot.h: GRUB_BOOT_MACHINE_KERNEL_SECTOR, _DRIVE_CHECK, _LIST_SIZE
# and GRUB_BOOT_I386_PC_KERNEL_SEG; what is done with them: util/setup.c.
_KERNEL_SECTOR_OFFSET = 0x5C
_DRIVE_CHECK_OFFSET = 0x66
_NOPS = b"\x90\x90"
_BLOCK_LIST = struct.Struct("<QHH")
_KERNEL_SEGMENT = 0x800
_HALF_BYTES = BIOS_BOOT_SIZE_BYTES // 2


def build_boot_payload(snapshot: Path | None, out: Path) -> tuple[Path, ...]:
    """Make boot.img, core.img, grubx64.efi and local.efi in `out`; the same input gives the same bytes.

    They are of the snapshot's GRUB where it has the version that grub-mkimage is of, else of this machine's.
    Raises SnapshotError where neither has both platforms.
    """
    find_tool("grub-mkimage")
    version = _read_version_of_mkimage()
    bios = _find_modules(snapshot, Platform.BIOS, version)
    uefi = _find_modules(snapshot, Platform.UEFI, version)
    out.mkdir(parents=True, exist_ok=True)
    (out / "boot.img").write_bytes((bios / "boot.img").read_bytes())
    run(plan_mkimage(Platform.BIOS, bios, out / "core.img"))
    run(plan_mkimage(Platform.UEFI, uefi, out / "grubx64.efi"))
    with scratch_folder("bladeroot-grub-") as folder:
        memdisk = folder / "memdisk.tar"
        _write_memdisk(memdisk, render_local_cfg())
        run(plan_local_mkimage(uefi, memdisk, out / LOCAL_LOADER))
    return tuple(out / name for name in (*BOOT_FILES, LOCAL_LOADER))


def install_boot_code(disk: OpenDisk, payload: Path, *, kernel_command_line: str = "") -> None:
    """Write GRUB for both firmwares, its grub.cfg, and a grubenv if there is none. Commits nothing.

    A slot that is committed stays bootable at every instant. Raises ArtefactError for a broken payload.
    """
    parts = {name: _read_part(payload / name) for name in BOOT_FILES}
    ensure_grubenv(disk)
    write_esp_file(disk, GRUB_CFG, render_grub_cfg(kernel_command_line))
    suffix = ""
    if read_committed(disk) is not None or find_agent(disk) is not None:
        unpark_loaders(disk)
    else:
        park_loaders(disk)
        suffix = PARKED_SUFFIX
    for path in EFI_LOADERS:
        write_esp_file(disk, path + suffix, parts["grubx64.efi"])
    if disk.sector_bytes == SECTOR_BYTES:  # no BIOS starts a disk with sectors of 4 KiB
        _write_bios_code(disk, parts["boot.img"], parts["core.img"])


def write_slot_config(
    disk: OpenDisk,
    slot: Use,
    *,
    partition_number: int,
    filesystem_uuid: str,
    kernels: tuple[KernelFiles, ...],
    kernel_command_line: str,
) -> None:
    """Tell GRUB how to boot a slot, for when it is committed."""
    text = render_slot_cfg(
        slot,
        partition_number=partition_number,
        filesystem_uuid=filesystem_uuid,
        kernels=kernels,
        kernel_command_line=kernel_command_line,
    )
    write_esp_file(disk, slot_cfg_path(slot), text)


def commit_slot(
    disk: OpenDisk, slot: Use | None, *, serial: int = 0, cluster_id: str = "", order: int | None = None
) -> None:
    """Make GRUB boot this slot from now on (None: nothing, or the agent); say what it is.

    The last thing of an install: one write of one sector. `order` is what it was done for. Raises DiskError
    if the slot has no config.
    """
    facts = read_boot_facts(disk)
    if slot is None:
        write_boot_facts(disk, facts.when_released())
        if find_agent(disk) is None:
            park_loaders(disk)
        return
    if not has_esp_file(disk, slot_cfg_path(slot)):
        raise DiskError(f"{disk.source}: slot {slot} has no {slot_cfg_path(slot)}: nothing to commit")
    unpark_loaders(disk)
    for path in EFI_LOADERS:
        if not has_esp_file(disk, path):
            raise DiskError(f"{disk.source}: no {path} on the ESP", "install the boot code first")
    write_boot_facts(disk, facts.when_committed(slot, serial, cluster_id, order))


def release_slot(disk: OpenDisk, plan: DiskPlan) -> bool:
    """Before anything is formatted: if the plan does not keep the slot that boots now, let it not boot.

    Else a power cut would leave a disk that boots half a system. True where something was released.
    """
    committed = read_committed(disk)
    if committed is None or any(part.keep and part.use is committed for part in plan.partitions):
        return False
    commit_slot(disk, None)
    return True


def read_committed(disk: OpenDisk) -> Use | None:
    """The slot that GRUB boots; None where nothing is installed."""
    return read_boot_facts(disk).slot


def _write_memdisk(path: Path, config: str) -> None:
    """A tar archive with nothing but `LOCAL_CFG`; no time or owner in it, so that the same is the same."""
    data = config.encode("ascii")
    member = tarfile.TarInfo(LOCAL_CFG)
    member.size = len(data)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(data))


def _read_version_of_mkimage() -> str:
    """Without the distribution's own revision."""
    said = run(["grub-mkimage", "--version"]).stdout.split()
    return said[-1].partition("-")[0] if said else ""


def _find_modules(snapshot: Path | None, platform: Platform, version: str) -> Path:
    folder = Path("usr/lib/grub") / platform
    if snapshot and _read_version(snapshot / folder) == version:
        return snapshot / folder
    if (Path("/") / folder / "modinfo.sh").is_file():
        return Path("/") / folder
    package = {Platform.BIOS: "grub-pc-bin", Platform.UEFI: "grub-efi-amd64-bin"}[platform]
    raise SnapshotError(
        f"no GRUB for {platform}, neither in the snapshot nor on this machine", f"apt install {package}"
    )


def _read_version(folder: Path) -> str | None:
    try:
        text = (folder / "modinfo.sh").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(r'^grub_version="(.*)"$', text, re.MULTILINE)
    return match.group(1) if match else None


def _read_part(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"boot payload: {path}: {error.strerror}", "publish the generation again"
        ) from error
    least = SECTOR_BYTES if path.name == "boot.img" else 2 * SECTOR_BYTES
    if len(data) < least or (path.name == "core.img" and len(data) > _HALF_BYTES):
        raise ArtefactError(
            f"boot payload: {path.name} has {len(data)} bytes", "publish the generation again"
        )
    return data


@contextmanager
def _opened(device: Path) -> Iterator[int]:
    descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_bios_code(disk: OpenDisk, boot: bytes, core: bytes) -> None:
    """Write core.img to the half of its partition that is not in use, then point sector 0 to it.

    With nothing to change nothing is written.
    """
    node = disk.partition(BIOS_BOOT_NUMBER)
    start = int((Path("/sys/class/block") / node.name / "start").read_text())
    half_sectors = _HALF_BYTES // SECTOR_BYTES
    with _opened(disk.device) as whole, _opened(node) as area:
        first = os.pread(whole, SECTOR_BYTES, 0)
        sectors = (start, start + half_sectors)
        for sector in sectors:
            placed = place_core(core, sector)
            there = os.pread(area, len(placed), (sector - start) * SECTOR_BYTES)
            if first == place_boot(boot, first, sector) and there == placed:
                return
        (active,) = struct.unpack_from("<Q", first, _KERNEL_SECTOR_OFFSET)
        sector = sectors[1] if active == sectors[0] else sectors[0]
        os.pwrite(area, place_core(core, sector), (sector - start) * SECTOR_BYTES)
        os.fsync(area)
        os.pwrite(whole, place_boot(boot, first, sector), 0)
        os.fsync(whole)


def place_core(core: bytes, sector: int) -> bytes:
    """core.img as it stands at that sector: its first sector ends with the list of where the others are."""
    padded = bytearray(core.ljust(-(-len(core) // SECTOR_BYTES) * SECTOR_BYTES, b"\0"))
    others = len(padded) // SECTOR_BYTES - 1
    segment = _KERNEL_SEGMENT + (SECTOR_BYTES >> 4)
    _BLOCK_LIST.pack_into(padded, SECTOR_BYTES - _BLOCK_LIST.size, sector + 1, others, segment)
    # A block of length 0 ends the list, which grows downwards.
    _BLOCK_LIST.pack_into(padded, SECTOR_BYTES - 2 * _BLOCK_LIST.size, 0, 0, 0)
    return bytes(padded)


def place_boot(boot: bytes, sector_zero: bytes, core_sector: int) -> bytes:
    """Sector 0 with boot.img's code; the disk's signature and its protective MBR stay."""
    code = bytearray(boot[:_BOOT_CODE_BYTES])
    struct.pack_into("<Q", code, _KERNEL_SECTOR_OFFSET, core_sector)
    # Lets boot.img correct the drive number 0x00 or 0x01 that some BIOSes pass for the first hard disk.
    code[_DRIVE_CHECK_OFFSET : _DRIVE_CHECK_OFFSET + len(_NOPS)] = _NOPS
    return bytes(code) + sector_zero[_BOOT_CODE_BYTES:]
