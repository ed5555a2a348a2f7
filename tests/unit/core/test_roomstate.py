"""The room is the fold of what came through."""

from __future__ import annotations

import attrs
import pytest

from bladeroot import events
from bladeroot.core.reports import (
    Report,
)
from bladeroot.core.roomstate import MAX_BLADES, MAX_STRANGERS, BladePhase, RoomState

HASH = "ab" * 32
REPORT = Report(
    cluster_id="0" * 32, blade="blade01", session="run-1", sequence=1, swarm_port=7475, wants=(HASH,)
)
STATS = events.SwarmStats(
    artefact="runtime",
    peers=3,
    sources=2,
    have_bytes=10,
    total_bytes=20,
    down_bytes=10,
    up_bytes=5,
    down_rate=7,
)


def heard(room: RoomState, report: Report, *told: events.Event) -> RoomState:
    return room.with_report(report, told, "10.77.0.11")


def test_the_room_follows_a_blade_from_waiting_to_finished() -> None:
    room = RoomState.of(["blade01", "blade02"])
    assert room.count(BladePhase.WAITING) == 2
    room = heard(room, REPORT, events.StepStarted(step="fetch", title="Fetching"), STATS)
    state = room.blades["blade01"]
    assert (state.phase, state.step, state.peers, state.down_rate) == (BladePhase.WORKING, "fetch", 3, 7)
    assert list(room.members_of(HASH).values()) == [("10.77.0.11", 7475)]
    assert room.members_of("cd" * 32) == {}
    room = heard(room, attrs.evolve(REPORT, sequence=2), events.Finished(facts={"slot": "A"}))
    assert room.blades["blade01"].phase is BladePhase.FINISHED
    assert room.count(BladePhase.FINISHED) == 1


def test_a_report_sent_twice_counts_once() -> None:
    room = heard(RoomState.of(["blade01"]), REPORT, events.Warned(text="look"))
    assert heard(room, REPORT, events.Warned(text="look")) is room
    assert room.blades["blade01"].warnings == 1


def test_a_new_session_begins_afresh() -> None:
    room = heard(RoomState.of(["blade01"]), attrs.evolve(REPORT, sequence=9), events.Failed(text="disk"))
    assert room.blades["blade01"].phase is BladePhase.FAILED
    room = heard(room, attrs.evolve(REPORT, session="run-2"), events.StepStarted(step="plan"))
    assert (room.blades["blade01"].phase, room.blades["blade01"].failure) == (BladePhase.WORKING, "")


def test_strangers_are_not_let_in_and_the_room_is_bounded() -> None:
    room = RoomState.of(["blade01"])
    assert heard(room, attrs.evolve(REPORT, blade="stranger")) is room
    assert room.with_event(events.Note(text="x", subject="stranger")) is room
    full = RoomState.of(f"b{number}" for number in range(MAX_BLADES))
    open_room = attrs.evolve(full, expected=None)
    assert open_room.with_event(events.Note(text="x", subject="one-more")) is open_room


def test_the_stranger_that_was_silent_for_longest_gives_way() -> None:
    room = RoomState.of(["blade01"])
    names = [f"stranger-{number:012x}" for number in range(MAX_STRANGERS + 2)]
    for name in names[:MAX_STRANGERS]:
        room = room.with_event(events.Note(text="x", subject=name))
    room = room.with_event(events.Note(text="again", subject=names[0]))
    for name in names[MAX_STRANGERS:]:
        room = room.with_event(events.Note(text="x", subject=name))
    assert sorted(room.blades) == sorted(["blade01", names[0], *names[3:]])


def test_the_same_events_give_the_same_room_by_either_way() -> None:
    told = [events.StepStarted(step="fetch"), STATS, events.Failed(text="no", exit_code=41)]
    reported = heard(RoomState.of(["blade01"]), REPORT, *told).blades["blade01"]
    watched = RoomState.of(["blade01"])
    for event in told:
        watched = watched.with_event(attrs.evolve(event, subject="blade01"))
    seen = watched.blades["blade01"]
    assert (seen.phase, seen.step, seen.exit_code) == (reported.phase, reported.step, 41)


def test_a_blade_of_a_newer_generation_is_let_in_when_it_is_expected() -> None:
    room = RoomState.of(["blade02"])
    assert heard(room, REPORT) is room
    wider = room.expecting(["blade01", "blade02"])
    assert heard(wider, REPORT, events.Note(text="here")).blades["blade01"].note == "here"
    assert not wider.lets_in("blade03")
    assert RoomState().expecting(["blade01"]).expected is None, "a room that lets all in goes on so"


def test_a_stranger_that_was_adopted_is_seen_once() -> None:
    hardware = {"nics": [{"mac": "52:54:00:00:00:01"}, {"mac": 5}, "rubbish"]}
    stranger = attrs.evolve(REPORT, blade="stranger-525400000001")
    room = heard(RoomState.of(["blade01"]), stranger, events.Held(reason="unknown"))
    room = heard(room, attrs.evolve(stranger, blade="stranger-525400000002"))
    room = heard(room, REPORT, events.HardwareFound(hardware=hardware))
    assert sorted(room.blades) == ["blade01", "stranger-525400000002"]


@pytest.mark.parametrize(("before", "told", "after"), [(0, 5, 5), (7, 5, 7), (7, None, 7), (7, "9", 7)])
def test_an_order_that_is_done_stays_done(before: int, told: object, after: int) -> None:
    room = heard(RoomState(), REPORT, events.Booted(serial=1, order=before))
    room = heard(room, attrs.evolve(REPORT, session="run-2"), events.Finished(facts={"order": told}))
    assert room.blades["blade01"].order == after
