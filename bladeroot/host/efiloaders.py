"""Whether a UEFI finds a loader on the disk's ESP.

Loaders are parked under another name while they would have nothing to start (no slot, no agent): a UEFI goes
on to its next device only where it finds no loader. One that starts and ends leaves it in its setup menu,
where a blade would stay for ever.
"""

from __future__ import annotations

from bladeroot.core.bootplan import EFI_LOADERS
from bladeroot.host.blockdev import OpenDisk
from bladeroot.host.esp import has_esp_file, rename_esp_file

PARKED_SUFFIX = ".off"


def park_loaders(disk: OpenDisk) -> None:
    """Let a UEFI find no loader on the ESP."""
    for path in EFI_LOADERS:
        if has_esp_file(disk, path):
            rename_esp_file(disk, path, path + PARKED_SUFFIX)


def unpark_loaders(disk: OpenDisk) -> None:
    """Let a UEFI find the loaders again that were parked."""
    for path in EFI_LOADERS:
        if has_esp_file(disk, path + PARKED_SUFFIX):
            rename_esp_file(disk, path + PARKED_SUFFIX, path)
