"""What a disk is to the agent: blank, ours, bootable, or somebody's. It is looked at, and nothing written."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bladeroot.core.agentdecision import DiskFacts, DiskState
from bladeroot.core.bootfacts import BootFacts, parse_boot_facts
from bladeroot.core.disklayout import LABELS, ExistingPartition, ExistingTable
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskError
from bladeroot.host.blockdev import OpenDisk, read_table
from bladeroot.host.esp import read_grubenv
from bladeroot.host.run import run
from bladeroot.ops.resume import SlotFacts, read_slot

_OUR_LABELS = frozenset(LABELS.values())
_PROTECTIVE_TYPE = "ee"
"""A protective MBR's only partition (UEFI 2.10, 5.2.3): alone it is a GPT that was never finished."""
_TABLES = frozenset({"gpt", "PMBR", "dos"})
_MOST_NAMED = 6


def read_disk_facts(opened: OpenDisk, cluster_id: str) -> DiskFacts:
    """What the disk says of itself, to a blade of that cluster. Raises DiskError, ToolError."""
    table = read_table(opened)
    signatures = _find_signatures(opened)
    if not is_ours(table):
        holds = describe_contents(table, signatures)
        state = DiskState.FOREIGN if holds else DiskState.BLANK
        return DiskFacts(state=state, path=str(opened.source), holds=holds)
    assert table is not None  # noqa: S101 - what has no table is not ours
    boot = parse_boot_facts(read_grubenv(opened))
    slot = read_slot(opened, table, boot.slot) if boot.slot else SlotFacts()
    return judge_ours(str(opened.source), table, boot, slot, cluster_id)


def is_ours(table: ExistingTable | None) -> bool:
    """Whether the table is one that bladeroot made: by its partitions' names."""
    return table is not None and any(partition.name in _OUR_LABELS for partition in table.partitions)


def judge_ours(
    path: str, table: ExistingTable, boot: BootFacts, slot: SlotFacts, cluster_id: str
) -> DiskFacts:
    """The facts of a disk that bladeroot cut. `slot` is what the committed slot says of itself."""
    others = [partition for partition in table.partitions if partition.name not in _OUR_LABELS]
    holds = ", ".join(_describe(partition) for partition in others[:_MOST_NAMED])
    if boot.cluster_id and boot.cluster_id != cluster_id:
        what = f"generation {boot.serial} of another cluster ({boot.cluster_id})"
        return DiskFacts(state=DiskState.FOREIGN, path=path, holds=what)
    uncommitted = DiskState.FOREIGN if holds else DiskState.OURS
    state = uncommitted if boot.slot is None else DiskState.COMMITTED
    return DiskFacts(
        state=state,
        path=path,
        holds=holds,
        blade=str(slot.told.get("blade", "")),
        serial=boot.serial,
        is_complete=slot.told.get("extras") is not False,
        completes_itself=slot.has_daemon,
        order=boot.order,
        visits=boot.visits,
        tries_order=boot.tries_order,
        tries=boot.tries,
    )


def describe_contents(table: ExistingTable | None, signatures: Sequence[str]) -> str:
    """What on a disk somebody could miss, in words; empty for a blank disk.

    A table without partitions is nothing. What has no signature at all is nothing, too: it may be the rest
    of what was wiped.
    """
    loose = sorted({kind for kind in signatures if kind not in _TABLES})
    found = [f"{kind} on the whole disk" for kind in loose]
    if table is None and "gpt" in signatures:
        found.append("a partition table (gpt) that cannot be read")
    partitions = [] if table is None else [part for part in table.partitions if not _is_protective(part)]
    if table is not None and partitions:
        named = ", ".join(_describe(partition) for partition in partitions[:_MOST_NAMED])
        more = f" and {len(partitions) - _MOST_NAMED} more" if len(partitions) > _MOST_NAMED else ""
        found.append(f"{named}{more}")
    return "; ".join(found)


def _describe(partition: ExistingPartition) -> str:
    # sfdisk counts sectors of the disk's own size; for a person it need not be exact to more than that.
    size = render_about(partition.sectors * 512)
    what = partition.filesystem or "no filesystem known"
    name = partition.label or partition.name
    return f"partition {partition.number} ({size}, {what}{f', {name!r}' if name else ''})"


def _is_protective(partition: ExistingPartition) -> bool:
    return partition.type_guid.lower().removeprefix("0x") == _PROTECTIVE_TYPE


def _find_signatures(opened: OpenDisk) -> list[str]:
    """The kinds of what libblkid knows on the whole disk: tables, filesystems, RAID, LVM, encryption."""
    completed = run(["wipefs", "--no-act", "--json", opened.device], check=False)
    if completed.code != 0:
        raise DiskError(
            f"{opened.source} cannot be read: {completed.stderr.strip()[:200]}", "is it broken? see `dmesg`"
        )
    try:
        found = json.loads(completed.stdout or "{}").get("signatures", [])
        return [str(signature["type"]) for signature in found]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DiskError(f"{opened.source}: wipefs says what makes no sense: {error}") from error
