"""How a disk is cut. No I/O: what is on the disk comes in, a plan and the text for sfdisk go out.

A disk is GPT: BIOS boot, ESP, slot A, [slot B], and `data` in what is left. What already is where the plan
wants it and holds the right filesystem is kept; so an install that was cut off goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

import attrs
from attrs import frozen

from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.diskchoice import Disk, describe_disk
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskError, DiskTooSmallError

ALIGNMENT_BYTES = MIB
BIOS_BOOT_SIZE_BYTES = 1 * MIB
GPT_ENTRIES_BYTES = 128 * 128
"""UEFI 2.10, 5.3: 128 entries of 128 bytes, and a header of one sector, again at the disk's end."""

DATA_LABEL = "BR-DATA"
ESP_LABEL = "BR-ESP"

_LINUX_FILESYSTEMS = ("ext4", "xfs", "btrfs")


class Use(StrEnum):
    """What a partition is for; slots are `a` and `b` as in grubenv."""

    BIOS_BOOT = "bios-boot"
    ESP = "esp"
    SLOT_A = "a"
    SLOT_B = "b"
    DATA = "data"


SLOTS = (Use.SLOT_A, Use.SLOT_B)

LABELS = {
    Use.BIOS_BOOT: "BR-BIOS",
    Use.ESP: ESP_LABEL,
    Use.SLOT_A: "BR-A",
    Use.SLOT_B: "BR-B",
    Use.DATA: DATA_LABEL,
}
"""Both the GPT name and the filesystem's label."""

_LINUX_GUID = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
TYPE_GUIDS = {
    Use.BIOS_BOOT: "21686148-6449-6E6F-744E-656564454649",
    Use.ESP: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B",
    Use.SLOT_A: _LINUX_GUID,
    Use.SLOT_B: _LINUX_GUID,
    Use.DATA: _LINUX_GUID,
}


@frozen(kw_only=True)
class ExistingPartition:
    """A partition that is on the disk now, and the filesystem found in it."""

    number: int
    start_sector: int
    sectors: int
    type_guid: str
    name: str = ""
    uuid: str = ""
    filesystem: str | None = None
    label: str | None = None
    filesystem_uuid: str | None = None


@frozen(kw_only=True)
class ExistingTable:
    """A partition table that is on the disk now; `kind` is sfdisk's word for it (gpt, dos, …)."""

    kind: str
    partitions: tuple[ExistingPartition, ...] = ()


@frozen(kw_only=True)
class Partition:
    """A partition that shall be. `keep`: it is there already, and what is in it must not be formatted."""

    number: int
    use: Use
    start_sector: int
    sectors: int
    filesystem: str | None
    keep: bool = False
    uuid: str | None = None
    """The GPT entry's GUID, where the entry is there already."""
    filesystem_uuid: str | None = None
    """Where `keep`."""

    @property
    def label(self) -> str:
        """The GPT name and the filesystem's label."""
        return LABELS[self.use]

    @property
    def end_sector(self) -> int:
        """The first sector behind it."""
        return self.start_sector + self.sectors


@frozen(kw_only=True)
class DiskPlan:
    """How a disk shall be cut, and which slot an install goes to."""

    disk_size_bytes: int
    sector_bytes: int
    partitions: tuple[Partition, ...]
    slot: Use
    """The slot to install in: with two of them, the one that is not committed."""
    table_matches: bool
    """The table on the disk is this one already, and is left alone."""
    lost: tuple[str, ...] = ()
    """What is on the disk now and will not be afterwards, in words."""

    def partition(self, use: Use) -> Partition:
        """The partition with that use. Raises DiskError where the layout has none."""
        for partition in self.partitions:
            if partition.use is use:
                return partition
        raise DiskError(f"the layout has no partition {LABELS[use]}")

    def size_bytes(self, partition: Partition) -> int:
        """How large one of its partitions is."""
        return partition.sectors * self.sector_bytes


