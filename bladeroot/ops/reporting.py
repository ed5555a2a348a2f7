"""Telling the root what happens here: events, gathered and sent about once a second; mere progress
as often as the root asks for.

Reports are for people and for finding peers. A root that does not answer costs nothing but being shown,
and nothing that goes wrong here ends the work that is reported.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from types import TracebackType
from typing import Self

import attrs
from attrs import frozen

from bladeroot.core.reports import Report, plan_reports
from bladeroot.errors import NetworkError
from bladeroot.events import (
    Booted,
    Event,
    Failed,
    Finished,
    HardwareFound,
    Held,
    Progress,
    StepStarted,
    SwarmStats,
    Warned,
)
from bladeroot.net.client import RootClient
from bladeroot.ops.currentroot import CurrentRoot

_INTERVAL_S = 1.0
_MOST_PENDING = 500
_MereProgress = Progress | SwarmStats
"""Events of which only the latest counts, and which can wait."""
_ANY_REPORT = Report(cluster_id="", blade="", session="", sequence=1)


@frozen(kw_only=True)
class Gives:
    """What a machine has for others: whole artefacts, by info-hash, and where it serves them over HTTP."""

    has: frozenset[str] = frozenset()
    http_port: int = 0
    holds: int = 0
    """Serial of the newest generation that it has whole."""
    swarm_port: int | None = None
    """Where it is in swarms; None: as the reporter was made."""


class RootReporter:
    """A reporter that reports to a root, in a thread of its own, while its `with` block runs; leaving the
    block sends what is left. Without a block: whenever `send` is called.

    Of progress and swarm statistics only the latest is sent. A root that was started again, or that another
    blade has become, hears anew what the machine is and how it stands.
    """

    def __init__(
        self,
        client: RootClient | CurrentRoot,
        *,
        cluster_id: str,
        blade: str,
        swarm_port: int = 0,
        wants: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._client = client
        self._wants = wants
        self._gives = Gives()
        self._next = Report(
            cluster_id=cluster_id,
            blade=blade,
            session=secrets.token_hex(8),
            sequence=1,
            swarm_port=swarm_port,
        )
        self._pending: deque[Event] = deque(maxlen=_MOST_PENDING)
        self._lasting: dict[str, Event] = {}
        self._progress_due_s = 0.0
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()
        self.send()

    def give(self, gives: Gives) -> None:
        """From now on, say this of what this machine has for others."""
        with self._lock:
            self._gives = gives

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, _MereProgress):
                self._drop_older(event)
            self._pending.append(event)
            match event:
                case HardwareFound():
                    self._lasting["hardware"] = event
                case Booted():
                    self._lasting["booted"] = event
                    self._lasting.pop("phase", None)
                case StepStarted() | Held() | Failed() | Finished():
                    self._lasting["phase"] = event

    def _drop_older(self, event: _MereProgress) -> None:
        """What a newer one of the same kind makes superfluous, if it is the last that was said."""
        if not self._pending:
            return
        last = self._pending[-1]
        if _topic(last) == _topic(event):
            self._pending.pop()
        elif len(self._pending) > 1 and _topic(self._pending[-2]) == _topic(event):
            del self._pending[-2]

    def _run(self) -> None:
        self.send()
        while not self._done.wait(_INTERVAL_S):
            if time.monotonic() > self._progress_due_s or self._has_news():
                self.send()

    def _has_news(self) -> bool:
        """Whether there is more to tell than that all goes on."""
        with self._lock:
            is_more = any(not isinstance(event, _MereProgress) for event in self._pending)
            return is_more or self._describe() != self._next

    def _describe(self) -> Report:
        """The next report, without events."""
        gives = self._gives
        described = attrs.evolve(
            self._next,
            wants=tuple(sorted(self._wants())),
            has=tuple(sorted(gives.has)),
            http_port=gives.http_port,
            holds=gives.holds,
        )
        if gives.swarm_port is not None:
            described = attrs.evolve(described, swarm_port=gives.swarm_port)
        return described

    def send(self) -> None:
        """Report now what there is; that there is nothing new, too. Never raises for a root that is gone."""
        if not self._send_pending():
            with self._lock:
                self._pending.extendleft(self._tell_again())
            self._send_pending()

    def _tell_again(self) -> list[Event]:
        """What lasts, as `extendleft` wants it, the last first; but not what is told next anyway."""
        said = [self._lasting[key] for key in ("hardware", "booted", "phase") if key in self._lasting]
        room = _MOST_PENDING - len(self._pending)
        return [event for event in reversed(said) if event not in self._pending][: max(0, room)]

    def _send_pending(self) -> bool:
        """False where the root turned out not to know what was told before."""
        with self._lock:
            events = tuple(self._pending)
            self._next = self._describe()
            self._pending.clear()
        reports = self._plan(events)
        is_known = True
        try:
            for report in reports:
                heard = self._client.report(report)
                is_known = heard.is_known and is_known
                self._progress_due_s = time.monotonic() + heard.pause_s
        except NetworkError:
            with self._lock:
                room = _MOST_PENDING - len(self._pending)
                self._pending.extendleft(reversed(events[max(0, len(events) - room) :]))
            # A report that did arrive is known by its number: sending it again would be passed over.
        self._next = attrs.evolve(self._next, sequence=reports[-1].sequence + 1)
        return is_known

    def _plan(self, events: tuple[Event, ...]) -> list[Report]:
        try:
            return plan_reports(self._next, events)
        except Exception:  # a fact that is no plain value, …: not worth an install
            return plan_reports(self._next, map(_make_tellable, events))


def _make_tellable(event: Event) -> Event:
    try:
        plan_reports(_ANY_REPORT, [event])
    except Exception as error:
        return Warned(text=f"a {type(event).__name__} could not be told to the root: {error!r}")
    return event


def _topic(event: Event) -> tuple[type[Event], str]:
    match event:
        case Progress():
            return Progress, event.step
        case SwarmStats():
            return SwarmStats, event.artefact
    return type(event), ""
