"""The events as words for a person in front of the rack. No I/O: events and the time in, lines out."""

from __future__ import annotations

from attrs import frozen

from bladeroot.core.sizes import render_about
from bladeroot.events import (
    Event,
    Failed,
    Finished,
    Held,
    Note,
    Progress,
    StepFinished,
    StepStarted,
    Warned,
)

_PROGRESS_EVERY_S = 2.0
_SLOW_STEP_S = 2.0


@frozen
class _Mark:
    """Where a step was when a line was last written of it."""

    step: str
    at_s: float
    done: int


class Narrator:
    """Folds the stream of events into lines; of progress there is one every two seconds at most."""

    def __init__(self) -> None:
        self._mark: _Mark | None = None

    def tell(self, event: Event, now_s: float) -> list[str]:
        """The lines for an event; `now_s` is any clock that only goes forward."""
        match event:
            case StepStarted():
                self._mark = _Mark(event.step, now_s, 0)
                # Tests cut the power at such a line: it stays as it is.
                return [f"step {event.step}: {event.title}"]
            case StepFinished() if event.duration_s >= _SLOW_STEP_S:
                return [f"{event.step} done in {event.duration_s:.0f} s"]
            case Progress():
                return self._tell_progress(event, now_s)
            case Note():
                return [event.text]
            case Warned():
                return _with_hint(f"WARNING: {event.text}", event.hint)
            case Failed():
                return _with_hint(f"FAILED: {event.text}", event.hint)
            case Held():
                held = _with_hint(f"HELD: {event.reason}", event.hint)
                return [*held, "nothing is written to the disk; waiting for the operator"]
            case Finished():
                return _tell_finished(event)
        return []

    def _tell_progress(self, event: Progress, now_s: float) -> list[str]:
        mark = self._mark
        if mark is None or mark.step != event.step:
            self._mark = _Mark(event.step, now_s, event.done)
            return []
        passed_s = now_s - mark.at_s
        if passed_s < _PROGRESS_EVERY_S:
            return []
        self._mark = _Mark(event.step, now_s, event.done)
        if event.unit != "bytes":
            return [f"{event.step} {event.done} of {event.total} {event.unit}"]
        rate = f"{render_about(int(max(0, event.done - mark.done) / passed_s))}/s"
        if event.total <= 0:
            return [f"{event.step} {render_about(event.done)}, {rate}"]
        share = min(100, 100 * event.done // event.total)
        extracted = ""
        if event.extracted is not None:
            extracted = f", {min(100, 100 * event.extracted // event.total)} % extracted"
        return [f"{event.step} {share} % of {render_about(event.total)}, {rate}{extracted}"]


def _tell_finished(event: Finished) -> list[str]:
    facts = event.facts
    if "blade" not in facts:
        return ["done"]
    rest = "" if facts.get("complete", True) else "; it fetches its extras when it is up"
    return [f"{facts['blade']} is installed on {facts.get('disk')}: generation {facts.get('serial')}{rest}"]


def _with_hint(text: str, hint: str) -> list[str]:
    return [text, f"  {hint}"] if hint else [text]
