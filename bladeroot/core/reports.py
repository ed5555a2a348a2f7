"""Reports: what blades tell the root, and the room that the root makes of them. No I/O.

A root's picture of the room is soft (DESIGN, idea 2): the fold of the events that blades report. Whoever
sees the same events (`status`, the live table, the web page) folds them into the same `RoomState`.
Reports come from anybody on the network: they are bounded, checked, and never believed for more than display.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from enum import StrEnum
from typing import Any

import attrs
from attrs import frozen

from bladeroot import events
from bladeroot.core import wire
from bladeroot.core.cluster import NAME_PATTERN
from bladeroot.errors import NetworkError

REPORT_LIMIT_BYTES = 64 << 10
MAX_EVENTS = 256
MAX_ARTEFACTS = 64
MAX_BLADES = 4096
MAX_STRANGERS = 64
MAX_TEXT = 2000
SESSION_HEADER = "Bladeroot-Session"
"""In the answer to a report, `NEW_SESSION` where it is not the session's first, but the first that this root
has heard of it: what was told before was told to another root, or before this one was started again.
"""
NEW_SESSION = "new"
_MAX_FACTS_DEPTH = 6
_LARGEST = 2**63 - 1

_INFO_HASH = re.compile(r"[0-9a-f]{64}")
_STRANGER_PREFIX = "stranger-"
_STRANGER = re.compile(_STRANGER_PREFIX + "[0-9a-f]{12}")
_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")
_CLUSTER_ID = re.compile(r"[0-9a-f]{32}")


def stranger_name(mac: str) -> str:
    """What a machine is called that the inventory does not know: `stranger-525400aabbcc`."""
    return _STRANGER_PREFIX + mac.replace(":", "")


def is_stranger(name: str) -> bool:
    """Whether `stranger_name` made that name."""
    return _STRANGER.fullmatch(name) is not None


@frozen(kw_only=True)
class Report:
    """What a blade has to tell: its events since the last report, and what it wants and has to give.

    `session` is random for each run that reports; `sequence` counts up from 1 in it, so a report that
    is sent again is taken once. `wants` and `has` are info-hashes; `swarm_port` 0 is for a blade that gives
    nothing. `events` are as `events.to_mapping` makes them.
    """

    cluster_id: str
    blade: str
    session: str
    sequence: int
    swarm_port: int = 0
    http_port: int = 0
    """Where the blade serves what it has, read-only; 0 for nowhere."""
    wants: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    events: tuple[dict[str, Any], ...] = ()


@frozen(kw_only=True)
class PeerList:
    """Where to begin in a swarm: a few members as (address, port)."""

    peers: tuple[tuple[str, int], ...]


@frozen(kw_only=True)
class GenerationList:
    """The serials that a depot holds, ascending."""

    serials: tuple[int, ...]


def plan_reports(template: Report, pending: Iterable[events.Event]) -> list[Report]:
    """Events as reports that are each within the limits, `template.sequence` counting on from its own.

    Texts that are too long are shortened, and bytes in them that are not UTF-8 (of a file's name) are
    replaced. At least one report: a blade without news still says that it is there.
    """
    reports: list[Report] = []
    batch: list[dict[str, Any]] = []
    room_bytes = used = REPORT_LIMIT_BYTES - 16 * 1024
    for event in pending:
        mapping = _shorten(events.to_mapping(event))
        size = len(wire.encode(mapping))
        if size > room_bytes:
            continue
        if batch and (used + size > room_bytes or len(batch) == MAX_EVENTS):
            reports.append(_with_batch(template, reports, batch))
            batch = []
        used = size if not batch else used + size
        batch.append(mapping)
    if batch or not reports:
        reports.append(_with_batch(template, reports, batch))
    return reports


def _with_batch(template: Report, before: Collection[Report], batch: Iterable[dict[str, Any]]) -> Report:
    return attrs.evolve(template, sequence=template.sequence + len(before), events=tuple(batch))


def parse_report(data: bytes) -> tuple[Report, tuple[events.Event, ...]]:
    """The report and its events, each about the reporting blade. Raises NetworkError if out of bounds."""
    report = wire.decode(Report, data, REPORT_LIMIT_BYTES)
    fine = (
        _CLUSTER_ID.fullmatch(report.cluster_id)
        and NAME_PATTERN.fullmatch(report.blade)
        and _SESSION.fullmatch(report.session)
        and 0 < report.sequence < _LARGEST
        and 0 <= report.swarm_port < 65536
        and 0 <= report.http_port < 65536
        and len(report.events) <= MAX_EVENTS
        and len(report.wants) + len(report.has) <= MAX_ARTEFACTS
        and all(_INFO_HASH.fullmatch(info_hash) for info_hash in (*report.wants, *report.has))
    )
    if not fine:
        raise NetworkError(f"report of {report.blade[:64]!r} is out of bounds")
    return report, tuple(parse_event(mapping, report.blade) for mapping in report.events)


def parse_event(mapping: Mapping[str, Any], subject: str) -> events.Event:
    """An event from the network, about `subject` whatever it says. Raises NetworkError if it is not one.

    Every field has its type; texts lose control characters, since they end up on terminals.
    """
    try:
        event_class = type(events.from_mapping(mapping))
    except ValueError as error:
        raise NetworkError(str(error)[:200]) from error
    plain = {key: _clean(value) for key, value in mapping.items() if key != "event"}
    event = wire.decode(event_class, wire.encode(plain), REPORT_LIMIT_BYTES)
    return attrs.evolve(event, subject=subject)


def _clean(value: Any, depth: int = 0) -> Any:
    """Plain values only, bounded; raises NetworkError for others."""
    if depth > _MAX_FACTS_DEPTH:
        raise NetworkError("event nested too deeply")
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            raise NetworkError(f"event with a text of {len(value)} characters")
        return "".join(character if character.isprintable() else " " for character in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise NetworkError("event with a number that is none")
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        if not -_LARGEST <= value <= _LARGEST:
            raise NetworkError("event with a number out of range")
        return value
    if isinstance(value, list | tuple):
        return [_clean(item, depth + 1) for item in value]
    if isinstance(value, Mapping):
        return {str(_clean(key, depth + 1)): _clean(item, depth + 1) for key, item in value.items()}
    raise NetworkError(f"event with a value of type {type(value).__name__}")


def _shorten(value: Any) -> Any:
    if isinstance(value, str):
        text = value if value.isascii() else value.encode(errors="replace").decode()
        return text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    if isinstance(value, list | tuple):
        return [_shorten(item) for item in value]
    if isinstance(value, Mapping):
        return {_shorten(str(key)): _shorten(item) for key, item in value.items()}
    if isinstance(value, int) and not -_LARGEST <= value <= _LARGEST:
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float):
        return value
    return _shorten(str(value))


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
    """The last that is known of a blade. `done` and `total` are in `unit`; total 0 means unknown."""

    blade: str
    phase: BladePhase = BladePhase.WAITING
    step: str = ""
    title: str = ""
    done: int = 0
    total: int = 0
    unit: str = "bytes"
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
                    self, phase=BladePhase.WORKING, step=event.step, title=event.title, done=0, total=0
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
            return sum(map(is_stranger, self.blades)) < MAX_STRANGERS
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

    def members_of(self, info_hash: str) -> tuple[tuple[str, int], ...]:
        """Where blades are reachable that want or have the artefact, as (address, port)."""
        return tuple(
            (state.address, state.swarm_port)
            for state in self.blades.values()
            if state.address and state.swarm_port and info_hash in (*state.wants, *state.has)
        )

    def holders_of(self, info_hash: str) -> tuple[tuple[str, int], ...]:
        """Where blades serve the whole artefact over HTTP, as (address, port)."""
        return tuple(
            (state.address, state.http_port)
            for state in self.blades.values()
            if state.address and state.http_port and info_hash in state.has
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
        return attrs.evolve(self, blades={**self.blades, state.blade: state})
