"""The same image to rooms of several sizes, with one tool after the other, over shaped links."""

from __future__ import annotations

import datetime
import fcntl
import os
import platform
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from bladeroot.host.files import allow_many_files, scratch_folder
from bladeroot.host.mounts import enter_own_namespace, mounted
from bladeroot.events import Event, StepStarted
from bladeroot.host.run import require_root, require_tools
from bladeroot.lab.demo import PACKAGES
from bladeroot.ops.snapshots.debian import ensure_cached_debian
from benchmarks.contender import Contender
from benchmarks.figures import Measurement, max_time, summarise
from benchmarks.payload import make_payload
from benchmarks.race import measure
from benchmarks.stage import open_stage
from benchmarks.swarm import Bladeroot

CONTENDERS: Sequence[type[Contender]] = (Bladeroot,)
DEADLINE_FLOORS = 8


@attrs.frozen(kw_only=True)
class Options:
    """What a person may choose."""

    blades: Sequence[int]
    only: Sequence[str]
    rate_bits: int
    size_bytes: int
    runs: int
    deadline_floors: float
    lock: Path | None


def run_room(options: Options, console: Console) -> dict[str, Any]:
    """Measure; returns everything that a program may want to know of it."""
    require_root("the bench (network namespaces, filesystems)")
    contenders = [make() for make in CONTENDERS if not options.only or make.name in options.only]
    require_tools(
        ["ip", "tc", "ss", "mkfs.ext4", "tar", "zstd", *(n for one in contenders for n in one.needs)]
    )
    enter_own_namespace()
    allow_many_files()
    machine = describe_machine(contenders)
    debian = ensure_cached_debian(include=PACKAGES, reporter=lambda event: _tell(event, console))
    measurements: list[Measurement] = []
    with (
        scratch_folder("bladeroot-bench-", Path("/var/tmp")) as work,
        # Disks that are never the limit: what is compared is how an image comes over the links.
        mounted(Path("tmpfs"), work / "disks", filesystem="tmpfs", options=["size=95%"]) as disks,
    ):
        payload = make_payload(debian, work, options.size_bytes, max(options.blades))
        for one in contenders:
            one.prepare(payload, work)
        for run in range(1, options.runs + 1):
            for count in options.blades:
                for contender in contenders:
                    with _locked(options.lock), open_stage(payload, count, options.rate_bits, disks) as stage:
                        one_s = measure(contender, stage, options.deadline_floors * stage.floor_s)
                    measurements.append(one_s)
                    console.print(f"run {run}: {describe(one_s)}", highlight=False)
    return {
        "machine": machine,
        "options": {**attrs.asdict(options), "lock": None},
        "payload": {
            "size_bytes": payload.size_bytes,
            "raw_bytes": payload.raw_bytes,
            "pieces": payload.pieces,
            "names": payload.files,
        },
        "summary": [attrs.asdict(one) for one in summarise(measurements)],
        "measurements": [attrs.asdict(one) for one in measurements],
    }


def _tell(event: Event, console: Console) -> None:
    if isinstance(event, StepStarted):
        console.print(event.title, highlight=False)


def describe(one: Measurement) -> str:
    """A line for a person who waits."""
    text = f"{one.contender:10} {one.blades:4} blades: "
    if one.is_whole:
        last_s, bootable_s = max_time(one.have_s), max_time(one.bootable_s)
        text += (
            f"last has it {last_s:6.1f} s ({last_s / one.floor_s:.2f} floors), bootable {bootable_s:6.1f} s"
        )
    else:
        text += f"stopped after {one.wall_s:.0f} s, {one.arrived:.0%} had come"
    redundant = "" if one.told_redundant is None else f"; {one.told_redundant:.1%} came twice"
    busy = one.machine_busy_s / one.wall_s
    return f"{text}; {one.copies:.2f} copies left the root{redundant}; {busy:.2f} of {one.cores} cores busy"


def describe_machine(contenders: Sequence[Contender]) -> dict[str, Any]:
    """Where and when, and with what."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load": os.getloadavg(),
        "versions": {one.name: one.versions() for one in contenders},
    }


@contextmanager
def _locked(path: Path | None) -> Iterator[None]:
    """Let those who measure on this machine take turns."""
    if path is None:
        yield
        return
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
