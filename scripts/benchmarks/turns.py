"""Several who measure on one machine take turns."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bladeroot.host.interrupts import allowed


@contextmanager
def in_turn(lock: Path | None) -> Iterator[None]:
    """Hold that file's lock, if there is one, for the length of the block."""
    if lock is None:
        yield
        return
    with lock.open("w") as file:
        with allowed():
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
