from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bladeroot.errors import InventoryError, UsageError
from bladeroot.host.localsocket import connected_socket
from bladeroot.lab.remote import CONTROL_SOCKET, Answer, ask, listening


def handle(request: Mapping[str, Any]) -> Answer:
    match request["verb"]:
        case "status":
            return {"blades": ["web01"]}
        case "refuse":
            raise InventoryError("no blade 'x'", "there is: web01")
    raise KeyError("verb")


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / ("long-" * 40)  # longer than a socket's path may be
    folder.mkdir()
    stop = threading.Event()
    with listening(folder) as control:

        def serve() -> None:
            while not stop.is_set():
                control.serve_one(handle, 0.05)

        thread = threading.Thread(target=serve)
        thread.start()
        yield folder
        stop.set()
        thread.join()


def test_a_question_and_its_answer(work: Path) -> None:
    assert ask(work, verb="status") == {"blades": ["web01"]}
    assert (work / CONTROL_SOCKET).stat().st_mode & 0o077 == 0


def test_an_error_of_the_lab_is_an_error_here(work: Path) -> None:
    with pytest.raises(UsageError, match="no blade 'x'") as caught:
        ask(work, verb="refuse")
    assert caught.value.hint == "there is: web01"


def test_what_a_lab_does_not_understand_does_not_end_it(work: Path) -> None:
    with pytest.raises(UsageError, match="does not understand"):
        ask(work, verb="dance")
    for nonsense in (b"[]\n", b"{\n", b"\xff\n", b""):
        with connected_socket(work, CONTROL_SOCKET) as stream:
            stream.sendall(nonsense)
            stream.shutdown(socket.SHUT_WR)
            answer = stream.recv(1000)
            assert b"does not understand" in answer
    assert ask(work, verb="status")


def test_without_a_lab(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UsageError, match="no lab is running") as caught:
            ask(folder, verb="status")
        assert "bladeroot lab up" in caught.value.hint
