"""The control service and its client, over the loopback."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from bladeroot import events
from bladeroot.core import wire
from bladeroot.core.claims import Claim
from bladeroot.core.manifest import SignedManifest
from bladeroot.core.reports import Report, plan_reports
from bladeroot.core.roomstate import BladePhase
from bladeroot.errors import DepotError, NetworkError, PortTakenError
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer

CLUSTER_ID = "0" * 32
HASH, OTHER = "ab" * 32, "cd" * 32
SIGNED = SignedManifest(body=b"manifest", signatures=())
FILES = {"00000": b"a" * 1000, "00001": bytes(range(256)) * 10, "index": b"end"}
WHOLE = b"".join(FILES.values())
REPORT = Report(cluster_id=CLUSTER_ID, blade="blade01", session="s", sequence=1, swarm_port=7, wants=(HASH,))
TIMEOUT_S = 30.0


@attrs.frozen
class FakeView:
    folder: Path

    def claim(self) -> Claim:
        return Claim(cluster_id=CLUSTER_ID, epoch=1, serial=2, blade="root", host="elsewhere", port=1)

    def serials(self) -> Sequence[int]:
        return [2, 1]

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        return wire.encode(SIGNED) if serial == 2 else None

    def torrent(self, info_hash: str) -> bytes | None:
        if info_hash != HASH:
            raise DepotError("not in this depot")
        return b"torrent"

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        return [self.folder / name for name in FILES] if info_hash == HASH else None

    def swarm_port(self) -> int:
        return 7475

    def blade_names(self) -> Sequence[str]:
        return ["blade01", "blade02"]

    def racks(self) -> dict[str, str | None]:
        return {}


@pytest.fixture
def heard() -> list[events.Event]:
    return []


@pytest.fixture
def server(tmp_path: Path, heard: list[events.Event]) -> Iterator[ControlServer]:
    folder = tmp_path / "runtime"
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    with ControlServer(
        FakeView(folder), cluster_id=CLUSTER_ID, address="127.0.0.1", port=0, reporter=heard.append
    ) as server:
        yield server


@pytest.fixture
def client(server: ControlServer) -> RootClient:
    return RootClient("127.0.0.1", server.port)


def ask(server: ControlServer, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    result = response.status, response.read(), dict(response.getheaders())
    connection.close()
    return result


def test_what_the_depot_has_comes_through(client: RootClient, server: ControlServer) -> None:
    assert client.serials() == (1, 2)
    assert client.manifest(2) == SIGNED
    assert client.torrent(HASH) == b"torrent"
    claim = client.claim()
    assert (claim.blade, claim.host, claim.port) == ("root", "127.0.0.1", server.port)


def test_hundreds_of_blades_may_come_in_one_moment(tmp_path: Path) -> None:
    """More than wait by default, while the service is busy with the first of them."""
    is_free = threading.Event()

    class BusyView(FakeView):
        def serials(self) -> Sequence[int]:
            assert is_free.wait(TIMEOUT_S)
            return super().serials()

    with (
        ControlServer(BusyView(tmp_path), cluster_id=CLUSTER_ID, address="127.0.0.1", port=0) as server,
        contextlib.ExitStack() as stack,
    ):
        waiting = []
        stack.callback(is_free.set)
        for _ in range(300):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=TIMEOUT_S)
            waiting.append(stack.enter_context(contextlib.closing(connection)))
            connection.connect()
            connection.request("GET", "/v1/generations")
        is_free.set()
        assert [connection.getresponse().status for connection in waiting] == [200] * 300


def test_what_every_blade_asks_for_is_compressed(server: ControlServer) -> None:
    path = "/v1/generations/2/manifest"
    status, data, headers = ask(server, path, **{"Accept-Encoding": "gzip"})
    assert (status, headers["Content-Encoding"]) == (200, "gzip")
    assert (200, gzip.decompress(data)) == ask(server, path)[:2]


def test_the_more_are_at_work_the_less_often_they_report(client: RootClient) -> None:
    (first,) = plan_reports(REPORT, [])
    (second,) = plan_reports(attrs.evolve(REPORT, blade="blade02"), [])
    assert 0 < client.report(first).pause_s < client.report(second).pause_s < 1


def test_what_it_does_not_have_is_one_line_that_says_so(client: RootClient) -> None:
    with pytest.raises(NetworkError, match=rf"127\.0\.0\.1:{client.port}: .*404 no generation 5 here"):
        client.manifest(5)
    with pytest.raises(NetworkError, match="404 not in this depot"):
        client.torrent(OTHER)


@pytest.mark.parametrize(
    ("asked", "status", "expected"),
    [
        ("", 200, WHOLE),
        ("bytes=10-19", 206, WHOLE[10:20]),
        ("bytes=990-1010", 206, WHOLE[990:1011]),
        ("bytes=0-999999", 206, WHOLE),
        ("bytes=999-3560", 206, WHOLE[999:3561]),
        ("bytes=-5", 206, WHOLE[-5:]),
        ("bytes=3560-", 206, WHOLE[3560:]),
        ("bytes=1-2,4-5", 200, WHOLE),
        ("lines=1-2", 200, WHOLE),
    ],
)
def test_an_artefact_is_its_files_end_to_end(
    server: ControlServer, asked: str, status: int, expected: bytes
) -> None:
    got = ask(server, f"/v1/artefacts/{HASH}", Range=asked)
    assert got[:2] == (status, expected)


def test_a_range_beyond_the_end_is_refused(server: ControlServer) -> None:
    status, _, headers = ask(server, f"/v1/artefacts/{HASH}", Range="bytes=999999-")
    assert (status, headers["Content-Range"]) == (416, f"bytes */{len(WHOLE)}")


def test_files_are_where_a_web_seed_looks_for_them(server: ControlServer) -> None:
    path = f"/v1/artefacts/{HASH}/runtime"
    assert ask(server, f"{path}/00001")[:2] == (200, FILES["00001"])
    assert ask(server, f"{path}/00001", Range="bytes=1-3")[:2] == (206, FILES["00001"][1:4])
    for bad in (f"{path}/00009", f"{path}/..%2f..%2fetc%2fpasswd", f"/v1/artefacts/{OTHER}/runtime/00001"):
        assert ask(server, bad)[0] == 404


def test_reports_become_the_room_and_events_about_the_blade(
    client: RootClient, server: ControlServer, heard: list[events.Event]
) -> None:
    (report,) = plan_reports(REPORT, [events.StepStarted(step="fetch")])
    client.report(report)
    client.report(report)
    assert heard == [events.StepStarted(step="fetch", subject="blade01")]
    assert server.room.blades["blade01"].phase is BladePhase.WORKING
    assert server.room.blades["blade02"].phase is BladePhase.WAITING
    assert client.peers(HASH).peers == (("127.0.0.1", 7475),), "it is not told of itself"
    (other,) = plan_reports(attrs.evolve(REPORT, blade="blade02", swarm_port=8), [])
    client.report(other)
    assert sorted(client.peers(HASH).peers) == [("127.0.0.1", 7), ("127.0.0.1", 8), ("127.0.0.1", 7475)]
    assert client.peers(OTHER).peers == (("127.0.0.1", 7475),)
    status = client.status()
    assert status["blades"]["blade01"]["step"] == "fetch"
    assert status["claim"]["blade"] == "root"


def test_bad_reports_change_nothing(
    client: RootClient, server: ControlServer, heard: list[events.Event]
) -> None:
    before = server.room
    for changes, answer in (
        ({"session": "x" * 100}, "400"),
        ({"cluster_id": "1" * 32}, "400"),
        ({"events": ({"event": "Evil"},)}, "400"),
        ({"session": "x" * 100_000}, "413"),
    ):
        with pytest.raises(NetworkError, match=f"answered {answer}"):
            client.report(attrs.evolve(REPORT, **changes))
    assert server.room is before
    assert heard == []


def test_a_stranger_is_told_of_once(client: RootClient, heard: list[events.Event]) -> None:
    for _ in range(3):
        with pytest.raises(NetworkError, match="403"):
            client.report(attrs.evolve(REPORT, blade="stranger"))
    (warning,) = heard
    assert isinstance(warning, events.Warned)
    assert "stranger" in warning.text


def test_whoever_watches_sees_own_and_reported_events(client: RootClient, server: ControlServer) -> None:
    seen: list[events.Event] = []
    ended: list[str] = []
    ready = threading.Event()

    def watch() -> None:
        try:
            for event in client.events(silence_s=TIMEOUT_S):
                seen.append(event)
                ready.set()
        except NetworkError as error:
            ended.append(str(error))

    watcher = threading.Thread(target=watch)
    watcher.start()
    while not ready.wait(0.05):  # until it is connected
        server.publish(events.Note(text="hello"))
    (report,) = plan_reports(REPORT, [events.Failed(text="no disk", exit_code=43)])
    client.report(report)
    server.close()
    watcher.join(TIMEOUT_S)
    assert "the stream ended" in ended[0]
    assert events.Note(text="hello") in seen
    assert seen[-1] == events.Failed(text="no disk", exit_code=43, subject="blade01")


def test_a_taken_port_is_an_error_of_its_own(server: ControlServer, tmp_path: Path) -> None:
    with pytest.raises(PortTakenError, match=str(server.port)):
        ControlServer(FakeView(tmp_path), cluster_id=CLUSTER_ID, address="127.0.0.1", port=server.port)


def test_nobody_there_is_one_line() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(NetworkError, match=f"127.0.0.1:{port}: GET /v1/claim: Connection refused"):
        RootClient("127.0.0.1", port).claim()


def answering(answer: bytes) -> tuple[RootClient, threading.Thread]:
    """A client of a service that says this to its first caller, and then nothing, without closing."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(65536)
            connection.sendall(answer)
            connection.settimeout(TIMEOUT_S)
            with contextlib.suppress(ConnectionResetError):
                while connection.recv(65536):
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    return RootClient("127.0.0.1", listener.getsockname()[1], timeout_s=1.0), thread


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "not a valid Claim"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(100000), "larger than"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "no answer in time"),
        (b"", "no answer in time"),
        (b"SSH-2.0-OpenSSH\r\n", "SSH-2.0"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://evil/\r\nContent-Length: 0\r\n\r\n", "answered 302"),
        (b"HTTP/1.1 500 \x1b[2J\r\nContent-Length: 4\r\n\r\n\x1b[2J", "answered 500  "),
    ],
)
def test_an_answer_that_makes_no_sense_is_one_line(answer: bytes, said: str) -> None:
    client, thread = answering(answer)
    with pytest.raises(NetworkError) as caught:
        client.claim()
    thread.join(TIMEOUT_S)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
