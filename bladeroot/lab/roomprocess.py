"""A running bladeroot command of the lab: its stream of events is read, and kept in a log."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import IO, Any

from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Event, Finished, Reporter, from_mapping
from bladeroot.host.run import Process

_CHECK_S = 1.0
ENDED_UNSEEN_S = 60.0
"""How long a process that has ended, or was asked to, may take until all it has said is read."""


class RoomProcess:
    """One command in a host of the lab, its events read while it runs; what it says is appended to `log`."""

    def __init__(self, name: str, process: Process, log: Path, reporter: Reporter) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._reporter = reporter
        self._last_line = ""
        self._finished: dict[str, Any] | None = None
        self._said = threading.Condition()
        assert process.stderr is not None  # noqa: S101 - it was started with a pipe
        self._thread = threading.Thread(target=self._read, args=(process.stderr,), name=f"events-{name}")
        self._thread.start()

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """The facts it finished with. Raises ClaimNotHeldError if it failed, or takes longer."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise ClaimNotHeldError(f"{self.name} is not done after {timeout_s:g} s", f"its log: {self._log}")
        code = self._process.wait()
        if code != 0 or self._finished is None:
            raise ClaimNotHeldError(
                f"{self.name} ended with exit code {code}: {self._last_line}", f"its log: {self._log}"
            )
        return self._finished

    def wait_for_finish(self, timeout_s: float) -> dict[str, Any]:
        """The facts that it finished with, though it may linger. Raises ClaimNotHeldError like `wait`."""
        with self._said:
            self._said.wait_for(lambda: self._finished is not None or self.has_ended, timeout_s)
        return self._finished if self._finished is not None else self.wait(_CHECK_S)

    def stop(self) -> dict[str, Any]:
        """Ask it to end, and return the facts it finished with."""
        self._process.terminate()
        return self.wait(ENDED_UNSEEN_S)

    def kill(self) -> None:
        """As a power cut does: at once, and with no chance to say anything."""
        self._process.kill()
        self._process.wait()
        self._thread.join()

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    @property
    def is_silent(self) -> bool:
        """Whether all that it and its children will ever say was heard: they are gone."""
        return not self._thread.is_alive()

    def _read(self, stream: IO[bytes]) -> None:
        with self._log.open("ab") as log:
            for line in stream:
                log.write(line)
                log.flush()
                event = parse_line(line)
                if isinstance(event, Finished) and not event.subject:
                    with self._said:
                        self._finished = dict(event.facts)
                        self._said.notify_all()
                if event is not None:
                    self._reporter(event)
                else:
                    self._last_line = line.decode(errors="replace").strip()
        with self._said:
            self._said.notify_all()


def parse_line(line: bytes) -> Event | None:
    """The event that a line of `--json` is; None for any other line."""
    try:
        return from_mapping(json.loads(line))
    except (ValueError, AttributeError):
        return None
