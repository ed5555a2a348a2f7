"""The scenario `replicate`: blade A reimages B, B is promoted, B reimages A; and so on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Event, Note, Reporter, StepFinished
from bladeroot.host.depot import Depot
from bladeroot.lab.bladeroom import BladeRoom, open_blade_room
from bladeroot.lab.recovery import describe, install_all, is_room_whole, look, switch_on
from bladeroot.lab.slots import (
    IDENTITY,
    WRITTEN_WHILE_UP,
    count_compared,
    find_differences,
    list_overlay,
    looked_into,
)
from bladeroot.lab.vmcluster import PREPARING, VmClusterOptions, prepare_cluster
from bladeroot.ops.steps import step

BLADES = 2
_MOST_SHOWN = 20


@frozen(kw_only=True)
class Round:
    """One turn of the two. Times are wall seconds."""

    there_s: float
    """A reimages B, whose disk is empty."""
    promoted_s: float
    """B is promoted."""
    back_s: float
    """B reimages A, by an order that wipes what A had."""
    compared_files: int


@frozen(kw_only=True)
class ReplicateReport:
    """What the scenario saw. Times are wall seconds."""

    phases_s: Mapping[str, float]
    rounds: tuple[Round, ...]

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return attrs.asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        total_s = sum(self.phases_s.values())
        lines = [f"{len(self.rounds)} rounds, {total_s:.0f} s in all:"]
        lines += [f"  {name:10} {seconds:6.1f} s" for name, seconds in self.phases_s.items()]
        for number, one in enumerate(self.rounds, start=1):
            lines.append(
                f"round {number}: A reimaged B in {one.there_s:.0f} s, B was root after "
                f"{one.promoted_s:.0f} s, and reimaged A in {one.back_s:.0f} s; "
                f"all {one.compared_files} files are the same"
            )
        return lines


def run_replicate(
    work: Path, options: VmClusterOptions, reporter: Reporter, *, rounds: int
) -> ReplicateReport:
    """The whole way, in an empty folder. Raises ClaimNotHeldError where the two are not the same."""
    phases: dict[str, float] = {}
    names = (*PREPARING, "install", *(f"round-{number}" for number in range(1, rounds + 1)))

    def report(event: Event) -> None:
        if isinstance(event, StepFinished) and not event.subject and event.step in names:
            phases[event.step] = event.duration_s
        reporter(event)

    cluster = prepare_cluster(work, attrs.evolve(options, blades=BLADES), report)
    with open_blade_room(cluster, work, is_vm=options.is_vm, reporter=report) as room:
        a, b = room.names
        with step("install", f"Install {a}; the operator's own machine then goes for good", report):
            install_all(room, [a])
        done = []
        for number in range(1, rounds + 1):
            title = f"{a} reimages {b}; {b} is promoted, and reimages {a}; are they the same?"
            with step(f"round-{number}", title, report):
                done.append(_Turn(room, a, b, report).take())
    return ReplicateReport(phases_s=phases, rounds=tuple(done))


class _Turn:
    """One round: both are off when it begins and when it ends."""

    def __init__(self, room: BladeRoom, a: str, b: str, reporter: Reporter) -> None:
        self.room = room
        self.a = a
        self.b = b
        self.reporter = reporter

    def take(self) -> Round:
        """Raises ClaimNotHeldError."""
        self.room.replace_disk(self.b)
        there = switch_on(self.room, self.room.names, wiped=[self.b])
        if there.root != self.a:
            raise ClaimNotHeldError(f"{there.root} was root, not {self.a}, which {self.b} is to be made of")
        promoted_s = self._promote()
        back_s = self._reimage_back()
        for name in self.room.names:
            self.room.cut_power(name)
        return Round(
            there_s=there.whole_s, promoted_s=promoted_s, back_s=back_s, compared_files=self._compare()
        )

    def _promote(self) -> float:
        self.room.operate("promote", self.b, "--key", str(self.room.cluster.key_path))
        with self.room.watch() as witness:
            return self.room.wait_until(
                lambda: look(witness).root == self.b and is_room_whole(self.room, witness.view),
                lambda: f"{self.b} was promoted; {describe(self.room, witness.view)}",
            )

    def _reimage_back(self) -> float:
        key = str(self.room.cluster.key_path)
        ordered = self.room.operate("reimage", self.a, "--wipe-data", "--yes", "--key", key)
        number = json.loads(ordered.stdout)["number"]
        with self.room.watch() as witness:

            def is_back() -> bool:
                view = look(witness)
                return (
                    view.root == self.b
                    and is_room_whole(self.room, view)
                    and view.blades[self.a].order == number
                    and all(map(self.room.is_complete, self.room.names))
                )

            return self.room.wait_until(is_back, lambda: describe(self.room, witness.view))

    def _compare(self) -> int:
        """How many files are the same. Raises ClaimNotHeldError where anything else is not."""
        cluster, depot = self.room.cluster, Depot.open(self.room.cluster.depot)
        own = {*IDENTITY, *WRITTEN_WHILE_UP}
        for name in self.room.names:
            own |= list_overlay(depot, cluster.manifest, name)
        with looked_into(self.room.disk(self.a)) as tree_a, looked_into(self.room.disk(self.b)) as tree_b:
            found = find_differences(tree_a, tree_b, own)
            count = count_compared(tree_a, own)
        for line in found[:_MOST_SHOWN]:
            self.reporter(Note(text=f"differs: {line}"))
        if found:
            raise ClaimNotHeldError(f"{self.a} and {self.b} differ in {len(found)} files, first: {found[0]}")
        return count
