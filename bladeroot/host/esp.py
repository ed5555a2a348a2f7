"""Files on a disk's EFI system partition, with mtools: nothing is mounted, the kernel needs no vfat."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO, cast

from bladeroot.core.bootfacts import BootFacts, parse_boot_facts, render_boot_facts
from bladeroot.core.bootplan import (
    ESP_NUMBER,
    GRUBENV,
    GRUBENV_BYTES,
    GRUBENV_SECTOR_BYTES,
    NEW_SUFFIX,
    parse_grubenv,
    render_grubenv,
)
from bladeroot.errors import DiskError, ToolError
from bladeroot.host.blockdev import OpenDisk, sync_device
from bladeroot.host.files import scratch_folder
from bladeroot.host.run import DEVNULL, PIPE, Completed, make_tool_error, run, start_process

_GRUBENV_BEGINS = render_grubenv({}).partition(b"\n")[0] + b"\n"
_GRUBENV_REST = render_grubenv({})[GRUBENV_SECTOR_BYTES:]
_ENVIRONMENT = {"MTOOLSRC": "/dev/null", "MTOOLS_SKIP_CHECK": "1"}


def read_esp_file(disk: OpenDisk, path: str) -> bytes | None:
    """What the file holds; None where there is no such file (or no ESP)."""
    with scratch_folder("bladeroot-esp-") as folder:
        copy = folder / "file"
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
    _make_parents(disk, path)
    with scratch_folder("bladeroot-esp-") as folder:
        copy = folder / "file"
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


def remove_esp_file(disk: OpenDisk, path: str) -> None:
    """Let there be no such file."""
    _mtools(disk, "mdel", f"::{path}", check=False)
    sync_device(disk.partition(ESP_NUMBER))


def copy_to_esp(disk: OpenDisk, path: str, parts: Sequence[Path]) -> None:
    """Write a large file, which is `parts` one behind the other; it is on the disk when this returns.

    It has its name while it is not whole: nothing may point to it yet. Raises ToolError.
    """
    _make_parents(disk, path)
    argv = ["mcopy", "-D", "o", "-i", str(disk.partition(ESP_NUMBER)), "-", f"::{path}"]
    with start_process(argv, stdin=PIPE, stderr=PIPE, environment=_ENVIRONMENT) as process:
        # Should it end early, it says why on stderr.
        with suppress(BrokenPipeError), cast(IO[bytes], process.stdin) as stream:
            for part in parts:
                stream.write(part.read_bytes())
        said = cast(IO[bytes], process.stderr).read().decode(errors="replace")
        code = process.wait()
    if code != 0:
        raise make_tool_error(Completed(tuple(argv), code, "", said))
    sync_device(disk.partition(ESP_NUMBER))
    if not is_on_esp(disk, path, parts):  # mcopy also ends well where there was no room for all
        last = said.strip().splitlines()[-1:] or ["what was read is not what was written"]
        raise ToolError(f"{path} is not whole on the ESP of {disk.source}: {last[0]}")


def is_on_esp(disk: OpenDisk, path: str, parts: Sequence[Path]) -> bool:
    """Whether the file is exactly `parts` one behind the other."""
    argv = ["mcopy", "-i", str(disk.partition(ESP_NUMBER)), f"::{path}", "-"]
    with (
        start_process(argv, stdout=PIPE, stderr=DEVNULL, environment=_ENVIRONMENT) as process,
        # Closed at once: mcopy takes no notice of a SIGTERM, but of a pipe that nobody reads.
        cast(IO[bytes], process.stdout) as stream,
    ):
        for part in parts:
            data = part.read_bytes()
            if stream.read(len(data)) != data:
                return False
        return stream.read(1) == b""


def read_esp_room(disk: OpenDisk) -> int:
    """How many bytes are free on the ESP. Raises DiskError where that cannot be told."""
    shown = _mtools(disk, "mdir", "::/").stdout
    match = re.search(r"([\d ]+) bytes free", shown)
    if match is None:
        raise DiskError(f"{disk.source}: the ESP does not tell how much room it has")
    return int(match.group(1).replace(" ", ""))


def has_esp_file(disk: OpenDisk, path: str) -> bool:
    """There is a file of that name."""
    return _mtools(disk, "mdir", "-b", f"::{path}", check=False).code == 0


def read_grubenv(disk: OpenDisk) -> dict[str, str]:
    """GRUB's variables; empty where there is no readable grubenv."""
    return parse_grubenv(read_esp_file(disk, GRUBENV) or b"")


def has_sound_grubenv(disk: OpenDisk) -> bool:
    """There is a grubenv that `write_grubenv` can overwrite in place, whether we or GRUB wrote it last."""
    block = read_esp_file(disk, GRUBENV) or b""
    return block.startswith(_GRUBENV_BEGINS) and block[GRUBENV_SECTOR_BYTES:] == _GRUBENV_REST


def read_boot_facts(disk: OpenDisk) -> BootFacts:
    """What the disk says of itself; nothing where it has no readable grubenv."""
    return parse_boot_facts(read_grubenv(disk))


def write_boot_facts(disk: OpenDisk, facts: BootFacts) -> None:
    """Replace what the disk says of itself, in one write of one sector. Raises as `write_grubenv`."""
    write_grubenv(disk, render_boot_facts(facts))


def ensure_grubenv(disk: OpenDisk, facts: BootFacts | None = None) -> None:
    """Make a grubenv with those facts (by default what can still be read), unless there is a sound one."""
    if not has_sound_grubenv(disk):
        values = render_boot_facts(facts or read_boot_facts(disk))
        write_esp_file(disk, GRUBENV, render_grubenv(values))


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


def _make_parents(disk: OpenDisk, path: str) -> None:
    for parent in reversed(PurePosixPath(path).parents[:-1]):
        _mtools(disk, "mmd", "-D", "s", f"::{parent}", check=False)


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
