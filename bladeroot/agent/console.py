"""Every console at once: the screen and the serial lines. A console that takes nothing holds up nobody."""

from __future__ import annotations

import contextlib
import os
import queue
import termios
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bladeroot.agent.words import Narrator
from bladeroot.events import Event

_ACTIVE = Path("/sys/class/tty/console/active")
_PREFIX = "bladeroot: "
_MOST_WAITING = 500
_FLUSH_S = 3.0


def find_consoles(active: Path = _ACTIVE, devices: Path = Path("/dev")) -> list[Path]:
    """The devices that the kernel's console is on (`console=`); /dev/console where it does not say."""
    try:
        names = active.read_text(encoding="ascii").split()
    except OSError:
        names = []
    found = [devices / name for name in names if (devices / name).exists()]
    return found or [devices / "console"]


class Console:
    """A reporter that writes on all consoles, each from a thread of its own."""

    def __init__(self, paths: Sequence[Path], clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._narrator = Narrator()
        self._lock = threading.Lock()
        self._writers = [_Writer(path) for path in paths]

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.say(*self._narrator.tell(event, self._clock()))

    def say(self, *lines: str) -> None:
        """Write lines as they are."""
        for line in lines:
            clean = "".join(character if character.isprintable() else " " for character in line)
            for writer in self._writers:
                writer.put(f"{_PREFIX}{clean}\n".encode())

    def flush(self) -> None:
        """Wait, not for ever, until everything is written."""
        deadline = time.monotonic() + _FLUSH_S
        for writer in self._writers:
            writer.flush(max(0.0, deadline - time.monotonic()))


class _Writer:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: queue.Queue[bytes | threading.Event] = queue.Queue(_MOST_WAITING)
        threading.Thread(target=self._run, name=f"console-{path.name}", daemon=True).start()

    def put(self, data: bytes | threading.Event) -> None:
        """Queue it; where too much waits, the oldest is lost."""
        while True:
            try:
                self._waiting.put_nowait(data)
                return
            except queue.Full:
                with contextlib.suppress(queue.Empty):
                    self._waiting.get_nowait()

    def flush(self, timeout_s: float) -> None:
        """Wait until what was queued so far is out."""
        done = threading.Event()
        self.put(done)
        done.wait(timeout_s)

    def _run(self) -> None:
        descriptor = -1
        while True:
            data = self._waiting.get()
            try:
                if descriptor < 0:
                    descriptor = os.open(self._path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC | os.O_APPEND)
                if isinstance(data, bytes):
                    _write_all(descriptor, data)
                elif os.isatty(descriptor):
                    termios.tcdrain(descriptor)
            except (OSError, termios.error):
                descriptor = _close(descriptor)  # a terminal that was hung up is opened again
            if isinstance(data, threading.Event):
                data.set()


def _write_all(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]


def _close(descriptor: int) -> int:
    if descriptor >= 0:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    return -1
