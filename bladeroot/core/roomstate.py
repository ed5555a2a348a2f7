"""The room: the root's picture of every blade, folded from the events that blades report. No I/O.

It is soft (DESIGN, idea 2). Whoever sees the same events (`status`, the live table, the web page) folds them
into the same `RoomState`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs
from attrs import frozen

from bladeroot import events
from bladeroot.core.reports import MAX_ARTEFACTS, Report

MAX_BLADES = 4096
MAX_STRANGERS = 64
_STRANGER_PREFIX = "stranger-"
_STRANGER = re.compile(_STRANGER_PREFIX + "[0-9a-f]{12}")


def stranger_name(mac: str) -> str:
    """What a machine is called that the inventory does not know: `stranger-525400aabbcc`."""
    return _STRANGER_PREFIX + mac.replace(":", "")


def is_stranger(name: str) -> bool:
    """Whether `stranger_name` made that name."""
    return _STRANGER.fullmatch(name) is not None


class BladePhase(StrEnum):
    """How a blade's job stands."""

    WAITING = "waiting"
    """Known, but it has said nothing yet."""
    WORKING = "working"
    FINISHED = "finished"
    HELD = "held"
    """It waits for a person; `failure` says why."""
    UP = "up"
    """It booted from its own disk."""
    FAILED = "failed"


@frozen(kw_only=True)
class BladeState:
    """The last that is known of a blade. `done` and `total` are in `unit`; total 0 means unknown.

    `extracted` is as in `events.Progress`: of what is being fetched, what is in its place as well.
    """

    blade: str
    phase: BladePhase = BladePhase.WAITING
    step: str = ""
    title: str = ""
    done: int = 0
    total: int = 0
    unit: str = "bytes"
    extracted: int | None = None
    swarms: Mapping[str, events.SwarmStats] = attrs.field(factory=dict)
    """By artefact."""
    steps_s: Mapping[str, float] = attrs.field(factory=dict)
    """How long each finished step took."""
    note: str = ""
    failure: str = ""
    hint: str = ""
    exit_code: int = 0
    warnings: int = 0
    facts: Mapping[str, Any] = attrs.field(factory=dict)
    address: str = ""
    swarm_port: int = 0
    http_port: int = 0
    wants: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    holds: int = 0
    """Serial of the newest generation that it has whole; 0: none."""
    hardware: Mapping[str, Any] = attrs.field(factory=dict)
    """As `HardwareFound` told it; kept from session to session."""
    serial: int = 0
    """The generation that it said it booted; 0 while it has not. Kept from session to session."""
    order: int = 0
    """Number of the last order that it said it carried out; kept from session to session."""
    session: str = ""
    sequence: int = 0

    @property
    def peers(self) -> int:
        """Peers in all swarms together."""
        return sum(stats.peers for stats in self.swarms.values())

    @property
    def down_rate(self) -> int:
        """Bytes per second, in all swarms together."""
        return sum(stats.down_rate for stats in self.swarms.values())

    @property
    def up_rate(self) -> int:
        """Bytes per second, in all swarms together."""
        return sum(stats.up_rate for stats in self.swarms.values())

    def with_event(self, event: events.Event) -> BladeState:
        """The state after one more event."""
        match event:
            case events.StepStarted():
                return attrs.evolve(
                    self,
                    phase=BladePhase.WORKING,
                    step=event.step,
                    title=event.title,
                    done=0,
                    total=0,
                    extracted=None,
                )
            case events.StepFinished():
                durations = {**self.steps_s, event.step: event.duration_s}
                return attrs.evolve(self, steps_s=durations if len(durations) <= 100 else self.steps_s)
            case events.Progress():
                known = event.step == self.step
                return attrs.evolve(
                    self,
                    phase=BladePhase.WORKING,
                    step=event.step,
                    title=self.title if known else "",
                    done=event.done,
                    total=event.total,
                    unit=event.unit,
                    extracted=event.extracted,
                )
            case events.SwarmStats():
                swarms = {**self.swarms, event.artefact: event}
                return attrs.evolve(self, swarms=swarms if len(swarms) <= MAX_ARTEFACTS else self.swarms)
            case events.Note():
                return attrs.evolve(self, note=event.text)
            case events.Warned():
                return attrs.evolve(self, note=event.text, warnings=self.warnings + 1)
            case events.Failed():
                return attrs.evolve(
                    self,
                    phase=BladePhase.FAILED,
                    failure=event.text,
                    hint=event.hint,
                    exit_code=event.exit_code,
                )
            case events.Finished():
                order = event.facts.get("order")
                done = order if isinstance(order, int) else 0
                return attrs.evolve(
                    self, phase=BladePhase.FINISHED, facts=event.facts, order=max(self.order, done)
                )
            case events.Held():
                return attrs.evolve(self, phase=BladePhase.HELD, failure=event.reason, hint=event.hint)
            case events.HardwareFound():
                return attrs.evolve(self, hardware=event.hardware)
            case events.Booted():
                return attrs.evolve(
                    self, phase=BladePhase.UP, serial=event.serial, order=max(self.order, event.order)
                )
        return self


