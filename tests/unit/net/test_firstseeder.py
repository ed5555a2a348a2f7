"""The first seeder, as libtorrent's members and as strangers meet it."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.core import peerwire
from bladeroot.core.offers import OPEN_OFFERS
from bladeroot.core.peerwire import Message
from bladeroot.core.torrentfile import parse_torrent
from bladeroot.errors import NetworkError, PortTakenError
from bladeroot.net.swarm import Swarm
from bladeroot.net.swarm.firstseeder import FirstSeeder
from tests.swarmdata import TestArtefact, make_artefact

DEADLINE_S = 60.0
LOOPBACK = ("127.0.0.1",)


@pytest.fixture(scope="module")
def artefact() -> TestArtefact:
    return make_artefact(40, 100_000)


@pytest.fixture
def seeder(artefact: TestArtefact, tmp_path: Path) -> Iterator[FirstSeeder]:
    artefact.write(tmp_path / "root")
    seeder = FirstSeeder(addresses=LOOPBACK, port=0)
    seeder.give(parse_torrent(artefact.torrent), tmp_path / "root")
    yield seeder
    seeder.close()


class Peer:
    """A peer by hand."""

    def __init__(self, seeder: FirstSeeder, artefact: TestArtefact) -> None:
        self.socket = socket.create_connection(("127.0.0.1", seeder.port), timeout=DEADLINE_S)
        self.socket.sendall(
            peerwire.render_handshake(peerwire.shorten(artefact.info_hash), b"-XX0000-" + b"x" * 12)
        )
        assert peerwire.parse_handshake(self.read(peerwire.HANDSHAKE_BYTES)) == peerwire.shorten(
            artefact.info_hash
        )

    def read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    def hear(self) -> tuple[int, bytes]:
        (size,) = struct.unpack(">I", self.read(4))
        message = self.read(size)
        return message[0], message[1:]

    def say(self, message: Message, payload: bytes = b"") -> None:
        self.socket.sendall(peerwire.render(message, payload))

    def hear_offers(self) -> list[int]:
        offers: list[int] = []
        while len(offers) < OPEN_OFFERS:
            message, payload = self.hear()
            if message == Message.HAVE:
                offers.append(peerwire.parse_number(payload))
        return offers

    def is_let_go(self) -> bool:
        try:
            while True:
                self.hear()
        except (EOFError, ConnectionError):
            return True


@pytest.fixture
def peer(seeder: FirstSeeder, artefact: TestArtefact) -> Iterator[Peer]:
    peer = Peer(seeder, artefact)
    yield peer
    peer.socket.close()


def test_members_get_everything_and_each_piece_leaves_once(
    artefact: TestArtefact, seeder: FirstSeeder, tmp_path: Path
) -> None:
    # A link that is no wider than the members': else they are given by the root what others were about to.
    seeder.set_limit(1_000_000)
    members = [Swarm(port=0, addresses=LOOPBACK) for _ in range(3)]
    everybody = [("127.0.0.1", seeder.port), *(("127.0.0.1", member.port) for member in members)]
    threads = [
        threading.Thread(
            target=member.fetch,
            args=(artefact.torrent, tmp_path / str(number)),
            kwargs={"peers": everybody, "deadline_s": DEADLINE_S},
        )
        for number, member in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for member in members:
        assert member.stats(artefact.info_hash).have_bytes == artefact.size_bytes
        member.close()
    given = seeder.find(artefact.info_hash)
    assert given is not None
    assert artefact.size_bytes <= given.sent_bytes < 1.5 * artefact.size_bytes


def test_only_what_was_offered_is_given(artefact: TestArtefact, peer: Peer) -> None:
    peer.say(Message.HAVE_NONE)
    peer.say(Message.INTERESTED)
    offered = peer.hear_offers()
    other = next(number for number in range(40) if number not in offered)
    peer.say(Message.REQUEST, struct.pack(">III", other, 0, 1000))
    assert peer.hear() == (Message.REJECT_REQUEST, struct.pack(">III", other, 0, 1000))
    frame = next(number for number in offered if number < 40)  # the index is not that long
    peer.say(Message.REQUEST, struct.pack(">III", frame, 16384, 1000))
    message, payload = peer.hear()
    assert message == Message.PIECE
    assert payload[8:] == artefact.files[f"{frame:05d}"][16384:17384]


def test_who_wants_none_of_the_offers_is_offered_everything(peer: Peer) -> None:
    peer.say(Message.HAVE_NONE)
    heard: set[int] = set()
    while len(heard) < 41:
        message, payload = peer.hear()
        if message == Message.HAVE:
            heard.add(peerwire.parse_number(payload))


@pytest.mark.parametrize(
    "garbage",
    [
        struct.pack(">IB", 1 << 20, 20),
        peerwire.render(Message.REQUEST, b"\0" * 5),
        peerwire.render(Message.BITFIELD, b"\0" * 99),
        peerwire.render(Message.HAVE, b""),
    ],
)
def test_who_does_not_speak_the_protocol_is_let_go(peer: Peer, garbage: bytes) -> None:
    peer.socket.sendall(garbage)
    assert peer.is_let_go()


def test_who_asks_for_more_than_there_is_is_let_go(peer: Peer) -> None:
    peer.say(Message.HAVE_NONE)
    peer.say(Message.INTERESTED)
    peer.say(Message.REQUEST, struct.pack(">III", peer.hear_offers()[0], 1 << 30, 1000))
    assert peer.is_let_go()


def test_what_is_not_given_is_not_answered(seeder: FirstSeeder) -> None:
    with socket.create_connection(("127.0.0.1", seeder.port), timeout=DEADLINE_S) as stranger:
        stranger.sendall(peerwire.render_handshake(bytes(20), b"-XX0000-" + b"x" * 12))
        with contextlib.suppress(ConnectionError):
            assert stranger.recv(1) == b""


def test_what_is_given_no_longer_ends_its_connections(
    artefact: TestArtefact, seeder: FirstSeeder, peer: Peer
) -> None:
    seeder.stop_giving(artefact.info_hash)
    assert peer.is_let_go()
    assert seeder.find(artefact.info_hash) is None


def test_a_limit_holds(artefact: TestArtefact, seeder: FirstSeeder, tmp_path: Path) -> None:
    seeder.set_limit(artefact.size_bytes)
    began_s = time.monotonic()
    with Swarm(port=0, addresses=LOOPBACK) as member:
        peers = [("127.0.0.1", seeder.port)]
        member.fetch(artefact.torrent, tmp_path / "member", peers=peers, deadline_s=DEADLINE_S)
    assert time.monotonic() - began_s > 0.8, "what is limited to a second's worth needs about a second"


def test_a_taken_port_is_said(seeder: FirstSeeder) -> None:
    with pytest.raises(PortTakenError, match=str(seeder.port)):
        FirstSeeder(addresses=LOOPBACK, port=seeder.port)


@pytest.mark.parametrize("mbits", [1000, 10000])
def test_over_a_wide_link_a_root_gives_in_both_ways(
    artefact: TestArtefact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mbits: int
) -> None:
    monkeypatch.setattr("bladeroot.net.swarm.session.find_fastest_mbits", lambda: mbits)
    artefact.write(tmp_path / "root")
    with (
        Swarm(port=0, addresses=LOOPBACK, as_root=True) as root,
        Swarm(port=0, addresses=LOOPBACK) as member,
    ):
        root.seed(artefact.torrent, tmp_path / "root")
        peers = [("127.0.0.1", root.port)]
        if mbits < 2500:
            with pytest.raises(NetworkError):
                member.fetch(artefact.torrent, tmp_path / "member", peers=peers, deadline_s=1.0)
            peers = [("127.0.0.1", root.giving_port)]
        member.fetch(artefact.torrent, tmp_path / "member", peers=peers, deadline_s=DEADLINE_S)
        assert root.stats(artefact.info_hash).up_bytes >= artefact.size_bytes


def test_a_file_that_is_gone_ends_that_connection_and_no_other(
    artefact: TestArtefact, seeder: FirstSeeder, tmp_path: Path
) -> None:
    seeder.set_limit(100 * artefact.size_bytes)
    broken = make_artefact(4, 20_000)
    broken.write(tmp_path / "broken")
    seeder.give(parse_torrent(broken.torrent), tmp_path / "broken")
    peer = Peer(seeder, broken)
    peer.say(Message.HAVE_NONE)
    peer.say(Message.INTERESTED)
    piece = peer.hear_offers()[0]
    for path in (tmp_path / "broken" / "runtime").iterdir():
        path.unlink()
    peer.say(Message.REQUEST, struct.pack(">III", piece, 0, 1000))
    assert peer.is_let_go()
    with Swarm(port=0, addresses=LOOPBACK) as member:
        peers = [("127.0.0.1", seeder.port)]
        member.fetch(artefact.torrent, tmp_path / "member", peers=peers, deadline_s=DEADLINE_S)


def test_who_has_everything_is_told_so_and_goes(
    artefact: TestArtefact, seeder: FirstSeeder, tmp_path: Path
) -> None:
    with Swarm(port=0, addresses=LOOPBACK) as member:
        peers = [("127.0.0.1", seeder.port)]
        member.fetch(artefact.torrent, tmp_path / "member", peers=peers, deadline_s=DEADLINE_S)
        until = time.monotonic() + DEADLINE_S
        while (given := seeder.find(artefact.info_hash)) and given.connections:
            assert time.monotonic() < until
            time.sleep(0.05)


def test_what_a_peer_does_not_take_does_not_pile_up(peer: Peer) -> None:
    """It asks for hashes, whose refusal repeats what it sent, and reads none of it."""
    questions = peerwire.render(Message.HASH_REQUEST, bytes(60_000)) * 5000
    peer.socket.settimeout(1.0)
    with pytest.raises(TimeoutError):
        peer.socket.sendall(questions)
