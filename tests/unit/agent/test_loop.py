"""The agent's life: what ends an attempt, how long it waits, and what ends the wait."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import attrs
import pytest

from bladeroot.agent import agent as agent_module
from bladeroot.agent import disks, loop
from bladeroot.agent.agent import Agent, DoneError, HeldError
from bladeroot.agent.arguments import AgentArguments
from bladeroot.agent.loop import choose_pause, run_until_done
from bladeroot.agent.session import Offer, Session
from bladeroot.agent.site import Site
from bladeroot.agent.steps import AFTER, BEFORE, list_step_names
from bladeroot.core.agentdecision import Why
from bladeroot.core.claims import Claim, ClaimState
from bladeroot.core.cluster import Cluster
from bladeroot.core.orders import SignedOrder
from bladeroot.errors import DiskError, NetworkError
from bladeroot.events import Event, Failed, HardwareFound, Held, Note
from bladeroot.net.client import RootClient
from bladeroot.ops.install import STEPS

CLAIM = Claim(
    cluster_id="0" * 32,
    epoch=1,
    serial=3,
    manifest_hash="a" * 16,
    state=ClaimState.ROOT,
    priority=0,
    blade="root",
    host="10.0.0.1",
    port=7474,
)
OFFER = Offer(claim=CLAIM, orders=())
NEWER = Offer(claim=attrs.evolve(CLAIM, serial=4), orders=())
ORDERED = Offer(claim=CLAIM, orders=(SignedOrder(body=b"x", signatures=()),))


class FakeSession:
    """A root that makes one offer after the other; None is silence. The last one stays."""

    def __init__(self, *offers: Offer | None) -> None:
        self.offers = list(offers)
        self.told: list[Event] = []
        self.blade = ""
        self.is_closed = False

    def read_offer(self) -> Offer:
        offer = self.offers.pop(0) if len(self.offers) > 1 else self.offers[0]
        if offer is None:
            raise NetworkError("silence")
        return offer

    def report(self, event: Event) -> None:
        self.told.append(event)

    def report_as(self, blade: str) -> bool:
        changed, self.blade = self.blade != blade, blade
        return changed

    def close(self) -> None:
        self.is_closed = True


class Bench:
    """An agent whose attempts are written down beforehand, and who sleeps in no time."""

    def __init__(self, session: FakeSession | None, *endings: Exception) -> None:
        self.events: list[Event] = []
        self.slept: list[float] = []
        self.session = session
        self.endings = list(endings)
        self.agent = Agent(
            arguments=AgentArguments(),
            site=Site(Cluster(name="toy", id="0" * 32), ()),
            console=self.events.append,
            sleep=self.slept.append,
            chance=lambda _low, high: high,
            session=cast("Session | None", session),
            offer=OFFER if session else None,
        )

    def run(self) -> None:
        run_until_done(self.agent, self.attempt)
        assert not self.endings

    def attempt(self, _agent: Agent) -> None:
        raise self.endings.pop(0)

    def of(self, event_class: type[Event]) -> list[Event]:
        return [event for event in self.events if isinstance(event, event_class)]


DONE = DoneError("installed")
BROKEN = DiskError("/dev/vda: input/output error", "replace it")


def test_an_install_that_ends_well_leaves_the_root_told() -> None:
    session = FakeSession(OFFER)
    Bench(session, DONE).run()
    assert session.is_closed


def test_a_failure_is_said_everywhere_and_tried_again() -> None:
    session = FakeSession(OFFER)
    bench = Bench(session, BROKEN, DONE)
    clock = _run_with_clock(bench)
    failed = Failed(text="/dev/vda: input/output error", hint="replace it", exit_code=DiskError.exit_code)
    assert failed in bench.events
    assert failed in session.told
    assert clock() >= 5.0


def test_a_defect_is_no_reason_to_stop_either(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench(FakeSession(OFFER), ZeroDivisionError("oops"), DONE)
    _run_with_clock(bench)
    (failed,) = bench.of(Failed)
    assert isinstance(failed, Failed)
    assert "oops" in failed.text
    assert "Traceback" in capsys.readouterr().err


def test_pauses_grow_to_five_minutes_and_no_further() -> None:
    pauses = [choose_pause(failures, lambda _low, high: high) for failures in range(12)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (5.0, 300.0)
    assert choose_pause(100_000, lambda low, _high: low) == pytest.approx(210.0)


@pytest.mark.parametrize("news", [NEWER, ORDERED])
def test_a_machine_on_hold_waits_for_news_however_long(news: Offer) -> None:
    session = FakeSession(*[OFFER] * 50, news)
    bench = Bench(session, HeldError("a stranger", "adopt it"), DONE)
    bench.run()
    assert len(bench.slept) == 51
    assert Held(reason="a stranger", hint="adopt it") in session.told
    assert Note(text="the root has news") in bench.events


def test_silence_now_and_then_is_no_news() -> None:
    session = FakeSession(*[None, None, OFFER] * 10, NEWER)
    bench = Bench(session, HeldError("a stranger", "adopt it"), DONE)
    bench.run()
    assert len(bench.slept) == 31


def test_a_root_that_is_gone_is_not_waited_for() -> None:
    bench = Bench(FakeSession(None), HeldError("a stranger", "adopt it"), DONE)
    bench.run()
    assert len(bench.slept) == 6
    assert len(bench.of(Held)) == 1


def test_news_ends_the_pause_after_a_failure() -> None:
    session = FakeSession(NEWER)
    bench = Bench(session, *[BROKEN] * 3, DONE)
    _run_with_clock(bench)
    assert len(bench.slept) == 3, "one poll each, whatever the pause is"


@pytest.mark.parametrize(
    ("why", "installed", "attempts"),
    [
        (Why.DISK, ["a disk"], 2),
        (Why.ORDER, ["a disk"], 2),
        (Why.DISK, [], 4),
        (Why.NO_BOOT, ["a disk"], 4),
        (Why.UNKNOWN, ["a disk"], 4),
    ],
)
def test_a_blade_that_boots_does_not_wait_for_a_root_for_ever(
    why: Why, installed: list[str], attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "find_installed", lambda _agent: iter(installed))
    bench = Bench(None, *[NetworkError("no root answers")] * 3, DONE)
    bench.agent.arguments = AgentArguments(why=why)
    with monkeypatch.context() as patch:
        patch.setattr("bladeroot.agent.loop.time.monotonic", lambda: sum(bench.slept))
        run_until_done(bench.agent, bench.attempt)
    assert 4 - len(bench.endings) == attempts


@pytest.mark.parametrize(
    ("why", "installed", "endings", "attempts"),
    [
        (Why.DISK, ["a disk"], [BROKEN] * 5, 4),
        (Why.DISK, [], [BROKEN] * 5, 5),
        (Why.ORDER, ["a disk"], [BROKEN] * 5, 5),
        (Why.DISK, ["a disk"], [HeldError("too often", "see why")], 1),
    ],
)
def test_a_blade_that_its_own_disk_started_goes_back_to_it(
    why: Why, installed: list[str], endings: list[Exception], attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the network loader started would only come again, and stays."""
    monkeypatch.setattr(loop, "find_installed", lambda _agent: iter(installed))
    bench = Bench(None, *endings, DONE)
    bench.agent.arguments = AgentArguments(why=why)
    with monkeypatch.context() as patch:
        patch.setattr("bladeroot.agent.loop.time.monotonic", lambda: sum(bench.slept))
        run_until_done(bench.agent, bench.attempt)
    begun = len(endings) + 1 - len(bench.endings)
    assert begun - (not bench.endings) == attempts