@frozen(kw_only=True)
class RoomState:
    """Every blade's last known state, folded from events. Frozen: each step gives a new room.

    Subject "" is the process that folds itself. With `expected`, only those blades are let in, and some
    strangers: machines that the inventory does not know, under the names of `stranger_name`.
    """

    blades: Mapping[str, BladeState] = attrs.field(factory=dict)
    expected: frozenset[str] | None = None

    @classmethod
    def of(cls, names: Iterable[str]) -> RoomState:
        """A room that waits for these blades, and lets no others in."""
        expected = frozenset(names)
        return cls(blades={name: BladeState(blade=name) for name in sorted(expected)}, expected=expected)

    def expecting(self, names: Iterable[str]) -> RoomState:
        """The room that lets these blades in as well."""
        news = [name for name in sorted(names) if name not in self.blades]
        if self.expected is None or not news:
            return self
        blades = {**self.blades, **{name: BladeState(blade=name) for name in news}}
        return attrs.evolve(self, blades=blades, expected=self.expected | set(news))

    def lets_in(self, name: str) -> bool:
        """Whether the room follows that blade (or may begin to)."""
        if name in self.blades:
            return True
        if is_stranger(name):
            return True  # another one gives way
        if self.expected is not None and name and name not in self.expected:
            return False
        return len(self.blades) < MAX_BLADES

    def with_event(self, event: events.Event) -> RoomState:
        """The room after one more event."""
        if not self.lets_in(event.subject):
            return self
        return self._with(self._blade(event.subject).with_event(event))

    def with_report(self, report: Report, reported: Iterable[events.Event], address: str) -> RoomState:
        """The room after a report that came from `address`. A report that was had already changes nothing;
        a new session begins the blade afresh.
        """
        if not self.is_news(report):
            return self
        state = self._blade(report.blade)
        if state.session != report.session:
            state = BladeState(
                blade=report.blade,
                phase=BladePhase.WORKING,
                hardware=state.hardware,
                serial=state.serial,
                order=state.order,
            )
        state = attrs.evolve(
            state,
            address=address,
            swarm_port=report.swarm_port,
            http_port=report.http_port,
            wants=report.wants,
            has=report.has,
            holds=report.holds,
            session=report.session,
            sequence=report.sequence,
        )
        for event in reported:
            state = state.with_event(event)
        return self._with(state)._without_stranger(state)

    def is_news(self, report: Report) -> bool:
        """Whether the report is of a blade that is let in and has not been had yet."""
        if not self.lets_in(report.blade):
            return False
        state = self.blades.get(report.blade)
        return state is None or state.session != report.session or report.sequence > state.sequence

    def members_of(self, info_hash: str) -> dict[str, tuple[str, int]]:
        """Where blades are reachable that want or have the artefact: name to (address, port)."""
        return {
            name: (state.address, state.swarm_port)
            for name, state in self.blades.items()
            if state.address and state.swarm_port and info_hash in (*state.wants, *state.has)
        }

    def blade_at(self, address: str) -> str:
        """The blade that reports from that address; empty where none does, or several."""
        names = [name for name, state in self.blades.items() if state.address == address]
        return names[0] if len(names) == 1 else ""

    def holders_of(self, info_hash: str, addresses: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
        """Where blades serve the whole artefact over HTTP, as (address, port).

        Machines are sent there: only blades count that report from the address that is known to be theirs.
        """
        return tuple(
            (state.address, state.http_port)
            for name, state in self.blades.items()
            if state.http_port and info_hash in state.has and state.address == addresses.get(name)
        )

    def count(self, phase: BladePhase) -> int:
        """How many blades are in that phase (this process itself does not count)."""
        return sum(1 for name, state in self.blades.items() if name and state.phase is phase)

    def _blade(self, name: str) -> BladeState:
        return self.blades.get(name) or BladeState(blade=name)

    def _without_stranger(self, known: BladeState) -> RoomState:
        """The room without the stranger that the blade was before the inventory knew it."""
        nics = known.hardware.get("nics") if known.hardware and not is_stranger(known.blade) else None
        macs = [nic.get("mac") for nic in nics if isinstance(nic, Mapping)] if isinstance(nics, list) else []
        gone = {stranger_name(mac) for mac in macs if isinstance(mac, str)} & self.blades.keys()
        if not gone:
            return self
        return attrs.evolve(
            self, blades={name: state for name, state in self.blades.items() if name not in gone}
        )

    def _with(self, state: BladeState) -> RoomState:
        if not is_stranger(state.blade):
            return attrs.evolve(self, blades={**self.blades, state.blade: state})
        others = {name: known for name, known in self.blades.items() if name != state.blade}
        strangers = [name for name in others if is_stranger(name)]
        for name in strangers[: max(0, len(strangers) + 1 - MAX_STRANGERS)]:
            del others[name]  # not heard from for the longest time
        return attrs.evolve(self, blades={**others, state.blade: state})
