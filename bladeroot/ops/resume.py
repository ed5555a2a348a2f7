"""What a disk carries already: an install that finds the very generation there does only what is left.

What counts is what the disk itself says (`etc/bladeroot/installed.json` in the slot that it boots), whatever
a root believes: a blade that is told again to do what is done does not start from the beginning.
"""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.disklayout import LABELS, DiskPlan, ExistingTable, Use
from bladeroot.errors import DiskError
from bladeroot.host.blockdev import OpenDisk
from bladeroot.host.files import scratch_folder
from bladeroot.host.mounts import mounted
from bladeroot.ops.identity import INSTALLED_FILE
from bladeroot.ops.owndaemon import runs_daemon

_LIMIT_BYTES = 64 << 10


class Standing(StrEnum):
    """How far a disk is on its way to be a blade with a certain generation."""

    NEW = "new"
    """It boots something else, or nothing."""
    COMMITTED = "committed"
    """It boots the generation; the extras, or its own depot, are not complete."""
    COMPLETE = "complete"


@frozen(kw_only=True)
class SlotFacts:
    """What a slot says of itself; nothing where it cannot be read."""

    told: dict[str, Any] = attrs.field(factory=dict)
    """What its install has recorded (`ops.identity`)."""
    has_daemon: bool = False
    """It will run bladeroot's daemon, which fetches what the slot lacks."""


def find_standing(
    disk: OpenDisk,
    plan: DiskPlan,
    existing: ExistingTable | None,
    committed: Use | None,
    wanted: dict[str, Any],
) -> Standing:
    """What the slot that the disk boots says of itself, against what is `wanted`. It is mounted for that."""
    if committed is None or existing is None or not plan.table_matches:
        return Standing.NEW
    told = _read_slot(disk, plan.partition(committed).number, plan.partition(committed).filesystem).told
    if any(told.get(key) != value for key, value in wanted.items()):
        return Standing.NEW
    return Standing.COMPLETE if told.get("extras") is True else Standing.COMMITTED


def plan_nothing_new(plan: DiskPlan, existing: ExistingTable, committed: Use) -> DiskPlan:
    """The same disk with all that is on it kept; the slot is the one that it boots."""
    uuids = {partition.number: partition.filesystem_uuid for partition in existing.partitions}
    kept = tuple(
        attrs.evolve(partition, keep=True, filesystem_uuid=uuids.get(partition.number))
        for partition in plan.partitions
    )
    return attrs.evolve(plan, slot=committed, lost=(), partitions=kept)


def read_slot(disk: OpenDisk, table: ExistingTable, slot: Use) -> SlotFacts:
    """What the slot of that name says of itself."""
    for partition in table.partitions:
        if partition.name == LABELS[slot]:
            return _read_slot(disk, partition.number, partition.filesystem)
    return SlotFacts()


def _read_slot(disk: OpenDisk, number: int, filesystem: str | None) -> SlotFacts:
    with scratch_folder("bladeroot-look-") as folder:
        try:
            node = disk.partition(number)
            with mounted(node, folder / "slot", filesystem=filesystem, options=["ro"]) as slot:
                path = slot / INSTALLED_FILE
                if path.is_symlink() or not path.is_file() or path.stat().st_size > _LIMIT_BYTES:
                    return SlotFacts()
                told = json.loads(path.read_bytes())
                has_daemon = runs_daemon(slot)
        except (DiskError, OSError, ValueError):
            return SlotFacts()  # whatever is there, it is not what is wanted
    return SlotFacts(told=told, has_daemon=has_daemon) if isinstance(told, dict) else SlotFacts()
