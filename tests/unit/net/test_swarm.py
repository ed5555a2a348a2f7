"""Members of a swarm on the loopback, each on a port of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot import events
from bladeroot.errors import (
    ArtefactError,
    DepotError,
    InterruptedByUserError,
    NetworkError,
    PortTakenError,
)
from bladeroot.net.swarm import Swarm
from bladeroot.net.swarm.fetching import Fetch
from bladeroot.net.swarm.member import Member
from tests.swarmdata import TestArtefact, make_artefact

DEADLINE_S = 60.0
LOOPBACK = ("127.0.0.1",)


@pytest.fixture(scope="module")
def artefact() -> TestArtefact:
    return make_artefact(40, 200_000)


@pytest.fixture
def root(artefact: TestArtefact, tmp_path: Path) -> Iterator[Swarm]:
    artefact.write(tmp_path / "root")
    with Swarm(port=0, addresses=LOOPBACK, as_root=True) as root:
        root.seed(artefact.torrent, tmp_path / "root")
        yield root


@pytest.fixture
def member() -> Iterator[Swarm]:
    with Swarm(port=0, addresses=LOOPBACK, root_address="127.0.0.1") as member:
        yield member


class Taker:
    """Collects what `on_piece` is given, and sees that nothing comes twice."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}

    def __call__(self, name: str, data: bytes) -> None:
        assert name not in self.files
        self.files[name] = data


def at(swarm: Swarm) -> list[tuple[str, int]]:
    return [("127.0.0.1", swarm.giving_port)]


def read_all(save_path: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (save_path / "runtime").iterdir()}


def test_every_file_is_given_once_and_is_on_disk(
    artefact: TestArtefact, root: Swarm, member: Swarm, tmp_path: Path
) -> None:
    take, save_path = Taker(), tmp_path / "blade"
    stats = member.fetch(artefact.torrent, save_path, peers=at(root), on_piece=take, deadline_s=DEADLINE_S)
    assert take.files == artefact.files
    assert read_all(save_path) == artefact.files
    assert stats.have_bytes == stats.total_bytes == stats.down_bytes == artefact.size_bytes
    assert stats.sources == 1
    assert root.stats(artefact.info_hash).up_bytes == artefact.size_bytes
    assert member.info_hashes() == (artefact.info_hash,)


def test_a_member_that_is_done_gives_to_the_next(
    artefact: TestArtefact, root: Swarm, member: Swarm, tmp_path: Path
) -> None:
    member.fetch(artefact.torrent, tmp_path / "one", peers=at(root), deadline_s=DEADLINE_S)
    root.close()
    take = Taker()
    with Swarm(port=0, addresses=LOOPBACK) as next_one:
        next_one.fetch(
            artefact.torrent, tmp_path / "two", peers=at(member), on_piece=take, deadline_s=DEADLINE_S
        )
    assert take.files == artefact.files


def test_what_is_there_is_checked_given_and_not_fetched_again(
    artefact: TestArtefact, root: Swarm, member: Swarm, tmp_path: Path
) -> None:
    save_path = tmp_path / "blade"
    artefact.write(save_path)
    torn, missing, short = "00003", "00007", "00011"
    (save_path / "runtime" / torn).write_bytes(b"x" * len(artefact.files[torn]))
    (save_path / "runtime" / missing).unlink()
    (save_path / "runtime" / short).write_bytes(artefact.files[short][:1000])
    take = Taker()
    stats = member.fetch(artefact.torrent, save_path, peers=at(root), on_piece=take, deadline_s=DEADLINE_S)
    assert take.files == artefact.files
    assert read_all(save_path) == artefact.files
    assert stats.down_bytes == sum(len(artefact.files[name]) for name in (torn, missing, short))


def test_a_complete_artefact_needs_nobody(artefact: TestArtefact, member: Swarm, tmp_path: Path) -> None:
    artefact.write(tmp_path / "blade")
    take = Taker()
    stats = member.fetch(artefact.torrent, tmp_path / "blade", on_piece=take, deadline_s=DEADLINE_S)
    assert take.files == artefact.files
    assert stats.down_bytes == 0


