"""The scenario `netboot`: empty disks, network boot, install, and a boot without a network card."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Event, Failed, Finished, Held, Note, Reporter, StepFinished
from bladeroot.lab.qemu import FAILURES, VirtualMachine
from bladeroot.lab.roomprocess import RoomProcess
from bladeroot.lab.vmcluster import PREPARING, VmCluster, VmClusterOptions, prepare_cluster
from bladeroot.lab.vmroom import VmRoom, open_vm_room
from bladeroot.ops.steps import step

PHASES = (*PREPARING, "install", "first-boot", "boot-alone")
_BOOTED = re.compile(r"bladeroot-booted (\{.*?\})")
_INSTALL_TIMEOUT_S = 900.0
_BOOT_TIMEOUT_S = 600.0
_MORE_FOR_EACH_S = 120.0
"""Every further blade on the same processors."""
_POLL_S = 0.2


@frozen(kw_only=True)
class BladeResult:
    """How a blade came up alone, by its own word on the serial console."""

    blade: str
    firmware: str
    hostname: str
    role: str
    serial: int


@frozen(kw_only=True)
class NetbootReport:
    """What the scenario saw. Times are wall seconds."""

    phases_s: Mapping[str, float]
    blades: tuple[BladeResult, ...]

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return attrs.asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = [f"{len(self.blades)} blades, {sum(self.phases_s.values()):.0f} s in all:"]
        lines += [f"  {name:10} {seconds:6.1f} s" for name, seconds in self.phases_s.items()]
        lines += [
            f"{one.blade} ({one.role}), {one.firmware}: netbooted, installed, and up alone with generation "
            f"{one.serial}"
            for one in self.blades
        ]
        return lines


class NetbootRun:
    """One run in a room that is there; the phases are methods, to be called in order.

    `report` hears the root's events; it must be the room's reporter, or be called by it.
    """

    def __init__(self, cluster: VmCluster, room: VmRoom) -> None:
        self.cluster = cluster
        self.room = room
        self._finished: dict[str, Mapping[str, Any]] = {}
        self._bad: dict[str, str] = {}

    def hear(self, event: Event) -> None:
        """Take in what blades report; from any thread."""
        match event:
            case Finished() if event.subject:
                self._finished[event.subject] = event.facts
            case Failed() if event.subject:
                self._bad[event.subject] = f"{event.subject} failed: {event.text}"
            case Held() if event.subject:
                self._bad[event.subject] = f"{event.subject} is held: {event.reason}"

    def install(self, root: RoomProcess) -> None:
        """Switch all blades on once the root is up, until each has reported that it is installed."""
        self.room.wait_for_root(root)
        for blade in self.room.blades.values():
            blade.power_on("network")

        def is_done() -> bool:
            if self._bad:
                raise ClaimNotHeldError("; ".join(self._bad.values()), f"consoles: {self.room.work}/blades")
            if root.has_ended:
                root.wait(_POLL_S)
                raise ClaimNotHeldError("the root ended while blades were installing")
            missing = set(self.room.blades) - set(self._finished)
            for name in missing:
                self._check_running(name)
            return not missing

        self._wait(is_done, _INSTALL_TIMEOUT_S, lambda: set(self.room.blades) - set(self._finished))

    def come_up(self) -> dict[str, BladeResult]:
        """Wait until each blade's own system has said on its console who it is, then cut its power."""
        found: dict[str, BladeResult] = {}

        def is_done() -> bool:
            for blade in self.room.blades.values():
                if blade.name not in found:
                    match = blade.machine.look_for(_BOOTED.pattern, fails_on=FAILURES)
                    if match:
                        found[blade.name] = self._read_result(blade.name, match[1], blade.machine)
                        blade.cut_power()
            return len(found) == len(self.room.blades)

        self._wait(is_done, _BOOT_TIMEOUT_S, lambda: set(self.room.blades) - set(found))
        return found

    def come_up_alone(self) -> dict[str, BladeResult]:
        """The same from a cold start, without network cards."""
        for blade in self.room.blades.values():
            blade.power_on("alone")
        return self.come_up()

    def _read_result(self, name: str, text: str, machine: VirtualMachine) -> BladeResult:
        told = json.loads(text)
        result = BladeResult(
            blade=told["blade"],
            firmware=self.cluster.firmwares[name],
            hostname=told["hostname"],
            role=told["role"],
            serial=int(told["serial"]),
        )
        wanted = self.cluster.folder.cluster.blade(name)
        wrong = [
            f"calls itself {result.blade}" if result.blade != name else "",
            f"has the host name {result.hostname}" if result.hostname != name else "",
            f"has the role {result.role}" if result.role != wanted.role else "",
            f"has generation {result.serial}" if result.serial != self.cluster.manifest.serial else "",
            f"its services failed: {', '.join(told['failed'])}" if told.get("failed") else "",
        ]
        if any(wrong):
            raise ClaimNotHeldError(f"{name}: {'; '.join(filter(None, wrong))}", f"console: {machine.log}")
        return result

    def _check_running(self, name: str) -> None:
        machine = self.room.blade(name).machine
        if machine.has_ended():
            machine.look_for(r"(?!)")  # raises, with what it said last

    def _wait(self, is_done: Callable[[], bool], timeout_s: float, missing: Callable[[], set[str]]) -> None:
        whole_s = timeout_s + _MORE_FOR_EACH_S * len(self.room.blades)
        deadline = time.monotonic() + whole_s
        while not is_done():
            if time.monotonic() > deadline:
                names = ", ".join(sorted(missing()))
                raise ClaimNotHeldError(
                    f"not done after {whole_s:g} s: {names}", f"consoles: {self.room.work}/blades"
                )
            time.sleep(_POLL_S)


def run_netboot(work: Path, options: VmClusterOptions, reporter: Reporter) -> NetbootReport:
    """The whole way, in an empty folder. Raises ClaimNotHeldError unless every blade got there."""
    phases: dict[str, float] = {}

    def report(event: Event) -> None:
        if isinstance(event, StepFinished) and not event.subject and event.step in PHASES:
            phases[event.step] = event.duration_s
        reporter(event)

    cluster = prepare_cluster(work, options, report)
    results = run_in_room(cluster, work, report)
    return NetbootReport(phases_s=phases, blades=tuple(results[name] for name in sorted(results)))


def run_in_room(cluster: VmCluster, work: Path, reporter: Reporter) -> dict[str, BladeResult]:
    """The part of it with machines: install, first boot, and a boot alone; each as a step."""
    heard: list[Callable[[Event], None]] = []

    def hear(event: Event) -> None:
        for listener in heard:
            listener(event)
        reporter(event)

    with open_vm_room(work, hear) as room:
        run = NetbootRun(cluster, room)
        heard.append(run.hear)
        cluster.furnish(room)
        with step("install", "Netboot all blades with empty disks until they are installed", reporter):
            root = room.start_root(cluster.folder.path, cluster.depot)
            run.install(root)
        with step("first-boot", "Netboot again: each is sent to its own disk", reporter):
            run.come_up()
        root.stop()
        with step("boot-alone", "Boot each from a cold start, without network card and root", reporter):
            results = run.come_up_alone()
    for name, result in sorted(results.items()):
        reporter(Note(text=f"{name}, {result.firmware}: up alone, generation {result.serial}"))
    return results
