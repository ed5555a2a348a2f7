"""How one process on this machine speaks with another: a unix socket in a folder, a line of JSON each way.

Who may open the folder's socket is who owns it.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bladeroot.errors import BladerootError

Answer = Mapping[str, Any]
Handler = Callable[[Mapping[str, Any]], Answer]
_MOST_BYTES = 64 << 10
_ASKING_TIMEOUT_S = 5.0


class LocalSocket:
    """The end that answers; see `listening`."""

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
            line = _read_line(stream)
            stream.settimeout(None)
            stream.sendall(json.dumps(_answer(handle, line)).encode() + b"\n")
        return True


@contextmanager
def listening(folder: Path, name: str) -> Iterator[LocalSocket]:
    """Take requests at that socket. Raises OSError."""
    path, draft = folder / name, folder / f".{name}"
    draft.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        with short_path(folder) as short:
            listener.bind(f"{short}/{draft.name}")
        draft.chmod(0o600)
        listener.listen()
        # Not before: whoever finds the socket is answered.
        draft.replace(path)
        try:
            yield LocalSocket(listener)
        finally:
            path.unlink(missing_ok=True)


def ask(folder: Path, name: str, timeout_s: float, **request: Any) -> Answer:
    """Ask who listens there. An answer with `error` is the error that it was answered with.

    Raises TimeoutError, OSError where nobody listens, ValueError for an answer that breaks off.
    """
    with connected_socket(folder, name, timeout_s) as stream:
        stream.sendall(json.dumps(request).encode() + b"\n")
        line = _read_line(stream)
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextmanager
def connected_socket(folder: Path, name: str, timeout_s: float = 20.0) -> Iterator[socket.socket]:
    """A connection to the unix socket `name` in a folder, however long its path is. Raises OSError."""
    with short_path(folder) as short, socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(timeout_s)
        stream.connect(f"{short}/{name}")
        yield stream


@contextmanager
def short_path(folder: Path) -> Iterator[str]:
    """Another path of the folder: a unix socket's has a limit of 108 bytes (unix(7)). Raises OSError."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{directory}"
    finally:
        os.close(directory)


def _answer(handle: Handler, line: bytes) -> Answer:
    try:
        return handle(json.loads(line))
    except BladerootError as error:
        return {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"error": "who listens there does not understand that", "hint": "is it of another version?"}


def _read_line(stream: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n") and len(data) < _MOST_BYTES:
        chunk = stream.recv(_MOST_BYTES)
        if not chunk:
            break
        data += chunk
    return data
