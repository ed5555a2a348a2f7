"""How a use case tells what it does: named steps, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bladeroot.events import Reporter, StepFinished, StepStarted
from bladeroot.host.interrupts import check


@contextmanager
def step(name: str, title: str, reporter: Reporter) -> Iterator[None]:
    """Report that a step began and, unless it raises, that it ended and how long it took.

    Where the process was asked to stop, the step does not begin, and does not end (`host.interrupts`).
    """
    check()
    started = time.monotonic()
    reporter(StepStarted(step=name, title=title))
    yield
    check()
    reporter(StepFinished(step=name, duration_s=time.monotonic() - started))
