"""Netboot that has to wait, and that ends with the role; what is started is a fake."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import attrs
import pytest

from bladeroot.errors import ConfigError, NetworkError
from bladeroot.events import Event, Warned
from bladeroot.ops import keepnetboot
from bladeroot.ops.keepnetboot import NetbootKeeper

DEADLINE_S = 30.0


@attrs.define
class Segment:
    """Where netboot may be in the way of another's, for so many tries."""

    failures: list[Exception]
    tries: int = 0
    runs: bool = False
    did_start: threading.Event = attrs.field(factory=threading.Event)
    heard: list[Event] = attrs.field(factory=list)

    @contextmanager
    def start(self) -> Iterator[None]:
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.runs = True
        try:
            yield None
        finally:
            self.runs = False

    def keep(self) -> NetbootKeeper:
        return NetbootKeeper(
            self.start, on_start=lambda _service: self.did_start.set(), reporter=self.heard.append
        )


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepnetboot, "_AGAIN_S", 0.01)
    monkeypatch.setattr(keepnetboot, "_LATER_S", 0.01)


def test_it_runs_until_it_is_stopped() -> None:
    segment = Segment([])
    keeper = segment.keep()
    assert segment.did_start.wait(DEADLINE_S)
    assert keeper.wait_first(DEADLINE_S)
    assert (keeper.failure, segment.runs) == (None, True)
    keeper.stop()
    assert (segment.tries, segment.runs, segment.heard) == (1, False, [])


def test_it_is_begun_anew_as_often_as_it_is_asked_to() -> None:
    segment = Segment([])
    keeper = segment.keep()
    for tries in (1, 2, 3):
        assert segment.did_start.wait(DEADLINE_S)
        segment.did_start.clear()
        assert (segment.tries, segment.runs) == (tries, True)
        keeper.begin_anew()
    assert segment.did_start.wait(DEADLINE_S)
    keeper.stop()
    assert (segment.tries, segment.runs, segment.heard) == (4, False, [])


def test_it_is_tried_again_until_the_other_is_gone_and_that_is_said_once() -> None:
    segment = Segment([NetworkError("another DHCP server answers", "switch it off") for _ in range(5)])
    keeper = segment.keep()
    assert segment.did_start.wait(DEADLINE_S)
    assert (keeper.failure, segment.tries) == (None, 6)
    keeper.stop()
    text = "root, but not answering netboot: another DHCP server answers"
    assert segment.heard == [Warned(text=text, hint="switch it off")]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), RuntimeError("a defect")])
def test_whatever_goes_wrong_is_said_and_tried_again(failure: Exception) -> None:
    segment = Segment([failure])
    keeper = segment.keep()
    assert segment.did_start.wait(DEADLINE_S)
    keeper.stop()
    (warning,) = segment.heard
    assert isinstance(warning, Warned)
    assert warning.text.endswith(("netboot: No space left on device", "netboot: RuntimeError('a defect')"))


def test_who_asks_after_the_first_try_hears_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepnetboot, "_LATER_S", DEADLINE_S)
    segment = Segment([ConfigError("no such interface")])
    keeper = segment.keep()
    assert keeper.wait_first(DEADLINE_S)
    assert str(keeper.failure) == "no such interface"
    keeper.stop()  # at once, not when the next try is due
    assert segment.tries == 1
