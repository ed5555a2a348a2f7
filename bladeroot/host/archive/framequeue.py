"""Frames that wait for a worker, bounded by the bytes that they take in memory, not by their number."""

from __future__ import annotations

import threading
from collections import deque
from pathlib import Path

from attrs import frozen


@frozen(eq=False)
class FrameJob:
    """A frame to extract: its bytes, or a file that is read when its turn comes."""

    number: int
    data: bytes | Path
    cost_bytes: int
    """What it takes in memory while it is worked on."""


class FrameQueue:
    """Jobs in any order, and no more of them under way than fit into `bound_bytes`. Thread-safe.

    Under way is what came as bytes, from `put` to `done`, and what comes from a file, from `take` to `done`.
    What is larger than the bound has all of it for itself. Bytes go before files: who gave them may wait.
    """

    def __init__(self, bound_bytes: int) -> None:
        self._bound_bytes = bound_bytes
        self._changed = threading.Condition()
        self._jobs: deque[FrameJob] = deque()
        self._files: deque[FrameJob] = deque()
        self._used_bytes = 0
        self._under_way = 0
        self._is_closed = False

    def put(self, job: FrameJob) -> None:
        """Wait until it fits, and let workers have it. What is larger than the bound is waited for until it
        is done: else whoever brings the next one would hold that beside it. Nothing, where it is closed.
        """
        with self._changed:
            if isinstance(job.data, Path):
                self._files.append(job)
                self._changed.notify()
                return
            self._changed.wait_for(lambda: self._is_closed or self._fits(job))
            if self._is_closed:
                return
            self._begin(job)
            self._jobs.append(job)
            self._changed.notify_all()
            if job.cost_bytes > self._bound_bytes:
                self._changed.wait_for(lambda: self._is_closed or not self._used_bytes)

    def take(self) -> FrameJob | None:
        """The next job, which ends with `done`; None when there are no more and the queue is closed."""
        with self._changed:
            while True:
                if self._jobs:
                    return self._jobs.popleft()
                if self._files and self._fits(self._files[0]):
                    self._begin(self._files[0])
                    return self._files.popleft()
                if self._is_closed and not self._files:
                    return None
                self._changed.wait()

    def done(self, cost_bytes: int) -> None:
        """A job's bytes are not in memory any more."""
        with self._changed:
            self._used_bytes -= cost_bytes
            self._under_way -= 1
            self._changed.notify_all()

    def wait_until_idle(self) -> None:
        """Wait until every job is done."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._jobs or self._files or self._under_way))

    def drop_waiting(self) -> None:
        """Forget the jobs that nobody has taken."""
        with self._changed:
            self._used_bytes -= sum(job.cost_bytes for job in self._jobs)
            self._under_way -= len(self._jobs)
            self._jobs.clear()
            self._files.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Let workers end when what is there is done; nothing more is put."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _fits(self, job: FrameJob) -> bool:
        return not self._used_bytes or self._used_bytes + job.cost_bytes <= self._bound_bytes

    def _begin(self, job: FrameJob) -> None:
        self._used_bytes += job.cost_bytes
        self._under_way += 1
