from __future__ import annotations

import random
import threading
from pathlib import Path

import attrs

from bladeroot.host.archive.framequeue import FrameJob, FrameQueue

TIMEOUT_S = 20.0


def job(number: int, cost_bytes: int, data: bytes | Path = b"") -> FrameJob:
    return FrameJob(number, data, cost_bytes)


@attrs.define
class Gauge:
    """What is under way at once, as those see it who put and take."""

    bytes_now: int = 0
    most_bytes: int = 0
    most_jobs: int = 0
    jobs: int = 0
    over_bound_alone: bool = True
    lock: threading.Lock = attrs.field(factory=threading.Lock)

    def begin(self, job: FrameJob, bound: int) -> None:
        with self.lock:
            self.over_bound_alone &= job.cost_bytes <= bound or self.jobs == 0
            self.bytes_now += job.cost_bytes
            self.jobs += 1
            self.most_bytes = max(self.most_bytes, self.bytes_now)
            self.most_jobs = max(self.most_jobs, self.jobs)

    def end(self, job: FrameJob) -> None:
        with self.lock:
            self.bytes_now -= job.cost_bytes
            self.jobs -= 1


def test_frames_of_any_size_never_take_more_than_the_bound_unless_one_is_larger() -> None:
    chance = random.Random(5)
    bound = 1000
    jobs = [job(n, chance.choice([10, 100, 300, 700, 1500, 3000])) for n in range(300)]
    jobs += [job(n, chance.choice([50, 900, 2000]), Path("x")) for n in range(300, 400)]
    frames, gauge, seen = FrameQueue(bound), Gauge(), []

    def work() -> None:
        while (taken := frames.take()) is not None:
            gauge.begin(taken, bound)
            seen.append(taken.number)
            gauge.end(taken)
            frames.done(taken.cost_bytes)

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for one in sorted(jobs, key=lambda _: chance.random()):
        frames.put(one)
    frames.wait_until_idle()
    assert sorted(seen) == list(range(400))
    frames.close()
    for worker in workers:
        worker.join(TIMEOUT_S)
        assert not worker.is_alive()
    assert gauge.over_bound_alone
    assert gauge.most_bytes <= 3000


def test_whoever_brings_what_does_not_fit_waits_until_it_does() -> None:
    frames = FrameQueue(100)
    frames.put(job(0, 60))
    is_in = threading.Event()

    def bring() -> None:
        frames.put(job(1, 60))
        is_in.set()

    thread = threading.Thread(target=bring)
    thread.start()
    first = frames.take()
    assert first is not None
    assert not is_in.is_set()  # it is being worked on: its bytes are still there
    frames.done(first.cost_bytes)
    assert is_in.wait(TIMEOUT_S)
    thread.join(TIMEOUT_S)


def test_bytes_that_are_there_go_before_files_that_can_wait() -> None:
    frames = FrameQueue(100)
    frames.put(job(0, 50, Path("x")))
    frames.put(job(1, 50))
    taken = [frames.take(), frames.take()]
    assert [one.number for one in taken if one] == [1, 0]


def test_what_is_dropped_makes_room_and_keeps_nobody_waiting() -> None:
    frames = FrameQueue(100)
    frames.put(job(0, 100))
    frames.put(job(1, 100, Path("x")))
    frames.drop_waiting()
    frames.put(job(2, 100))
    taken = frames.take()
    assert taken is not None
    assert taken.number == 2
    frames.done(taken.cost_bytes)
    frames.wait_until_idle()
    frames.close()
    assert frames.take() is None
