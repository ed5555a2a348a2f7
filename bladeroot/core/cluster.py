"""The inventory: what a cluster is. `core.clusterfile` reads and writes it as cluster.toml.

Everything is frozen and checked when made, so whoever holds a `Cluster` holds a sane one.
"""

from __future__ import annotations

import re
import uuid as uuid_module
from collections.abc import Iterable, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, ip_interface

import attrs
from attrs import frozen

from bladeroot.errors import ConfigError, InventoryError

MIB = 1 << 20
GIB = 1 << 30

DEFAULT_PORT = 7474
NAME_PATTERN = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A blade's name is its host name: one RFC 1123 label, in lower case."""
_MAC_PATTERN = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def parse_mac(text: str) -> str:
    """A MAC address in any usual spelling as `52:54:00:aa:bb:cc`. Raises ConfigError."""
    digits = re.sub(r"[:.\-]", "", text.strip().lower())
    mac = ":".join(digits[index : index + 2] for index in range(0, len(digits), 2))
    if not _MAC_PATTERN.fullmatch(mac):
        raise ConfigError(f"not a MAC address: {text!r}", "write it as 52:54:00:aa:bb:cc")
    # IEEE 802: the lowest bit of the first byte is set for groups and for everybody.
    if int(digits[:2], 16) & 1 or not int(digits, 16):
        raise ConfigError(f"not the MAC address of one machine: {mac}", "see `ip link` on the machine")
    return mac


def _convert_macs(macs: Iterable[str]) -> tuple[str, ...]:
    return tuple(parse_mac(mac) for mac in macs)


def _convert_uuid(text: str | None) -> str | None:
    if text is None or text == "":
        return None
    try:
        return str(uuid_module.UUID(text))
    except ValueError:
        raise ConfigError(f"not a UUID: {text!r}", "see `dmidecode -s system-uuid`") from None


def _check_name(_owner: object, attribute: attrs.Attribute[str], value: str) -> None:
    if not NAME_PATTERN.fullmatch(value):
        hint = "letters a-z, digits and hyphens, at most 63, as in a host name"
        raise ConfigError(f"not a usable {attribute.name}: {value!r}", hint)


def _check_address(_owner: object, _attribute: attrs.Attribute[str | None], value: str | None) -> None:
    if value is None:
        return
    try:
        address = ip_interface(value)
    except ValueError:
        raise ConfigError(f"not an address: {value!r}", 'write it with its prefix: "10.77.0.11/24"') from None
    network = address.network
    if network.num_addresses > 2 and address.ip in (network.network_address, network.broadcast_address):
        raise ConfigError(f"{value} is the address of the network or of everybody in it, not of a machine")


TRANSPORTS = ("nvme", "sata", "sas", "usb", "mmc", "fc", "iscsi", "virtio", "xen")
"""How a disk may be attached; see `host.finddisks`."""


@frozen(kw_only=True)
class DiskRule:
    """Which disk of a blade to install on, by facts that do not change with the order of probing.

    All that is given must fit, and exactly one disk must fit it all. `model` and `by_id` are globs;
    sizes are in bytes. A rule without facts fits the only disk of a machine with one disk.
    """

    name: str = attrs.field(default="only", validator=_check_name)
    serial: str | None = None
    by_id: str | None = None
    wwn: str | None = None
    model: str | None = None
    min_size_bytes: int | None = None
    max_size_bytes: int | None = attrs.field(default=None)
    rotational: bool | None = None
    transport: str | None = attrs.field(default=None)

    @max_size_bytes.validator
    def _check_sizes(self, _attribute: attrs.Attribute[int | None], value: int | None) -> None:
        if value is not None and self.min_size_bytes is not None and value < self.min_size_bytes:
            raise ConfigError("no disk is larger than min_size and smaller than max_size", "exchange them")

    @transport.validator
    def _check_transport(self, _attribute: attrs.Attribute[str | None], value: str | None) -> None:
        if value is not None and value not in TRANSPORTS:
            raise ConfigError(f"no such transport: {value!r}", f"one of {', '.join(TRANSPORTS)}")


