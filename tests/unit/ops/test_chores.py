"""Pulling and mending in the background, with real depots and swarms on the loopback; a fake station."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import attrs
import pytest

from bladeroot.core.claims import Claim
from bladeroot.core.roomstate import BladeState, RoomState
from bladeroot.core.signing import SecretKey
from bladeroot.core.takeover import Sighting
from bladeroot.errors import DepotError, DepotFullError, NetworkError
from bladeroot.events import Event, Note, Warned
from bladeroot.host.depot import Depot
from bladeroot.net.client import RootClient
from bladeroot.ops import chores as chores_module
from bladeroot.ops.chores import Chores
from bladeroot.ops.holdings import Holdings
from bladeroot.ops.presence import Limits, Presence, open_presence
from bladeroot.ops.station import Station
from tests.unit.ops.test_holdings import CLUSTER_ID, KEY, add_generation

CLAIM = Claim(cluster_id=CLUSTER_ID, epoch=3, serial=2, blade="web01", host="127.0.0.1", port=1)
DEADLINE_S = 60.0


@attrs.define
class FakeRoot:
    room: RoomState


@attrs.define
class FakeStation:
    """As much of a station as chores ask for."""

    followed: Claim | None = None
    sightings: tuple[Sighting, ...] = ()
    root: FakeRoot | None = None
    woken: int = 0
    on_wake: Callable[[], object] = lambda: None

    def wake(self) -> None:
        self.woken += 1
        self.on_wake()


@attrs.define
class Blade:
    presence: Presence
    station: FakeStation
    chores: Chores
    heard: list[Event]
    news: list[bool]

    @property
    def depot(self) -> Depot:
        return self.presence.holdings.depot

    @property
    def claim(self) -> Claim:
        serial = self.presence.holdings.newest_serial
        return attrs.evolve(CLAIM, serial=serial, port=self.presence.server.port)

    def texts(self) -> list[str]:
        return [event.text for event in self.heard if isinstance(event, Note | Warned)]


MakeBlade = Callable[..., Blade]


@pytest.fixture
def make_blade(tmp_path: Path) -> Iterator[MakeBlade]:
    with ExitStack() as stack:

        def make(name: str, *serials: int) -> Blade:
            depot = Depot.create(tmp_path / name)
            for serial in serials:
                add_generation(depot, serial)
            heard: list[Event] = []
            holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
            holdings.take_in()
            opening = open_presence(
                holdings, port=0, limits=Limits(), yields_ports=True, reporter=lambda _event: None
            )
            presence = stack.enter_context(opening)
            station = FakeStation(on_wake=holdings.take_in)
            news: list[bool] = []
            chores = Chores(
                presence=presence,
                station=cast(Station, station),
                system=tmp_path / "no system",
                reporter=heard.append,
                stop=threading.Event(),
                on_news=lambda: news.append(True),
                chance=lambda _least, _most: 0.0,
            )
            return Blade(presence, station, chores, heard, news)

        yield make


def report_holds(*holders: tuple[str, int, int]) -> FakeRoot:
    """A root that was told: who, which serial, at which port."""
    blades = {
        name: BladeState(blade=name, address="127.0.0.1", http_port=port, holds=serial)
        for name, serial, port in holders
    }
    return FakeRoot(RoomState(blades=blades))


def test_a_follower_pulls_what_its_root_has_and_gives_it(make_blade: MakeBlade) -> None:
    root, blade = make_blade("root", 1, 2), make_blade("blade", 1)
    blade.station.followed = root.claim
    blade.chores.pull()
    assert list(blade.presence.holdings.serials()) == [1, 2]
    assert blade.depot.find_damage(blade.presence.holdings.newest.artefacts[0]) == []
    assert (blade.station.woken, blade.news) == (1, [True])
    info_hash = blade.presence.holdings.newest.artefacts[0].info_hash
    assert info_hash in blade.presence.swarm.info_hashes()
    blade.chores.pull()
    assert blade.station.woken == 1


def test_a_follower_goes_by_its_root_only(make_blade: MakeBlade) -> None:
    root, blade = make_blade("root", 1, 2), make_blade("blade", 1)
    blade.station.sightings = (Sighting(claim=root.claim),)
    assert blade.chores.find_higher() == []
    blade.station.root = report_holds()
    assert blade.chores.find_higher() == [(RootClient("127.0.0.1", root.presence.server.port), 2)]


def test_a_root_pulls_what_a_blade_holds_whoever_else_says_that_it_has_more(make_blade: MakeBlade) -> None:
    holder, forger, blade = make_blade("holder", 1, 2), make_blade("forger", 1), make_blade("blade", 1)
    add_generation(forger.depot, 5, SecretKey(bytes([9]) * 32))
    unsigned = Holdings(forger.depot, [SecretKey(bytes([9]) * 32).public_key], CLUSTER_ID, print)
    unsigned.take_in()
    forger.presence.holdings = unsigned
    port, liars_port = holder.presence.server.port, forger.presence.server.port
    blade.station.root = report_holds(
        ("web02", 2**52, 1), ("web03", 5, liars_port), ("web04", 4, port), ("web05", 2, port)
    )
    blade.chores.pull()  # those who lie are tried once, each
    assert list(blade.presence.holdings.serials()) == [1, 2]
    blade.station.root = report_holds(("web02", 2**52, 1), ("web03", 5, liars_port), ("web05", 3, 2))
    assert [client.port for client, _serial in blade.chores.find_higher()] == [2, 1, liars_port]


def test_a_liar_is_tried_again_and_only_so_many_are_remembered(
    make_blade: MakeBlade, monkeypatch: pytest.MonkeyPatch
) -> None:
    blade = make_blade("blade", 1)
    monkeypatch.setattr(chores_module, "_DISTRUST_S", 0.0)
    for port in range(1, 40):
        blade.chores._distrust(RootClient("127.0.0.1", port))
    assert len(blade.chores._distrusted_s) == 1
    blade.station.root = report_holds(*((f"web{number:02}", 9, 1) for number in range(30)))
    tried: list[int] = []

    def fail(_chores: Chores, _client: RootClient, serial: int) -> None:
        tried.append(serial)
        raise NetworkError("no such generation")

    monkeypatch.setattr(Chores, "_pull", fail)
    with pytest.raises(NetworkError, match="no such generation"):
        blade.chores.pull()
    assert len(tried) == chores_module._MOST_TRIES


def test_what_nobody_gives_is_given_up(make_blade: MakeBlade, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chores_module, "_PATIENCE_S", 0.5)
    root, blade = make_blade("root", 1, 2), make_blade("blade", 1)
    for info_hash in root.presence.swarm.info_hashes():
        root.presence.swarm.remove(info_hash)
    blade.station.followed = root.claim
    with pytest.raises(NetworkError, match="nobody gave anything for"):
        blade.chores.pull()
    assert list(blade.depot.serials()) == [1]
    root.presence.swarm.seed(
        root.depot.torrent(root.presence.holdings.newest.artefacts[0].info_hash),
        root.depot.save_path(root.presence.holdings.newest.artefacts[0].info_hash),
    )
    monkeypatch.setattr(chores_module, "_PATIENCE_S", DEADLINE_S)
    blade.chores.pull()
    assert list(blade.depot.serials()) == [1, 2]


def test_to_be_stopped_ends_a_fetch_that_waits(make_blade: MakeBlade) -> None:
    root, blade = make_blade("root", 1, 2), make_blade("blade", 1)
    for info_hash in root.presence.swarm.info_hashes():
        root.presence.swarm.remove(info_hash)
    blade.station.followed = root.claim
    thread = threading.Thread(target=blade.chores.run)
    thread.start()
    wait_until(lambda: any("fetching generation 2" in text for text in blade.texts()))
    blade.chores.stop.set()
    blade.chores.wake()
    thread.join(DEADLINE_S)
    assert not thread.is_alive()


def wait_until(is_so: Callable[[], object]) -> None:
    waited = threading.Event()
    for _ in range(int(DEADLINE_S / 0.02)):
        if is_so():
            return
        waited.wait(0.02)
    pytest.fail("it did not come to that")


def test_what_was_damaged_is_fetched_again_but_not_by_a_root(make_blade: MakeBlade) -> None:
    root, blade = make_blade("root", 1), make_blade("blade", 1)
    artefact = blade.presence.holdings.newest.artefacts[0]
    (blade.depot.artefact_files(artefact.info_hash)[0]).unlink()
    blade.depot.distrust(artefact.info_hash)
    blade.station.followed = root.claim
    blade.chores._note_lost(artefact)
    assert blade.presence.holdings.newest_serial == 0
    blade.station.root = report_holds()
    blade.chores.mend()
    assert not blade.depot.has(artefact.info_hash)
    blade.station.root = None
    blade.chores.mend()
    assert blade.depot.find_damage(artefact) == []
    assert blade.presence.holdings.newest_serial == 1
    assert blade.presence.swarm.info_hashes() == (artefact.info_hash,)


def test_what_is_lost_while_it_mends_is_mended_next(
    make_blade: MakeBlade, monkeypatch: pytest.MonkeyPatch
) -> None:
    blade = make_blade("blade", 1)
    blade.station.followed = CLAIM
    artefact = blade.presence.holdings.newest.artefacts[0]
    lost: list[Sequence[object]] = []

    def lose_more(*_arguments: object) -> list[object]:
        lost.append(())
        if len(lost) == 1:
            blade.chores._note_lost(artefact)
        return []

    monkeypatch.setattr(chores_module, "fetch_lost", lose_more)
    for _ in range(3):
        blade.chores.mend()
    assert len(lost) == 2


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NetworkError("no answer"), Note(text="no answer")),
        (DepotFullError("no room", "make some"), Warned(text="no room", hint="make some")),
        (DepotError("another has that serial"), Warned(text="another has that serial")),
        (OSError(5, "Input/output error"), Warned(text="could not it: OSError(5, 'Input/output error')")),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_chore_that_fails_is_told_once_and_tried_again_later(
    make_blade: MakeBlade, error: Exception, said: Event
) -> None:
    blade, tries = make_blade("blade"), list[bool]()

    def fail() -> None:
        tries.append(True)
        raise error

    for _ in range(3):
        blade.chores._try("it", fail)
    assert len(tries) == 3
    blade.chores.chance = lambda _least, most: most
    for _ in range(3):
        blade.chores._try("it", fail)
    assert len(tries) == 4
    assert blade.heard == [said]


def test_a_generation_with_the_same_serial_is_not_dropped_for_another(make_blade: MakeBlade) -> None:
    root, blade = make_blade("root", 2), make_blade("blade", 2)
    blade.station.followed = root.claim
    blade.chores.pull()
    assert blade.news == []


def test_another_root_is_not_made_to_wait_for_what_one_before_lacked(make_blade: MakeBlade) -> None:
    root, blade = make_blade("root", 1, 2), make_blade("blade", 1)
    blade.chores.chance = lambda _least, most: most if most > 10 else 0.0
    blade.station.followed = attrs.evolve(CLAIM, serial=9)
    blade.chores._try("pull", blade.chores.pull)
    blade.station.followed = root.claim
    blade.chores._try("pull", blade.chores.pull)
    assert blade.depot.serials() == [1]
    blade.chores.wake()
    blade.chores._try("pull", blade.chores.pull)
    assert blade.depot.serials() == [1, 2]
