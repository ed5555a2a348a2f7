"""Programs that are not ours: each has so much time and output, and ends with all that it started."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from attrs import frozen

from bladeroot.host.interrupts import check
from bladeroot.host.run import Argument, Process, start_process

TAIL_BYTES = 4096
"""So much of the end of a program's output is kept for messages."""
MOST_LOGGED_BYTES = 1 << 20
"""So much of the beginning of it goes to the log."""
_PAUSE_S = 0.1
_GRACE_S = 5.0
"""Between SIGTERM and SIGKILL."""
_DRAIN_S = 1.0
_READ_BYTES = 64 << 10


@frozen
class Ended:
    """How a program ended: its exit code (negative: by that signal), or None where it took too long."""

    code: int | None
    tail: bytes
    duration_s: float


def run_limited(
    argv: Sequence[Argument],
    *,
    environment: Mapping[str, str],
    timeout_s: float,
    log: IO[bytes] | None = None,
) -> Ended:
    """Run a program with that environment and no other, its output going to the log's end.

    It is a process group of its own, which is killed when the program has ended or its time is over.
    Raises ToolError where it cannot be started.
    """
    started = time.monotonic()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    output = _Output(reading, log)
    try:
        with (
            open(writing, "wb") as pipe,
            start_process(
                argv,
                stdout=pipe,
                stderr=pipe,
                cwd=Path("/"),
                environment=environment,
                clean_environment=True,
                new_group=True,
            ) as process,
        ):
            pipe.close()
            try:
                is_over = _follow(process, output, started + timeout_s)
            finally:
                _end_group(process)
            output.drain()
            code = process.wait() if is_over else None
    finally:
        os.close(reading)
    return Ended(code, output.tail, time.monotonic() - started)


def end_processes_in(root: Path) -> int:
    """Kill every process whose root directory is `root`, such as a chroot's daemons; returns how many."""
    wanted = os.path.realpath(root)
    count = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            if os.readlink(entry / "root") == wanted and wanted != "/":
                os.kill(int(entry.name), signal.SIGKILL)
                count += 1
    return count


class _Output:
    """What comes out of a pipe: its end in memory, its beginning in the log."""

    def __init__(self, descriptor: int, log: IO[bytes] | None) -> None:
        self._descriptor = descriptor
        self._log = log
        self._logged = 0
        self.tail = b""
        self.is_at_end = False

    def read(self, timeout_s: float) -> bool:
        """Take what is there, waiting so long for it; False where nothing came."""
        if not select.select([self._descriptor], [], [], timeout_s)[0]:
            return False
        data = os.read(self._descriptor, _READ_BYTES)
        self.is_at_end = not data
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        self._write(data)
        return bool(data)

    def _write(self, data: bytes) -> None:
        room = MOST_LOGGED_BYTES - self._logged
        if self._log is None or room < 0:
            return
        self._log.write(data[:room])
        self._logged += len(data)
        if self._logged > MOST_LOGGED_BYTES:
            self._log.write(b"\n... (the rest is not kept)\n")
        self._log.flush()

    def drain(self) -> None:
        """Take what is left. Who left the program's group may go on writing for ever."""
        deadline = time.monotonic() + _DRAIN_S
        while not self.is_at_end and self.read(0) and time.monotonic() < deadline:
            pass


def _follow(process: Process, output: _Output, deadline: float) -> bool:
    """Wait for the program's end; False where it took too long."""
    while process.poll() is None:
        check()
        if time.monotonic() > deadline:
            return False
        if output.is_at_end:
            time.sleep(min(_PAUSE_S, max(0.0, deadline - time.monotonic())))
        else:
            output.read(min(_PAUSE_S, max(0.0, deadline - time.monotonic())))
    return True


def _end_group(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + _GRACE_S
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(_PAUSE_S / 10)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
