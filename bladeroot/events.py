"""Everything that happens, as frozen events in one stream.

Long work takes a `Reporter` and tells it. The terminal, `--json`, the web page and the tests fold the same
stream; an event carries no clock, so whoever writes it down adds the time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs
from attrs import frozen

Subject = str
"""Who an event is about: a blade's name, or "" for this process."""


@frozen(kw_only=True)
class Event:
    """One thing that happened to `subject`."""

    subject: Subject = ""


@frozen(kw_only=True)
class StepStarted(Event):
    """A step of a longer job began; `step` is its identifier, `title` what a person reads."""

    step: str
    title: str = ""


@frozen(kw_only=True)
class StepFinished(Event):
    """The step ended well after `duration_s` seconds."""

    step: str
    duration_s: float


@frozen(kw_only=True)
class Progress(Event):
    """How far a step is, in `unit` (bytes, files, frames, …); `total` 0 means unknown."""

    step: str
    done: int
    total: int
    unit: str = "bytes"
    extracted: int | None = None
    """Where what is done is fetching: how much of it is in its place as well."""


@frozen(kw_only=True)
class SwarmStats(Event):
    """A swarm's state as its member `subject` sees it. Bytes are payload since the member joined."""

    artefact: str
    peers: int
    sources: int
    """Peers that have given at least one byte."""
    have_bytes: int
    total_bytes: int
    down_bytes: int
    up_bytes: int
    redundant_bytes: int = 0
    from_root_bytes: int = 0
    down_rate: int = 0
    """Bytes per second."""
    up_rate: int = 0


@frozen(kw_only=True)
class Note(Event):
    """Something worth a line."""

    text: str


@frozen(kw_only=True)
class Warned(Event):
    """Something that a person should look at; the work goes on."""

    text: str
    hint: str = ""


@frozen(kw_only=True)
class Failed(Event):
    """The job ended badly: one line of what and where, and what to do."""

    text: str
    hint: str = ""
    exit_code: int = 1


@frozen(kw_only=True)
class Finished(Event):
    """The job ended well; `facts` are plain values (strings, numbers, lists, tables)."""

    facts: Mapping[str, Any] = attrs.field(factory=dict)


@frozen(kw_only=True)
class Held(Event):
    """A machine waits for a person: why, and what to do. Nothing is written to its disks meanwhile."""

    reason: str
    hint: str = ""


@frozen(kw_only=True)
class HardwareFound(Event):
    """What a machine is made of: `attrs.asdict` of a `core.hardware.Hardware`."""

    hardware: Mapping[str, Any] = attrs.field(factory=dict)


@frozen(kw_only=True)
class Booted(Event):
    """A blade is up, from its own disk, with that generation."""

    serial: int
    order: int = 0
    """Number of the last order that was carried out on this disk; 0 for none."""


@frozen(kw_only=True)
class RootStarted(Event):
    """A machine has the root role and serves that generation: who starts now finds it."""

    blade: str
    cluster: str
    serial: int
    port: int


@frozen(kw_only=True)
class RoleChanged(Event):
    """A machine's role in the room is another now: `core.takeover.Role`."""

    blade: str
    role: str
    epoch: int
    serial: int
    """Of the newest generation that it holds."""
    root: str = ""
    """The blade that it follows, if it follows one."""


EVENT_CLASSES: tuple[type[Event], ...] = (
    StepStarted,
    StepFinished,
    Progress,
    SwarmStats,
    Note,
    Warned,
    Failed,
    Finished,
    Held,
    HardwareFound,
    Booted,
    RootStarted,
    RoleChanged,
)
_BY_NAME = {event_class.__name__: event_class for event_class in EVENT_CLASSES}


Reporter = Callable[[Event], None]
"""Whoever wants to hear: called from any thread, must not block and must not raise."""


def ignore(event: Event) -> None:
    """The reporter that listens to nothing."""


def about(subject: Subject, reporter: Reporter) -> Reporter:
    """A reporter that fills in `subject` where an event has none."""

    def report(event: Event) -> None:
        reporter(event if event.subject else attrs.evolve(event, subject=subject))

    return report


def to_mapping(event: Event) -> dict[str, Any]:
    """The event as plain values, its class's name under `event`."""
    return {"event": type(event).__name__, **attrs.asdict(event)}


def from_mapping(mapping: Mapping[str, Any]) -> Event:
    """The inverse of `to_mapping`; keys that this version does not know are passed over.

    Raises ValueError for what is not an event; values' types are checked by `core.wire` for what comes
    from the network.
    """
    event_class = _BY_NAME.get(str(mapping.get("event")))
    if event_class is None:
        raise ValueError(f"not an event: {mapping.get('event')!r}")
    known = {field.name for field in attrs.fields(event_class)}
    try:
        return event_class(**{key: value for key, value in mapping.items() if key in known})
    except TypeError as error:
        raise ValueError(f"incomplete event {event_class.__name__}: {error}") from error
