"""Reporting to a root that does not answer, and of things that cannot be told."""

from __future__ import annotations

import threading
import time
from typing import cast

import attrs
import pytest

from bladeroot.core.reports import Heard, Report
from bladeroot.core.roomstate import BladePhase, BladeState
from bladeroot.errors import NetworkError
from bladeroot.events import (
    Booted,
    Event,
    Finished,
    HardwareFound,
    Held,
    Note,
    Progress,
    Warned,
    from_mapping,
)
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from bladeroot.ops import reporting
from bladeroot.ops.reporting import RootReporter
from tests.unit.ui.cli.test_status import CLAIM, View

TIMEOUT_S = 30.0


@attrs.define(eq=False)
class FakeRoot:
    """Takes reports once it answers."""

    answers: bool = True
    asked: threading.Event = attrs.field(factory=threading.Event)
    heard: list[Event] = attrs.field(factory=list)
    pause_s: float = 0.0

    def report(self, report: Report) -> Heard:
        self.asked.set()
        if not self.answers:
            raise NetworkError("nobody there")
        self.heard += [from_mapping(event) for event in report.events]
        return Heard(pause_s=self.pause_s)


def report_to(root: FakeRoot) -> RootReporter:
    client = cast(RootClient, root)
    return RootReporter(client, cluster_id="0" * 32, blade="blade01", swarm_port=1, wants=set)


def test_what_cannot_be_told_ends_neither_the_work_nor_the_reporting() -> None:
    root = FakeRoot()
    with report_to(root) as reporter:
        reporter(Note(text="before"))
        reporter(Finished(facts={"odd": {(): 1}, "worse": {object(): _Untellable()}}))
        until = time.monotonic() + TIMEOUT_S
        while len(root.heard) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        reporter(Note(text="still here"))
    text = "a Finished could not be told to the root: ValueError('cannot be told')"
    assert root.heard == [Note(text="before"), Warned(text=text), Note(text="still here")]


class _Untellable:
    def __str__(self) -> str:
        raise ValueError("cannot be told")


def test_of_more_than_can_wait_the_newest_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "_INTERVAL_S", 0.001)
    root = FakeRoot(answers=False)
    with report_to(root) as reporter:
        for number in range(3 * reporting._MOST_PENDING):
            reporter(Note(text=str(number)))
        root.asked.clear()
        assert root.asked.wait(TIMEOUT_S)
        root.asked.clear()
        assert root.asked.wait(TIMEOUT_S)
        root.answers = True
    assert root.heard[-1] == Note(text=str(3 * reporting._MOST_PENDING - 1))
    assert len(root.heard) == reporting._MOST_PENDING


def test_progress_waits_as_long_as_the_root_asks_for_and_news_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reporting, "_INTERVAL_S", 0.001)
    root = FakeRoot(pause_s=600.0)
    progress = [Progress(step="runtime", done=done, total=9) for done in range(3)]
    with report_to(root) as reporter:
        assert root.asked.wait(TIMEOUT_S)
        reporter(progress[0])
        reporter(progress[1])
        time.sleep(0.1)
        assert root.heard == []
        reporter(Note(text="done"))
        until = time.monotonic() + TIMEOUT_S
        while len(root.heard) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert root.heard == [progress[1], Note(text="done")]
        reporter(progress[2])
    assert root.heard[-1] == progress[2], "whoever leaves tells it all"


def test_a_root_that_was_started_again_hears_what_lasts() -> None:
    def serve(port: int) -> ControlServer:
        return ControlServer(View(), cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=port)

    def look(server: ControlServer) -> BladeState:
        return server.room.blades["web02"]

    with serve(0) as server:
        client = RootClient("127.0.0.1", server.port)
        reporter = RootReporter(client, cluster_id=CLAIM.cluster_id, blade="web02")
        reporter(HardwareFound(hardware={"cpus": 8}))
        reporter(Booted(serial=7, order=5))
        reporter(Note(text="once"))
        reporter.send()
        assert (look(server).phase, look(server).hardware) == (BladePhase.UP, {"cpus": 8})
    reporter.send()
    with serve(client.port) as server:
        assert look(server).phase is BladePhase.WAITING
        reporter.send()
        assert (look(server).phase, look(server).serial, look(server).order) == (BladePhase.UP, 7, 5)
        assert (look(server).hardware, look(server).note) == ({"cpus": 8}, "")
        reporter(Held(reason="no agent"))
        reporter.send()
    with serve(client.port) as server:
        reporter.send()
        assert (look(server).phase, look(server).serial) == (BladePhase.HELD, 7)


def test_what_the_root_knows_is_not_told_again() -> None:
    heard: list[Event] = []
    with ControlServer(
        View(), cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=0, reporter=heard.append
    ) as server:
        reporter = RootReporter(
            RootClient("127.0.0.1", server.port), cluster_id=CLAIM.cluster_id, blade="web02"
        )
        reporter(Booted(serial=7))
        for _ in range(3):
            reporter.send()
    assert heard == [Booted(subject="web02", serial=7)]
