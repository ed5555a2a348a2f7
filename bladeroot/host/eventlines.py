"""Events as lines of JSON, for a program that is read by another one."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from typing import IO

from bladeroot.events import Event, to_mapping


class EventLines:
    """A reporter that writes each event as one line; whoever has left does not hear it."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        """Write it at once, from any thread."""
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(json.dumps(to_mapping(event), default=str) + "\n")
            self._stream.flush()
