"""The agent on a machine of its own: somebody's disk waits for an order, which is then carried out once."""

from __future__ import annotations

import time
from pathlib import Path

from bladeroot.core.cluster import MIB
from bladeroot.events import Finished, HardwareFound, Held, StepStarted
from bladeroot.host.blockdev import open_disk
from bladeroot.host.esp import read_boot_facts
from bladeroot.host.run import run
from bladeroot.lab.vmroom import VmRoom
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster
from tests.vm.harness import BLADES, TIMEOUT_S, Heard, needs_room, prepare_agent

pytestmark = needs_room

MOST_MEMORY_BYTES = 256 * MIB


def test_a_foreign_disk_waits_for_an_order_that_is_carried_out_once(
    room: VmRoom, toy: ToyCluster, heard: Heard, tmp_path: Path
) -> None:
    room.wait_for_root(room.start_root(toy.folder.path, toy.depot.path))
    blade = room.add_blade(BLADES[0], disk_size_bytes=DISK_SIZE_BYTES)
    run(["mkfs.ext4", "-q", "-F", "-L", "precious", blade.disk])
    before = blade.disk.read_bytes()
    agent = prepare_agent(toy, tmp_path, "bladeroot.then=poweroff", "bladeroot.why=no-boot", root="")
    machine = blade.power_on(kernel=agent)
    machine.wait_for(r"HELD: /dev/vda holds ext4 on the whole disk", TIMEOUT_S)
    machine.wait_for(f"`bladeroot reimage {blade.name}` orders the install", TIMEOUT_S)
    assert blade.disk.read_bytes() == before, "a disk that waits is not written to"

    number = int(time.time())
    toy.give_order(number, BLADES[0].name)
    machine.wait_for("step partition: Partition the disk", TIMEOUT_S)
    machine.wait_until_ended(TIMEOUT_S)
    with open_disk(blade.disk) as opened:
        facts = read_boot_facts(opened)
    assert (facts.order, facts.serial, facts.slot) == (number, 1, "a")

    agent = prepare_agent(toy, tmp_path, "bladeroot.then=poweroff", "bladeroot.why=order", root="")
    machine = blade.power_on(kernel=agent)
    machine.wait_until_ended(TIMEOUT_S)
    assert "/dev/vda has generation 1: nothing to do but to boot it" in machine.read_console()
    assert "step partition" not in machine.read_console(), "told again, it does nothing"

    assert "ext4" in heard.of(Held, blade.name)[0].reason
    assert heard.of(HardwareFound, blade.name)
    heard.wait_for(Finished, blade.name, count=2)
    first, second = heard.of(Finished, blade.name)
    assert first.facts["order"] == second.facts["order"] == number
    assert 0 < first.facts["memory_peak_bytes"] < MOST_MEMORY_BYTES
    assert [event.step for event in heard.of(StepStarted, blade.name)].count("commit") == 1
