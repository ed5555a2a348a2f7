"""cluster.toml -> `Cluster`. Pure: text in, inventory out; `core.clusteredit` is the way back.

What is wrong is said with file, line, key and what was expected.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from ipaddress import ip_address, ip_interface
from typing import Any, NoReturn

from attrs import frozen

from bladeroot.core import tomllines
from bladeroot.core.cluster import (
    Blade,
    Cluster,
    Daemon,
    DiskRule,
    Layout,
    Netboot,
    Network,
    Role,
    StrangerPolicy,
    Strangers,
    Takeover,
)
from bladeroot.core.nodesets import find_blades
from bladeroot.core.sizes import parse_size
from bladeroot.errors import ConfigError, InventoryError

FILE_NAME = "cluster.toml"


@frozen
class Key:
    """One key of a section: its name in the file, the class's field, and how its value is read."""

    name: str
    field: str
    expected: str
    read: Callable[[Any], Any]
    is_size: bool = False


class _WrongTypeError(Exception):
    """The value is not of the type that the key has."""


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise _WrongTypeError
    return value


def _integer(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _WrongTypeError
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _WrongTypeError
    return value


def _size(value: Any) -> int:
    if not isinstance(value, (int, str)) or isinstance(value, bool):
        raise _WrongTypeError
    return parse_size(value)


def _strings(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _WrongTypeError
    return tuple(_string(item) for item in value)


def _mapping(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _WrongTypeError
    return {key: _string(item) for key, item in value.items()}


def _ip(value: Any) -> str:
    text = _string(value)
    try:
        return str(ip_address(text))
    except ValueError:
        raise ConfigError(f"not an IP address: {text!r}", 'write it as "10.77.0.1"') from None


def _ips(value: Any) -> tuple[str, ...]:
    return tuple(_ip(item) for item in _strings(value))


def _choice(choices: type[StrEnum]) -> Callable[[Any], Any]:
    def read(value: Any) -> StrEnum:
        try:
            return choices(value)
        except ValueError:
            raise _WrongTypeError from None

    return read


def _roots(value: Any) -> tuple[str, ...]:
    found = _strings(value)
    for text in found:
        host, _, port = text.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ConfigError(f"not a root's address: {text!r}", 'write it as "10.2.0.5:7474"')
    return found


def _key(
    name: str, expected: str, read: Callable[[Any], Any], field: str = "", *, is_size: bool = False
) -> Key:
    return Key(name, field or name, expected, read, is_size)


def _size_key(name: str) -> Key:
    return _key(name, 'a size such as "16G", or bytes', _size, f"{name}_bytes", is_size=True)


_A_STRING = "a string"

CLUSTER_KEYS = (
    _key("name", _A_STRING, _string),
    _key("id", "32 hexadecimal digits, as `bladeroot init` makes", _string),
    _key("arch", 'a string, such as "x86_64"', _string),
    _key("kernel_command_line", _A_STRING, _string),
    _key("zstd_level", "a whole number, 1 to 19", _integer),
)
NETWORK_KEYS = (
    _key("port", "a whole number, 1 to 65535", _integer),
    _key("domain", _A_STRING, _string),
    _key("gateway", 'an address, such as "10.77.0.1"', _ip),
    _key("nameservers", 'a list of addresses, such as ["10.77.0.1"]', _ips),
    _key("roots", 'a list of "host:port"', _roots),
    _key("netboot", '"off", "dhcp" or "proxy"', _choice(Netboot)),
    _key("interface", 'the name of an interface, such as "eth0"', _string),
    _key("dhcp_range", 'two addresses, such as ["10.77.0.200", "10.77.0.250"]', _ips),
    _key("dns", "true or false", _boolean),
)
STRANGERS_KEYS = (
    _key("policy", '"hold" or "assign"', _choice(StrangerPolicy)),
    _key("pool", 'a set of blades, such as "spare[01-10]"', _string),
)
DAEMON_KEYS = (
    _key("takeover", '"auto" or "manual"', _choice(Takeover)),
    _key("seed_limit", 'a size for each second, such as "50M"', _size, "seed_limit_bytes", is_size=True),
)
ROLE_KEYS = (_key("description", _A_STRING, _string),)
DISK_KEYS = (
    _key("serial", _A_STRING, _string),
    _key("by_id", 'a glob, such as "nvme-Samsung*"', _string),
    _key("wwn", _A_STRING, _string),
    _key("model", 'a glob, such as "Samsung*"', _string),
    _size_key("min_size"),
    _size_key("max_size"),
    _key("rotational", "true or false", _boolean),
    _key("transport", 'a string, such as "nvme" or "sata"', _string),
)
LAYOUT_KEYS = (
    _size_key("esp_size"),
    _key("slots", "1 or 2", _integer),
    _size_key("slot_size"),
    _size_key("data_min_size"),
    _key("filesystem", '"ext4", "xfs" or "btrfs"', _string),
)
BLADE_KEYS = (
    _key("macs", 'a list of MAC addresses, such as ["52:54:00:aa:bb:cc"]', _strings),
    _key("uuid", "a UUID, as `dmidecode -s system-uuid` says it", _string),
    _key("role", "the name of a role", _string),
    _key("address", 'an address with its prefix, such as "10.77.0.11/24"', _string),
    _key("disk", "the name of a disk rule", _string),
    _key("layout", "the name of a layout", _string),
    _key("rack", _A_STRING, _string),
    _key("location", _A_STRING, _string),
    _key("priority", "a whole number", _integer),
    _key("facts", "a table of strings", _mapping),
)
TABLES = ("cluster", "network", "strangers", "daemon")
SECTIONS: Mapping[str, tuple[type[Any], tuple[Key, ...]]] = {
    "roles": (Role, ROLE_KEYS),
    "disks": (DiskRule, DISK_KEYS),
    "layouts": (Layout, LAYOUT_KEYS),
    "blades": (Blade, BLADE_KEYS),
}
"""The sections that hold one table for each name."""


def parse_cluster(text: str, source: str = FILE_NAME) -> Cluster:
    """The inventory that a cluster.toml describes; `source` is the file's name for errors.

    Raises ConfigError for what does not parse, InventoryError for what contradicts itself.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(*_explain_syntax(str(error), source)) from None
    return _Reader(document, tomllines.find_lines(text), source).read()


def _explain_syntax(message: str, source: str) -> tuple[str, str]:
    match = re.fullmatch(r"(.*?) \(at (?:line (\d+), column (\d+)|end of document)\)", message, re.DOTALL)
    if match is None:
        return f"{source}: not TOML: {message}", ""
    what, line, column = match.groups()
    if line is None:
        return f"{source}: not TOML: {what} at the end of the file", "a quote or bracket may be open"
    twice = re.fullmatch(r"Cannot declare \((.*?),?\) twice", what)
    if twice:
        table = ".".join(part.strip(" '\"") for part in twice[1].split(","))
        return f"{source}:{line}: [{table}] is there twice", "put both into one, or give one another name"
    return f"{source}:{line}: not TOML: {what} (column {column})", 'strings need quotes: name = "web01"'


def closest(word: str, known: Iterable[str]) -> str:
    """A hint that names the most similar of the known words, or all of them."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there is: {', '.join(words) or 'none'}"


class _Reader:
    def __init__(self, document: dict[str, Any], lines: Mapping[tuple[str, ...], int], source: str) -> None:
        self.document = document
        self.lines = lines
        self.source = source

    def read(self) -> Cluster:
        for name in self.document:
            if name not in (*TABLES, *SECTIONS):
                hint = closest(name, (*TABLES, *SECTIONS))
                self.fail((name,), "no such section", hint)
        cluster = self.read_table(Cluster, CLUSTER_KEYS, ("cluster",), {"name": "x", "id": "0" * 32})
        for required in ("name", "id"):
            if required not in cluster:
                self.fail(("cluster", required), "is missing", "`bladeroot init` makes both name and id")
        network = self.read_table(Network, NETWORK_KEYS, ("network",), {})
        strangers = self.read_table(Strangers, STRANGERS_KEYS, ("strangers",), {})
        daemon = self.read_table(Daemon, DAEMON_KEYS, ("daemon",), {})
        sections = {name: self.read_section(name) for name in SECTIONS}
        sections["disks"].setdefault("only", DiskRule())
        sections["layouts"].setdefault("default", Layout())
        self.check_blades(sections)
        made = Cluster(
            network=Network(**network),
            strangers=Strangers(**strangers),
            daemon=Daemon(**daemon),
            **cluster,
            **sections,  # type: ignore[arg-type]
        )
        self.check_pool(made)
        return made

    def read_section(self, section: str) -> dict[str, Any]:
        made_class, keys = SECTIONS[section]
        entries = self.table((section,))
        made = {}
        for name in entries:
            path = (section, name)
            self.construct(path, "a host name", made_class, {"name": name})
            fields = {"name": name, **self.read_table(made_class, keys, path, {"name": name})}
            self.construct(path, "what fits together", made_class, fields)
            made[name] = made_class(**fields)
        return made

    def table(self, path: tuple[str, ...]) -> dict[str, Any]:
        found: Any = self.document
        for part in path:
            found = found.get(part, {})
        if not isinstance(found, dict):
            self.fail(path, f"expected a table, found {_describe(found)}", f"write it as [{_dotted(path)}]")
        return found

    def read_table(
        self, made_class: type[Any], keys: tuple[Key, ...], path: tuple[str, ...], required: dict[str, Any]
    ) -> dict[str, Any]:
        """The fields that a table gives, each one tried alone, so that an error has a line and a key."""
        known = {key.name: key for key in keys}
        fields: dict[str, Any] = {}
        for name, value in self.table(path).items():
            here = (*path, name)
            key = known.get(name)
            if key is None:
                self.fail(here, "unknown key", closest(name, known))
            try:
                read = key.read(value)
            except _WrongTypeError:
                self.fail(here, f"expected {key.expected}, found {_describe(value)}")
            except ConfigError as error:
                self.fail(here, str(error), error.hint)
            self.construct(here, key.expected, made_class, {**required, key.field: read})
            fields[key.field] = read
        return fields

    def construct(
        self, path: tuple[str, ...], expected: str, made_class: type[Any], fields: dict[str, Any]
    ) -> None:
        try:
            made_class(**fields)
        except ConfigError as error:
            self.fail(path, str(error), error.hint)
        except ValueError:
            value = self.table(path[:-1])[path[-1]]
            self.fail(path, f"expected {expected}, found {_describe(value)}")

    def check_blades(self, sections: Mapping[str, Mapping[str, Any]]) -> None:
        """What the class checks too, but with lines."""
        blades: Mapping[str, Blade] = sections["blades"]
        for blade in blades.values():
            for key, section, value in (
                ("role", "roles", blade.role),
                ("disk", "disks", blade.disk),
                ("layout", "layouts", blade.layout),
            ):
                if value not in sections[section]:
                    what = f"there is no [{section}.{value}]"
                    self.fail(
                        ("blades", blade.name, key), what, closest(value, sections[section]), InventoryError
                    )
        self.check_unique(
            "macs", "MAC address", ((blade, mac) for blade in blades.values() for mac in blade.macs)
        )
        self.check_unique("uuid", "UUID", ((blade, blade.uuid) for blade in blades.values() if blade.uuid))
        addresses = (
            (blade, str(ip_interface(blade.address).ip)) for blade in blades.values() if blade.address
        )
        self.check_unique("address", "address", addresses)

    def check_pool(self, cluster: Cluster) -> None:
        if cluster.strangers.policy is not StrangerPolicy.ASSIGN:
            return
        try:
            find_blades(cluster.strangers.pool, cluster)
        except InventoryError as error:
            self.fail(("strangers", "pool"), str(error), error.hint, InventoryError)

    def check_unique(self, key: str, what: str, pairs: Iterable[tuple[Blade, str]]) -> None:
        owners: dict[str, Blade] = {}
        for blade, value in pairs:
            other = owners.setdefault(value, blade)
            if other is blade and list(blade.macs).count(value) < 2:
                continue
            path = ("blades", blade.name, key)
            if other is blade:
                self.fail(path, f"{what} {value} is given twice", "give it once", InventoryError)
            line = tomllines.line_of(self.lines, ("blades", other.name, key))
            self.fail(
                path,
                f"{what} {value} is also {other.name}'s (line {line})",
                "give each blade its own",
                InventoryError,
            )

    def fail(
        self,
        path: tuple[str, ...],
        what: str,
        hint: str = "",
        error_class: type[ConfigError] = ConfigError,
    ) -> NoReturn:
        line = tomllines.line_of(self.lines, path)
        raise error_class(f"{self.source}:{line}: {_dotted(path)}: {what}", hint)


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else repr(part) for part in path)


def _describe(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "a list" if all(isinstance(item, str) for item in value) else f"the list {value!r}"
    if isinstance(value, (str, int, float)):
        return repr(value)
    return f"a {type(value).__name__}"
