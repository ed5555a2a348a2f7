"""Which blade this machine is: by the signed manifest, and for strangers by their policy."""

from __future__ import annotations

import re
from collections.abc import Iterator

from bladeroot.agent.agent import Agent, HeldError
from bladeroot.agent.disks import find_installed
from bladeroot.core.cluster import NAME_PATTERN, Cluster, Role, StrangerPolicy
from bladeroot.core.machines import check_assigned, find_blade
from bladeroot.core.manifest import Manifest
from bladeroot.core.nodesets import expand_names
from bladeroot.errors import BladerootError, InventoryError
from bladeroot.events import Note

_ASSIGNED = re.compile(rf"\bbladeroot\.blade=({NAME_PATTERN.pattern})(?=\s|$)")


def find_identity(agent: Agent) -> str:
    """The blade's name. Raises HeldError for a stranger that has to wait, InventoryError."""
    manifest = agent.manifest
    assert manifest is not None  # noqa: S101 - the step sees to it
    if agent.assignment is not None:
        return manifest.entry(agent.assignment.blade).blade.name
    known = find_blade((entry.blade for entry in manifest.blades), agent.hardware)
    if known is not None:
        return known.name
    if manifest.strangers.policy is StrangerPolicy.ASSIGN:
        return _find_assigned(agent, manifest)
    raise HeldError(
        f"generation {manifest.serial} of cluster {manifest.cluster_name} does not know this machine:"
        f" {_describe(agent)}",
        f"`bladeroot blades adopt {agent.mac} NAME`, then publish",
    )


def _find_assigned(agent: Agent, manifest: Manifest) -> str:
    pool = expand_pool(manifest)
    blades = [entry.blade for entry in manifest.blades]
    refused: list[str] = []
    for name in _offered_names(agent):
        try:
            return check_assigned(name, blades, manifest.strangers, pool).name
        except InventoryError as error:
            refused.append(str(error))
    why = "; ".join(refused) or "the root names none"
    raise HeldError(
        f"no blade of the pool {manifest.strangers.pool!r} for this machine, {_describe(agent)}: {why}",
        "add blades without MAC addresses to the pool in cluster.toml, and publish",
    )


def _offered_names(agent: Agent) -> Iterator[str]:
    """Who the machine may be: what its disk says it is, what it was started as, what the root says now."""
    yield from (facts.blade for facts in find_installed(agent) if facts.blade)
    if agent.arguments.blade:
        yield agent.arguments.blade
    assert agent.session is not None  # noqa: S101 - a manifest came from it
    try:
        script = agent.session.client.read_boot_script(agent.mac, agent.hardware.uuid)
    except BladerootError as error:
        agent.report(Note(text=f"the root assigns no blade: {error}"))
        return
    if match := _ASSIGNED.search(script):
        yield match[1]


def expand_pool(manifest: Manifest) -> list[str]:
    """The names in the manifest's pool. Raises InventoryError for what is no set."""
    blades = {entry.blade.name: entry.blade for entry in manifest.blades}
    cluster = Cluster(
        name=manifest.cluster_name,
        id=manifest.cluster_id,
        roles={blade.role: Role(name=blade.role) for blade in blades.values()},
        disks={entry.disk.name: entry.disk for entry in manifest.blades},
        layouts={entry.layout.name: entry.layout for entry in manifest.blades},
        blades=blades,
    )
    return expand_names(manifest.strangers.pool, cluster)


def _describe(agent: Agent) -> str:
    hardware = agent.hardware
    what = " ".join(part for part in (hardware.vendor, hardware.product) if part)
    facts = [f"MAC {agent.mac}", hardware.uuid and f"UUID {hardware.uuid}", what]
    return ", ".join(fact for fact in facts if fact)
