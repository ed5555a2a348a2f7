"""How a use case tells what it does: named steps, one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from bladeroot.events import Reporter, StepFinished, StepStarted


@contextmanager
def step(name: str, title: str, reporter: Reporter) -> Iterator[None]:
    """Report that a step began and, unless it raises, that it ended and how long it took."""
    started = time.monotonic()
    reporter(StepStarted(step=name, title=title))
    yield
    reporter(StepFinished(step=name, duration_s=time.monotonic() - started))