@frozen(kw_only=True)
class Layout:
    """How a disk is cut: BIOS boot, ESP, one or two slots, and `data` in what is left (all in bytes)."""

    name: str = attrs.field(default="default", validator=_check_name)
    esp_size_bytes: int = 512 * MIB
    slots: int = attrs.field(default=1)
    slot_size_bytes: int = 16 * GIB
    data_min_size_bytes: int = 1 * GIB
    filesystem: str = attrs.field(default="ext4")

    @slots.validator
    def _check_slots(self, _attribute: attrs.Attribute[int], value: int) -> None:
        if value not in (1, 2):
            raise ConfigError(f"a layout has 1 or 2 slots, not {value!r}")

    @filesystem.validator
    def _check_filesystem(self, _attribute: attrs.Attribute[str], value: str) -> None:
        if value not in ("ext4", "xfs", "btrfs"):
            raise ConfigError(f"no such filesystem here: {value!r}", "ext4, xfs or btrfs")


class Netboot(StrEnum):
    """How a root answers machines that boot over the network."""

    OFF = "off"
    DHCP = "dhcp"
    """As the segment's DHCP server, with fixed addresses for blades that have one."""
    PROXY = "proxy"
    """Beside the site's own DHCP server, which goes on giving the addresses."""


@frozen(kw_only=True)
class Network:
    """How blades find and reach each other."""

    port: int = attrs.field(default=DEFAULT_PORT)
    domain: str = attrs.field(default="")
    gateway: str | None = None
    nameservers: tuple[str, ...] = ()
    roots: tuple[str, ...] = ()
    """Roots that multicast does not reach, as `host:port`."""
    netboot: Netboot = attrs.field(default=Netboot.OFF)
    interface: str | None = attrs.field(default=None)
    """Where a root answers netboot; by default the one interface whose network blades have addresses in."""
    dhcp_range: tuple[str, ...] = attrs.field(default=())
    """First and last address for machines without a fixed one; by default none are given."""
    dns: bool = False
    """Whether a root's dnsmasq answers DNS for the inventory too."""

    @domain.validator
    def _check_domain(self, _attribute: attrs.Attribute[str], value: str) -> None:
        labels = value.lower().split(".") if value else []
        if len(value) > 253 or not all(NAME_PATTERN.fullmatch(label) for label in labels):
            raise ConfigError(f"not a domain: {value!r}", 'such as "example.org"')

    @interface.validator
    def _check_interface(self, _attribute: attrs.Attribute[str | None], value: str | None) -> None:
        # IFNAMSIZ of linux/if.h, and what dev_valid_name of the kernel refuses
        if value is not None and (not re.fullmatch(r"[^\s/:]{1,15}", value) or value in (".", "..")):
            raise ConfigError(f"not the name of an interface: {value!r}", "`ip link` lists them")

    @dhcp_range.validator
    def _check_range(self, _attribute: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]) -> None:
        if value and (len(value) != 2 or IPv4Address(value[0]) > IPv4Address(value[1])):
            hint = 'the first and the last address, such as ["10.77.0.200", "10.77.0.250"]'
            raise ConfigError(f"not a range of addresses: {', '.join(value)}", hint)

    @port.validator
    def _check_port(self, _attribute: attrs.Attribute[int], value: int) -> None:
        if not 0 < value < 65536:
            raise ConfigError(f"not a port: {value!r}", "1 to 65535")


class StrangerPolicy(StrEnum):
    """What becomes of a machine that netboots, has nothing to boot, and is not in the inventory."""

    HOLD = "hold"
    """It waits, and is shown, until somebody adopts it."""
    ASSIGN = "assign"
    """It becomes the next blade of the pool that no machine has yet."""


@frozen(kw_only=True)
class Strangers:
    """Machines that the inventory does not know. `pool` is a set of blades without MAC addresses."""

    policy: StrangerPolicy = StrangerPolicy.HOLD
    pool: str = ""


class Takeover(StrEnum):
    """Whether a blade takes the root role by itself when there is no root."""

    AUTO = "auto"
    MANUAL = "manual"
    """Only when a person promotes it."""


