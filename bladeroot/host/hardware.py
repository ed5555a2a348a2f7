"""What this machine is made of, from /sys and /proc: it needs no dmidecode, no lspci and no udev."""

from __future__ import annotations

import re
import uuid as uuid_module
from pathlib import Path

from bladeroot.core.hardware import FoundDisk, Hardware, Nic
from bladeroot.host.finddisks import find_disks

_ETHERNET = "1"
"""ARPHRD_ETHER, linux/if_arp.h."""
_NOTHING = re.compile(
    r"(not (specified|available|applicable)|to be filled by o\.?e\.?m\.?|default string|none|n/?a|0+|x+"
    r"|system (serial number|product name|manufacturer))",
    re.IGNORECASE,
)
"""What vendors write where they have written nothing."""


def read_hardware(root: Path = Path("/")) -> Hardware:
    """Everything that the machine tells of itself. Needs root's rights for the serial number and UUID."""
    dmi = root / "sys/class/dmi/id"
    cpu_model, cpus = _read_cpus(root / "proc/cpuinfo")
    return Hardware(
        uuid=_read_uuid(dmi / "product_uuid"),
        vendor=_read_dmi(dmi / "sys_vendor"),
        product=_read_dmi(dmi / "product_name"),
        serial=_read_dmi(dmi / "product_serial"),
        cpu_model=cpu_model,
        cpus=cpus,
        memory_bytes=_read_memory(root / "proc/meminfo"),
        firmware="uefi" if (root / "sys/firmware/efi").is_dir() else "bios",
        firmware_version=_read_dmi(dmi / "bios_version"),
        disks=tuple(
            FoundDisk(
                name=disk.path.name,
                size_bytes=disk.size_bytes,
                model=disk.model or "",
                serial=disk.serial or "",
                wwn=disk.wwn or "",
                transport=disk.transport or "",
                rotational=bool(disk.rotational),
            )
            for disk in find_disks()
        ),
        nics=tuple(find_nics(root / "sys/class/net")),
    )


def find_nics(folder: Path = Path("/sys/class/net")) -> list[Nic]:
    """Ethernet interfaces with hardware behind them, by name. A link is only seen on one that is up."""
    found = []
    for facts in sorted(folder.iterdir()) if folder.is_dir() else ():
        if _read(facts / "type") != _ETHERNET or not (facts / "device").exists():
            continue
        speed = _read(facts / "speed")
        found.append(
            Nic(
                name=facts.name,
                mac=_read_mac(facts),
                driver=(facts / "device/driver").resolve().name if (facts / "device/driver").exists() else "",
                has_link=_read(facts / "carrier") == "1",
                speed_mbits=int(speed) if speed.isdecimal() else 0,
            )
        )
    return found


def _read_mac(facts: Path) -> str:
    """The address that is burnt in, where it is known: the inventory has that one."""
    return _read(facts / "bonding_slave/perm_hwaddr") or _read(facts / "address")


def _read_cpus(path: Path) -> tuple[str, int]:
    text = _read(path)
    names = re.findall(r"^model name\s*:\s*(.+?)\s*$", text, re.MULTILINE)
    return (re.sub(r"\s+", " ", names[0]) if names else "", len(re.findall(r"^processor\s*:", text, re.M)))


def _read_memory(path: Path) -> int:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _read(path), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _read_uuid(path: Path) -> str:
    try:
        found = uuid_module.UUID(_read(path))
    except ValueError:
        return ""
    # All zeros or all ones: not set (SMBIOS 3.6, 7.2.1).
    return "" if found.int in (0, (1 << 128) - 1) else str(found)


def _read_dmi(path: Path) -> str:
    text = _read(path)
    return "" if _NOTHING.fullmatch(text) else text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
