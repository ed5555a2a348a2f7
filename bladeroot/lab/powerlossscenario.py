"""The scenario `powerloss`: everything off at once, then on; and all blades lost but one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.events import Event, Note, Reporter, StepFinished
from bladeroot.lab.bladeroom import BladeRoom, open_blade_room
from bladeroot.lab.recovery import Recovery, install_all, switch_on
from bladeroot.lab.vmcluster import PREPARING, VmClusterOptions, prepare_cluster
from bladeroot.ops.steps import step

PHASES = (*PREPARING, "install", "power-loss", "promise")
_FEWEST_BLADES = 2


@frozen(kw_only=True)
class PowerlossReport:
    """What the scenario saw. Times are wall seconds."""

    phases_s: Mapping[str, float]
    power_loss: Recovery
    """All off and on, one with an empty disk."""
    promise: Recovery | None
    """All but one with empty disks; of two blades that is the same."""

    def facts(self) -> dict[str, Any]:
        """For programs."""
        recoveries = {"power_loss": self.power_loss, "promise": self.promise}
        times = {name: round(one.root_after_s, 1) for name, one in recoveries.items() if one}
        return {**attrs.asdict(self), "root_after_s": times}

    def lines(self) -> list[str]:
        """For people."""
        total_s = sum(self.phases_s.values())
        count = len(self.power_loss.booted_s)
        lines = [f"{count} blades, {total_s:.0f} s in all:"]
        lines += [f"  {name:10} {seconds:6.1f} s" for name, seconds in self.phases_s.items()]
        lines += [f"power loss, and {', '.join(self.power_loss.wiped)} with an empty disk:"]
        lines += self.power_loss.lines()
        if self.promise is not None:
            lines += [f"all lost but {', '.join(self.promise.kept)}:", *self.promise.lines()]
        return lines


def run_powerloss(work: Path, options: VmClusterOptions, reporter: Reporter) -> PowerlossReport:
    """The whole way, in an empty folder. Raises ClaimNotHeldError unless everything came back."""
    if options.blades < _FEWEST_BLADES:
        raise UsageError("one blade alone has nobody to come back from", "--blades 2 or more")
    phases: dict[str, float] = {}

    def report(event: Event) -> None:
        if isinstance(event, StepFinished) and not event.subject and event.step in PHASES:
            phases[event.step] = event.duration_s
        reporter(event)

    cluster = prepare_cluster(work, options, report)
    with open_blade_room(cluster, work, is_vm=options.is_vm, reporter=report) as room:
        with step("install", "Install all blades; the operator's own machine then goes for good", report):
            install_all(room, room.names)
        first_in_line, *others = room.names
        with step("power-loss", "Cut the power of all; empty one disk; switch all on", report):
            power_loss = lose(room, wiped={first_in_line}, reporter=report)
        promise = None
        if len(others) > 1:
            with step("promise", f"Lose all but {first_in_line} for good; switch all on", report):
                promise = lose(room, wiped=set(others), reporter=report)
    return PowerlossReport(phases_s=phases, power_loss=power_loss, promise=promise)


def lose(room: BladeRoom, *, wiped: set[str], reporter: Reporter) -> Recovery:
    """Cut all power, empty those disks, switch all on. Raises ClaimNotHeldError unless the room is whole
    again, by a root that one of the blades with disks was soon.
    """
    for name in room.names:
        room.cut_power(name)
    for name in wiped:
        room.replace_disk(name)
    recovery = switch_on(room, room.names, wiped=wiped)
    for line in recovery.lines():
        reporter(Note(text=line.strip()))
    if recovery.root not in recovery.kept:
        raise ClaimNotHeldError(f"{recovery.root} was root, with an empty disk")
    if recovery.root_after_s > room.root_within_s:
        raise ClaimNotHeldError(f"blades were up, and without a root for {recovery.root_after_s:.0f} s")
    return recovery
