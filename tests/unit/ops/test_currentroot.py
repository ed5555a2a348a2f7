"""A root that dies is replaced by another one, and whoever asked the first asks the second from then on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import attrs
import pytest

from bladeroot.core.roomstate import BladePhase
from bladeroot.core.torrentfile import parse_torrent
from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.events import Event, Finished, HardwareFound, Note, StepStarted, Warned
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from bladeroot.net.swarm import Swarm, settings
from bladeroot.ops import currentroot, sources
from bladeroot.ops.currentroot import CurrentRoot
from bladeroot.ops.reporting import RootReporter
from bladeroot.ops.sources import SwarmSource
from tests.swarmdata import TestArtefact, make_artefact
from tests.unit.ui.cli.test_status import CLAIM, View

TIMEOUT_S = 60.0
LOOPBACK = ("127.0.0.1",)


@attrs.define(eq=False)
class Seeder(View):
    """A root with one artefact, if it has any, in whose swarm its blade is at `port`."""

    artefact: TestArtefact | None = None
    port: int = 0

    def torrent(self, info_hash: str) -> bytes | None:
        if self.artefact is None or self.artefact.info_hash != info_hash:
            return None
        return self.artefact.torrent

    def swarm_port(self) -> int:
        return self.port


class Room:
    """Two roots, of which the second is found when `finds` is set; and what is told of it."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.events: list[Event] = []
        self.finds = threading.Event()
        self.rounds = 0
        self.first, self.second = self.serve(), self.serve()
        self.current = self.follow(self.first)

    def serve(self, view: View | None = None, port: int = 0) -> ControlServer:
        view = view or View()
        server = ControlServer(view, cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=port)
        return self._stack.enter_context(server)

    def follow(self, server: ControlServer) -> CurrentRoot:
        current = CurrentRoot(at(server), self.find, self.events.append, lambda _low, _high: 0.01)
        self._stack.callback(current.close)
        return current

    def find(self) -> RootClient:
        self.rounds += 1
        if not self.finds.is_set():
            raise NoRootFoundError("nobody")
        return at(self.second)

    def ask_until(self, is_so: Callable[[], bool]) -> None:
        def ask() -> bool:
            with suppress(NetworkError):
                self.current.claim()
            return is_so()

        wait_until(ask)

    @property
    def is_second_followed(self) -> bool:
        return self.current.client == at(self.second)


def at(server: ControlServer) -> RootClient:
    return RootClient("127.0.0.1", server.port)


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.fixture
def room() -> Iterator[Room]:
    with ExitStack() as stack:
        yield Room(stack)


def test_another_root_is_followed_and_each_turn_is_told_once(room: Room) -> None:
    changes: list[RootClient] = []
    room.current.on_change(changes.append)
    assert room.current.claim().port == room.first.port
    room.first.close()
    room.ask_until(lambda: room.rounds >= 3)
    (silent,) = room.events
    assert isinstance(silent, Note)
    assert f"127.0.0.1:{room.first.port}" in silent.text
    room.finds.set()
    room.ask_until(lambda: len(room.events) == 2)
    assert room.current.claim().port == room.second.port
    assert room.events[1] == Note(text=f"following another root now, at 127.0.0.1:{room.second.port}")
    assert changes == [at(room.second)]


def test_one_silence_is_no_death(room: Room) -> None:
    room.finds.set()
    port = room.first.port
    room.first.close()
    for _ in range(3):
        for _ in range(currentroot._PATIENCE - 1):
            with pytest.raises(NetworkError):
                room.current.claim()
        with room.serve(port=port):
            room.current.claim()
    assert (room.rounds, room.events) == (0, [])


def test_a_root_that_comes_back_is_stayed_with(room: Room) -> None:
    port = room.first.port
    room.first.close()
    room.ask_until(lambda: room.rounds >= 1)
    room.serve(port=port)
    room.ask_until(lambda: not room.current._is_looking)
    room.finds.set()
    assert room.current.claim().port == port
    assert not room.is_second_followed
    assert len(room.events) == 1


def test_a_third_root_follows_the_second(room: Room) -> None:
    room.finds.set()
    room.first.close()
    room.ask_until(lambda: room.is_second_followed)
    room.second.close()
    room.second = room.serve()
    room.ask_until(lambda: len(room.events) == 4)
    assert room.current.claim().port == room.second.port


def test_a_defect_ends_neither_the_asking_nor_the_looking(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room.current, "_find", iter([]).__next__)
    room.first.close()
    room.ask_until(lambda: len(room.events) == 2)
    assert isinstance(room.events[1], Warned)
    monkeypatch.setattr(room.current, "_find", room.find)
    room.finds.set()
    room.ask_until(lambda: room.is_second_followed)


def test_who_has_left_looks_for_nobody(room: Room) -> None:
    room.finds.set()
    room.current.close()
    room.first.close()
    for _ in range(2 * currentroot._PATIENCE):
        with pytest.raises(NetworkError):
            room.current.claim()
    assert (room.rounds, room.events) == (0, [])


def test_the_next_root_hears_what_lasts_and_what_the_first_did_not_hear(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bladeroot.ops.reporting._INTERVAL_S", 0.01)
    hardware = HardwareFound(hardware={"cpus": 8})
    with RootReporter(room.current, cluster_id=CLAIM.cluster_id, blade="web02", swarm_port=1) as reporter:
        reporter(hardware)
        reporter(StepStarted(step="runtime", title="Fetch"))
        wait_until(lambda: room.first.room.blades["web02"].step == "runtime")
        room.first.close()
        reporter(Note(text="in between"))
        room.finds.set()
        wait_until(lambda: room.second.room.blades["web02"].step == "runtime")
        state = room.second.room.blades["web02"]
        assert (state.phase, state.hardware) == (BladePhase.WORKING, {"cpus": 8})
        assert state.note == "in between"
        reporter(Finished(facts={"serial": 7}))
    assert room.second.room.blades["web02"].phase is BladePhase.FINISHED


def test_a_fetch_goes_on_with_the_next_root(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first knew nobody who has the artefact, and is gone; the second does."""
    monkeypatch.setattr(sources, "_PEER_REFRESH_S", 0.05)
    monkeypatch.setitem(settings._ONLY_THE_ROOM, "enable_lsd", False)
    artefact = make_artefact(3, 50_000)
    artefact.write(tmp_path / "seeder")
    room.first = room.serve(Seeder(artefact))
    room.current = room.follow(room.first)
    files: dict[str, bytes] = {}
    with (
        Swarm(port=0, addresses=LOOPBACK) as seeder,
        Swarm(port=0, addresses=LOOPBACK, root_address="127.0.0.9") as swarm,
    ):
        seeder.seed(artefact.torrent, tmp_path / "seeder")
        room.current.on_change(lambda found: swarm.count_as_root(found.host))
        source = SwarmSource(room.current, swarm, 7, set())
        torrent = source.read_torrent(artefact.artefact)

        def fetch() -> None:
            save_path = tmp_path / "blade"
            source.fetch(torrent, parse_torrent(torrent), save_path, None, files.__setitem__)

        thread = threading.Thread(target=fetch)
        thread.start()
        wait_until(lambda: artefact.info_hash in swarm.info_hashes())
        room.first.close()
        room.second = room.serve(Seeder(artefact, seeder.port))
        room.finds.set()
        thread.join(TIMEOUT_S)
        from_root_bytes = swarm.stats(artefact.info_hash).from_root_bytes
    assert files == artefact.files
    assert room.is_second_followed
    assert from_root_bytes > 0
