"""`Cluster` -> cluster.toml: a new file that explains itself, or an edit that keeps what a person wrote."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, cast

import tomlkit
from tomlkit.container import Container
from tomlkit.items import Comment, Item, Table, Whitespace
from tomlkit.items import Key as TomlKey

from bladeroot.core.cluster import Cluster
from bladeroot.core.clusterfile import (
    CLUSTER_KEYS,
    DAEMON_KEYS,
    FILE_NAME,
    NETWORK_KEYS,
    SECTIONS,
    STRANGERS_KEYS,
    Key,
    parse_cluster,
)
from bladeroot.core.sizes import render_size
from bladeroot.errors import ConfigError

_HEAD = """\
# The inventory of a cluster. `bladeroot blades` edits this file too, and keeps your comments.
# Sizes are written "512M", "16G", "2T" (powers of 1024). What is commented out shows a default or an example.
# After a change: `bladeroot publish`, for blades believe only what is signed.

"""
_EXPLAINED = """\
[network]
# HTTP and BitTorrent of every blade.
port = {port}
# domain = "example.org"
# gateway = "10.77.0.1"
# nameservers = ["10.77.0.1"]
# Roots that multicast does not reach:
# roots = ["10.2.0.5:7474"]
# How a root answers machines that boot over the network: "off", "dhcp" (it is the segment's DHCP server) or
# "proxy" (beside the site's own DHCP server).
# netboot = "off"
# interface = "eth0"             # where; by default where blades have addresses
# dhcp_range = ["10.77.0.200", "10.77.0.250"]  # for machines without a fixed address; by default none
# dns = false                    # names, addresses and TXT records of blades, too

# Machines that netboot, have nothing to boot, and are not in the inventory: "hold" (they wait and are shown:
# `bladeroot blades strangers`) or "assign" (each becomes the next blade of the pool that has no `macs`).
[strangers]

# The daemon of installed blades. `takeover`: "auto" (a blade becomes root by itself when there is none; those
# with a higher `priority` first) or "manual" (only `bladeroot promote` makes one). `seed_limit`: what a blade
# that is not root gives to others in a second at most; by default all it can.
[daemon]
# takeover = "auto"
# seed_limit = "50M"
# policy = "hold"
# pool = "spare[01-10]"

# Which disk to install on. All that is given must fit, and fit exactly one disk; else nothing is touched.
# "only" without facts: the only disk of a machine that has one.
[disks.only]
# serial = "S4EVNX0M"
# by_id = "nvme-Samsung*"       # a glob over the names in /dev/disk/by-id
# wwn = "0x5002538e40a1b2c3"
# model = "Samsung*"            # a glob
# min_size = "100G"
# max_size = "2T"
# rotational = false
# transport = "nvme"

# How a disk is cut: BIOS boot, ESP, one or two slots for a root filesystem, and `data` in what is left.
[layouts.default]
esp_size = "512M"
slots = 1
slot_size = "16G"
data_min_size = "1G"
filesystem = "ext4"             # ext4, xfs or btrfs

