"""Disks that cannot be installed on: clear words on the console and to the root, and nothing that boots."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.core.cluster import MIB
from bladeroot.core.disklayout import plan_disk
from bladeroot.events import Failed, Finished
from bladeroot.host.blockdev import apply_partitions, open_disk
from bladeroot.lab.power import VmBlade
from bladeroot.lab.qemuplan import fail_at
from bladeroot.lab.vmroom import VmRoom
from tests.toycluster import DISK_SIZE_BYTES, LAYOUT, ToyCluster
from tests.vm.harness import BLADES, TIMEOUT_S, Heard, needs_room, prepare_agent

pytestmark = needs_room

SLOT_BEGINS_BYTES = LAYOUT.esp_size_bytes + 2 * MIB
"""Behind partition table, BIOS boot partition and ESP, where the slot is."""


@pytest.fixture
def root(room: VmRoom, toy: ToyCluster) -> VmRoom:
    room.wait_for_root(room.start_root(toy.folder.path, toy.depot.path))
    return room


def fail_to_install(
    blade: VmBlade, toy: ToyCluster, heard: Heard, folder: Path, drive: dict[str, str] | None = None
) -> str:
    """What the agent says of the disk, on the console and to the root alike; then the power is cut."""
    machine = blade.power_on(kernel=prepare_agent(toy, folder), drive=drive)
    words = machine.wait_for(r"^bladeroot: FAILED: (.*)$", TIMEOUT_S, fails_on="Kernel panic")[1]
    machine.wait_for(r"trying again in", TIMEOUT_S)
    assert heard.wait_for(Failed, blade.name).text.strip() == words.strip()
    assert not heard.of(Finished, blade.name)
    blade.cut_power()
    return words


def test_too_small(root: VmRoom, toy: ToyCluster, heard: Heard, tmp_path: Path) -> None:
    blade = root.add_blade(BLADES[0], disk_size_bytes=256 * MIB)
    words = fail_to_install(blade, toy, heard, tmp_path)
    assert "/dev/vda" in words
    assert "needs" in words
    assert "256 MiB" in words
    assert blade.disk.read_bytes().count(0) == 256 * MIB, "nothing was written to it"


def test_read_only(root: VmRoom, toy: ToyCluster, heard: Heard, tmp_path: Path) -> None:
    blade = root.add_blade(BLADES[0], disk_size_bytes=DISK_SIZE_BYTES)
    words = fail_to_install(blade, toy, heard, tmp_path, {"readonly": "on"})
    assert "/dev/vda" in words
    assert "read-only" in words


def test_a_disk_that_was_only_partitioned_gives_the_machine_back(root: VmRoom) -> None:
    blade = root.add_blade(BLADES[0], disk_size_bytes=DISK_SIZE_BYTES)
    with open_disk(blade.disk) as disk:
        apply_partitions(disk, plan_disk(disk.size_bytes, LAYOUT, None, image_bytes=MIB))
    machine = blade.power_on("network")
    machine.wait_for("the disk does not boot; asking the root what to do", TIMEOUT_S)
    machine.wait_for("holds an install that was cut off", TIMEOUT_S)
    blade.cut_power()


def test_failing_half_way_and_then_whole_again(
    root: VmRoom, toy: ToyCluster, heard: Heard, tmp_path: Path
) -> None:
    blade = root.add_blade(BLADES[0], disk_size_bytes=DISK_SIZE_BYTES)
    places = range(SLOT_BEGINS_BYTES + 20 * MIB, SLOT_BEGINS_BYTES + 60 * MIB, MIB)
    words = fail_to_install(blade, toy, heard, tmp_path, fail_at(blade.disk, places))
    assert "/dev/vda" in words
    machine = blade.power_on(kernel=prepare_agent(toy, tmp_path, "bladeroot.then=poweroff"))
    machine.wait_for("vm01 is installed on /dev/vda", TIMEOUT_S, fails_on="bladeroot: (FAILED|HELD)")
    machine.wait_until_ended(TIMEOUT_S)
    machine = blade.power_on("alone")
    machine.wait_for("TOYOS-BOOTED hostname=vm01", TIMEOUT_S)
