"""Disks are chosen by facts and cut by a plan that never overlaps and never loses `data`."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.cluster import GIB, MIB, DiskRule, Layout
from bladeroot.core.diskchoice import Disk, choose_disk
from bladeroot.core.disklayout import (
    LABELS,
    TYPE_GUIDS,
    DiskPlan,
    ExistingPartition,
    ExistingTable,
    Use,
    make_partition_path,
    plan_disk,
    render_mkfs,
    render_plan,
    render_sfdisk,
)
from bladeroot.errors import DiskChoiceError, DiskError, DiskTooSmallError

SYSTEM = Disk(
    path=Path("/dev/nvme0n1"),
    size_bytes=480 * GIB,
    serial="S64HNX0T1",
    wwn="eui.0025388b11c0ffee",
    by_id=("nvme-SAMSUNG_MZ1L2_S64HNX0T1",),
    model="SAMSUNG MZ1L2",
    rotational=False,
    transport="nvme",
)
STORE = Disk(
    path=Path("/dev/sda"),
    size_bytes=8000 * GIB,
    serial="ZA1",
    wwn="naa.5000c500a1b2c3d4",
    by_id=("ata-ST8000_ZA1", "wwn-0x5000c500a1b2c3d4"),
    model="ST8000",
    rotational=True,
    transport="sata",
)
LAYOUT = Layout(esp_size_bytes=64 * MIB, slot_size_bytes=1 * GIB, data_min_size_bytes=256 * MIB)
TWO_SLOTS = attrs.evolve(LAYOUT, slots=2)


def as_installed(plan: DiskPlan) -> ExistingTable:
    """The table as it is found on the disk after the plan was carried out."""
    return ExistingTable(
        kind="gpt",
        partitions=tuple(
            ExistingPartition(
                number=partition.number,
                start_sector=partition.start_sector,
                sectors=partition.sectors,
                type_guid=TYPE_GUIDS[partition.use],
                name=partition.label,
                uuid=f"0000000{partition.number}-1111-2222-3333-444444444444",
                filesystem=partition.filesystem,
                label=partition.label if partition.filesystem else None,
                filesystem_uuid=f"fs-{partition.number}" if partition.filesystem else None,
            )
            for partition in plan.partitions
        ),
    )


@pytest.mark.parametrize(
    "rule",
    [
        DiskRule(serial="S64HNX0T1"),
        DiskRule(by_id="nvme-SAMSUNG*"),
        DiskRule(by_id="/dev/disk/by-id/nvme-SAMSUNG_MZ1L2_S64HNX0T1"),
        DiskRule(wwn="0025388B11C0FFEE"),
        DiskRule(model="SAMSUNG*"),
        DiskRule(max_size_bytes=1000 * GIB),
        DiskRule(rotational=False),
        DiskRule(transport="nvme", min_size_bytes=400 * GIB),
    ],
)
def test_each_fact_tells_one_disk_from_another(rule: DiskRule) -> None:
    assert choose_disk(rule, [STORE, SYSTEM]) is SYSTEM


def test_wwn_is_known_in_every_spelling() -> None:
    for spelling in ("0x5000c500a1b2c3d4", "naa.5000c500a1b2c3d4", "5000C500A1B2C3D4"):
        assert choose_disk(DiskRule(wwn=spelling), [SYSTEM, STORE]) is STORE


def test_rule_without_facts_is_for_machines_with_one_disk() -> None:
    assert choose_disk(DiskRule(), [STORE]) is STORE
    with pytest.raises(DiskChoiceError, match=r"fits 2 disks.*nvme0n1.*serial S64HNX0T1.*sda"):
        choose_disk(DiskRule(), [SYSTEM, STORE])


def test_no_fit_says_what_was_seen_and_why_not() -> None:
    with pytest.raises(
        DiskChoiceError, match=r"nvme0n1.*serial is S64HNX0T1, not X.*sda.*serial is ZA1, not X"
    ):
        choose_disk(DiskRule(serial="X"), [SYSTEM, STORE])
    with pytest.raises(DiskChoiceError, match="no disk at all"):
        choose_disk(DiskRule(serial="X"), [])
    unknown = attrs.evolve(STORE, rotational=None)
    with pytest.raises(DiskChoiceError, match="rotational is unknown, not yes"):
        choose_disk(DiskRule(rotational=True), [unknown])


def test_choice_does_not_depend_on_use_but_read_only_disks_never_fit() -> None:
    assert (
        choose_disk(DiskRule(serial="ZA1"), [attrs.evolve(STORE, in_use_by=("sda1 on /",))]).serial == "ZA1"
    )
    with pytest.raises(DiskChoiceError, match="read-only"):
        choose_disk(DiskRule(), [attrs.evolve(STORE, read_only=True)])


def test_order_of_partitions_and_slots() -> None:
    plan = plan_disk(8 * GIB, LAYOUT, None, image_bytes=500 * MIB)
    assert [part.use for part in plan.partitions] == [Use.BIOS_BOOT, Use.ESP, Use.SLOT_A, Use.DATA]
    plan = plan_disk(8 * GIB, TWO_SLOTS, None, image_bytes=500 * MIB)
    assert [part.number for part in plan.partitions] == [1, 2, 3, 4, 5]
    assert plan.slot is Use.SLOT_A
    assert not plan.table_matches
    assert not any(part.keep for part in plan.partitions)


def test_too_small_disk_and_too_small_slot_say_what_is_needed() -> None:
    with pytest.raises(DiskTooSmallError, match=r"needs 1\.3 GiB, the disk has 1\.0 GiB"):
        plan_disk(1 * GIB, LAYOUT, None, image_bytes=1)
    with pytest.raises(DiskTooSmallError, match=r"a slot of layout 'default' has 1\.0 GiB"):
        plan_disk(100 * GIB, LAYOUT, None, image_bytes=990 * MIB)


def test_a_finished_install_is_kept_but_for_its_slot() -> None:
    first = plan_disk(8 * GIB, LAYOUT, None, image_bytes=1)
    again = plan_disk(8 * GIB, LAYOUT, as_installed(first), image_bytes=1, committed=Use.SLOT_A)
    assert again.table_matches
    assert again.slot is Use.SLOT_A
    assert {part.use for part in again.partitions if part.keep} == {Use.ESP, Use.DATA}
    assert again.partition(Use.DATA).filesystem_uuid == "fs-4"
    assert any("BR-A" in what for what in again.lost)
    assert not any("BR-DATA" in what for what in again.lost)


def test_two_slots_go_in_turn_and_keep_the_one_that_boots() -> None:
    table = as_installed(plan_disk(8 * GIB, TWO_SLOTS, None, image_bytes=1))
    for committed, other in ((Use.SLOT_A, Use.SLOT_B), (Use.SLOT_B, Use.SLOT_A)):
        plan = plan_disk(8 * GIB, TWO_SLOTS, table, image_bytes=1, committed=committed)
        assert plan.slot is other
        assert plan.partition(committed).keep
        assert not plan.partition(other).keep


def test_data_survives_a_change_of_layout_that_leaves_its_place() -> None:
    table = as_installed(plan_disk(8 * GIB, TWO_SLOTS, None, image_bytes=1))
    plan = plan_disk(8 * GIB, LAYOUT, table, image_bytes=1)
    data = plan.partition(Use.DATA)
    assert (data.keep, data.number) == (True, 4)
    assert data.start_sector == table.partitions[4].start_sector
    assert f"uuid={table.partitions[4].uuid}" in render_sfdisk(plan)


def test_data_in_the_way_is_refused_not_wiped() -> None:
    table = as_installed(plan_disk(8 * GIB, LAYOUT, None, image_bytes=1))
    with pytest.raises(DiskError, match="BR-DATA is to be kept but starts at"):
        plan_disk(8 * GIB, TWO_SLOTS, table, image_bytes=1)
    plan = plan_disk(8 * GIB, TWO_SLOTS, table, image_bytes=1, wipe_data=True)
    assert not plan.partition(Use.DATA).keep
    assert any("BR-DATA" in what for what in plan.lost)


@pytest.mark.parametrize(
    "damage",
    [
        {"filesystem": None},
        {"label": "other"},
        {"name": "other"},
        {"type_guid": TYPE_GUIDS[Use.ESP]},
        {"sectors": 100 * GIB // 512},
    ],
)
def test_what_only_looks_like_data_is_not_kept(damage: dict[str, object]) -> None:
    table = as_installed(plan_disk(8 * GIB, LAYOUT, None, image_bytes=1))
    bad = attrs.evolve(table.partitions[3], **damage)  # type: ignore[arg-type]
    plan = plan_disk(
        8 * GIB, LAYOUT, attrs.evolve(table, partitions=(*table.partitions[:3], bad)), image_bytes=1
    )
    assert not plan.partition(Use.DATA).keep


def test_foreign_disk_is_said_to_be_lost() -> None:
    windows = ExistingPartition(
        number=1, start_sector=2048, sectors=4 * MIB, type_guid="7", name="Basic data", filesystem="ntfs"
    )
    plan = plan_disk(8 * GIB, LAYOUT, ExistingTable(kind="dos", partitions=(windows,)), image_bytes=1)
    text = "\n".join(render_plan(plan, STORE))
    assert "lost: partition 1 Basic data, 2.0 GiB, ntfs" in text
    assert "serial ZA1" in text
    assert "<- install" in next(line for line in text.splitlines() if "BR-A" in line)


def test_sfdisk_script() -> None:
    lines = render_sfdisk(plan_disk(8 * GIB, LAYOUT, None, image_bytes=1)).splitlines()
    assert lines[:2] == ["label: gpt", "unit: sectors"]
    assert lines[3] == '1 : start=2048, size=2048, type=21686148-6449-6E6F-744E-656564454649, name="BR-BIOS"'
    assert lines[4].startswith("2 : start=4096, size=131072, type=C12A7328")


def test_mkfs_lines() -> None:
    plan = plan_disk(8 * GIB, LAYOUT, None, image_bytes=1)
    node = Path("/dev/sda3")
    ext4 = render_mkfs(plan.partition(Use.SLOT_A), node, "u-u")
    assert ext4[0] == "mkfs.ext4"
    assert "lazy_itable_init=1,lazy_journal_init=1" in ext4
    assert ext4[-5:] == ["-U", "u-u", "-L", "BR-A", "/dev/sda3"]
    for filesystem in ("xfs", "btrfs"):
        part = attrs.evolve(plan.partition(Use.SLOT_A), filesystem=filesystem)
        assert render_mkfs(part, node, "u-u")[0] == f"mkfs.{filesystem}"
    assert "ABCD1234" in render_mkfs(plan.partition(Use.ESP), node, "ABCD-1234")
    with pytest.raises(DiskError, match="BR-BIOS"):
        render_mkfs(plan.partition(Use.BIOS_BOOT), node, "u-u")


@pytest.mark.parametrize(
    ("device", "node"),
    [
        ("sda", "sda1"),
        ("nvme0n1", "nvme0n1p1"),
        ("loop7", "loop7p1"),
        ("mmcblk0", "mmcblk0p1"),
        ("vdb", "vdb1"),
    ],
)
def test_partition_nodes(device: str, node: str) -> None:
    assert make_partition_path(Path("/dev") / device, 1) == Path("/dev") / node


@given(
    disk=st.integers(1, 40_000),
    esp=st.integers(1, 1024 * MIB),
    slot=st.integers(2 * MIB, 8 * GIB),
    slots=st.integers(1, 2),
    data=st.integers(0, 8 * GIB),
    sector=st.sampled_from([512, 4096]),
    rest=st.integers(0, 255),
)
def test_plans_never_overlap_and_stay_on_the_disk(
    disk: int, esp: int, slot: int, slots: int, data: int, sector: int, rest: int
) -> None:
    layout = Layout(esp_size_bytes=esp, slot_size_bytes=slot, slots=slots, data_min_size_bytes=data)
    size = disk * MIB + rest * sector
    try:
        plan = plan_disk(size, layout, None, image_bytes=1, sector_bytes=sector)
    except DiskTooSmallError:
        assert size < 4 * MIB + esp + slots * (slot + MIB) + data + 3 * MIB
        return
    end = 2 * sector + 128 * 128
    for partition in plan.partitions:
        start = partition.start_sector * sector
        assert start % MIB == 0
        assert start >= end
        end = start + plan.size_bytes(partition)
        assert end > start
    assert end <= size - 128 * 128 - sector
    assert plan.size_bytes(plan.partition(Use.ESP)) >= esp
    assert plan.size_bytes(plan.partition(Use.SLOT_A)) >= slot
    assert plan.size_bytes(plan.partition(Use.DATA)) >= data
    again = plan_disk(size, layout, as_installed(plan), image_bytes=1, sector_bytes=sector)
    assert again.table_matches
    assert again.partition(Use.DATA).keep
    assert len(set(LABELS.values())) == len(LABELS)
