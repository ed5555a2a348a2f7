"""One measurement: all blades are let go at once, and watched until each is bootable or time is up."""

from __future__ import annotations

import json
import os
import resource
import selectors
import signal
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from attrs import Factory, define

from benchmarks.contender import Contender
from benchmarks.figures import Measurement
from benchmarks.stage import TREE, Spot, Stage, read_traffic
from bladeroot.errors import ClaimNotHeldError
from bladeroot.host.interrupts import allowed
from bladeroot.host.run import PIPE, Process, start_process, stop_process

_READY_TIMEOUT_S = 180.0
_END_TIMEOUT_S = 20.0
_QUIET_S = 3.0
_SAMPLE_S = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")


@define
class Runner:
    """A blade's program, and what it has said."""

    spot: Spot
    process: Process
    log: Path
    said: dict[str, float] = Factory(dict)
    told: dict[str, Any] = Factory(dict)
    pending: bytes = b""
    cpu_before_s: float = 0.0
    has_ended: bool = False

    @property
    def output(self) -> IO[bytes]:
        stream = self.process.stdout
        assert stream is not None  # noqa: S101 - it was started with a pipe
        return stream

    @property
    def input(self) -> IO[bytes]:
        stream = self.process.stdin
        assert stream is not None  # noqa: S101 - it was started with a pipe
        return stream

    def hear(self) -> None:
        """Take in what it says now."""
        chunk = os.read(self.output.fileno(), 65536)
        self.has_ended = not chunk
        *lines, self.pending = (self.pending + chunk).split(b"\n")
        for line in lines:
            self.take(line.decode())

    def take(self, line: str) -> None:
        """One line of what it says: see `contender`."""
        word, _, rest = line.partition(" ")
        if word == "told":
            self.told = json.loads(rest)
        else:
            self.said.setdefault(word, float(rest or 0))

    def describe_end(self) -> str:
        """For people: why it said no more."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"{self.spot.name} ended early: {' | '.join(lines[-3:]) or 'it said nothing'}"


def measure(contender: Contender, stage: Stage, deadline_s: float) -> Measurement:
    """Raises ClaimNotHeldError if a program fails, or extracted something else than the tree."""
    load_before = os.getloadavg()[0]
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        root = stack.enter_context(contender.start_root(stage))
        runners = [_start_blade(contender, stage, spot, stack) for spot in stage.blades]
        for runner in runners:
            selector.register(runner.output, selectors.EVENT_READ, runner)
        _listen(runners, selector, "ready", time.monotonic() + _READY_TIMEOUT_S)
        if not all("ready" in runner.said for runner in runners):
            raise ClaimNotHeldError(f"{contender.name}: not all blades got ready")
        # Who has just said something to all does not say it again for a second, whoever asks (RFC 6762, 6).
        with allowed():
            time.sleep(_QUIET_S)
        for runner in runners:
            runner.cpu_before_s = read_cpu_s(runner.process.pid)
        root_cpu_before_s = read_cpu_s(root.pid)
        before, busy_before_s = [read_traffic(host) for host in stage.hosts], read_busy_s()
        began = time.clock_gettime(time.CLOCK_BOOTTIME)
        for runner in runners:
            runner.input.write(b"go\n")
            runner.input.flush()
        _listen(runners, selector, "bootable", time.monotonic() + deadline_s)
        wall_s = time.clock_gettime(time.CLOCK_BOOTTIME) - began
        busy_s = read_busy_s() - busy_before_s
        root_traffic, *traffic = [
            read_traffic(host).since(old) for host, old in zip(stage.hosts, before, strict=True)
        ]
        is_whole = all("bootable" in runner.said for runner in runners)
        if is_whole:
            _end(runners, selector)
        blades_cpu_s = sum(_reap(runner.process) - runner.cpu_before_s for runner in runners)
        root_cpu_s = _reap(root) - root_cpu_before_s
    if is_whole:
        for runner in runners:
            check_tree(runner.spot, stage)

    def times(word: str) -> tuple[float | None, ...]:
        return tuple(runner.said[word] - began if word in runner.said else None for runner in runners)

    return Measurement(
        contender=contender.name,
        blades=len(runners),
        image_bytes=stage.payload.size_bytes,
        floor_s=stage.floor_s,
        deadline_s=deadline_s,
        have_s=times("have"),
        bootable_s=times("bootable"),
        root_sent_bytes=root_traffic.sent_bytes,
        sent_bytes=tuple(one.sent_bytes for one in traffic),
        received_bytes=tuple(one.received_bytes for one in traffic),
        root_cpu_s=root_cpu_s,
        blades_cpu_s=blades_cpu_s,
        machine_busy_s=busy_s,
        cores=os.cpu_count() or 1,
        wall_s=wall_s,
        load_before=load_before,
        told=tuple(
            {**runner.told, **{f"{word}_s": said - began for word, said in runner.said.items()}}
            for runner in runners
        ),
    )


def _start_blade(contender: Contender, stage: Stage, spot: Spot, stack: ExitStack) -> Runner:
    command = spot.host.command(contender.blade_command(stage, spot))
    log = stage.folder / f"{spot.name}.log"
    errors = stack.enter_context(log.open("wb"))
    starting = start_process(
        command, stdin=PIPE, stdout=PIPE, stderr=errors, new_group=True, ends_with_parent=True
    )
    return Runner(spot, stack.enter_context(starting), log)


def _listen(runners: list[Runner], selector: selectors.BaseSelector, word: str, until_s: float) -> None:
    """Until all have said the word, or time is up."""
    while not all(word in runner.said for runner in runners):
        if time.monotonic() > until_s:
            return
        with allowed():
            ready = selector.select(_SAMPLE_S)
        for key, _events in ready:
            runner: Runner = key.data
            runner.hear()
            if runner.has_ended:
                selector.unregister(runner.output)
                if word not in runner.said:
                    raise ClaimNotHeldError(runner.describe_end())


def _end(runners: list[Runner], selector: selectors.BaseSelector) -> None:
    """Let them say what they know, and end."""
    for runner in runners:
        runner.input.close()
        runner.process.stdin = None
    until_s = time.monotonic() + _END_TIMEOUT_S
    while not all(runner.has_ended for runner in runners) and time.monotonic() < until_s:
        with allowed():
            ready = selector.select(_SAMPLE_S)
        for key, _events in ready:
            runner = key.data
            runner.hear()
            if runner.has_ended:
                selector.unregister(runner.output)


def _reap(process: Process) -> float:
    """End it and its group; returns the CPU seconds that it and its children took."""

    def read_children_s() -> float:
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    before_s = read_children_s()
    stop_process(process, whole_group=True)
    with suppress(ProcessLookupError):
        # An rsync daemon's children outlive SIGTERM, and would keep the disks mounted.
        os.killpg(process.pid, signal.SIGKILL)
    return read_children_s() - before_s


def read_cpu_s(pid: int) -> float:
    """What a process and its children that have ended took so far (proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / _TICKS


def read_busy_s() -> float:
    """What all cores together have worked since the machine's start (proc_stat(5))."""
    user, nice, system, _idle, _iowait, irq, softirq, *_rest = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS


def check_tree(spot: Spot, stage: Stage) -> None:
    """Raise ClaimNotHeldError unless as many names and bytes are there as in the payload."""
    found, expected = count_tree(spot.disk / TREE), count_tree(stage.payload.tree)
    if found != expected:
        raise ClaimNotHeldError(f"{spot.name} has {found} names and bytes, and the payload {expected}")


def count_tree(tree: Path) -> tuple[int, int]:
    """Names in a tree, and bytes of its files."""
    names = size_bytes = 0
    for folder, folders, files in os.walk(tree):
        names += len(folders) + len(files)
        size_bytes += sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    return names, size_bytes
