"""How one terminal speaks with a lab that runs in another: a unix socket, a line of JSON each way."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bladeroot.errors import BladerootError, ClaimNotHeldError, UsageError
from bladeroot.lab.power import connected_socket, short_path

CONTROL_SOCKET = "control.sock"
_MOST_BYTES = 64 << 10
_ASKING_TIMEOUT_S = 5.0
_ANSWER_TIMEOUT_S = 120.0
"""A blade may take its time to switch itself off."""

Answer = Mapping[str, Any]
Handler = Callable[[Mapping[str, Any]], Answer]


class ControlSocket:
    """The lab's end; see `listening`."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener

    def serve_one(self, handle: Handler, timeout_s: float) -> bool:
        """Answer one request; False if none came in that time. An error of `handle` is the answer then."""
        self._listener.settimeout(timeout_s)
        try:
            stream, _address = self._listener.accept()
        except TimeoutError:
            return False
        with stream, contextlib.suppress(OSError):  # who asked may be gone
            stream.settimeout(_ASKING_TIMEOUT_S)
            stream.sendall(json.dumps(_answer(handle, _read_line(stream))).encode() + b"\n")
        return True


@contextmanager
def listening(work: Path) -> Iterator[ControlSocket]:
    """Take requests in the lab's folder."""
    path = work / CONTROL_SOCKET
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        with short_path(work) as folder:
            listener.bind(f"{folder}/{CONTROL_SOCKET}")
        path.chmod(0o600)
        listener.listen()
        try:
            yield ControlSocket(listener)
        finally:
            path.unlink(missing_ok=True)


def ask(work: Path, **request: Any) -> Answer:
    """Ask the lab that runs in that folder. Raises UsageError if none does, and what it answers it with."""
    try:
        with connected_socket(work, CONTROL_SOCKET, _ANSWER_TIMEOUT_S) as stream:
            stream.sendall(json.dumps(request).encode() + b"\n")
            line = _read_line(stream)
    except TimeoutError:
        raise ClaimNotHeldError(f"the lab in {work} does not answer") from None
    except OSError:
        raise UsageError(f"no lab is running in {work}", "`bladeroot lab up --vm` starts one") from None
    try:
        answer: dict[str, Any] = json.loads(line)
    except ValueError:
        raise ClaimNotHeldError(f"the lab in {work} ended before it answered") from None
    if "error" in answer:
        raise UsageError(str(answer["error"]), str(answer.get("hint", "")))
    return answer


def _answer(handle: Handler, line: bytes) -> Answer:
    try:
        return handle(json.loads(line))
    except BladerootError as error:
        return {"error": str(error), "hint": error.hint}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"error": "this lab does not understand that", "hint": "is it of another version?"}


def _read_line(stream: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _MOST_BYTES:
        chunk = stream.recv(_MOST_BYTES)
        if not chunk:
            break
        data += chunk
    return data
