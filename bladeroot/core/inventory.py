"""Changes of the inventory: a cluster in, a changed cluster out. Pure; every result has been checked."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_interface
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.cluster import Blade, Cluster
from bladeroot.core.nodesets import fold_names
from bladeroot.errors import InventoryError, UsageError

_SETTABLE = ("macs", "uuid", "role", "address", "disk", "layout", "rack", "location", "priority")
_DEFAULTS: Mapping[str, Any] = {
    field.name: field.default for field in attrs.fields(Blade) if field.name in _SETTABLE
}
FACT_PREFIX = "fact."


@frozen(kw_only=True)
class InventoryChange:
    """What is different between two inventories; `changed` is name -> key -> (before, after)."""

    added: tuple[Blade, ...]
    removed: tuple[Blade, ...]
    changed: Mapping[str, Mapping[str, tuple[Any, Any]]]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


def compare_blades(before: Cluster, after: Cluster) -> InventoryChange:
    """What happened to the blades."""
    changed = {}
    for name, blade in after.blades.items():
        old = before.blades.get(name)
        if old is not None and old != blade:
            old_plain, new_plain = attrs.asdict(old), attrs.asdict(blade)
            changed[name] = {
                key: (old_plain[key], value) for key, value in new_plain.items() if old_plain[key] != value
            }
    return InventoryChange(
        added=tuple(blade for name, blade in after.blades.items() if name not in before.blades),
        removed=tuple(blade for name, blade in before.blades.items() if name not in after.blades),
        changed=changed,
    )


def add_blades(cluster: Cluster, blades: Iterable[Blade]) -> Cluster:
    """The cluster with new blades. Raises InventoryError for a name that is taken, or what contradicts."""
    new = list(blades)
    taken = [blade.name for blade in new if blade.name in cluster.blades]
    if taken:
        hint = "`bladeroot blades set` changes a blade, `blades replace` gives it another machine"
        raise InventoryError(f"already in cluster {cluster.name}: {fold_names(taken)}", hint)
    return attrs.evolve(cluster, blades={**cluster.blades, **{blade.name: blade for blade in new}})


def make_blades(
    names: Sequence[str],
    *,
    macs: Sequence[str] = (),
    first_address: str | None = None,
    **fields: Any,
) -> list[Blade]:
    """Blades that have `fields` in common. One blade takes all the MACs; of several each takes one, in order.
    Addresses count up from the first. Raises ConfigError, InventoryError.
    """
    shared = _share_macs(names, macs)
    addresses = count_addresses(first_address, len(names)) if first_address else [None] * len(names)
    return [
        Blade(name=name, macs=mine, address=address, **fields)
        for name, mine, address in zip(names, shared, addresses, strict=True)
    ]


def count_addresses(first: str, count: int) -> list[str]:
    """`count` interface addresses from the first on, within its network. Raises InventoryError."""
    try:
        start = ip_interface(first)
    except ValueError:
        raise InventoryError(
            f"not an address: {first!r}", "write it with its prefix: 10.77.0.11/24"
        ) from None
    last = int(start.ip) + count - 1
    network = start.network
    highest = int(network.broadcast_address) - (1 if network.version == 4 and network.prefixlen < 31 else 0)
    if count > 1 and last > highest:
        room = highest - int(start.ip) + 1
        raise InventoryError(f"{count} addresses from {first} on do not fit: {network} has {room} left")
    return [f"{start.ip + offset}/{network.prefixlen}" for offset in range(count)]


def set_blades(cluster: Cluster, names: Sequence[str], settings: Mapping[str, str]) -> Cluster:
    """The cluster with keys of some blades changed; an empty value puts back the default. For several blades
    `macs` is one for each and `address` counts up. Facts are `fact.NAME`. Raises UsageError, InventoryError.
    """
    blades = {name: cluster.blade(name) for name in names}
    for key, value in settings.items():
        for name, field, new in _expand_setting(list(names), key, value, blades):
            blades[name] = attrs.evolve(blades[name], **{field: new})
    return attrs.evolve(cluster, blades={**cluster.blades, **blades})


def remove_blades(cluster: Cluster, names: Iterable[str]) -> Cluster:
    """The cluster without these blades. Raises InventoryError for an unknown one."""
    doomed = {cluster.blade(name).name for name in names}
    kept = {name: blade for name, blade in cluster.blades.items() if name not in doomed}
    return attrs.evolve(cluster, blades=kept)


def replace_blade(cluster: Cluster, name: str, macs: Sequence[str], uuid: str | None = None) -> Cluster:
    """The cluster with another machine as that blade: new MACs, and the new UUID or none."""
    blade = attrs.evolve(cluster.blade(name), macs=tuple(macs), uuid=uuid)
    return attrs.evolve(cluster, blades={**cluster.blades, name: blade})


def adopt_machine(
    cluster: Cluster, name: str, mac: str, uuid: str | None = None, role: str | None = None
) -> Cluster:
    """The cluster with a machine as that blade: a new one, or one of the inventory that has no machine yet.

    Raises InventoryError for a blade that is another machine, or for a new one without a role.
    """
    known = cluster.blades.get(name)
    if known is None:
        if role is None:
            hint = f"--role, one of: {', '.join(cluster.roles) or 'none yet'}"
            raise InventoryError(f"blade {name} is new, and has no role", hint)
        return add_blades(cluster, [Blade(name=name, macs=(mac,), uuid=uuid, role=role)])
    if known.macs or known.uuid:
        raise InventoryError(
            f"blade {name} is another machine: {', '.join(known.macs) or known.uuid}",
            f"`bladeroot blades replace {name} --mac {mac}` if that one is gone",
        )
    blade = attrs.evolve(known, macs=(mac,), uuid=uuid, role=role or known.role)
    return attrs.evolve(cluster, blades={**cluster.blades, name: blade})


def merge_blades(cluster: Cluster, entries: Iterable[Mapping[str, Any]]) -> Cluster:
    """The cluster with blades added, or, where the name is known, changed in the fields that are given."""
    blades = dict(cluster.blades)
    for entry in entries:
        name = entry["name"]
        known = blades.get(name)
        if known and "facts" in entry:
            entry = {**entry, "facts": {**known.facts, **entry["facts"]}}
        blades[name] = attrs.evolve(known, **entry) if known else Blade(**entry)
    return attrs.evolve(cluster, blades=blades)


def _share_macs(names: Sequence[str], macs: Sequence[str]) -> list[tuple[str, ...]]:
    if len(names) == 1:
        return [tuple(macs)]
    if not macs:
        return [()] * len(names)
    if len(macs) != len(names):
        raise InventoryError(
            f"{len(macs)} MAC addresses for {len(names)} blades", "give one for each, in the order of names"
        )
    return [(mac,) for mac in macs]


def _expand_setting(
    names: list[str], key: str, value: str, blades: Mapping[str, Blade]
) -> list[tuple[str, str, Any]]:
    if key.startswith(FACT_PREFIX) and len(key) > len(FACT_PREFIX):
        fact = key.removeprefix(FACT_PREFIX)
        made = []
        for name in names:
            facts = {known: old for known, old in blades[name].facts.items() if known != fact}
            made.append((name, "facts", {**facts, fact: value} if value else facts))
        return made
    key = {"mac": "macs", "prio": "priority"}.get(key, key)
    if key not in _SETTABLE:
        near = difflib.get_close_matches(key, _SETTABLE, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"keys: {', '.join(_SETTABLE)}, fact.NAME"
        raise UsageError(f"a blade has no key {key!r}", hint)
    if value == "":
        return [(name, key, _DEFAULTS[key]) for name in names]
    if key == "macs":
        shared = _share_macs(names, [mac for mac in value.replace(",", " ").split() if mac])
        return [(name, key, macs) for name, macs in zip(names, shared, strict=True)]
    if key == "address":
        addresses = count_addresses(value, len(names)) if len(names) > 1 else [value]
        return [(name, key, address) for name, address in zip(names, addresses, strict=True)]
    if key == "priority":
        try:
            return [(name, key, int(value)) for name in names]
        except ValueError:
            raise UsageError(f"priority is a whole number, not {value!r}") from None
    return [(name, key, value) for name in names]
