"""A depot that is read through in the background: slowly, once for each frame, and what is damaged goes."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, cast

import attrs
import pytest

from bladeroot.core.manifest import Artefact, ArtefactKind
from bladeroot.core.reports import PeerList
from bladeroot.core.torrentfile import hash_file_root
from bladeroot.events import Event, Note, Warned
from bladeroot.host.depot import Depot
from bladeroot.host.pruning import prune_depot
from bladeroot.net.client import RootClient
from bladeroot.net.swarm import Swarm
from bladeroot.ops.sources import DepotSource, SwarmSource
from bladeroot.ops.verifying import RATE_BYTES_S, REST_S, DepotVerifier, fetch_lost, find_lost
from tests.unit.host.test_depot import add_artefact, make_generation

OLD = {"00000": b"shared by both", "00001": b"of the old one"}
NEW = {"00000": b"shared by both", "00001": b"of the new one"}
BOOT = {"boot.img": b"code" * 512, "core.img": b"more code"}


@attrs.define
class Night:
    """Keeps what a verifier asks for and says; it is told to stop after `rests` long rests."""

    rests: int = 1
    pauses_s: list[float] = attrs.field(factory=list)
    heard: list[Event] = attrs.field(factory=list)
    lost: list[Artefact] = attrs.field(factory=list)

    def pause(self, seconds: float) -> bool:
        self.pauses_s.append(seconds)
        return self.pauses_s.count(REST_S) >= self.rests

    def verifier(self, depot: Depot) -> DepotVerifier:
        return DepotVerifier(
            depot=depot, pause=self.pause, reporter=self.heard.append, on_lost=self.lost.append
        )

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.heard if isinstance(event, Warned)]


@attrs.frozen
class Store:
    """Two generations, the frames of one shared with the other; and the same in another depot."""

    depot: Depot
    other: Depot
    old: Artefact
    new: Artefact
    boot: Artefact

    def path(self, artefact: Artefact, number: int) -> Path:
        return self.depot.artefact_files(artefact.info_hash)[number]

    def frames(self) -> set[str]:
        return {path.name for path in (self.depot.path / "frames").glob("*/*")}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    mine, other = Depot.create(tmp_path / "depot"), Depot.create(tmp_path / "other")
    for depot in (mine, other):
        old, new = add_artefact(depot, OLD), add_artefact(depot, NEW)
        boot = add_artefact(depot, BOOT, ArtefactKind.BOOT)
        depot.add_generation(*make_generation(1, old, boot))
        depot.add_generation(*make_generation(2, new, boot))
    return Store(mine, other, old, new, boot)


def flip(path: Path) -> None:
    """Damage the bytes in place: every hard link has them."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def size_of(*contents: Mapping[str, bytes]) -> int:
    return sum(len(data) for data in {data for files in contents for data in files.values()})


def test_a_sound_depot_is_read_slowly_each_frame_once_and_then_left_for_a_day(store: Store) -> None:
    night = Night(rests=2)
    night.verifier(store.depot).run()
    assert night.heard == []
    assert night.pauses_s.count(REST_S) == 2
    assert night.pauses_s[-1] == REST_S
    reading_s = sum(pause for pause in night.pauses_s if pause != REST_S)
    assert reading_s * RATE_BYTES_S == pytest.approx(2 * size_of(OLD, NEW, BOOT))
    assert find_lost(store.depot) == []


def test_it_stops_at_once_when_it_is_told_to(store: Store) -> None:
    asked: list[float] = []

    def stop(seconds: float) -> bool:
        asked.append(seconds)
        return True

    flip(store.path(store.old, 1))
    verifier = DepotVerifier(depot=store.depot, pause=stop)
    assert not verifier.verify()
    verifier.run()
    assert len(asked) == 2


def test_what_is_damaged_is_said_and_taken_out_and_fetched_again(store: Store) -> None:
    victim = store.path(store.new, 1)
    flip(victim)
    night = Night()
    night.verifier(store.depot).run()
    assert night.warnings == [
        f"runtime {store.new.info_hash[:16]} is damaged: {victim} does not have the bytes that were signed:"
        " it has to be fetched again"
    ]
    assert night.lost == [store.new] == find_lost(store.depot)
    assert not victim.exists()
    assert hash_file_root(NEW["00001"]).hex() not in store.frames()
    assert store.depot.has(store.old.info_hash)

    heard: list[Event] = []
    assert fetch_lost(store.depot, DepotSource(store.other), heard.append) == []
    assert heard == [Note(text=f"runtime {store.new.info_hash[:16]} is whole again")]
    assert store.depot.find_damage(store.new) == []
    assert hash_file_root(NEW["00001"]).hex() in store.frames()
    again = Night()
    again.verifier(store.depot).run()
    assert again.heard == []


@pytest.mark.parametrize("spoil", [flip, lambda path: os.truncate(path, 3), lambda path: append(path)])
def test_a_frame_that_several_have_is_lost_to_all_and_comes_back_to_all(store: Store, spoil: object) -> None:
    assert callable(spoil)
    spoil(store.path(store.new, 0))
    night = Night()
    night.verifier(store.depot).run()
    assert night.lost == [store.new, store.old] == find_lost(store.depot)
    assert hash_file_root(NEW["00000"]).hex() not in store.frames()
    assert fetch_lost(store.depot, DepotSource(store.other)) == []
    assert [store.depot.find_damage(one) for one in (store.old, store.new)] == [[], []]
    assert store.path(store.old, 0).samefile(store.path(store.new, 0))


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"and more than was signed")