def plan_disk(
    disk_size_bytes: int,
    layout: Layout,
    existing: ExistingTable | None,
    *,
    image_bytes: int,
    sector_bytes: int = 512,
    committed: Use | None = None,
    wipe_data: bool = False,
) -> DiskPlan:
    """How to cut a disk. `committed` is the slot that boots now; `image_bytes` is the OS, uncompressed.

    A valid `data` is kept where it is, and takes no part in the sum of sizes, unless `wipe_data`. Raises
    DiskTooSmallError, and DiskError where the layout and a `data` that must be kept exclude each other.
    """
    _check_image_fits(layout, image_bytes)
    old_data = None if wipe_data else _find_data(existing, disk_size_bytes // sector_bytes)
    wanted = _place_fixed(layout, sector_bytes)
    end = wanted[-1].end_sector
    data = (
        _keep_data(old_data, layout, end, sector_bytes, number=len(wanted) + 1)
        if old_data
        else _place_data(disk_size_bytes, layout, end, sector_bytes, number=len(wanted) + 1)
    )
    slot = _choose_slot(layout, committed)
    esp_stays = _find_same(existing, wanted[1]) is not None
    partitions = tuple(
        _adopt(partition, existing, committed if esp_stays and committed is not slot else None)
        if partition.use is not Use.DATA
        else partition
        for partition in (*wanted, data)
    )
    return DiskPlan(
        disk_size_bytes=disk_size_bytes,
        sector_bytes=sector_bytes,
        partitions=partitions,
        slot=slot,
        table_matches=_matches(existing, partitions),
        lost=_describe_lost(existing, partitions, sector_bytes),
    )


def render_sfdisk(plan: DiskPlan) -> str:
    """The plan as an sfdisk script. Entries that are there already keep their GUIDs."""
    lines = ["label: gpt", "unit: sectors", ""]
    for partition in plan.partitions:
        fields = [
            f"start={partition.start_sector}",
            f"size={partition.sectors}",
            f"type={TYPE_GUIDS[partition.use]}",
            f'name="{partition.label}"',
        ]
        if partition.uuid:
            fields.append(f"uuid={partition.uuid}")
        lines.append(f"{partition.number} : {', '.join(fields)}")
    return "\n".join(lines) + "\n"


def render_plan(plan: DiskPlan, disk: Disk) -> list[str]:
    """The plan for people: what the disk is, what is lost, and what it will be."""
    lines = [describe_disk(disk)]
    lines.extend(f"  lost: {what}" for what in plan.lost)
    if plan.table_matches:
        lines.append("  the partition table is as it should be, and stays")
    for partition in plan.partitions:
        what = partition.filesystem or "GRUB's core image"
        fate = "kept" if partition.keep else "new"
        here = "  <- install" if partition.use is plan.slot else ""
        size = render_about(plan.size_bytes(partition))
        lines.append(f"  {partition.number} {partition.label:8} {size:>10}  {what:18} {fate}{here}")
    return lines


def render_mkfs(partition: Partition, device: Path, uuid: str, *, small_esp: bool = False) -> list[str]:
    """The argv that makes the partition's filesystem with that UUID. Raises DiskError for one without.

    `small_esp`: FAT32 has no room for its least number of clusters (65,525), leave the choice to mkfs.
    """
    match partition.filesystem:
        case "ext4":
            # GRUB 2.06 refuses filesystems that have metadata_csum_seed, newer mke2fs makes them.
            options = ["-O", "^metadata_csum_seed", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-m", "1"]
            argv = ["mkfs.ext4", "-F", "-q", *options, "-U", uuid, "-L", partition.label]
        case "xfs":
            argv = ["mkfs.xfs", "-f", "-q", "-m", f"uuid={uuid}", "-L", partition.label]
        case "btrfs":
            argv = ["mkfs.btrfs", "-f", "-q", "-U", uuid, "-L", partition.label]
        case "vfat":
            fat = [] if small_esp else ["-F", "32"]
            argv = ["mkfs.vfat", *fat, "-i", uuid.replace("-", ""), "-n", partition.label]
        case _:
            raise DiskError(f"partition {partition.label} has no filesystem to make")
    return [*argv, str(device)]


def make_partition_path(device: Path, number: int) -> Path:
    """The node of a partition: /dev/sda1, but /dev/nvme0n1p1 and /dev/loop0p1."""
    separator = "p" if device.name[-1:].isdigit() else ""
    return device.with_name(f"{device.name}{separator}{number}")


def _check_image_fits(layout: Layout, image_bytes: int) -> None:
    # A sixteenth each: what the filesystem keeps for itself, and blocks that files do not fill.
    needed = image_bytes + image_bytes // 16 + layout.slot_size_bytes // 16
    if needed > layout.slot_size_bytes:
        raise DiskTooSmallError(
            f"the image takes {render_about(needed)} with its filesystem, a slot of layout {layout.name!r}"
            f" has {render_about(layout.slot_size_bytes)}",
            "make slot_size larger in cluster.toml, or leave out more with the split rules",
        )


def _place_fixed(layout: Layout, sector_bytes: int) -> list[Partition]:
    sizes: list[tuple[Use, int, str | None]] = [
        (Use.BIOS_BOOT, BIOS_BOOT_SIZE_BYTES, None),
        (Use.ESP, layout.esp_size_bytes, "vfat"),
        *((use, layout.slot_size_bytes, layout.filesystem) for use in SLOTS[: layout.slots]),
    ]
    placed: list[Partition] = []
    start = ALIGNMENT_BYTES
    for number, (use, size, filesystem) in enumerate(sizes, start=1):
        rounded = _round_up(size)
        placed.append(
            Partition(
                number=number,
                use=use,
                start_sector=start // sector_bytes,
                sectors=rounded // sector_bytes,
                filesystem=filesystem,
            )
        )
        start += rounded
    return placed


def _place_data(size_bytes: int, layout: Layout, start: int, sector_bytes: int, *, number: int) -> Partition:
    backup = GPT_ENTRIES_BYTES + sector_bytes
    end_bytes = (size_bytes - backup) // ALIGNMENT_BYTES * ALIGNMENT_BYTES
    start_bytes = start * sector_bytes
    minimum = max(ALIGNMENT_BYTES, layout.data_min_size_bytes)
    if end_bytes - start_bytes < minimum:
        needed = start_bytes + _round_up(minimum) + ALIGNMENT_BYTES
        raise DiskTooSmallError(
            f"layout {layout.name!r} needs {render_about(needed)}, the disk has {render_about(size_bytes)}",
            "use a larger disk, or a layout with fewer or smaller slots",
        )
    return Partition(
        number=number,
        use=Use.DATA,
        start_sector=start,
        sectors=(end_bytes - start_bytes) // sector_bytes,
        filesystem=layout.filesystem,
    )


def _keep_data(
    old: ExistingPartition, layout: Layout, end: int, sector_bytes: int, *, number: int
) -> Partition:
    hint = "change the layout, or install with the data partition wiped"
    if old.start_sector < end:
        starts, needs = render_about(old.start_sector * sector_bytes), render_about(end * sector_bytes)
        raise DiskError(f"{DATA_LABEL} is to be kept but starts at {starts}, the layout needs {needs}", hint)
    if old.sectors * sector_bytes < layout.data_min_size_bytes:
        has, needs = render_about(old.sectors * sector_bytes), render_about(layout.data_min_size_bytes)
        raise DiskTooSmallError(f"{DATA_LABEL} is to be kept but has {has}, the layout wants {needs}", hint)
    return Partition(
        number=number,
        use=Use.DATA,
        start_sector=old.start_sector,
        sectors=old.sectors,
        filesystem=old.filesystem,
        keep=True,
        uuid=old.uuid or None,
        filesystem_uuid=old.filesystem_uuid,
    )


def _choose_slot(layout: Layout, committed: Use | None) -> Use:
    return Use.SLOT_B if layout.slots == 2 and committed is Use.SLOT_A else Use.SLOT_A


def _adopt(partition: Partition, existing: ExistingTable | None, booting: Use | None) -> Partition:
    """Take over what is there already: the entry's GUID, the ESP, and the slot that boots now."""
    same = _find_same(existing, partition)
    if same is None:
        return partition
    keep = (partition.use is Use.ESP or (partition.use in SLOTS and partition.use is booting)) and _is_valid(
        same, partition.use
    )
    return attrs.evolve(
        partition,
        keep=keep,
        uuid=same.uuid or None,
        filesystem=same.filesystem if keep else partition.filesystem,
        filesystem_uuid=same.filesystem_uuid if keep else None,
    )


def _find_same(existing: ExistingTable | None, partition: Partition) -> ExistingPartition | None:
    if existing is None or existing.kind != "gpt":
        return None
    for old in existing.partitions:
        if (
            (old.start_sector, old.sectors) == (partition.start_sector, partition.sectors)
            and old.name == partition.label
            and old.type_guid.upper() == TYPE_GUIDS[partition.use]
        ):
            return old
    return None


def _find_data(existing: ExistingTable | None, disk_sectors: int) -> ExistingPartition | None:
    if existing is None or existing.kind != "gpt":
        return None
    valid = [
        old
        for old in existing.partitions
        if old.name == DATA_LABEL
        and _is_valid(old, Use.DATA)
        and old.start_sector + old.sectors < disk_sectors
    ]
    return valid[0] if len(valid) == 1 else None


def _is_valid(old: ExistingPartition, use: Use) -> bool:
    filesystems = ("vfat",) if use is Use.ESP else _LINUX_FILESYSTEMS
    right_type = old.type_guid.upper() == TYPE_GUIDS[use]
    return right_type and old.filesystem in filesystems and old.label == LABELS[use]


def _matches(existing: ExistingTable | None, partitions: Sequence[Partition]) -> bool:
    if existing is None or len(existing.partitions) != len(partitions):
        return False
    found = [_find_same(existing, partition) for partition in partitions]
    return all(
        old is not None and old.number == new.number for old, new in zip(found, partitions, strict=True)
    )


def _describe_lost(
    existing: ExistingTable | None, partitions: Sequence[Partition], sector_bytes: int
) -> tuple[str, ...]:
    kept = {partition.start_sector for partition in partitions if partition.keep}
    return tuple(
        f"partition {old.number} {old.name or old.label or '(no name)'},"
        f" {render_about(old.sectors * sector_bytes)}, {old.filesystem or 'no filesystem known'}"
        for old in (existing.partitions if existing else ())
        if old.start_sector not in kept and old.type_guid.upper() != TYPE_GUIDS[Use.BIOS_BOOT]
    )


def _round_up(size_bytes: int) -> int:
    return -(-size_bytes // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