@frozen(kw_only=True)
class Daemon:
    """How the daemon of an installed blade behaves. `seed_limit_bytes` is what it gives in a second at most,
    while it is not root; 0 for no limit.
    """

    takeover: Takeover = attrs.field(default=Takeover.AUTO)
    seed_limit_bytes: int = attrs.field(default=0)

    @seed_limit_bytes.validator
    def _check_limit(self, _attribute: attrs.Attribute[int], value: int) -> None:
        if value < 0:
            raise ConfigError(f"not a limit: {value!r}", "bytes for each second, or 0 for none")


@frozen(kw_only=True)
class Role:
    """What some blades have in common; its overlay is `overlays/role/<name>/`."""

    name: str = attrs.field(validator=_check_name)
    description: str = ""


@frozen(kw_only=True)
class Blade:
    """One machine. `address` is an interface address with its prefix length; `facts` are for templates."""

    name: str = attrs.field(validator=_check_name)
    macs: tuple[str, ...] = attrs.field(default=(), converter=_convert_macs)
    uuid: str | None = attrs.field(default=None, converter=_convert_uuid)
    role: str = attrs.field(default="blade", validator=_check_name)
    address: str | None = attrs.field(default=None, validator=_check_address)
    disk: str = "only"
    layout: str = "default"
    rack: str | None = None
    location: str = ""
    """Where to find it, in words."""
    priority: int = 0
    """Who becomes root first; higher goes before lower."""
    facts: Mapping[str, str] = attrs.field(factory=dict)


@frozen(kw_only=True)
class Cluster:
    """The whole inventory. Every name that a blade uses is defined here, and no two blades share a key."""

    name: str = attrs.field(validator=_check_name)
    id: str
    """32 hexadecimal digits, made once by `bladeroot init`; what blades know their own cluster by."""
    arch: str = "x86_64"
    kernel_command_line: str = ""
    zstd_level: int = attrs.field(default=6, validator=attrs.validators.in_(range(1, 20)))
    network: Network = attrs.field(factory=Network)
    strangers: Strangers = attrs.field(factory=Strangers)
    daemon: Daemon = attrs.field(factory=Daemon)
    roles: Mapping[str, Role] = attrs.field(factory=dict)
    disks: Mapping[str, DiskRule] = attrs.field(factory=lambda: {"only": DiskRule()})
    layouts: Mapping[str, Layout] = attrs.field(factory=lambda: {"default": Layout()})
    blades: Mapping[str, Blade] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not re.fullmatch(r"[0-9a-f]{32}", self.id):
            raise ConfigError(
                f"not a cluster id: {self.id!r}", "32 hexadecimal digits, as `bladeroot init` makes"
            )
        for blade in self.blades.values():
            self._check_references(blade)
        self._check_unique(
            "MAC address", ((mac, blade.name) for blade in self.blades.values() for mac in blade.macs)
        )
        self._check_unique("UUID", ((blade.uuid, blade.name) for blade in self.blades.values()))
        addresses = (
            (blade.address and str(ip_interface(blade.address).ip), blade.name)
            for blade in self.blades.values()
        )
        self._check_unique("address", addresses)

    def blade(self, name: str) -> Blade:
        """The blade of that name. Raises InventoryError."""
        try:
            return self.blades[name]
        except KeyError:
            raise InventoryError(
                f"no blade {name!r} in cluster {self.name}", "see `bladeroot blades list`"
            ) from None

    def disk_rule(self, blade: Blade) -> DiskRule:
        """The rule that chooses the blade's disk."""
        return self.disks[blade.disk]

    def layout(self, blade: Blade) -> Layout:
        """How the blade's disk is cut."""
        return self.layouts[blade.layout]

    def _check_references(self, blade: Blade) -> None:
        for kind, name, known in (
            ("role", blade.role, self.roles),
            ("disk rule", blade.disk, self.disks),
            ("layout", blade.layout, self.layouts),
        ):
            if name not in known:
                hint = f"there is: {', '.join(sorted(known)) or 'none'}"
                raise InventoryError(f"blade {blade.name}: no {kind} {name!r}", hint)

    @staticmethod
    def _check_unique(what: str, pairs: Iterable[tuple[str | None, str]]) -> None:
        seen: dict[str, str] = {}
        for key, owner in pairs:
            if key and key in seen:
                raise InventoryError(
                    f"{what} {key} is given to two blades: {seen[key]} and {owner}", "give each blade its own"
                )
            if key:
                seen[key] = owner