"""
_BLADES_HEAD = """
# Blades: a table each. `macs` and `uuid` say which machine it is; `address` has its prefix length.
#   [blades.web01]
#   macs = ["52:54:00:aa:bb:01"]
#   uuid = "4c4c4544-0042-4b10-8053-b7c04f4e3132"  # SMBIOS: `dmidecode -s system-uuid`
#   role = "web"
#   address = "10.77.0.11/24"
#   disk = "only"               # [disks.…]
#   layout = "default"          # [layouts.…]
#   rack = "r1"
#   location = "row 2, left"
#   priority = 0                # higher becomes root first
#   facts = { colour = "blue" } # for the templates of overlays
"""


def render_new_cluster(cluster: Cluster) -> str:
    """A cluster.toml that explains itself. It reads back as `cluster`."""
    document = tomlkit.document()
    head = tomlkit.table()
    head.add("name", cluster.name)
    head.add(tomlkit.comment("Made once; a blade knows its own cluster by it. Never change it."))
    head.add("id", cluster.id)
    head.add("arch", cluster.arch)
    head.add(tomlkit.comment("What the kernel of every blade is given."))
    head.add("kernel_command_line", cluster.kernel_command_line)
    head.add(tomlkit.comment("How the tarballs are compressed: 1 is quick, 19 is small."))
    head.add("zstd_level", cluster.zstd_level)
    document.add("cluster", head)
    text = _HEAD + tomlkit.dumps(document) + "\n" + _EXPLAINED.format(port=cluster.network.port)
    text += (
        "# What blades have in common; the overlay of a role is overlays/role/<role>/. A role may have a\n"
    )
    text += '# description = "in words".\n'
    for role in cluster.roles.values():
        text += f"[roles.{role.name}]\n"
        if role.description:
            text += f"description = {tomlkit.item(role.description).as_string()}\n"
    return render_edited(text + _BLADES_HEAD, cluster)


def render_edited(text: str, cluster: Cluster, source: str = FILE_NAME) -> str:
    """The text with just what it takes to read back as `cluster`; comments and order stay.

    Raises ConfigError for a text that is no valid cluster.toml, or that cannot be edited.
    """
    before = parse_cluster(text, source)
    document = tomlkit.parse(text if text.endswith("\n") or not text else text + "\n")
    _edit_table(document, ("cluster",), CLUSTER_KEYS, before, cluster)
    _edit_table(document, ("network",), NETWORK_KEYS, before.network, cluster.network)
    _edit_table(document, ("strangers",), STRANGERS_KEYS, before.strangers, cluster.strangers)
    _edit_table(document, ("daemon",), DAEMON_KEYS, before.daemon, cluster.daemon)
    for section in SECTIONS:
        _edit_section(document, section, getattr(before, section), getattr(cluster, section))
    edited = tomlkit.dumps(document).rstrip("\n") + "\n"
    if parse_cluster(edited, source) != cluster:
        raise ConfigError(f"{source} is written in a way that cannot be edited here", "edit it by hand")
    return edited


def _edit_section(
    document: tomlkit.TOMLDocument, section: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> None:
    made_class, keys = SECTIONS[section]
    for name in before:
        if name not in after:
            _remove_table(document, section, name)
    for name, entry in after.items():
        if name in before:
            _edit_table(document, (section, name), keys, before[name], entry)
    added = {name: entry for name, entry in after.items() if name not in before}
    if added:
        _end_with_blank_line(document)
    for name, entry in added.items():
        _add_table(document, section, name, _plain_fields(entry, made_class(name=name), keys))


def _edit_table(
    document: tomlkit.TOMLDocument, path: tuple[str, ...], keys: tuple[Key, ...], before: Any, after: Any
) -> None:
    if before == after:
        return
    changes = [key for key in keys if getattr(before, key.field) != getattr(after, key.field)]
    if not changes:
        return
    table: Any = document
    for part in path:
        if part not in table:
            table[part] = tomlkit.table(is_super_table=part != path[-1])
        table = table[part]
    default = _default_of(after, keys)
    for key in changes:
        value = getattr(after, key.field)
        if isinstance(value, Mapping) and key.name in table:
            _edit_mapping(table[key.name], value)
        elif value == getattr(default, key.field, object()) and key.name not in ("role", "name", "id"):
            del table[key.name]
        else:
            _set_key(table, key.name, _plain(key, value))


def _edit_mapping(table: Any, after: Mapping[str, str]) -> None:
    for name in [name for name in table if name not in after]:
        del table[name]
    for name, value in after.items():
        if name not in table or table[name] != value:
            _set_key(table, name, value)


def _set_key(table: Any, name: str, value: Any) -> None:
    """Set a key; a new one goes behind the last key, not behind the remarks that follow it."""
    if name in table or not isinstance(table, Table):
        table[name] = value
        return
    body = table.value.body
    start = _start_of_remarks(body)
    remarks = [cast(Comment | Whitespace, item) for _key, item in body[start:]]
    del body[start:]
    table.add(name, value)
    for remark in remarks:
        table.add(remark)


def _default_of(entry: Any, keys: tuple[Key, ...]) -> Any:
    if isinstance(entry, Cluster):
        return Cluster(name=entry.name, id=entry.id)
    return (
        type(entry)() if keys in (NETWORK_KEYS, STRANGERS_KEYS, DAEMON_KEYS) else type(entry)(name=entry.name)
    )


def _plain_fields(entry: Any, default: Any, keys: tuple[Key, ...]) -> dict[str, Any]:
    return {
        key.name: _plain(key, getattr(entry, key.field))
        for key in keys
        if key.name == "role" or getattr(entry, key.field) != getattr(default, key.field)
    }


def _plain(key: Key, value: Any) -> Any:
    if key.is_size:
        return render_size(value)
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, Mapping):
        inline = tomlkit.inline_table()
        inline.update(dict(value))
        return inline
    return value


def _add_table(document: tomlkit.TOMLDocument, section: str, name: str, fields: dict[str, Any]) -> None:
    table = tomlkit.table()
    for key, value in fields.items():
        table.add(key, value)
    table.add(tomlkit.nl())
    if section not in document:
        parent = tomlkit.table(is_super_table=True)
        parent.add(name, table)
        document.add(section, parent)
    else:
        document[section][name] = table


def _remove_table(document: tomlkit.TOMLDocument, section: str, name: str) -> None:
    previous: Container = document
    for key, item in list(document.body):
        if key is not None and key.key == section and isinstance(item, Table) and name in item.value:
            siblings = item.value
            for sibling_key, sibling in siblings.body:
                if sibling_key is not None and sibling_key.key == name:
                    break
                previous = _last_container(sibling, previous)
            removed = siblings.item(name)
            siblings.remove(name)
            if isinstance(removed, Table):
                for remark in _trailing_remarks(removed):
                    previous.add(remark)
            return
        previous = _last_container(item, previous)
    del document[section][name]


def _last_container(item: Item, otherwise: Container) -> Container:
    """The container whose text is the last of the item's: where a comment goes that stands after it."""
    if not isinstance(item, Table):
        return otherwise
    last = item.value
    for _key, child in item.value.body:
        last = _last_container(child, last)
    return last


def _trailing_remarks(table: Table) -> Iterator[Item]:
    """What stands behind a table's last key: it belongs to what comes next."""
    body = _last_container(table, table.value).body
    remarks = [item for _key, item in body[_start_of_remarks(body) :]]
    yield from itertools.dropwhile(lambda item: isinstance(item, Whitespace), remarks)


def _start_of_remarks(body: list[tuple[TomlKey | None, Item]]) -> int:
    start = len(body)
    while start and body[start - 1][0] is None and isinstance(body[start - 1][1], (Comment, Whitespace)):
        start -= 1
    return start


def _end_with_blank_line(document: tomlkit.TOMLDocument) -> None:
    if not document.as_string().endswith("\n\n"):
        last: Container = document
        for _key, item in document.body:
            last = _last_container(item, last)
        last.add(tomlkit.nl())
