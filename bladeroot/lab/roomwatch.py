"""Who is root in a room of process blades, and how far they are: what their own events say, with the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from typing import TypeVar

from attrs import frozen

from bladeroot.core.manifest import ArtefactKind
from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Booted, Event, Held, Progress, Reporter, RoleChanged, RootStarted, Warned
from bladeroot.lab.blade import ProcessBlade

_CHECK_S = 0.2
_ROOT = "root"

T = TypeVar("T")


@frozen(kw_only=True)
class Reign:
    """A blade has the root role, and began to serve at that time (of the monotonic clock)."""

    blade: str
    since_s: float
    serial: int


class RoomWatch:
    """A room's reporter: it takes in what blades say, and passes it on. Any thread may ask and wait."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._changed = threading.Condition()
        self._reigns: dict[str, Reign] = {}
        self._fetched: dict[str, float] = {}
        self._warnings: list[Warned] = []
        self._held: dict[str, Held] = {}

    def __call__(self, event: Event) -> None:
        """Take it in."""
        with self._changed:
            self._take_in(event)
            self._changed.notify_all()
        self._reporter(event)

    def _take_in(self, event: Event) -> None:
        match event:
            case RootStarted():
                self._reigns[event.blade] = Reign(
                    blade=event.blade, since_s=time.monotonic(), serial=event.serial
                )
            case RoleChanged() if event.role != _ROOT:
                self._reigns.pop(event.blade, None)
            case Progress() if event.step == ArtefactKind.RUNTIME and event.total:
                done = max(self._fetched.get(event.subject, 0.0), event.done / event.total)
                self._fetched[event.subject] = done
            case Booted():
                self._fetched[event.subject] = 1.0
                self._held.pop(event.subject, None)
            case Held():
                self._held[event.subject] = event
            case Warned():
                self._warnings.append(event)

    def forget(self, blade: str) -> None:
        """It has no power any more: whatever role it had is gone."""
        with self._changed:
            self._reigns.pop(blade, None)

    def reigns(self, among: Collection[str] | None = None) -> list[Reign]:
        """Who is root (of those), the one that began last comes last."""
        with self._changed:
            found = [one for one in self._reigns.values() if among is None or one.blade in among]
        return sorted(found, key=lambda one: one.since_s)

    def fetched(self, blades: Collection[str]) -> float:
        """How much of the runtime these blades have together: 0 to 1."""
        with self._changed:
            return sum(self._fetched.get(blade, 0.0) for blade in blades) / max(1, len(blades))

    def warnings(self) -> list[str]:
        """All that were heard."""
        with self._changed:
            return [warned.text for warned in self._warnings]

    def held(self) -> list[str]:
        """Who waits for a person, and why."""
        with self._changed:
            return [f"{blade} is held: {held.reason}" for blade, held in self._held.items()]

    def wait(self, look: Callable[[], T | None], timeout_s: float, what: str) -> T:
        """The first answer that is something. Raises ClaimNotHeldError: `what` is not so."""
        deadline = time.monotonic() + timeout_s
        while True:
            found = look()
            if found:
                return found
            if time.monotonic() > deadline:
                held = "; ".join(self.held())
                raise ClaimNotHeldError(f"{what} after {timeout_s:.0f} s" + (f"; {held}" if held else ""))
            with self._changed:
                self._changed.wait(_CHECK_S)

    def wait_for_root(self, among: Collection[str] | None, timeout_s: float) -> Reign:
        """The one root of those blades. Raises ClaimNotHeldError."""

        def look() -> Reign | None:
            found = self.reigns(among)
            return found[0] if len(found) == 1 else None

        whom = "the room" if among is None else ", ".join(sorted(among))
        return self.wait(look, timeout_s, f"not one root of {whom}")


def cut_power(watch: RoomWatch, blade: ProcessBlade) -> float:
    """Cut it; returns when that was (of the monotonic clock)."""
    at_s = time.monotonic()
    blade.cut_power()
    watch.forget(blade.name)
    return at_s
