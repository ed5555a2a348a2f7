"""The disks of this machine and what uses them, from sysfs: also right where there is no udev."""

from __future__ import annotations

import os
import re
from pathlib import Path

from bladeroot.core.diskchoice import Disk
from bladeroot.host.mounts import find_mounts

_NOT_DISKS = re.compile(r"(loop|ram|zram|sr|fd|dm-|md|nbd|mtdblock|nullb)\d")
_MMC_BOOT = re.compile(r"mmcblk\d+(boot|rpmb|gp)\d*")
_BY_ID = Path("/dev/disk/by-id")
_SYS = Path("/sys")
_BUSES = {"sata": "ata", "nvme": "nvme", "mmc": "mmc"}
"""What udev's names of disks begin with."""


def find_disks() -> list[Disk]:
    """Every whole disk with a medium in it, by name: no loop, RAM, optical, or stacked devices."""
    # A path of a multipath NVMe disk has no node, and is no disk of its own (sysfs-block: "hidden").
    names = sorted(
        entry.name for entry in (_SYS / "block").iterdir() if _read(entry / "hidden").strip() != "1"
    )
    disks = [
        _read_disk(name) for name in names if not _NOT_DISKS.match(name) and not _MMC_BOOT.fullmatch(name)
    ]
    return [disk for disk in disks if disk.size_bytes > 0]


def find_disk_users(name: str) -> tuple[str, ...]:
    """What uses a disk or its partitions: where it is mounted, whether it is swap, what is built on it."""
    own = {name, *(part.name for part in _find_partitions(name))}
    users = [f"{device} on {target}" for device, target in _find_mounted(own)]
    for line in _read(Path("/proc/swaps")).splitlines()[1:]:
        swap = Path(line.split()[0])
        if swap.resolve().name in own:
            users.append(f"{swap} is swap")
    for part in sorted(own):
        holders = _SYS / "class/block" / part / "holders"
        if holders.is_dir():
            users.extend(f"{part} is part of {_name_holder(holder)}" for holder in sorted(holders.iterdir()))
    return tuple(users)


def is_swap(file: Path) -> bool:
    """Whether the kernel swaps to this file."""
    return any(Path(line.split()[0]) == file for line in _read(Path("/proc/swaps")).splitlines()[1:])


def _read_disk(name: str) -> Disk:
    facts = _SYS / "block" / name
    transport = _find_transport(name, str(facts.resolve()))
    ata_model, ata_serial = _read_ata_identity(facts)
    model = ata_model or _read_first(facts / "device/model", facts / "device/name")
    serial = ata_serial or _read_first(facts / "serial", facts / "device/serial") or _read_vpd_serial(facts)
    wwn = _read_first(facts / "wwid", facts / "device/wwid")
    rotational = _read(facts / "queue/rotational").strip()
    return Disk(
        path=Path("/dev") / name.replace("!", "/"),
        size_bytes=int(_read(facts / "size") or 0) * 512,
        sector_bytes=int(_read(facts / "queue/logical_block_size") or 512),
        serial=serial,
        wwn=wwn,
        by_id=_find_by_id(name, transport, model, serial, wwn),
        model=model,
        rotational=None if not rotational else rotational == "1",
        transport=transport,
        read_only=_read(facts / "ro").strip() == "1",
        in_use_by=find_disk_users(name),
    )


def _find_transport(name: str, sysfs_path: str) -> str | None:
    for transport, mark in (
        ("nvme", "/nvme"),
        ("mmc", "/mmc"),
        ("usb", "/usb"),
        ("sata", "/ata"),
        ("sas", "/end_device-"),
        ("fc", "/rport-"),
        ("iscsi", "/session"),
        ("virtio", "/virtio"),
    ):
        if mark in sysfs_path:
            return transport
    return "xen" if name.startswith("xvd") else None


def _find_by_id(
    name: str, transport: str | None, model: str | None, serial: str | None, wwn: str | None
) -> tuple[str, ...]:
    """The names that udev has given, or would give where it does not run (60-persistent-storage.rules)."""
    found: set[str] = set()
    if _BY_ID.is_dir():
        found = {link.name for link in _BY_ID.iterdir() if link.resolve().name == name}
    whole = "_".join(_escape(part) for part in (model, serial) if part)
    if transport == "virtio" and serial and name.startswith("vd"):
        found.add(f"virtio-{_escape(serial)}")
    elif transport in ("nvme", "sata", "mmc") and serial:
        found.add(f"{_BUSES[transport]}-{whole}")
    if wwn and transport == "nvme":
        found.add(f"nvme-{wwn}")
    elif wwn and wwn.startswith("naa."):
        digits = wwn.removeprefix("naa.")
        found |= {f"wwn-0x{digits}", f"scsi-3{digits}"}
    return tuple(sorted(found))


def _escape(text: str) -> str:
    """A fact as udev puts it into a name (systemd's udev_replace_whitespace and udev_replace_chars)."""
    return re.sub(r"[^\w#+\-.:=@]", "_", re.sub(r"\s+", "_", text.strip()), flags=re.ASCII)


def _read_ata_identity(facts: Path) -> tuple[str | None, str | None]:
    """Model and serial number of an ATA disk: SCSI's own field for the model cuts it after 16 characters.

    They are in the ATA Information VPD page 0x89 (SAT-4 12.4.2), which has IDENTIFY DEVICE's data from byte
    60 on; in that, words 10-19 and 27-46 are texts with the bytes of each word swapped (ACS-4 7.13.6).
    """
    try:
        page = (facts / "device/vpd_pg89").read_bytes()
    except OSError:
        return None, None
    identity = page[60:572]
    if len(identity) < 512:
        return None, None
    return _read_ata_text(identity[54:94]), _read_ata_text(identity[20:40])


def _read_ata_text(data: bytes) -> str | None:
    swapped = bytes(byte for pair in zip(data[1::2], data[::2], strict=True) for byte in pair)
    return swapped.decode("ascii", errors="replace").strip("\0 ") or None


def _read_vpd_serial(facts: Path) -> str | None:
    """SCSI's vital product data page 0x80 (SPC-4 7.8.16): four bytes of header, then the serial number."""
    try:
        page = (facts / "device/vpd_pg80").read_bytes()
    except OSError:
        return None
    return page[4:].decode("ascii", errors="replace").strip("\0 ") or None


def _find_partitions(name: str) -> list[Path]:
    facts = _SYS / "class/block" / name
    return [entry for entry in facts.iterdir() if (entry / "partition").exists()] if facts.is_dir() else []


def _find_mounted(own: set[str]) -> list[tuple[str, Path]]:
    found = []
    for mount in find_mounts():
        # btrfs shows a device number that no block device has, but the right source; /dev/root the reverse.
        by_number = (_SYS / "dev/block" / mount.device).resolve().name
        by_source = (
            os.path.basename(os.path.realpath(mount.source)) if mount.source.startswith("/dev/") else ""
        )
        if by_number in own or by_source in own:
            found.append((by_number if by_number in own else by_source, mount.target))
    return found


def _name_holder(holder: Path) -> str:
    name = _read(holder / "dm/name").strip()
    return f"{holder.name} ({name})" if name else holder.name


def _read_first(*paths: Path) -> str | None:
    for path in paths:
        text = _read(path).strip()
        if text:
            return text
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
