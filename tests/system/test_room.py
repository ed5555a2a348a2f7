"""A root and its blades on one network, each the real command in a namespace of its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bladeroot.core.cluster import MIB
from bladeroot.core.manifest import ArtefactKind
from bladeroot.core.roomstate import BladePhase, RoomState
from bladeroot.events import Event, Finished, Progress, StepFinished, StepStarted, SwarmStats
from bladeroot.host.depot import Depot
from bladeroot.host.run import Completed, run
from bladeroot.lab.network import LabNetwork, start_network
from bladeroot.lab.room import ROOT_HOST, open_room
from tests.system.test_install import find_differences, look_into
from tests.toycluster import BLADES, DISK_SIZE_BYTES, ToyCluster, make_toy_cluster

pytestmark = pytest.mark.system

_TIMEOUT_S = 300.0
_BULK_BYTES = 48 * MIB
_LINK_BITS = 60_000_000


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    toy = make_toy_cluster(tmp_path_factory.mktemp("toy"))
    (toy.snapshot / "usr/bulk").write_bytes(os.urandom(_BULK_BYTES))
    toy.publish()
    return toy


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("room") as network:
        yield network


def run_bladeroot(network: LabNetwork, host: str, toy: ToyCluster, *argv: str) -> Completed:
    command = [sys.executable, "-m", "bladeroot", "--json", "--cluster", str(toy.folder.path), *argv]
    return run(network.host(host).command(command), check=False, timeout_s=_TIMEOUT_S)


def read_error(completed: Completed) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(completed.stderr.strip().splitlines()[-1])
    assert error["exit_code"] == completed.code
    return error


def test_blades_install_from_the_root_and_from_each_other(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    room_state = RoomState.of(BLADES)
    heard: list[Event] = []
    with open_room(network, toy.folder.path, tmp_path, heard.append) as room:
        root = room.start_root(toy.depot.path)
        for blade in BLADES:
            room.start_blade(blade, DISK_SIZE_BYTES, extra=["--linger"])
        finished = room.wait_for_blades(root, _TIMEOUT_S)
        given = root.stop()["given"]
        status = [blade.has_ended for blade in room.blades.values()]
    assert status == [False] * len(BLADES), "a blade did not linger"
    assert set(finished) == set(BLADES)
    for event in heard:
        room_state = room_state.with_event(event)
    assert room_state.count(BladePhase.FINISHED) == len(BLADES)
    newest = toy.depot.serials()[-1]
    for blade in BLADES:
        with look_into(room.disk(blade), tmp_path) as slot:
            assert find_differences(toy, slot) == []
            told = json.loads((slot / "etc/bladeroot/installed.json").read_text())
            assert (told["blade"], told["serial"]) == (blade, newest)
    stats = [
        event for event in heard if isinstance(event, SwarmStats) and event.artefact == ArtefactKind.RUNTIME
    ]
    from_others = sum(
        max(one.down_bytes - one.from_root_bytes for one in stats if one.subject == blade) for blade in BLADES
    )
    runtime = given[ArtefactKind.RUNTIME]
    assert from_others > 0, "everything came from the root"
    assert runtime["up_bytes"] < len(BLADES) * runtime["size_bytes"]


def test_a_blade_that_has_begun_ends_without_the_root(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    first, second = BLADES[:2]
    with open_room(network, toy.folder.path, tmp_path, lambda _event: None) as room:
        begun = threading.Event()

        def hear(event: Event) -> None:
            if isinstance(event, StepStarted) and (event.subject, event.step) == (second, "partition"):
                begun.set()

        room._reporter = hear
        root = room.start_root(toy.depot.path)
        room.start_blade(first, DISK_SIZE_BYTES, extra=["--linger"])
        room.wait_for_blades(root, _TIMEOUT_S)
        blade = room.start_blade(second, DISK_SIZE_BYTES)
        assert begun.wait(_TIMEOUT_S)
        root.kill()
        assert blade.wait(_TIMEOUT_S)["serial"] == toy.depot.serials()[-1]
    with look_into(room.disk(second), tmp_path) as slot:
        assert find_differences(toy, slot) == []


def test_another_root_takes_over_in_the_midst(toy: ToyCluster, network: LabNetwork, tmp_path: Path) -> None:
    """It holds what the first held, at another address; blades go on with the pieces that they have."""
    begun = threading.Event()
    heard: list[Event] = []

    def hear(event: Event) -> None:
        heard.append(event)
        if isinstance(event, Progress) and event.step == ArtefactKind.RUNTIME and event.done > 0:
            begun.set()

    shutil.copytree(toy.depot.path, tmp_path / "copy")
    with open_room(network, toy.folder.path, tmp_path, hear, link_bits=_LINK_BITS) as room:
        root = room.start_root(toy.depot.path)
        for blade in BLADES:
            room.start_blade(blade, DISK_SIZE_BYTES, extra=["--linger"])
        assert begun.wait(_TIMEOUT_S)
        root.kill()
        assert not [event for event in heard if isinstance(event, Finished)], "too late to be in the midst"
        heard.clear()
        other = room.start_root(tmp_path / "copy", name="other")
        finished = room.wait_for_blades(other, _TIMEOUT_S)
        for blade in BLADES:
            assert room.blades[blade].stop()["serial"] == finished[blade]["serial"]
        other.stop()
    assert set(finished) == set(BLADES)
    assert {event.subject for event in heard if isinstance(event, StepFinished)} == set(BLADES)
    for blade in BLADES:
        notes = [str(event["text"]) for event in read_log(tmp_path, blade) if event["event"] == "Note"]
        assert sum("the root does not answer" in text for text in notes) == 1
        assert sum("following another root now" in text for text in notes) == 1
        steps = [event["step"] for event in read_log(tmp_path, blade) if event["event"] == "StepStarted"]
        assert len(steps) == len(set(steps)), "nothing was begun again"
        with look_into(room.disk(blade), tmp_path) as slot:
            assert find_differences(toy, slot) == []


def test_all_finish_without_any_root_once_one_copy_is_out(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    *quick, slow = BLADES
    has_all = threading.Event()
    have_runtime: set[str] = set()

    def hear(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == ArtefactKind.RUNTIME:
            have_runtime.add(event.subject)
        if isinstance(event, Finished) and event.subject:
            has_all.set()

    with open_room(network, toy.folder.path, tmp_path, hear, link_bits=_LINK_BITS) as room:
        root = room.start_root(toy.depot.path)
        for blade in BLADES:
            room.start_blade(blade, DISK_SIZE_BYTES, extra=["--linger"])
        network.shape(slow, _LINK_BITS // 3)
        assert has_all.wait(_TIMEOUT_S)
        root.kill()
        assert slow not in have_runtime, "too late to be in the midst"
        for blade in BLADES:
            room.blades[blade].wait_for_finish(_TIMEOUT_S)
        assert [blade for blade in quick if room.blades[blade].has_ended] == []
        for blade in BLADES:
            room.blades[blade].stop()
    for blade in BLADES:
        with look_into(room.disk(blade), tmp_path) as slot:
            assert find_differences(toy, slot) == []


def read_log(work: Path, host: str) -> list[dict[str, Any]]:
    """What the room's process of that name has said."""
    lines = (work / "logs" / f"{host}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_no_root_is_one_line_that_says_where_was_looked(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    host = network.add_host("web01")
    disk = toy.make_disk(tmp_path / "disk")
    completed = run_bladeroot(
        network, "web01", toy, "install", "--blade", "web01", "--disk", str(disk), "--yes", "--wait", "2"
    )
    error = read_error(completed)
    assert completed.code == 31
    assert f"eth0 ({host.address})" in error["error"]
    assert "heard nobody" in error["error"]
    assert disk.read_bytes() == bytes(DISK_SIZE_BYTES)


def test_a_port_that_is_taken_is_one_line(toy: ToyCluster, network: LabNetwork, tmp_path: Path) -> None:
    with open_room(network, toy.folder.path, tmp_path, lambda _event: None) as room:
        root = room.start_root(toy.depot.path)
        network.add_host("other")
        client = ["status", "--root", network.host(ROOT_HOST).address]
        while run_bladeroot(network, "other", toy, *client).code != 0:
            assert not root.has_ended
        argv = ["--depot", str(toy.depot.path), "promote", "--blade", "second"]
        error = read_error(run_bladeroot(network, ROOT_HOST, toy, *argv))
        root.stop()
    assert error["exit_code"] == 32
    assert "7474" in error["error"]


def test_a_depot_without_a_generation_cannot_be_root_with(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    network.add_host("empty")
    Depot.create(tmp_path / "depot")
    completed = run_bladeroot(
        network, "empty", toy, "--depot", str(tmp_path / "depot"), "promote", "--blade", "x"
    )
    assert completed.code == 22
    assert "publish" in read_error(completed)["hint"]


def test_publishing_and_promoting_in_one_go(toy: ToyCluster, network: LabNetwork, tmp_path: Path) -> None:
    publish = ["--publish", str(toy.snapshot), "--key", str(toy.key_path)]
    with open_room(network, toy.folder.path, tmp_path, lambda _event: None) as room:
        root = room.start_root(tmp_path / "depot", publish)
        room.start_blade(BLADES[0], DISK_SIZE_BYTES)
        facts = room.wait_for_blades(root, _TIMEOUT_S)[BLADES[0]]
        root.stop()
    assert facts["serial"] == 1
    assert Depot(tmp_path / "depot").serials() == [1]


def test_a_root_on_any_free_port_is_found(toy: ToyCluster, network: LabNetwork, tmp_path: Path) -> None:
    with open_room(network, toy.folder.path, tmp_path, lambda _event: None) as room:
        root = room.start_root(toy.depot.path, ["--port", "0"])
        room.start_blade(BLADES[0], DISK_SIZE_BYTES)
        facts = room.wait_for_blades(root, _TIMEOUT_S)[BLADES[0]]
        root.stop()
    assert facts["serial"] == toy.depot.serials()[-1]
