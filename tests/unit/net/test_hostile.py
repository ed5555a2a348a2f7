"""What a hostile or broken machine says to a blade, and what it sends to a root."""

from __future__ import annotations

import contextlib
import gzip
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bladeroot import events
from bladeroot.core import wire
from bladeroot.core.reports import PeerList
from bladeroot.errors import NetworkError
from bladeroot.net import control
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from tests.unit.net.test_control import CLUSTER_ID, HASH, TIMEOUT_S, FakeView, ask

PATIENCE_S = 0.5


def drip_header(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


def continue_for_ever(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)


def drip_trailers(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
    while True:
        connection.sendall(b"X: y\r\n")
        time.sleep(0.05)


def drip_body(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        connection.sendall(b"a")
        time.sleep(0.05)


@contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A machine that answers one request in its way; its port."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                answer(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join(TIMEOUT_S)


@pytest.mark.parametrize("answer", [drip_header, continue_for_ever, drip_trailers, drip_body])
def test_a_call_ends_in_time_however_the_answer_comes(answer: Callable[[socket.socket], None]) -> None:
    began = time.monotonic()
    with (
        answering(answer) as port,
        pytest.raises(NetworkError, match="no answer in time"),
    ):
        RootClient("127.0.0.1", port, timeout_s=PATIENCE_S).claim()
    assert PATIENCE_S <= time.monotonic() - began < PATIENCE_S + 5


def drip_whole(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")
    for _ in range(20):
        connection.sendall(b"a")
        time.sleep(0.05)


def drip_and_fall_silent(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\na")
    while connection.recv(1):
        pass


def test_what_hundreds_ask_for_at_once_may_take_long_so_long_as_it_comes() -> None:
    with answering(drip_whole) as port:
        assert RootClient("127.0.0.1", port, timeout_s=PATIENCE_S).torrent(HASH) == b"a" * 20


@pytest.mark.parametrize("answer", [drip_header, continue_for_ever, drip_body, drip_and_fall_silent])
def test_what_may_take_long_ends_in_time_too(answer: Callable[[socket.socket], None]) -> None:
    began = time.monotonic()
    with answering(answer) as port, pytest.raises(NetworkError, match="no answer in time"):
        RootClient("127.0.0.1", port, timeout_s=PATIENCE_S, bulk_s=2 * PATIENCE_S).torrent(HASH)
    assert time.monotonic() - began < PATIENCE_S + 5


def test_an_answer_that_ends_with_the_connection_is_whole() -> None:
    body = wire.encode(PeerList(peers=(("10.0.0.1", 7475),)))
    with answering(lambda connection: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + body)) as port:
        assert RootClient("127.0.0.1", port).peers(HASH).peers == (("10.0.0.1", 7475),)


def test_what_is_much_larger_when_unpacked_is_not_unpacked() -> None:
    body = gzip.compress(bytes(256 << 20), compresslevel=1)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    tracemalloc.start()
    try:
        with (
            answering(lambda connection: connection.sendall(head + body)) as port,
            pytest.raises(NetworkError, match="answer is larger than 65536 bytes"),
        ):
            RootClient("127.0.0.1", port).peers(HASH)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_what_is_not_packed_as_it_says_is_an_error_of_the_network() -> None:
    answer = b"HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\n\r\nplain"
    with (
        answering(lambda connection: connection.sendall(answer)) as port,
        pytest.raises(NetworkError, match="incorrect header"),
    ):
        RootClient("127.0.0.1", port).peers(HASH)


def test_peers_are_addresses_and_few() -> None:
    odd = (("host", 1), ("10.0.0.1", 0), ("10.0.0.1", -1), ("10.0.0.1", 65536), ("\x1b[2J", 1), ("", 1))
    fine = tuple((f"10.0.{n // 250}.{n % 250 + 1}", 7475) for n in range(1000))
    body = wire.encode(PeerList(peers=(*odd, ("fe80::1", 1), *fine)))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
    with answering(lambda connection: connection.sendall(head + body)) as port:
        peers = RootClient("127.0.0.1", port).peers(HASH).peers
    assert peers[:2] == (("fe80::1", 1), ("10.0.0.1", 7475))
    assert len(peers) == 64


def test_whom_an_event_is_about_does_not_steer_a_terminal() -> None:
    event = b'data: {"event": "Note", "text": "t", "subject": "\\u001b[2J"}\n\n'
    with answering(lambda connection: connection.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + event)) as port:
        assert next(RootClient("127.0.0.1", port).events()) == events.Note(text="t")


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "with space", "new\nline"])
def test_a_host_that_is_none_is_a_network_error(host: str) -> None:
    with pytest.raises(NetworkError):
        RootClient(host, 7474).claim()


def test_what_keeps_the_service_from_starting_is_raised() -> None:
    with pytest.raises(NetworkError, match="cannot serve at"):
        ControlServer(FakeView(Path()), cluster_id=CLUSTER_ID, address="127.0.0.1", port=70000)


def test_an_error_inside_is_one_warning_and_no_traceback(
    capfd: pytest.CaptureFixture[str],
) -> None:
    class BrokenView(FakeView):
        def serials(self) -> list[int]:
            raise KeyError("damage")

    heard: list[events.Event] = []
    view = BrokenView(Path())
    with ControlServer(
        view, cluster_id=CLUSTER_ID, address="127.0.0.1", port=0, reporter=heard.append
    ) as server:
        assert [ask(server, "/v1/generations")[0] for _ in range(3)] == [500] * 3
        assert ask(server, "/v1/claim")[0] == 200
    assert heard == [events.Warned(text="could not answer /v1/generations: KeyError('damage')")]
    assert capfd.readouterr().err == ""


def test_what_is_no_http_is_not_told_to_the_operator(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with ControlServer(FakeView(Path()), cluster_id=CLUSTER_ID, address="127.0.0.1", port=0) as server:
        for rubbish in (b"\x1b[2J\r\n\r\n", b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: -1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", server.port), timeout=TIMEOUT_S) as connection:
                connection.sendall(rubbish)
                assert b"400" in connection.recv(100)
    assert capfd.readouterr().err == ""


def test_a_watcher_that_does_not_read_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(control, "_LISTENER_PATIENCE_S", 0.2)
    with ControlServer(FakeView(Path()), cluster_id=CLUSTER_ID, address="127.0.0.1", port=0) as server:
        with socket.socket() as watcher:
            watcher.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            watcher.settimeout(TIMEOUT_S)
            watcher.connect(("127.0.0.1", server.port))
            watcher.sendall(b"GET /v1/events HTTP/1.1\r\nHost: h\r\n\r\n")
            assert watcher.recv(1) == b"H"
            until = time.monotonic() + TIMEOUT_S
            while server._listeners and time.monotonic() < until:
                server.publish(events.Note(text="x" * 100_000))
                time.sleep(0.001)
        assert not server._listeners
