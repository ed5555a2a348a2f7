"""How one process of this machine speaks with another."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bladeroot.errors import DepotError
from bladeroot.host import localsocket

NAME = "it.sock"
TIMEOUT_S = 30.0


@contextmanager
def answering(folder: Path, handle: localsocket.Handler, requests: int = 1) -> Iterator[list[bool]]:
    """One that answers so many requests; what `serve_one` said of each."""
    served: list[bool] = []
    with localsocket.listening(folder, NAME) as end:

        def serve() -> None:
            served.extend(end.serve_one(handle, TIMEOUT_S) for _ in range(requests))

        thread = threading.Thread(target=serve)
        thread.start()
        yield served
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def echo(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"heard": request}


def test_a_question_is_answered_and_the_socket_is_its_owners(tmp_path: Path) -> None:
    with answering(tmp_path, echo) as served:
        mode = (tmp_path / NAME).stat().st_mode
        assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)
        assert localsocket.ask(tmp_path, NAME, TIMEOUT_S, do="it") == {"heard": {"do": "it"}}
    assert served == [True]
    assert list(tmp_path.iterdir()) == []


def test_a_path_of_any_length(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with answering(folder, echo):
        assert localsocket.ask(folder, NAME, TIMEOUT_S) == {"heard": {}}


def test_what_somebody_that_was_killed_left_is_taken_over(tmp_path: Path) -> None:
    with localsocket.short_path(tmp_path) as short, socket.socket(socket.AF_UNIX) as left:
        left.bind(f"{short}/{NAME}")
    with pytest.raises(ConnectionRefusedError):
        localsocket.ask(tmp_path, NAME, TIMEOUT_S)
    with answering(tmp_path, echo):
        assert "heard" in localsocket.ask(tmp_path, NAME, TIMEOUT_S)


def test_an_error_is_the_answer_with_its_hint_and_code(tmp_path: Path) -> None:
    def refuse(_request: Mapping[str, Any]) -> Mapping[str, Any]:
        raise DepotError("no generation", "publish one")

    with answering(tmp_path, refuse):
        answer = localsocket.ask(tmp_path, NAME, TIMEOUT_S)
    assert answer == {"error": "no generation", "hint": "publish one", "exit_code": 22}


def test_nobody_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        localsocket.ask(tmp_path, NAME, TIMEOUT_S)
    with localsocket.listening(tmp_path, NAME) as end:
        assert not end.serve_one(echo, 0.01)


def say(data: bytes) -> Callable[[socket.socket], None]:
    return lambda stream: stream.sendall(data)


@pytest.mark.parametrize("request_bytes", [b"rubbish\n", b"[]\n", b"{}\n", b"\xff\n", b"a" * (64 << 10)])
def test_what_is_no_question_gets_an_answer_that_says_so(tmp_path: Path, request_bytes: bytes) -> None:
    with answering(tmp_path, lambda request: {"did": request["do"]}):
        with localsocket.connected_socket(tmp_path, NAME) as stream:
            stream.sendall(request_bytes)
            answer = stream.recv(1 << 16)
        assert b"does not understand that" in answer


def test_who_says_nothing_or_leaves_holds_nobody_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(localsocket, "_ASKING_TIMEOUT_S", 0.05)
    with answering(tmp_path, echo, requests=3) as served:
        with localsocket.connected_socket(tmp_path, NAME):
            pass
        with localsocket.connected_socket(tmp_path, NAME):
            assert localsocket.ask(tmp_path, NAME, TIMEOUT_S) == {"heard": {}}
    assert served == [True] * 3


def test_an_answer_that_takes_too_long_is_not_waited_for(tmp_path: Path) -> None:
    with localsocket.listening(tmp_path, NAME), pytest.raises(TimeoutError):
        localsocket.ask(tmp_path, NAME, 0.05)
