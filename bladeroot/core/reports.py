"""Reports: what blades tell the root, in bounds. No I/O.

Reports come from anybody on the network: they are bounded, checked, and never believed for more than display.
`core.roomstate` folds them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import attrs
from attrs import frozen

from bladeroot import events
from bladeroot.core import wire
from bladeroot.core.claims import LARGEST
from bladeroot.core.cluster import NAME_PATTERN
from bladeroot.errors import NetworkError

REPORT_LIMIT_BYTES = 64 << 10
MAX_EVENTS = 256
MAX_ARTEFACTS = 64
MAX_TEXT = 2000
SESSION_HEADER = "Bladeroot-Session"
"""In the answer to a report, `NEW_SESSION` where it is not the session's first, but the first that this root
has heard of it: what was told before was told to another root, or before this one was started again.
"""
NEW_SESSION = "new"
PAUSE_HEADER = "Bladeroot-Pause"
"""In the answer to a report: after how many seconds mere progress is to be told next."""
_REPORTS_A_SECOND = 12
_LONGEST_PAUSE_S = 5.0
_MAX_FACTS_DEPTH = 6
_LARGEST = 2**63 - 1

_INFO_HASH = re.compile(r"[0-9a-f]{64}")
_SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")
_CLUSTER_ID = re.compile(r"[0-9a-f]{32}")


@frozen
class Heard:
    """What a root answers to a report."""

    is_known: bool = True
    """Whether it has heard what this session told before."""
    pause_s: float = 0.0


def choose_pause(blades: int) -> float:
    """Seconds between a blade's reports of mere progress, where so many are at work: they, their connections
    and their answers are on the link that the image leaves by.
    """
    return min(blades / _REPORTS_A_SECOND, _LONGEST_PAUSE_S)


def parse_pause(text: str | None) -> float:
    """The value of `PAUSE_HEADER`, from anybody."""
    try:
        pause_s = float(text or 0)
    except ValueError:
        return 0.0
    return pause_s if 0.0 <= pause_s <= _LONGEST_PAUSE_S else 0.0


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
    holds: int = 0
    """Serial of the newest generation that the blade has whole and can be root with; 0: none."""
    events: tuple[dict[str, Any], ...] = ()


@frozen(kw_only=True)
class PeerList:
    """Where to begin in a swarm: a few members as (address, port)."""

    peers: tuple[tuple[str, int], ...]
    are_all: bool = False
    """Whether to look for no others: see `core.neighbours`."""


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
        and 0 <= report.holds < LARGEST
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
