"""The power goes at each step of the agent: on an empty disk, and in the middle of a reimage.

One machine after the other is cut off at a step, switched on again, and cut off at the next. The steps come
from the agent's own table. (QEMU is killed: what it wrote is in the host's memory, so this is no model of a
disk that loses what it had promised to keep.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest
from attrs import frozen

from bladeroot.agent.steps import AFTER, BEFORE, list_step_names
from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.disklayout import DATA_LABEL, Use
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.esp import read_boot_facts, write_boot_facts
from bladeroot.host.mounts import mounted
from bladeroot.lab.power import VmBlade
from bladeroot.lab.qemuplan import Kernel
from bladeroot.lab.vmroom import open_vm_room
from bladeroot.ops.install import apply_install, choose_install_disk, plan_install
from bladeroot.ops.sources import DepotSource
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster
from tests.vm.harness import (
    BLADES,
    TIMEOUT_S,
    give_order,
    needs_room,
    prepare_agent,
    read_booted,
    with_own_depot,
)

pytestmark = needs_room

EMPTY, OLD = BLADES[0], BLADES[1]
LOOKING = [step.name for step in BEFORE]
CUT_AT = [name for name in list_step_names() if name not in LOOKING]
PRECIOUS = b"what must survive\n"
BROKEN = r"^.*(?:Kernel panic|bladeroot: FAILED).*$"


@frozen
class Room:
    """A root, and two machines: one with an empty disk, one that was installed long ago."""

    toy: ToyCluster
    empty: VmBlade
    old: VmBlade
    agent: Kernel


@pytest.fixture
def room(toys: ToyCluster, tmp_path: Path) -> Iterator[Room]:
    toy = with_own_depot(toys, tmp_path / "depot")
    with open_vm_room(tmp_path / "room") as room:
        room.wait_for_root(room.start_root(toy.folder.path, toy.depot.path))
        empty, old = (room.add_blade(blade, disk_size_bytes=DISK_SIZE_BYTES) for blade in (EMPTY, OLD))
        install_here(toy, old)
        with data_of(old, tmp_path) as data:
            (data / "precious").write_bytes(PRECIOUS)
        yield Room(toy, empty, old, prepare_agent(toy, tmp_path))


def install_here(toy: ToyCluster, blade: VmBlade) -> None:
    source, keys, cluster = DepotSource(toy.depot), toy.folder.trusted_keys(), toy.folder.cluster.id
    signed = source.read_manifest()
    disk = choose_install_disk(signed, keys, cluster, blade.name, blade.disk)
    with open_disk(disk.path) as opened:
        apply_install(plan_install(signed, keys, cluster, blade.name, disk, opened), opened, source)


@contextmanager
def data_of(blade: VmBlade, work: Path) -> Iterator[Path]:
    with open_disk(blade.disk) as disk:
        table = read_table(disk)
        assert table is not None
        number = next(part.number for part in table.partitions if part.label == DATA_LABEL)
        with mounted(disk.partition(number), work / "data") as data:
            yield data


def read_facts(blade: VmBlade) -> BootFacts:
    with open_disk(blade.disk) as disk:
        return read_boot_facts(disk) if read_table(disk) else BootFacts()


def tell_grub_to_start_agent(blade: VmBlade) -> None:
    """What the daemon of a blade does that hears of an order."""
    with open_disk(blade.disk) as disk:
        facts = read_boot_facts(disk)
        if facts.slot is not None:
            write_boot_facts(disk, attrs.evolve(facts, next_agent=True))


def check_boots(blade: VmBlade) -> None:
    """With nobody's help, if it says that it can."""
    facts = read_facts(blade)
    if facts.slot is not None:
        machine = blade.power_on("disk")
        assert read_booted(machine, fails_on=BROKEN)["hostname"] == blade.name
        machine.wait_until_ended(TIMEOUT_S)
        assert facts.slot is Use.SLOT_A


def test_the_power_goes_at_every_step(room: Room, tmp_path: Path) -> None:
    """Each order is a new one, since tries of one order are capped; the last is left in peace."""
    numbers = itertools.count(1)
    before = {blade.name: blade.disk.stat().st_mtime_ns for blade in (room.empty, room.old)}
    verified: dict[str, BootFacts] = {}
    for step in CUT_AT:
        give_order(room.toy, next(numbers), EMPTY, OLD)
        tell_grub_to_start_agent(room.old)
        machines = [room.empty.power_on(kernel=room.agent), room.old.power_on("disk")]
        if step == CUT_AT[0]:
            for looking in LOOKING:
                machines[0].wait_for(f"bladeroot: step {looking}:", TIMEOUT_S, fails_on=BROKEN)
            assert room.empty.disk.stat().st_mtime_ns == before[EMPTY.name], "looking wrote to the disk"
        for machine in machines:
            machine.wait_for(f"bladeroot: step {step}:", TIMEOUT_S, fails_on=BROKEN)
        for blade in (room.empty, room.old):
            blade.cut_power()
            facts = read_facts(blade)
            if facts.slot is not None and verified.get(blade.name) != facts:
                check_boots(blade)
                verified[blade.name] = facts
    last = next(numbers)
    give_order(room.toy, last, EMPTY, OLD)
    tell_grub_to_start_agent(room.old)
    for machine in (room.empty.power_on(kernel=room.agent, reboots=False), room.old.power_on("disk")):
        machine.wait_for("is installed on /dev/vda", TIMEOUT_S, fails_on=BROKEN)
    room.empty.machine.wait_until_ended(TIMEOUT_S)
    room.old.machine.wait_until_ended(TIMEOUT_S)
    for blade in (room.empty, room.old):
        facts = read_facts(blade)
        assert (facts.order, facts.serial) == (last, 1)
        check_boots(blade)
    with data_of(room.old, tmp_path) as data:
        assert (data / "precious").read_bytes() == PRECIOUS


def test_every_step_is_cut_at() -> None:
    assert (*LOOKING, *CUT_AT) == list_step_names()
    assert CUT_AT[-1] == AFTER[-1].name
    assert {"partition", "format", "commit", "depot"} <= set(CUT_AT)
