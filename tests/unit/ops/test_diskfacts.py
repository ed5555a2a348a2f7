"""What a disk is to the agent, from its table, its signatures and what it says of itself."""

from __future__ import annotations

import attrs
import pytest

from bladeroot.core.agentdecision import DiskState
from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.disklayout import LABELS, ExistingPartition, ExistingTable, Use
from bladeroot.ops.diskfacts import describe_contents, is_ours, judge_ours
from bladeroot.ops.resume import SlotFacts

CLUSTER, OTHER = "a" * 32, "b" * 32


def partition(
    number: int, name: str, *, kind: str = "x", filesystem: str | None = "ext4"
) -> ExistingPartition:
    return ExistingPartition(
        number=number, start_sector=2048, sectors=2048, type_guid=kind, name=name, filesystem=filesystem
    )


OURS = ExistingTable(
    kind="gpt", partitions=tuple(partition(n, LABELS[use]) for n, use in enumerate(Use, start=1))
)
MIXED = ExistingTable(kind="gpt", partitions=(*OURS.partitions, partition(9, "home")))
EMPTY = ExistingTable(kind="gpt")
PROTECTIVE = ExistingTable(kind="dos", partitions=(partition(1, "", kind="ee", filesystem=None),))
WINDOWS = ExistingTable(kind="gpt", partitions=(partition(1, "Basic data", filesystem="ntfs"),))


@pytest.mark.parametrize(
    ("table", "signatures", "holds"),
    [
        (None, [], ""),
        (EMPTY, ["gpt", "PMBR"], ""),
        (PROTECTIVE, ["PMBR"], ""),
        (None, ["gpt", "PMBR"], "a partition table (gpt) that cannot be read"),
        (None, ["LVM2_member"], "LVM2_member on the whole disk"),
        (EMPTY, ["gpt", "linux_raid_member"], "linux_raid_member on the whole disk"),
        (WINDOWS, ["gpt", "PMBR"], "partition 1 (1.0 MiB, ntfs, 'Basic data')"),
    ],
)
def test_what_somebody_could_miss(table: ExistingTable | None, signatures: list[str], holds: str) -> None:
    assert describe_contents(table, signatures) == holds


def test_ours_are_known_by_their_names() -> None:
    assert [is_ours(table) for table in (None, EMPTY, WINDOWS, OURS, MIXED)] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("table", "boot", "state"),
    [
        (OURS, BootFacts(), DiskState.OURS),
        (OURS, BootFacts(cluster_id=CLUSTER, serial=3), DiskState.OURS),
        (OURS, BootFacts(cluster_id=OTHER, serial=3), DiskState.FOREIGN),
        (MIXED, BootFacts(), DiskState.FOREIGN),
        (OURS, BootFacts(slot=Use.SLOT_A, cluster_id=CLUSTER), DiskState.COMMITTED),
        (MIXED, BootFacts(slot=Use.SLOT_A, cluster_id=CLUSTER), DiskState.COMMITTED),
        (OURS, BootFacts(slot=Use.SLOT_A, cluster_id=OTHER), DiskState.FOREIGN),
    ],
)
def test_a_disk_that_bladeroot_cut(table: ExistingTable, boot: BootFacts, state: DiskState) -> None:
    assert judge_ours("/dev/vda", table, boot, SlotFacts(), CLUSTER).state is state


def test_what_was_done_to_the_disk_comes_along() -> None:
    boot = BootFacts(
        slot=Use.SLOT_A, serial=4, cluster_id=CLUSTER, order=9, visits=1, tries_order=10, tries=2
    )
    slot = SlotFacts(told={"blade": "web01", "extras": False})
    facts = judge_ours("/dev/vda", OURS, boot, slot, CLUSTER)
    assert (facts.blade, facts.serial, facts.is_complete, facts.completes_itself) == (
        "web01",
        4,
        False,
        False,
    )
    slot = attrs.evolve(slot, has_daemon=True)
    assert judge_ours("/dev/vda", OURS, boot, slot, CLUSTER).completes_itself
    assert (facts.order, facts.visits, facts.tries_order, facts.tries) == (9, 1, 10, 2)


def test_another_clusters_numbers_do_not_count() -> None:
    facts = judge_ours(
        "/dev/vda", OURS, BootFacts(cluster_id=OTHER, serial=3, order=9, tries=5), SlotFacts(), CLUSTER
    )
    assert (facts.order, facts.tries) == (0, 0)
    assert "generation 3 of another cluster" in facts.holds
