"""A blade that runs reaches its own disk's grubenv, though the disk is in use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import Use
from bladeroot.errors import DiskError
from bladeroot.host.blockdev import OpenDisk, open_disk
from bladeroot.host.bootdisk import find_booted_disk
from bladeroot.host.esp import ensure_grubenv, read_boot_facts, write_boot_facts
from bladeroot.host.espagent import write_agent
from bladeroot.host.mounts import mounted
from bladeroot.ops.ownboot import note_boot, start_agent_next
from tests.blankdisks import cut_disk, make_disk, needs_loop_devices, plan_install

pytestmark = [pytest.mark.system, needs_loop_devices]

LAYOUT = Layout(esp_size_bytes=40 * MIB, slot_size_bytes=8 * MIB, data_min_size_bytes=4 * MIB)
FACTS = BootFacts(slot=Use.SLOT_A, serial=3, cluster_id="ab" * 16, order=7, visits=2, tries=4)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OpenDisk]:
    with open_disk(make_disk(tmp_path / "disk.img", 64 * MIB)) as opened:
        cut_disk(opened, plan_install(opened, LAYOUT))
        yield opened


def test_a_running_blade_resets_what_was_counted_and_orders_its_agent(disk: OpenDisk, tmp_path: Path) -> None:
    (tmp_path / "kernel").write_bytes(b"kernel")
    with mounted(disk.partition(3), tmp_path / "root") as root:
        with pytest.raises(DiskError, match="has no /EFI/bladeroot/grubenv"):
            find_booted_disk(root)
        ensure_grubenv(disk)
        write_boot_facts(disk, FACTS)
        own = find_booted_disk(root)
        assert (own.device, own.size_bytes) == (disk.device, disk.size_bytes)
        note_boot(own)
        assert read_boot_facts(disk) == attrs.evolve(FACTS, visits=0, tries=0)
        with pytest.raises(DiskError, match="keeps no agent"):
            start_agent_next(own)
        write_agent(disk, [tmp_path / "kernel"], [tmp_path / "kernel"], "")
        start_agent_next(own)
        assert read_boot_facts(disk).next_agent
        note_boot(own)
        assert read_boot_facts(disk) == attrs.evolve(FACTS, visits=0, tries=0)
        before = disk.source.read_bytes()
        note_boot(own)
        assert disk.source.read_bytes() == before


def test_a_machine_that_bladeroot_did_not_install(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match="nothing is mounted on"):
        find_booted_disk(tmp_path)
    with pytest.raises(DiskError, match="no partition of a disk"):
        find_booted_disk(Path("/proc"))
