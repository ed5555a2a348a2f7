"""What real disks are to the agent, and that looking at them changes nothing."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bladeroot.core.agentdecision import DiskFacts, DiskState
from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import Use
from bladeroot.host.blockdev import open_disk
from bladeroot.host.esp import ensure_grubenv
from bladeroot.host.mounts import mounted
from bladeroot.host.run import run
from bladeroot.ops.diskfacts import read_disk_facts
from bladeroot.ops.identity import write_installed
from tests.blankdisks import cut_disk, make_disk, needs_loop_devices, plan_install

pytestmark = [pytest.mark.system, needs_loop_devices]

CLUSTER = "c" * 32
LAYOUT = Layout(esp_size_bytes=48 * MIB, slot_size_bytes=48 * MIB, data_min_size_bytes=16 * MIB)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "disk.img", 128 * MIB)


def look(disk: Path) -> DiskFacts:
    before = hashlib.sha256(disk.read_bytes()).digest()
    with open_disk(disk) as opened:
        facts = read_disk_facts(opened, CLUSTER)
    assert hashlib.sha256(disk.read_bytes()).digest() == before
    return facts


def test_an_empty_disk_is_blank(disk: Path) -> None:
    assert look(disk).state is DiskState.BLANK
    run(["sfdisk", "--quiet", disk], stdin="label: gpt\n")
    assert look(disk).state is DiskState.BLANK, "a table without partitions holds nothing"


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["mkfs.ext4", "-q", "-F"], "ext4 on the whole disk"),
        (["mkfs.vfat"], "vfat on the whole disk"),
        (["mkswap"], "swap on the whole disk"),
    ],
)
def test_a_filesystem_without_a_table_is_somebodys(disk: Path, argv: list[str], what: str) -> None:
    run([*argv, disk])
    facts = look(disk)
    assert (facts.state, facts.holds) == (DiskState.FOREIGN, what)


@pytest.mark.parametrize("label", ["gpt", "dos"])
def test_partitions_are_somebodys_even_empty_ones(disk: Path, label: str) -> None:
    run(["sfdisk", "--quiet", disk], stdin=f"label: {label}\n,16M\n,32M\n")
    facts = look(disk)
    assert facts.state is DiskState.FOREIGN
    assert "partition 1 (16.0 MiB, no filesystem known)" in facts.holds
    assert "partition 2" in facts.holds


def test_an_install_from_its_first_step_to_its_commit(disk: Path) -> None:
    with open_disk(disk) as opened:
        plan = plan_install(opened, LAYOUT)
        cut_disk(opened, plan)
    assert look(disk).state is DiskState.OURS
    facts = BootFacts(serial=3, cluster_id=CLUSTER, order=8, tries_order=9, tries=2)
    with open_disk(disk) as opened:
        ensure_grubenv(opened, facts)
    assert (look(disk).state, look(disk).order, look(disk).tries) == (DiskState.OURS, 8, 2)


def test_a_committed_slot_says_whose_it_is(disk: Path, tmp_path: Path) -> None:
    with open_disk(disk) as opened:
        plan = plan_install(opened, LAYOUT)
        cut_disk(opened, plan)
        with mounted(opened.partition(plan.partition(Use.SLOT_A).number), tmp_path / "slot") as slot:
            write_installed(slot, {"blade": "web01", "extras": False})
        ensure_grubenv(opened, BootFacts(slot=Use.SLOT_A, serial=3, cluster_id=CLUSTER, visits=1))
    facts = look(disk)
    assert (facts.state, facts.blade, facts.serial) == (DiskState.COMMITTED, "web01", 3)
    assert (facts.visits, facts.is_complete) == (1, False)
