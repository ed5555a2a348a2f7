"""iPXE's loaders, as Debian's package has them: what a firmware fetches first."""

from __future__ import annotations

import shutil
from pathlib import Path

from bladeroot.core.dnsmasqplan import BIOS_LOADER, UEFI_LOADER
from bladeroot.host.kernels import resolve_inside

_FOLDERS = ("usr/lib/ipxe", "usr/share/ipxe", "boot/ipxe", "usr/lib/ipxe/qemu")
LOADERS = (BIOS_LOADER, UEFI_LOADER)


def copy_ipxe_loaders(snapshot: Path, target: Path) -> list[str]:
    """Copy the loaders, of the snapshot or else of this machine, into `target`. Returns those not found."""
    missing = []
    for name in LOADERS:
        places = [
            resolve_inside(root, f"{folder}/{name}") for root in (snapshot, Path("/")) for folder in _FOLDERS
        ]
        found = next((path for path in places if path.is_file()), None)
        if found is None:
            missing.append(name)
        else:
            shutil.copyfile(found, target / name)
    return missing
