"""The same image to rooms of several sizes, with one tool after the other, over shaped links."""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from benchmarks.contender import Contender
from benchmarks.figures import Measurement, Summary, max_time, summarise
from benchmarks.http import Nginx
from benchmarks.multicast import Udpcast
from benchmarks.payload import Payload, make_payload
from benchmarks.race import measure
from benchmarks.rsync import Rsync
from benchmarks.stage import Stage, open_stage
from benchmarks.swarm import Bladeroot
from benchmarks.torrent import Aria2
from benchmarks.turns import in_turn
from bladeroot.core.cluster import MIB
from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Event, StepStarted
from bladeroot.host.files import allow_many_files, scratch_folder
from bladeroot.host.interrupts import deferred
from bladeroot.host.mounts import enter_own_namespace, mounted
from bladeroot.host.run import require_root, require_tools
from bladeroot.lab.demo import PACKAGES
from bladeroot.ops.snapshots.debian import ensure_cached_debian

CONTENDERS: Sequence[type[Contender]] = (Bladeroot, Udpcast, Aria2, Nginx, Rsync)
MOST_BLADES = 500
_TOOLS = ("ip", "tc", "ss", "mkfs.ext4", "tar", "zstd")
_WORK = Path("/var/tmp")  # noqa: S108 - in a private folder below it


@attrs.frozen(kw_only=True)
class Options:
    """What a person may choose."""

    blades: Sequence[int]
    only: Sequence[str]
    rate_bits: int
    size_bytes: int
    runs: int
    deadline_floors: float
    """How long to wait, in times of one link for the image ..."""
    copies_deadline_floors: float
    """... and for tools that send each blade a copy: they take one such time a blade."""
    lock: Path | None

    def deadline_s(self, contender: Contender, stage: Stage) -> float:
        """When blades that are not done are stopped."""
        floors = self.copies_deadline_floors if contender.sends_each else self.deadline_floors
        return floors * stage.floor_s


@attrs.frozen(kw_only=True)
class Measured:
    """All that came out, and on what."""

    machine: Mapping[str, Any]
    tools: Mapping[str, Mapping[str, str]]
    options: Options
    payload: Payload
    measurements: Sequence[Measurement] = ()
    failures: Sequence[str] = ()

    @property
    def summaries(self) -> list[Summary]:
        """Of all runs."""
        return summarise(self.measurements)

    @property
    def titles(self) -> dict[str, str]:
        """What tools are called in table and plot."""
        return {name: tool["title"] for name, tool in self.tools.items()}

    @property
    def title(self) -> str:
        """Of the plot."""
        size, rate = self.payload.size_bytes / MIB, self.options.rate_bits / 1e6
        return f"{size:.0f} MiB in {self.payload.pieces} pieces to each blade, over links of {rate:g} Mb/s"

    @property
    def caption(self) -> str:
        """Where and when."""
        cores, runs = self.machine["cores"], self.options.runs
        return (
            f"{self.machine['date']}; {cores} cores ({self.machine['processor']}) for root and all blades; "
            f"{runs} run{'s' if runs > 1 else ''}"
        )

    def facts(self) -> dict[str, Any]:
        """For programs."""
        payload = attrs.asdict(self.payload, filter=lambda _attribute, value: not isinstance(value, Path))
        return {
            "machine": self.machine,
            "tools": self.tools,
            "options": attrs.asdict(self.options, filter=lambda attribute, _value: attribute.name != "lock"),
            "payload": payload,
            "summary": [attrs.asdict(one) for one in self.summaries],
            "failures": self.failures,
            "measurements": [attrs.asdict(one) for one in self.measurements],
        }


def run_room(options: Options, console: Console, keep: Callable[[Measured], None]) -> Measured:
    """Every tool in every room, `runs` times. What fails is passed over, and told; `keep` is called whenever
    there is more. Raises BladerootError.
    """
    require_root("the bench (network namespaces, filesystems)")
    contenders = [make() for make in CONTENDERS if make.name in options.only]
    require_tools([*_TOOLS, *(name for one in contenders for name in one.needs)])
    enter_own_namespace()
    allow_many_files()
    machine = describe_machine()
    debian = ensure_cached_debian(include=PACKAGES, reporter=lambda event: _tell(event, console))
    with (
        scratch_folder("bladeroot-bench-", _WORK) as work,
        # Disks that are never the limit: what is compared is how an image comes over the links.
        mounted(Path("tmpfs"), work / "disks", filesystem="tmpfs", options=["size=95%"]) as disks,
    ):
        payload = make_payload(debian, work, options.size_bytes, max(options.blades))
        result = Measured(machine=machine, tools=describe_tools(contenders), options=options, payload=payload)
        for run, count, contender in product(range(1, options.runs + 1), options.blades, contenders):
            try:
                one = _measure_once(contender, payload, count, options, disks)
            except ClaimNotHeldError as error:
                text = f"{contender.name}, {count} blades: {error}"
                result = attrs.evolve(result, failures=[*result.failures, text])
            else:
                text = describe(one)
                result = attrs.evolve(result, measurements=[*result.measurements, one])
            console.print(f"run {run}: {text}", markup=False)
            keep(result)
    return result


def _measure_once(
    contender: Contender, payload: Payload, count: int, options: Options, disks: Path
) -> Measurement:
    with (
        deferred(),
        in_turn(options.lock),
        open_stage(payload, count, options.rate_bits, disks) as stage,
    ):
        return measure(contender, stage, options.deadline_s(contender, stage))


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
        text += f"stopped after {one.wall_s:.0f} s, {one.arrived(one.image_bytes):.0%} had come"
    redundant = "" if one.told_redundant is None else f"; {one.told_redundant:.1%} came twice"
    busy = one.machine_busy_s / one.wall_s
    return f"{text}; {one.copies:.2f} copies left the root{redundant}; {busy:.2f} of {one.cores} cores busy"


def describe_tools(contenders: Sequence[Contender]) -> dict[str, dict[str, str]]:
    """Which they are, and how they are set."""
    return {
        one.name: {"title": one.title, "version": one.versions(), "settings": one.settings}
        for one in contenders
    }


def describe_machine() -> dict[str, Any]:
    """Where and when, and with what."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "load": os.getloadavg(),
    }
