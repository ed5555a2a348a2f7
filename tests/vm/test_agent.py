"""The agent on a machine of its own: somebody's disk waits for an order, which is then carried out once."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from bladeroot.core.agentfiles import INITRAMFS, KERNEL
from bladeroot.core.cluster import MIB, Netboot, Network
from bladeroot.core.manifest import ArtefactKind
from bladeroot.core.orders import Order, sign_order
from bladeroot.events import Event, Finished, HardwareFound, Held, StepStarted
from bladeroot.host.agentpayload import read_agent_file
from bladeroot.host.blockdev import open_disk
from bladeroot.host.esp import read_boot_facts
from bladeroot.host.orderbook import OrderBook
from bladeroot.host.run import run
from bladeroot.lab.qemu import VirtualMachine
from bladeroot.lab.qemuplan import Kernel
from bladeroot.lab.vmroom import VmRoom, open_vm_room, plan_blade
from tests.blankdisks import needs_loop_devices
from tests.toycluster import DISK_SIZE_BYTES, LAYOUT, ToyCluster, make_cluster
from tests.toyos import build_toy_os

pytestmark = [
    pytest.mark.vm,
    needs_loop_devices,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed"),
]

TIMEOUT_S = 240.0
HEARD_S = 30.0
MOST_MEMORY_BYTES = 256 * MIB
WEB = plan_blade(1, "web01", "web")


E = TypeVar("E", bound=Event)


class Heard:
    """What the root was told, from the thread that reads it."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def of(self, event_class: type[E], at_least: int = 1) -> list[E]:
        """The blade's events of that kind, as soon as there are so many."""

        def find() -> list[E]:
            return [one for one in self._events if isinstance(one, event_class) and one.subject == WEB.name]

        with self._changed:
            assert self._changed.wait_for(lambda: len(find()) >= at_least, HEARD_S), self._events
            return find()


@pytest.fixture
def toy(tmp_path: Path) -> ToyCluster:
    snapshot = tmp_path / "snapshot"
    build_toy_os(snapshot)
    return make_cluster(tmp_path, snapshot, [WEB], layout=LAYOUT, network=Network(netboot=Netboot.DHCP))


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def room(toy: ToyCluster, tmp_path: Path, heard: Heard) -> Iterator[VmRoom]:
    with open_vm_room(tmp_path / "room", heard) as room:
        room.start_root(toy.folder.path, toy.depot.path)
        blade = room.add_blade(WEB, disk_size_bytes=DISK_SIZE_BYTES)
        run(["mkfs.ext4", "-q", "-F", "-L", "precious", blade.disk])
        yield room


def start_agent(room: VmRoom, toy: ToyCluster, arguments: str) -> VirtualMachine:
    """As a network boot leaves it: the agent's kernel and initramfs in memory."""
    info_hash = toy.manifest.artefact(ArtefactKind.AGENT).info_hash
    for name in (KERNEL, INITRAMFS):
        (room.work / name).write_bytes(b"".join(read_agent_file(toy.depot, info_hash, name)))
    line = f"console=ttyS0,115200 panic=-1 bladeroot.then=poweroff {arguments}"
    kernel = Kernel(image=room.work / KERNEL, initramfs=room.work / INITRAMFS, command_line=line)
    return room.blade(WEB.name).power_on(kernel=kernel)


def test_a_foreign_disk_waits_for_an_order_that_is_carried_out_once(
    room: VmRoom, toy: ToyCluster, heard: Heard
) -> None:
    disk = room.blade(WEB.name).disk
    before = disk.read_bytes()
    machine = start_agent(room, toy, "bladeroot.why=no-boot")
    machine.wait_for(r"HELD: /dev/vda holds ext4 on the whole disk", TIMEOUT_S)
    machine.wait_for("`bladeroot reimage web01` orders the install", TIMEOUT_S)
    assert disk.read_bytes() == before, "a disk that waits is not written to"

    order = Order(cluster_id=toy.folder.cluster.id, number=int(time.time()), blades=(WEB.name,))
    OrderBook(toy.depot.path).add(sign_order(order, toy.secret_key), order)
    machine.wait_for("step partition: Partition the disk", TIMEOUT_S)
    machine.wait_until_ended(TIMEOUT_S)
    with open_disk(disk) as opened:
        facts = read_boot_facts(opened)
    assert (facts.order, facts.serial, facts.slot) == (order.number, 1, "a")

    machine = start_agent(room, toy, "bladeroot.why=order")
    machine.wait_until_ended(TIMEOUT_S)
    assert "/dev/vda has generation 1: nothing to do but to boot it" in machine.read_console()
    assert "step partition" not in machine.read_console(), "told again, it does nothing"

    assert "ext4" in heard.of(Held)[0].reason
    assert heard.of(HardwareFound)
    first, second = heard.of(Finished, at_least=2)
    assert first.facts["order"] == second.facts["order"] == order.number
    assert 0 < first.facts["memory_peak_bytes"] < MOST_MEMORY_BYTES
    assert [event.step for event in heard.of(StepStarted)].count("commit") == 1
