"""What a machine is made of, as it tells of itself: for people, DNS, and adopting strangers. No I/O."""

from __future__ import annotations

from attrs import frozen


@frozen(kw_only=True)
class Nic:
    """A network interface with hardware behind it. `speed_mbits` 0 is unknown, or no link."""

    name: str
    mac: str
    driver: str = ""
    has_link: bool = False
    speed_mbits: int = 0


@frozen(kw_only=True)
class FoundDisk:
    """A disk; see `core.diskchoice.Disk`, of which this is the part that people ask for."""

    name: str
    size_bytes: int
    model: str = ""
    serial: str = ""
    wwn: str = ""
    transport: str = ""
    rotational: bool = False


@frozen(kw_only=True)
class Hardware:
    """The machine. What it does not tell is empty."""

    uuid: str = ""
    """SMBIOS."""
    vendor: str = ""
    product: str = ""
    serial: str = ""
    cpu_model: str = ""
    cpus: int = 0
    memory_bytes: int = 0
    firmware: str = ""
    """`bios` or `uefi`."""
    firmware_version: str = ""
    disks: tuple[FoundDisk, ...] = ()
    nics: tuple[Nic, ...] = ()
