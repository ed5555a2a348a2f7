"""Process blades: machines with disks of their own, which install themselves, boot, and are switched off."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from bladeroot.core.agentdecision import Why
from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import Use
from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.events import Booted, Note, StepStarted, ignore
from bladeroot.host.blockdev import open_disk
from bladeroot.host.esp import ensure_grubenv, read_boot_facts, write_boot_facts
from bladeroot.host.espagent import write_agent
from bladeroot.host.loopdev import find_loops
from bladeroot.host.run import PIPE, run, start_process
from bladeroot.lab.blade import ProcessBlade
from bladeroot.lab.bladeprocess import Start, choose_start
from bladeroot.lab.network import LabNetwork, start_network
from bladeroot.lab.room import ROOT_HOST, Room, open_room
from bladeroot.ops.ownboot import start_agent_next
from tests.blankdisks import cut_disk, make_disk, plan_install
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster, make_toy_cluster

pytestmark = pytest.mark.system

_TIMEOUT_S = 300.0
_OPERATOR = "operator"


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    return make_toy_cluster(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("blade") as network:
        yield network


@contextmanager
def opened_room(network: LabNetwork, toy: ToyCluster, work: Path) -> Iterator[Room]:
    with open_room(network, toy.folder.path, work, ignore) as room:
        yield room


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def list_starts(blade: ProcessBlade) -> list[str]:
    """What it did since its first power-on: `system` for a boot, `commit` for an install."""
    did = []
    for event in blade.events():
        if isinstance(event, Booted):
            did.append("system")
        elif isinstance(event, StepStarted) and event.step == "commit":
            did.append("commit")
    return did


def read_slot_facts(blade: ProcessBlade) -> tuple[Use | None, int, bool]:
    facts: BootFacts = blade.facts()
    return facts.slot, facts.serial, facts.next_agent


def test_a_blade_installs_itself_and_boots_alone_from_then_on(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    with opened_room(network, toy, tmp_path) as room:
        first, second = room.add_blade("web02", DISK_SIZE_BYTES), room.add_blade("web01", DISK_SIZE_BYTES)
        assert (first.parts.host.address, second.parts.host.address) == ("10.77.0.12", "10.77.0.11")
        assert (first.is_on, first.facts(), first.installed()) == (False, BootFacts(), {})
        with pytest.raises(ClaimNotHeldError, match="web02 has no power"):
            first.wait_until_up(1, 1.0)
        root = room.start_root(toy.depot.path)
        for blade in (first, second):
            blade.power_on()
        with pytest.raises(UsageError, match="web01 is on already"):
            second.power_on()
        for blade in (first, second):
            blade.wait_until_up(1, _TIMEOUT_S)
        assert read_slot_facts(first) == (Use.SLOT_A, 1, False)
        told = first.installed()
        assert (told["blade"], told["serial"], told["extras"]) == ("web02", 1, True)
        first.cut_power()
        assert (first.is_on, first.serial, second.is_on, second.serial) == (False, 0, True, 1)
        assert read_slot_facts(first) == (Use.SLOT_A, 1, False)
        assert first.installed() == told
        root.kill()
        first.power_on()
        first.wait_until_up(1, _TIMEOUT_S)
        assert list_starts(first) == ["commit", "system", "system"]
        assert list_starts(second) == ["commit", "system"]
        first.cut_power()
        first.replace_disk()
        assert (first.facts(), first.installed()) == (BootFacts(), {})
    assert not any(find_loops(blade.disk) for blade in (first, second))


def test_an_order_makes_it_restart_into_the_agent_which_carries_it_out_once(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    with opened_room(network, toy, tmp_path) as room:
        blade = room.add_blade("web01", DISK_SIZE_BYTES)
        root = room.start_root(toy.depot.path)
        blade.power_on()
        blade.wait_until_up(1, _TIMEOUT_S)
        operator = network.add_host(_OPERATOR)
        argv = ["--cluster", str(toy.folder.path), "reimage", "web01", "--yes", "--key", str(toy.key_path)]
        argv += ["--root", f"{network.host(ROOT_HOST).address}:7474"]
        said = run(operator.command([sys.executable, "-m", "bladeroot", "--json", *argv]), check=False)
        assert said.code == 0, said.stderr
        wait_for(lambda: list_starts(blade) == ["commit", "system", "commit", "system"], str(blade.log))
        facts = blade.facts()
        assert facts.order > 0
        assert not facts.next_agent
        blade.cut_power()
        blade.power_on()
        blade.wait_until_up(1, _TIMEOUT_S)
        assert list_starts(blade) == ["commit", "system", "commit", "system", "system"]
        assert blade.facts().order == facts.order
        root.stop()


def test_the_agent_is_started_only_once_and_gives_back_what_boots(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    """As GRUB does: the root has no order for it, and the disk has all of the newest generation."""
    with opened_room(network, toy, tmp_path) as room:
        blade = room.add_blade("web01", DISK_SIZE_BYTES)
        root = room.start_root(toy.depot.path)
        blade.power_on()
        blade.wait_until_up(1, _TIMEOUT_S)
        blade.cut_power()
        with open_disk(blade.disk) as disk:
            start_agent_next(disk)
        assert blade.facts().next_agent
        blade.power_on()
        wait_for(lambda: count_steps(blade, "decide") == 2, "the agent did not look at the disk")
        assert not blade.facts().next_agent
        blade.wait_until_up(1, _TIMEOUT_S)
        assert list_starts(blade) == ["commit", "system", "system"]
        root.stop()


def count_steps(blade: ProcessBlade, step: str) -> int:
    return sum(isinstance(event, StepStarted) and event.step == step for event in blade.events())


def test_one_behind_a_router_follows_the_root_that_it_is_told(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    with opened_room(network, toy, tmp_path) as room:
        network.add_segment("far", "10.80.0.0/24")
        root = room.start_root(toy.depot.path)
        address = f"{network.host(ROOT_HOST).address}:7474"
        blade = room.add_blade("web03", DISK_SIZE_BYTES, root=address, segment="far")
        assert blade.parts.host.address == "10.80.0.13"
        blade.power_on()
        blade.wait_until_up(1, _TIMEOUT_S)
        following = Note(text=f"following the root at {address}")
        wait_for(lambda: following in blade.events(), "its daemon follows no root")
        root.stop()


def test_what_is_started_is_what_grub_would_start(tmp_path: Path) -> None:
    layout = Layout(esp_size_bytes=40 * MIB, slot_size_bytes=8 * MIB, data_min_size_bytes=4 * MIB)
    boots = BootFacts(slot=Use.SLOT_A, serial=7)
    with open_disk(make_disk(tmp_path / "disk.img", 64 * MIB)) as disk:
        assert choose_start(disk) == Start(None, Why.UNKNOWN)
        cut_disk(disk, plan_install(disk, layout))
        ensure_grubenv(disk)
        assert choose_start(disk) == Start(None, Why.UNKNOWN)
        write_boot_facts(disk, attrs.evolve(boots, next_agent=True))
        assert choose_start(disk) == Start(Use.SLOT_A), "a disk without an agent was to start it"
        assert read_boot_facts(disk) == boots
        (tmp_path / "kernel").write_bytes(b"kernel")
        write_agent(disk, [tmp_path / "kernel"], [tmp_path / "kernel"], "")
        assert choose_start(disk) == Start(Use.SLOT_A)
        write_boot_facts(disk, attrs.evolve(boots, next_agent=True))
        assert [choose_start(disk) for _ in range(2)] == [Start(None, Why.DISK), Start(Use.SLOT_A)]
        write_boot_facts(disk, boots.when_released())
        assert choose_start(disk) == Start(None, Why.DISK)


def test_a_disk_that_somebody_else_has_hangs_the_machine_and_says_so(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    with opened_room(network, toy, tmp_path) as room:
        blade = room.add_blade("web01", DISK_SIZE_BYTES)
        with open_disk(blade.disk):
            blade.power_on()
            with pytest.raises(
                ClaimNotHeldError, match=r"web01 has no power, or hangs; .* is being installed on"
            ):
                blade.wait_until_up(1, _TIMEOUT_S)
        blade.cut_power()
        assert not blade.is_on
        assert blade.facts() == BootFacts()


_LAB = """
import json, sys, time
from pathlib import Path
from bladeroot.events import ignore
from bladeroot.lab.network import start_network
from bladeroot.lab.room import open_room
cluster, depot, work, size = sys.argv[1:]
with start_network("gone") as network, open_room(network, Path(cluster), Path(work), ignore) as room:
    blades = [room.add_blade(name, int(size)) for name in ("web01", "web02")]
    room.start_root(Path(depot))
    blades[0].power_on()
    blades[0].wait_until_up(1, 300.0)
    blades[1].power_on()
    while not any(getattr(event, "step", "") == "runtime" for event in blades[1].events()):
        time.sleep(0.1)
    print(json.dumps([network.name, *(str(blade.disk) for blade in blades)]), flush=True)
    time.sleep(600)
