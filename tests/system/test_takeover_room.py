"""Rooms whose roots die and whose networks break: the scenarios of `bladeroot lab run`, as tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bladeroot.core.cluster import MIB
from bladeroot.events import Note, RoleChanged, ignore
from bladeroot.lab.blade import ProcessBlade
from bladeroot.lab.network import start_network
from bladeroot.lab.room import open_room
from bladeroot.lab.smallcluster import SmallClusterOptions, prepare_small_cluster
from bladeroot.lab.soakscenario import SoakOptions, run_soak
from bladeroot.lab.splitscenario import SplitOptions, run_split
from bladeroot.lab.takeoverscenario import TakeoverOptions, run_takeover

pytestmark = pytest.mark.system

_TIMEOUT_S = 300.0


def test_all_finish_though_the_root_dies_three_times_in_mid_swarm(tmp_path: Path) -> None:
    report = run_takeover(tmp_path, TakeoverOptions(blades=12, seed=1), ignore)
    assert len(report.blades) == 12
    assert [death.blade for death in report.deaths[1:]] == [death.next_root for death in report.deaths[:-1]]
    assert all(0 < death.fetched < 1 and death.takeover_s > 0 for death in report.deaths)
    assert [death.fetched for death in report.deaths] == sorted(death.fetched for death in report.deaths)
    assert report.last_root == report.deaths[-1].next_root


def test_all_finish_without_a_root_where_nobody_may_take_over(tmp_path: Path) -> None:
    options = TakeoverOptions(blades=5, seed=1, manual=True, bulk_bytes=16 * MIB)
    report = run_takeover(tmp_path, options, ignore)
    assert [(death.next_root, death.fetched < 1) for death in report.deaths] == [("", True)]
    assert report.last_root == "blade02"


def test_a_split_network_has_two_roots_and_one_when_it_is_joined(tmp_path: Path) -> None:
    report = run_split(tmp_path, SplitOptions(blades=4), ignore)
    assert {report.root_before} < set(report.halves[0])
    assert report.second_root in report.halves[1]
    assert any("two different generations 3" in said for said in report.twins_said)
    assert any("both are kept" in said for said in report.twins_said)


def test_whatever_happens_every_disk_boots_or_is_being_installed(tmp_path: Path) -> None:
    report = run_soak(tmp_path, SoakOptions(blades=5, seconds=60, seed=3), ignore)
    assert report.disks_looked_at > 5 * len(report.blades)
    assert report.serial > 1
    assert {what for what in report.happened if what.startswith("power cuts")}


def test_blades_behind_a_router_install_from_the_root_that_cluster_toml_names(tmp_path: Path) -> None:
    """No multicast gets there; the root of the first segment is a blade."""
    options = SmallClusterOptions(blades=3, bulk_bytes=4 * MIB, roots=["10.77.0.11:7474"])
    cluster = prepare_small_cluster(tmp_path, options)
    near, *far = cluster.blades
    with (
        start_network("routed") as network,
        open_room(network, cluster.folder.path, tmp_path, ignore) as room,
    ):
        network.add_segment("far", "10.78.0.0/24")
        operator = room.start_root(cluster.depot.path)
        first = room.add_blade(near, cluster.disk_size_bytes)
        first.power_on()
        first.wait_until_up(1, _TIMEOUT_S)
        wait_for(lambda: 1 in first.held_generations(), "it cannot be root")
        operator.stop()
        others = [
            room.add_blade(name, cluster.disk_size_bytes, f"10.78.0.{number}", segment="far")
            for number, name in enumerate(far, start=11)
        ]
        for blade in others:
            blade.power_on()
        for blade in others:
            blade.wait_until_up(1, _TIMEOUT_S)
        wait_for(lambda: all(1 in blade.held_generations() for blade in others), "they lack their depot")
        assert [list_roles(blade) for blade in (first, *others)] == [["candidate", "root"], [], []]
        assert all("following the root at 10.77.0.11:7474" in list_notes(blade) for blade in others)


def list_roles(blade: ProcessBlade) -> list[str]:
    return [event.role for event in blade.events() if isinstance(event, RoleChanged)]


def list_notes(blade: ProcessBlade) -> list[str]:
    return [event.text for event in blade.events() if isinstance(event, Note)]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)
