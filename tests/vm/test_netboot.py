"""Empty disks over the network in every way that firmware boots, and never twice."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen

from bladeroot.events import Event, Finished, Note, StepStarted
from bladeroot.host.blockdev import open_disk
from bladeroot.host.esp import read_boot_facts
from bladeroot.lab.netbootscenario import NetbootRun
from bladeroot.lab.power import VmBlade
from bladeroot.lab.qemu import FAILURES, wait_for_all
from bladeroot.lab.qemuplan import Bus, Firmware
from bladeroot.lab.vmcluster import VmCluster
from bladeroot.lab.vmroom import VmRoom, open_vm_room
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster
from tests.vm.harness import (
    BLADES,
    BOOTED,
    TIMEOUT_S,
    Heard,
    needs_room,
    prepare_agent,
    read_booted,
    with_own_depot,
)

pytestmark = needs_room

FIRMWARES: dict[str, Firmware] = {"vm01": "bios", "vm02": "uefi", "vm03": "uefi-http"}
BUSES: dict[str, Bus] = {"vm03": "nvme"}
DISKS = {"vm01": "/dev/vda", "vm02": "/dev/vda", "vm03": "/dev/nvme0n1"}


@frozen
class Netbooted:
    """A room whose blades netbooted with empty disks and are installed; no root runs."""

    toy: ToyCluster
    room: VmRoom
    heard: Heard
    run: NetbootRun

    def wipes(self, blade: VmBlade) -> int:
        """How often a root heard that this blade cut its disk."""
        return [event.step for event in self.heard.of(StepStarted, blade.name)].count("partition")


@pytest.fixture(scope="module")
def netbooted(toys: ToyCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Netbooted]:
    work = tmp_path_factory.mktemp("netboot")
    toy = with_own_depot(toys, work / "depot")
    cluster = VmCluster(
        folder=toy.folder,
        key_path=toy.key_path,
        depot=toy.depot.path,
        manifest=toy.manifest,
        firmwares=FIRMWARES,
        buses=BUSES,
        disk_size_bytes=DISK_SIZE_BYTES,
    )
    heard = Heard()

    def hear(event: Event) -> None:
        run.hear(event)
        heard(event)

    with open_vm_room(work / "room", hear) as room:
        run = NetbootRun(cluster, room)
        cluster.furnish(room)
        root = room.start_root(toy.folder.path, toy.depot.path)
        run.install(root)
        first = run.come_up()
        assert {name: result.role for name, result in first.items()} == dict.fromkeys(FIRMWARES, "web")
        root.kill()
        yield Netbooted(toy, room, heard, run)


def test_every_firmware_installs_an_empty_disk_that_boots_alone(netbooted: Netbooted) -> None:
    results = netbooted.run.come_up_alone()
    assert {name: (one.hostname, one.serial) for name, one in results.items()} == {
        name: (name, 1) for name in FIRMWARES
    }
    for name in FIRMWARES:
        facts = netbooted.heard.of(Finished, name)[0].facts
        assert (facts["blade"], facts["disk"]) == (name, DISKS[name])


def test_firmware_that_netboots_first_is_sent_to_the_disk_by_any_root(netbooted: Netbooted) -> None:
    room, toy = netbooted.room, netbooted.toy
    blades = [room.blade("vm01"), room.blade("vm02")]
    for _ in range(2):
        root = room.start_root(toy.folder.path, toy.depot.path)
        room.wait_for_root(root)
        machines = [blade.power_on("network") for blade in blades]
        wait_for_all(machines, BOOTED, TIMEOUT_S, fails_on=FAILURES)
        for machine in machines:
            assert "boots from its own disk" in machine.read_console()
            assert "bladeroot: step" not in machine.read_console(), "the agent has nothing to do here"
            machine.wait_until_ended(TIMEOUT_S)
        root.kill()
    assert [netbooted.wipes(blade) for blade in blades] == [1, 1]


def test_an_order_is_carried_out_once_whatever_roots_forget(netbooted: Netbooted, tmp_path: Path) -> None:
    room, toy = netbooted.room, netbooted.toy
    blade = room.blade("vm01")
    number = int(time.time())
    toy.give_order(number, BLADES[0].name)
    root = room.start_root(toy.folder.path, toy.depot.path)
    machine = blade.power_on(kernel=prepare_agent(toy, tmp_path, "bladeroot.why=order"), reboots=False)
    machine.wait_for(f"order {number} says so", TIMEOUT_S, fails_on=FAILURES)
    machine.wait_until_ended(TIMEOUT_S)
    with open_disk(blade.disk) as disk:
        assert read_boot_facts(disk).order == number
    assert netbooted.wipes(blade) == 2
    root.kill()

    forgetful = with_own_depot(toy, tmp_path / "another-depot")  # the order is in it, and no more
    room.wait_for_root(room.start_root(forgetful.folder.path, forgetful.depot.path))
    machine = blade.power_on("network")
    assert read_booted(machine, fails_on=FAILURES)["serial"] == 1
    said = machine.read_console()
    assert f"order {number} is for it: the agent carries it out" in said, "so this root believes"
    assert "has generation 1: nothing to do but to boot it" in said
    assert netbooted.wipes(blade) == 2
    assert any("boots from its own disk" in note.text for note in netbooted.heard.of(Note))