"""


def test_nothing_is_left_of_a_room_whose_process_was_killed(toy: ToyCluster, tmp_path: Path) -> None:
    """One blade runs its system then, one is in the middle of its install."""
    argv = [toy.folder.path, toy.depot.path, tmp_path, str(DISK_SIZE_BYTES)]
    with start_process([sys.executable, "-c", _LAB, *map(str, argv)], stdout=PIPE) as lab:
        assert lab.stdout is not None
        name, *disks = json.loads(lab.stdout.readline())
        namespaces = list(Path("/run/netns").glob(f"{name}-*"))
        assert len(namespaces) == 4
        assert [len(find_loops(Path(disk))) for disk in disks] == [1, 1]
        inside = [
            run(["ip", "netns", "pids", f"{name}-{blade}"]).stdout.split() for blade in ("web01", "web02")
        ]
        os.kill(lab.pid, signal.SIGKILL)
        wait_for(lambda: not list(Path("/run/netns").glob(f"{name}-*")), "namespaces are left")
        wait_for(lambda: not any(find_loops(Path(disk)) for disk in disks), "loop devices are left")
        wait_for(lambda: not find_users(tmp_path), "processes are left")
    assert all(inside)
    assert [path.name for path in (tmp_path / "machines").glob("*/scratch/*")] == []


def find_users(folder: Path) -> list[str]:
    """The processes whose command line names something of the folder, but for the lab's own."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words and str(os.getpid()) != path.parent.name:
            found.append(words)
    return found
