"""The power goes at steps of the agent: on an empty disk, and in the middle of a reimage.

A machine is cut off at a step, switched on again, and cut off at another. The steps come from the agent's
own table: a few of them, and with `--every-step` all, as tests/system/test_blade_cuts.py always does with
blades that are processes. (QEMU is killed: what it wrote is in the host's memory, so this is no model of a
disk that loses what it had promised to keep.)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from bladeroot.agent.steps import AFTER, BEFORE, list_step_names
from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.disklayout import Use
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.esp import read_boot_facts, write_boot_facts
from bladeroot.lab.power import VmBlade
from bladeroot.lab.qemu import VirtualMachine
from bladeroot.lab.vmroom import VmRoom
from bladeroot.ops.install import apply_install, choose_install_disk, plan_install
from bladeroot.ops.sources import DepotSource
from tests.blankdisks import mounted_data
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster
from tests.vm.harness import (
    BLADES,
    TIMEOUT_S,
    needs_room,
    prepare_agent,
    read_booted,
)

pytestmark = needs_room

BLADE = BLADES[0]
LOOKING = [step.name for step in BEFORE]
CUT_AT = [name for name in list_step_names() if name not in LOOKING]
ON_EMPTY, IN_REIMAGE = CUT_AT[1::6], CUT_AT[4::6]
"""While the disk is cut, and when it is all but done: before it boots and after; the others in between."""
PRECIOUS = b"what must survive\n"
BROKEN = r"^.*(?:Kernel panic|bladeroot: FAILED).*$"


@pytest.fixture
def blade(room: VmRoom, toy: ToyCluster) -> VmBlade:
    """A machine with an empty disk, in a room with a root."""
    room.wait_for_root(room.start_root(toy.folder.path, toy.depot.path))
    return room.add_blade(BLADE, disk_size_bytes=DISK_SIZE_BYTES)


def install_here(toy: ToyCluster, blade: VmBlade) -> None:
    source, keys, cluster = DepotSource(toy.depot), toy.folder.trusted_keys(), toy.folder.cluster.id
    signed = source.read_manifest()
    disk = choose_install_disk(signed, keys, cluster, blade.name, blade.disk)
    with open_disk(disk.path) as opened:
        apply_install(plan_install(signed, keys, cluster, blade.name, disk, opened), opened, source)


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
    """With nobody's help."""
    machine = blade.power_on("disk")
    assert read_booted(machine, fails_on=BROKEN)["hostname"] == blade.name
    machine.wait_until_ended(TIMEOUT_S)


def choose_steps(config: pytest.Config, own: list[str]) -> list[str]:
    return CUT_AT if config.getoption("every_step") else own


def cut_at_each(
    steps: list[str], blade: VmBlade, toy: ToyCluster, start: Callable[[], VirtualMachine]
) -> int:
    """Each order is a new one, since tries of one order are capped; the number of the last is returned."""
    verified = BootFacts()
    for number, step in enumerate(steps, start=1):
        toy.give_order(number, BLADE.name)
        start().wait_for(f"bladeroot: step {step}:", TIMEOUT_S, fails_on=BROKEN)
        blade.cut_power()
        facts = read_facts(blade)
        if facts.slot is not None and facts != verified:
            check_boots(blade)
            verified = facts
    return len(steps)


def check_is_done(blade: VmBlade, order: int) -> None:
    blade.machine.wait_for("is installed on /dev/vda", TIMEOUT_S, fails_on=BROKEN)
    blade.machine.wait_until_ended(TIMEOUT_S)
    facts = read_facts(blade)
    assert (facts.order, facts.serial, facts.slot) == (order, 1, Use.SLOT_A)
    check_boots(blade)


def test_an_empty_disk_whose_machine_is_cut_off_again_and_again(
    blade: VmBlade, toy: ToyCluster, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    agent = prepare_agent(toy, tmp_path)
    before = blade.disk.stat().st_mtime_ns
    for looking in LOOKING:
        blade.power_on(kernel=agent).wait_for(f"bladeroot: step {looking}:", TIMEOUT_S, fails_on=BROKEN)
    assert blade.disk.stat().st_mtime_ns == before, "looking wrote to the disk"
    blade.cut_power()
    steps = choose_steps(pytestconfig, ON_EMPTY)
    last = cut_at_each(steps, blade, toy, lambda: blade.power_on(kernel=agent)) + 1
    toy.give_order(last, BLADE.name)
    blade.power_on(kernel=agent, reboots=False)
    check_is_done(blade, last)


def test_a_reimage_whose_machine_is_cut_off_again_and_again(
    blade: VmBlade, toy: ToyCluster, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The agent comes from the blade's own disk, and `data` stays."""

    def start() -> VirtualMachine:
        tell_grub_to_start_agent(blade)
        return blade.power_on("disk")

    install_here(toy, blade)
    with mounted_data(blade.disk, tmp_path / "data") as data:
        (data / "precious").write_bytes(PRECIOUS)
    last = cut_at_each(choose_steps(pytestconfig, IN_REIMAGE), blade, toy, start) + 1
    toy.give_order(last, BLADE.name)
    start()
    check_is_done(blade, last)
    with mounted_data(blade.disk, tmp_path / "data") as data:
        assert (data / "precious").read_bytes() == PRECIOUS


def test_what_is_cut_at() -> None:
    assert (*LOOKING, *CUT_AT) == list_step_names()
    assert not set(ON_EMPTY) & set(IN_REIMAGE)
    assert CUT_AT[-1] == AFTER[-1].name
    assert {"partition", "format", "commit", "depot"} <= set(CUT_AT)
