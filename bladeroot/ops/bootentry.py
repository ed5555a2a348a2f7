"""The firmware's boot entry for an installed disk: there once, right, and before the network."""

from __future__ import annotations

import uuid
from pathlib import Path

from bladeroot.core.bootplan import ESP_NUMBER
from bladeroot.core.efiboot import PartitionPath, make_entry, plan_entry
from bladeroot.errors import BladerootError, DiskError
from bladeroot.events import Note, Reporter, Warned, ignore
from bladeroot.host.blockdev import OpenDisk, read_table
from bladeroot.host.efivars import EFI_FOLDER, apply_variables, find_efivars, read_variables


def apply_boot_entry(disk: OpenDisk, *, folder: Path = EFI_FOLDER, reporter: Reporter = ignore) -> bool:
    """Make this machine's UEFI start the disk first. True where it does now; False on a BIOS, and where the
    firmware refuses, which is only warned of: `\\EFI\\BOOT\\BOOTX64.EFI` is on the disk too.
    """
    try:
        variables = find_efivars(folder)
        if variables is None:
            return False
        changes = plan_entry(read_variables(variables), make_entry(_find_esp(disk)))
        apply_variables(variables, dict(changes.writes), changes.deletes)
    except BladerootError as error:
        text = f"no boot entry for {disk.source} in the firmware: {error}"
        reporter(Warned(text=f"{text} ({error.hint})" if error.hint else text))
        return False
    what = "was there already" if not changes.writes else "is the firmware's first"
    reporter(Note(text=f"boot entry {changes.number:04X} {what}"))
    return True


def _find_esp(disk: OpenDisk) -> PartitionPath:
    table = read_table(disk)
    for partition in table.partitions if table else ():
        if partition.number == ESP_NUMBER and partition.uuid:
            return PartitionPath(
                number=partition.number,
                start=partition.start_sector,
                blocks=partition.sectors,
                guid=uuid.UUID(partition.uuid),
            )
    raise DiskError(f"{disk.source} has no ESP")
