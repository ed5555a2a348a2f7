"""Files on a disk's EFI system partition, with mtools: nothing is mounted, the kernel needs no vfat."""

from __future__ import annotations

import os
import re
import struct
import tempfile
from pathlib import Path, PurePosixPath

from bladeroot.core.bootplan import (
    ESP_NUMBER,
    GRUBENV,
    GRUBENV_BYTES,
    GRUBENV_SECTOR_BYTES,
    NEW_SUFFIX,
    parse_grubenv,
    render_grubenv,
)
from bladeroot.errors import DiskError
from bladeroot.host.blockdev import OpenDisk, sync_device
from bladeroot.host.run import Completed, run

_ENVIRONMENT = {"MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}


def read_esp_file(disk: OpenDisk, path: str) -> bytes | None:
    """What the file holds; None where there is no such file (or no ESP)."""
    with tempfile.TemporaryDirectory(prefix="bladeroot-esp-") as folder:
        copy = Path(folder) / "file"
        if _mtools(disk, "mcopy", "-n", f"::{path}", str(copy), check=False).code != 0:
            return None
        return copy.read_bytes()


def write_esp_file(disk: OpenDisk, path: str, data: bytes | str) -> bool:
    """Make the file hold these bytes; False where it did already, and nothing was written.

    FAT cannot replace a file at once: for an instant only `<path>.new` is there, which is whole.
    """
    payload = data.encode() if isinstance(data, str) else data
    temporary = f"{path}{NEW_SUFFIX}"
    if read_esp_file(disk, path) == payload:
        return False
    for parent in reversed(PurePosixPath(path).parents[:-1]):
        _mtools(disk, "mmd", "-D", "s", f"::{parent}", check=False)
    with tempfile.TemporaryDirectory(prefix="bladeroot-esp-") as folder:
        copy = Path(folder) / "file"
        copy.write_bytes(payload)
        _mtools(disk, "mcopy", "-D", "o", str(copy), f"::{temporary}")
    sync_device(disk.partition(ESP_NUMBER))
    rename_esp_file(disk, temporary, path)
    return True


def rename_esp_file(disk: OpenDisk, old: str, new: str) -> None:
    """Give a file another name, in place of the file that had it."""
    _mtools(disk, "mdel", f"::{new}", check=False)
    _mtools(disk, "mren", f"::{old}", f"::{new}")
    sync_device(disk.partition(ESP_NUMBER))


def has_esp_file(disk: OpenDisk, path: str) -> bool:
    """There is a file of that name."""
    return _mtools(disk, "mdir", "-b", f"::{path}", check=False).code == 0


def read_grubenv(disk: OpenDisk) -> dict[str, str]:
    """GRUB's variables; empty where there is no readable grubenv."""
    return parse_grubenv(read_esp_file(disk, GRUBENV) or b"")


def has_sound_grubenv(disk: OpenDisk) -> bool:
    """There is a grubenv that `write_grubenv` can overwrite in place."""
    block = read_esp_file(disk, GRUBENV) or b""
    return block == render_grubenv(parse_grubenv(block))


def write_grubenv(disk: OpenDisk, values: dict[str, str]) -> None:
    """Replace GRUB's variables, in place and in one write of one sector: after a power cut all or none hold.

    Raises DiskError where the ESP has no grubenv (`install_boot_code` makes it).
    """
    block = render_grubenv(values)
    node = disk.partition(ESP_NUMBER)
    old = read_esp_file(disk, GRUBENV)
    if old is None or len(old) != GRUBENV_BYTES:
        raise DiskError(f"{disk.source}: no {GRUBENV} on the ESP", "install the boot code first")
    descriptor = os.open(node, os.O_RDWR | os.O_CLOEXEC)
    try:
        offset = _find_offset(disk, descriptor, GRUBENV)
        found = os.pread(descriptor, GRUBENV_SECTOR_BYTES, offset)
        if found != old[:GRUBENV_SECTOR_BYTES] or old[GRUBENV_SECTOR_BYTES:] != block[GRUBENV_SECTOR_BYTES:]:
            raise DiskError(f"{disk.source}: {GRUBENV} is damaged", "install the boot code again")
        os.pwrite(descriptor, block[:GRUBENV_SECTOR_BYTES], offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _find_offset(disk: OpenDisk, descriptor: int, path: str) -> int:
    """Where a file begins on the ESP, in bytes (Microsoft's FAT specification, 3.1 and 3.5)."""
    shown = _mtools(disk, "mshowfat", f"::{path}").stdout
    match = re.search(r"<(\d+)", shown)
    if match is None:
        raise DiskError(f"{disk.source}: cannot find {path} on the ESP: {shown.strip()}")
    boot_sector = os.pread(descriptor, 512, 0)
    sector, per_cluster, reserved, fats, root_entries = struct.unpack_from("<HBHBH", boot_sector, 11)
    (fat_sectors,) = struct.unpack_from("<H", boot_sector, 22)
    if fat_sectors == 0:
        (fat_sectors,) = struct.unpack_from("<I", boot_sector, 36)
    root_sectors = -(-root_entries * 32 // sector)
    first_data = reserved + fats * fat_sectors + root_sectors
    return int(sector * (first_data + (int(match.group(1)) - 2) * per_cluster))


def _mtools(disk: OpenDisk, program: str, *arguments: str, check: bool = True) -> Completed:
    node = disk.partition(ESP_NUMBER)
    return run([program, "-i", node, *arguments], environment=_ENVIRONMENT, check=check)