def test_only_wanted_files_are_fetched_and_the_rest_later(
    artefact: TestArtefact, root: Swarm, member: Swarm, tmp_path: Path
) -> None:
    save_path, wanted = tmp_path / "blade", ["index", "00005"]
    take = Taker()
    stats = member.fetch(
        artefact.torrent, save_path, peers=at(root), wanted=wanted, on_piece=take, deadline_s=DEADLINE_S
    )
    expected = {name: artefact.files[name] for name in wanted}
    assert take.files == read_all(save_path) == expected
    assert stats.total_bytes == sum(map(len, expected.values()))
    take = Taker()
    member.fetch(artefact.torrent, save_path, peers=at(root), on_piece=take, deadline_s=DEADLINE_S)
    assert take.files == read_all(save_path) == artefact.files


def test_an_unknown_file_is_an_error_at_once(artefact: TestArtefact, member: Swarm, tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="no file 'nonsense'"):
        member.fetch(artefact.torrent, tmp_path, wanted=["nonsense"])


def test_slow_takers_hold_back_the_reading_and_lose_nothing(
    artefact: TestArtefact, root: Swarm, member: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first piece is held until the whole artefact is on disk: more than may be read ahead."""
    monkeypatch.setattr("bladeroot.net.swarm.fetching._READ_AHEAD_BYTES", 0)
    take, save_path = Taker(), tmp_path / "blade"

    def take_slowly(name: str, data: bytes) -> None:
        until = time.monotonic() + DEADLINE_S
        while member.stats(artefact.info_hash).have_bytes < artefact.size_bytes:
            assert time.monotonic() < until
            threading.Event().wait(0.02)
        take(name, data)

    member.fetch(artefact.torrent, save_path, peers=at(root), on_piece=take_slowly, deadline_s=DEADLINE_S)
    assert take.files == artefact.files


def test_what_a_taker_raises_ends_the_fetch(
    artefact: TestArtefact, root: Swarm, member: Swarm, tmp_path: Path
) -> None:
    def refuse(name: str, _data: bytes) -> None:
        raise DepotError(f"no place for {name}")

    with pytest.raises(DepotError, match="no place for"):
        member.fetch(
            artefact.torrent, tmp_path / "blade", peers=at(root), on_piece=refuse, deadline_s=DEADLINE_S
        )
    assert member.info_hashes() == ()


def test_a_deadline_and_a_cancel_end_the_waiting(
    artefact: TestArtefact, member: Swarm, tmp_path: Path
) -> None:
    with pytest.raises(NetworkError, match="41 of 41 files had not come"):
        member.fetch(artefact.torrent, tmp_path / "blade", deadline_s=0.3)
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(InterruptedByUserError):
        member.fetch(artefact.torrent, tmp_path / "blade", cancel=cancel)


def test_leaving_the_swarm_ends_a_fetch(artefact: TestArtefact, tmp_path: Path) -> None:
    failures: list[NetworkError] = []
    with Swarm(port=0, addresses=LOOPBACK) as member:

        def fetch() -> None:
            try:
                member.fetch(artefact.torrent, tmp_path / "blade")
            except NetworkError as error:
                failures.append(error)

        thread = threading.Thread(target=fetch)
        thread.start()
        until = time.monotonic() + DEADLINE_S
        while not member.info_hashes() and time.monotonic() < until:
            threading.Event().wait(0.02)
    thread.join(DEADLINE_S)
    assert "swarm was left" in str(failures[0])


def test_a_fetch_that_begins_as_the_swarm_is_left_ends_with_the_same_words(
    artefact: TestArtefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = Member.begin

    def leave_and_begin(member: Member, fetch: Fetch) -> None:
        swarm.close()
        begin(member, fetch)

    monkeypatch.setattr(Member, "begin", leave_and_begin)
    with Swarm(port=0, addresses=LOOPBACK) as swarm, pytest.raises(NetworkError, match="swarm was left"):
        swarm.fetch(artefact.torrent, tmp_path / "blade", deadline_s=DEADLINE_S)


def test_a_standstill_is_a_warning_not_an_end(
    artefact: TestArtefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bladeroot.net.swarm.member._STALL_S", 0.5)
    monkeypatch.setattr("bladeroot.net.swarm.session._TICK_S", 0.1)
    heard: list[events.Event] = []
    with (
        Swarm(port=0, addresses=LOOPBACK, reporter=heard.append) as member,
        pytest.raises(NetworkError, match="deadline"),
    ):
        member.fetch(artefact.torrent, tmp_path / "blade", deadline_s=3.0)
    warnings = [event for event in heard if isinstance(event, events.Warned)]
    assert len(warnings) == 1
    assert "no data for" in warnings[0].text
    assert "from 0 peers" in warnings[0].text


def test_a_seeder_says_at_once_what_its_depot_lacks(
    artefact: TestArtefact, member: Swarm, tmp_path: Path
) -> None:
    artefact.write(tmp_path)
    (tmp_path / "runtime" / "00002").write_bytes(b"short")
    with pytest.raises(DepotError, match="00002"):
        member.seed(artefact.torrent, tmp_path)


def test_torn_bytes_of_a_trusted_seeder_are_not_accepted(artefact: TestArtefact, tmp_path: Path) -> None:
    artefact.write(tmp_path / "bad")
    (tmp_path / "bad" / "runtime" / "00004").write_bytes(b"x" * len(artefact.files["00004"]))
    take = Taker()
    with Swarm(port=0, addresses=LOOPBACK) as liar, Swarm(port=0, addresses=LOOPBACK) as member:
        liar.seed(artefact.torrent, tmp_path / "bad")
        with pytest.raises(NetworkError, match="had not come"):
            member.fetch(artefact.torrent, tmp_path / "blade", peers=at(liar), on_piece=take, deadline_s=4.0)
    assert "00004" not in take.files
    assert all(artefact.files[name] == data for name, data in take.files.items())


def test_a_place_that_cannot_be_written_is_an_error(
    artefact: TestArtefact, root: Swarm, member: Swarm, tmp_path: Path
) -> None:
    (tmp_path / "blade").mkdir()
    (tmp_path / "blade" / "runtime").write_bytes(b"a file where a folder should be")
    with pytest.raises(DepotError, match="runtime"):
        member.fetch(artefact.torrent, tmp_path / "blade", peers=at(root), deadline_s=DEADLINE_S)


def test_a_taken_port_is_an_error_of_its_own(root: Swarm) -> None:
    with pytest.raises(PortTakenError, match=str(root.port)):
        Swarm(port=root.port, addresses=LOOPBACK)


def test_an_upload_limit_holds_for_neighbours_too(artefact: TestArtefact, tmp_path: Path) -> None:
    """By default libtorrent exempts local peers."""
    artefact.write(tmp_path / "root")
    limit = artefact.size_bytes // 4
    with (
        Swarm(port=0, addresses=LOOPBACK, upload_limit=limit) as root,
        Swarm(port=0, addresses=LOOPBACK) as member,
    ):
        root.seed(artefact.torrent, tmp_path / "root")
        began = time.monotonic()
        member.fetch(artefact.torrent, tmp_path / "blade", peers=at(root), deadline_s=DEADLINE_S)
        assert time.monotonic() - began > 2.0


def test_a_reporter_that_raises_ends_the_fetch_and_not_the_swarm(
    artefact: TestArtefact, root: Swarm, tmp_path: Path
) -> None:
    broken = True

    def report(event: events.Event) -> None:
        if broken and isinstance(event, events.SwarmStats):
            raise LookupError("broken reporter")

    with Swarm(port=0, addresses=LOOPBACK, reporter=report) as member:
        nobody_has = make_artefact(2, 1000, seed=9)
        with pytest.raises(NetworkError, match="broken reporter"):
            member.fetch(nobody_has.torrent, tmp_path / "other", deadline_s=DEADLINE_S)
        broken = False
        member.fetch(artefact.torrent, tmp_path / "blade", peers=at(root), deadline_s=DEADLINE_S)
