"""Disks for tests: files, cut and formatted as an install does it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bladeroot.core.cluster import Layout
from bladeroot.core.disklayout import DATA_LABEL, DiskPlan, Use, plan_disk
from bladeroot.host.blockdev import OpenDisk, apply_partitions, format_partition, open_disk, read_table
from bladeroot.host.mounts import mounted

needs_loop_devices = pytest.mark.skipif(os.geteuid() != 0, reason="needs root's rights for loop devices")


def make_disk(path: Path, size_bytes: int) -> Path:
    """An empty disk, sparse."""
    with path.open("wb") as stream:
        stream.truncate(size_bytes)
    return path


def plan_install(
    disk: OpenDisk, layout: Layout, *, committed: Use | None = None, image_bytes: int = 1
) -> DiskPlan:
    """What an install would make of the disk as it is now."""
    return plan_disk(
        disk.size_bytes,
        layout,
        read_table(disk),
        image_bytes=image_bytes,
        sector_bytes=disk.sector_bytes,
        committed=committed,
    )


def cut_disk(disk: OpenDisk, plan: DiskPlan) -> dict[Use, str]:
    """Partition and format; the filesystems' UUIDs."""
    apply_partitions(disk, plan)
    return {part.use: format_partition(disk, plan, part) for part in plan.partitions if part.filesystem}


@contextmanager
def mounted_data(disk: Path, directory: Path) -> Iterator[Path]:
    """What outlives a reimage, of a disk that nobody uses."""
    with open_disk(disk) as opened:
        table = read_table(opened)
        assert table is not None
        number = next(part.number for part in table.partitions if part.label == DATA_LABEL)
        with mounted(opened.partition(number), directory) as data:
            yield data