def test_a_damaged_copy_is_mended_with_the_sound_frame(store: Store) -> None:
    victim = store.path(store.new, 1)
    victim.unlink()
    victim.write_bytes(b"rotten")
    night = Night()
    night.verifier(store.depot).run()
    assert night.warnings[0].endswith("mended with the depot's own frames")
    assert (night.lost, find_lost(store.depot)) == ([], [])
    assert store.depot.find_damage(store.new) == []


def test_a_file_that_is_gone_and_a_torn_torrent(store: Store) -> None:
    store.path(store.old, 1).unlink()
    (store.depot.path / "frames" / (name := hash_file_root(OLD["00001"]).hex())[:2] / name).unlink()
    flip(store.depot.save_path(store.boot.info_hash) / "torrent")
    night = Night()
    night.verifier(store.depot).run()
    assert set(night.lost) == {store.old, store.boot} == set(find_lost(store.depot))
    assert len(night.warnings) == 2
    assert fetch_lost(store.depot, DepotSource(store.other)) == []
    assert [store.depot.find_damage(one) for one in (store.old, store.boot)] == [[], []]


def test_many_damaged_files_are_one_warning(store: Store) -> None:
    flip(store.path(store.boot, 0))
    flip(store.path(store.boot, 1))
    night = Night()
    night.verifier(store.depot).run()
    assert ["(and 1 more files)" in line for line in night.warnings] == [True]


def test_what_nobody_has_stays_lost_and_the_rest_comes_back(store: Store) -> None:
    flip(store.path(store.old, 1))
    flip(store.path(store.boot, 0))
    Night().verifier(store.depot).run()
    prune_depot(store.other, 1)
    heard: list[Event] = []
    assert fetch_lost(store.depot, DepotSource(store.other), heard.append) == [store.old]
    assert store.depot.find_damage(store.boot) == []
    assert [type(event) for event in heard] == [Note, Warned]


def test_what_is_dropped_while_it_is_read_is_no_damage(store: Store) -> None:
    night = Night()

    def drop(seconds: float) -> bool:
        prune_depot(store.depot, 1)
        return night.pause(seconds)

    verifier = attrs.evolve(night.verifier(store.depot), pause=drop)
    verifier.run()
    assert store.depot.serials() == [2]
    assert night.heard == []


def test_who_changes_the_depot_is_waited_for(store: Store) -> None:
    night = Night()
    flip(store.path(store.old, 1))
    lock = store.depot.lock()
    lock.__enter__()
    waits: list[float] = []

    def pause(seconds: float) -> bool:
        if seconds > 1 and seconds != REST_S:
            waits.append(seconds)
            assert night.lost == []
            if len(waits) == 3:
                lock.__exit__(None, None, None)
        return night.pause(seconds)

    attrs.evolve(night.verifier(store.depot), pause=pause).run()
    assert len(waits) == 3
    assert night.lost == [store.old]


def test_a_disk_that_takes_no_writes_any_more_is_said_and_the_rest_is_read(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_depot: Depot) -> NoReturn:
        raise OSError(errno.EROFS, "Read-only file system")

    flip(store.path(store.old, 1))
    flip(store.path(store.boot, 1))
    night = Night()
    with monkeypatch.context() as patch:
        patch.setattr(Depot, "lock", refuse)
        night.verifier(store.depot).run()
    assert ["cannot be taken out of the depot: Read-only" in line for line in night.warnings] == [True] * 2
    assert night.lost == []
    Night().verifier(store.depot).run()
    assert set(find_lost(store.depot)) == {store.old, store.boot}


def test_a_damaged_manifest_is_said_and_the_rest_is_read(store: Store) -> None:
    path = store.depot.path / "generations/1/manifest"
    path.write_bytes(path.read_bytes()[:20])
    flip(store.path(store.new, 1))
    night = Night()
    night.verifier(store.depot).run()
    assert [f"{path} is damaged" in line for line in night.warnings] == [True, False]
    assert night.lost == [store.new]


@attrs.frozen
class TellingRoot:
    """As much of a root as a swarm needs: metadata, and who has the files."""

    depot: Depot
    port: int

    def torrent(self, info_hash: str) -> bytes:
        return self.depot.torrent(info_hash)

    def peers(self, _info_hash: str) -> PeerList:
        return PeerList(peers=(("127.0.0.1", self.port),))


def test_what_a_swarm_gave_and_lost_comes_back_from_its_others(store: Store) -> None:
    info_hash = store.new.info_hash
    with (
        Swarm(port=0, addresses=("127.0.0.1",)) as other,
        Swarm(port=0, addresses=("127.0.0.1",)) as own,
    ):
        for swarm, depot in ((other, store.other), (own, store.depot)):
            swarm.seed(depot.torrent(info_hash), depot.save_path(info_hash))
        append(store.path(store.new, 1))
        verifier = DepotVerifier(
            depot=store.depot, pause=lambda _seconds: False, on_lost=lambda lost: own.remove(lost.info_hash)
        )
        assert verifier.verify()
        assert own.info_hashes() == ()
        root = cast(RootClient, TellingRoot(store.other, other.port))
        source = SwarmSource(root, own, 2, set())
        assert fetch_lost(store.depot, source) == []
    assert store.depot.find_damage(store.new) == []
    assert store.path(store.new, 1).stat().st_nlink == 2
