"""Which blade a machine is, by what the inventory knows machines by. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from bladeroot.core.cluster import Blade, StrangerPolicy, Strangers
from bladeroot.core.hardware import Hardware
from bladeroot.errors import InventoryError


def find_blade(blades: Iterable[Blade], hardware: Hardware) -> Blade | None:
    """The blade with one of the machine's MAC addresses, or without any and with its UUID; None for a
    stranger. (Some makers give many boards the same UUID.)

    Raises InventoryError where they are of more than one blade.
    """
    macs = {nic.mac for nic in hardware.nics}
    found: dict[str, list[str]] = {}
    by_name = {}
    for blade in blades:
        keys = sorted(macs & set(blade.macs))
        if blade.uuid and blade.uuid == hardware.uuid and not blade.macs:
            keys.append(blade.uuid)
        if keys:
            found[blade.name] = keys
            by_name[blade.name] = blade
    if len(found) > 1:
        seen = "; ".join(f"{name} has {', '.join(keys)}" for name, keys in sorted(found.items()))
        raise InventoryError(
            f"this machine fits several blades: {seen}",
            "correct the macs and uuid in cluster.toml, and publish",
        )
    return next(iter(by_name.values()), None)


def check_assigned(name: str, blades: Iterable[Blade], strangers: Strangers, pool: Collection[str]) -> Blade:
    """The blade that a stranger becomes, if the inventory allows it. Raises InventoryError.

    It must be of the pool (`strangers.pool` as names), and not known by a MAC address or UUID: else it is
    another machine.
    """
    if strangers.policy is not StrangerPolicy.ASSIGN:
        raise InventoryError(
            f"strangers do not become blades of this cluster, as {name} or as any other",
            'set policy = "assign" and a pool under [strangers], and publish',
        )
    blade = next((blade for blade in blades if blade.name == name), None)
    if blade is None or name not in pool:
        raise InventoryError(
            f"{name} is no blade of the pool {strangers.pool!r}", "correct [strangers] in cluster.toml"
        )
    if blade.macs or blade.uuid:
        raise InventoryError(f"blade {name} is another machine already", "the pool's others may be free")
    return blade