def test_disks_that_come_late_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(None)
    shown = iter([frozenset({"sda"})] * 3 + [frozenset({"sda", "sdb"})] * 100)
    monkeypatch.setattr(disks, "name_disks", lambda: next(shown))
    monkeypatch.setattr("bladeroot.agent.disks.time.monotonic", lambda: sum(bench.slept))
    bench.agent.disks = frozenset({"sda"})
    disks.wait_for_disks(bench.agent)
    assert bench.agent.disks == {"sda", "sdb"}
    assert sum(bench.slept) == pytest.approx(1.5 + 8.0)
    bench.slept.append(60.0)
    looked = len(bench.slept)
    disks.wait_for_disks(bench.agent)
    assert len(bench.slept) == looked, "they have been there for long"


def test_the_root_hears_afterwards_what_it_was_not_there_for(monkeypatch: pytest.MonkeyPatch) -> None:
    session = FakeSession(OFFER)
    monkeypatch.setattr(agent_module, "Session", lambda *_arguments: session)
    bench = Bench(None)
    bench.agent.report(Note(text="before"))
    bench.agent.follow(RootClient("10.0.0.1", 7474))
    bench.agent.report(Note(text="after"))
    assert [type(event) for event in session.told] == [HardwareFound, Note, Note]
    bench.agent.be("web01")
    bench.agent.be("web01")
    assert [type(event) for event in session.told[3:]] == [HardwareFound], "once for each name"


def test_steps_have_names_of_their_own_and_words_for_a_person() -> None:
    names = list_step_names()
    assert len(set(names)) == len(names) == len(BEFORE) + 1 + len(STEPS) + len(AFTER)
    assert names.index("decide") < names.index("partition") < names.index("commit") < names.index("restart")
    assert all(one.title for one in (*BEFORE, *AFTER))


def _run_with_clock(bench: Bench) -> Callable[[], float]:
    """Run it with a clock that goes as fast as it sleeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bladeroot.agent.loop.time.monotonic", lambda: sum(bench.slept))
        bench.run()
    return lambda: sum(bench.slept)
