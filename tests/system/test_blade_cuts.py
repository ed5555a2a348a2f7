"""The power goes at each step of the agent: on an empty disk, and in the middle of a reimage.

A blade is cut off at a step, switched on again, and cut off at the next. The steps come from the agent's own
table. (tests/vm/test_power_cut.py does some of it with machines.)
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.agent.steps import AFTER, BEFORE, list_step_names
from bladeroot.events import ignore
from bladeroot.host.blockdev import open_disk
from bladeroot.lab.blade import ProcessBlade
from bladeroot.lab.network import start_network
from bladeroot.lab.room import open_room
from bladeroot.ops import install
from bladeroot.ops.ownboot import start_agent_next
from tests.blankdisks import mounted_data, needs_loop_devices
from tests.system.test_blade import count_steps
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster, make_toy_cluster

pytestmark = [pytest.mark.system, needs_loop_devices]

NAME = "web01"
OF_MACHINES = {"pre-install", *(step.name for step in AFTER if step.changes_machine)}
"""Left out where the agent is a process on another machine."""
CUT_AT = [name for name in list_step_names() if name not in {*(step.name for step in BEFORE), *OF_MACHINES}]
PRECIOUS = b"what must survive\n"
TIMEOUT_S = 300.0


@pytest.fixture
def toy(tmp_path: Path) -> ToyCluster:
    return make_toy_cluster(tmp_path / "toy")


@pytest.fixture
def blade(toy: ToyCluster, tmp_path: Path) -> Iterator[ProcessBlade]:
    """Off, with an empty disk, in a room with a root."""
    with start_network("cuts") as network, open_room(network, toy.folder.path, tmp_path, ignore) as room:
        blade = room.add_blade(NAME, DISK_SIZE_BYTES)
        root = room.start_root(toy.depot.path)
        yield blade
        blade.cut_power()
        root.stop()


def wait_for_step(blade: ProcessBlade, step: str, times: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while count_steps(blade, step) < times:
        assert time.monotonic() < deadline, f"{step} did not begin: {blade.log}"
        time.sleep(0.02)


def start_agent(blade: ProcessBlade) -> None:
    """What the daemon of a blade does that hears of an order; without a system it comes by itself."""
    if blade.facts().slot is not None:
        with open_disk(blade.disk) as disk:
            start_agent_next(disk)
    blade.power_on()


def cut_at_each(blade: ProcessBlade, toy: ToyCluster) -> int:
    """Each order is a new one, since tries of one order are capped; the number of the last is returned."""
    for number, step in enumerate(CUT_AT, start=1):
        toy.give_order(number, NAME)
        begun = count_steps(blade, step)
        start_agent(blade)
        wait_for_step(blade, step, begun + 1)
        blade.cut_power()
        check_disk(blade)
    return len(CUT_AT)


def check_disk(blade: ProcessBlade) -> None:
    """What it boots, if anything, is whole."""
    facts = blade.facts()
    if facts.slot is not None:
        told = blade.installed()
        assert (told["blade"], told["serial"], told["order"] or 0) == (NAME, facts.serial, facts.order)


def finish(blade: ProcessBlade, toy: ToyCluster, order: int) -> None:
    toy.give_order(order, NAME)
    start_agent(blade)
    blade.wait_until_up(1, TIMEOUT_S)
    facts = blade.facts()
    assert (facts.serial, facts.order) == (1, order)
    blade.cut_power()
    check_disk(blade)


def test_an_empty_disk_that_is_cut_off_at_each_step(blade: ProcessBlade, toy: ToyCluster) -> None:
    last = cut_at_each(blade, toy)
    finish(blade, toy, last + 1)


def test_a_reimage_that_is_cut_off_at_each_step(blade: ProcessBlade, toy: ToyCluster, tmp_path: Path) -> None:
    blade.power_on()
    blade.wait_until_up(1, TIMEOUT_S)
    blade.cut_power()
    with mounted_data(blade.disk, tmp_path / "data") as data:
        (data / "precious").write_bytes(PRECIOUS)
    last = cut_at_each(blade, toy)
    finish(blade, toy, last + 1)
    with mounted_data(blade.disk, tmp_path / "data") as data:
        assert (data / "precious").read_bytes() == PRECIOUS


def test_every_step_of_an_install_is_cut_at() -> None:
    assert CUT_AT[0] == install.STEPS[0][0]
    assert CUT_AT[-1] == AFTER[-1].name
