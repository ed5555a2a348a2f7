"""Reports are bounded and checked; the room is the fold of what came through."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from bladeroot import events
from bladeroot.core import wire
from bladeroot.core.reports import (
    MAX_ARTEFACTS,
    MAX_BLADES,
    MAX_EVENTS,
    MAX_TEXT,
    REPORT_LIMIT_BYTES,
    BladePhase,
    Report,
    RoomState,
    parse_report,
    plan_reports,
)
from bladeroot.errors import NetworkError

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


def with_events(*mappings: dict[str, Any]) -> bytes:
    return wire.encode(attrs.evolve(REPORT, events=mappings))


def test_events_come_back_about_the_blade_that_reported() -> None:
    told = [
        events.StepStarted(step="fetch", title="Fetching"),
        events.Progress(step="fetch", done=1, total=2, subject="somebody-else"),
        STATS,
        events.StepFinished(step="fetch", duration_s=1.5),
        events.Finished(facts={"slot": "A", "list": [1, True, None, {"x": 2.5}]}),
    ]
    (report,) = plan_reports(REPORT, told)
    _, heard = parse_report(wire.encode(report))
    assert heard == tuple(attrs.evolve(event, subject="blade01") for event in told)


def test_control_characters_do_not_reach_a_terminal() -> None:
    _, (note,) = parse_report(with_events({"event": "Note", "text": "a\x1b[2Jb\nc\x00"}))
    assert note == events.Note(text="a [2Jb c ", subject="blade01")


@pytest.mark.parametrize(
    "changes",
    [
        {"blade": "../etc"},
        {"blade": "B"},
        {"session": ""},
        {"session": "x" * 65},
        {"sequence": 0},
        {"swarm_port": 65536},
        {"swarm_port": -1},
        {"cluster_id": "x"},
        {"wants": ("short",)},
        {"wants": (HASH,) * (MAX_ARTEFACTS + 1)},
        {"events": ({"event": "Note", "text": "x"},) * (MAX_EVENTS + 1)},
    ],
)
def test_a_report_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(NetworkError, match="out of bounds"):
        parse_report(wire.encode(attrs.evolve(REPORT, **changes)))


@pytest.mark.parametrize(
    "mapping",
    [
        {"event": "Evil"},
        {"text": "no event"},
        {"event": "Note"},
        {"event": "Note", "text": 5},
        {"event": "Note", "text": "x" * (MAX_TEXT + 1)},
        {"event": "Progress", "step": "s", "done": "1", "total": 2},
        {"event": "Progress", "step": "s", "done": 2**63, "total": 2},
        {"event": "Finished", "facts": [1]},
        {"event": "Finished", "facts": {"a": b"bytes"}},
        {"event": "Finished", "facts": {"a": [[[[[[[[1]]]]]]]]}},
    ],
)
def test_what_is_not_an_event_is_refused(mapping: dict[str, Any]) -> None:
    with pytest.raises(NetworkError):
        parse_report(with_events(mapping))


def test_too_many_bytes_are_refused_unread() -> None:
    with pytest.raises(NetworkError, match="limit"):
        parse_report(b"\xc1" * (REPORT_LIMIT_BYTES + 1))


def test_much_news_becomes_several_reports_that_are_all_accepted() -> None:
    told = [events.Note(text=f"{number} " + "x" * 5000) for number in range(700)]
    reports = plan_reports(attrs.evolve(REPORT, sequence=10), told)
    assert [report.sequence for report in reports] == list(range(10, 10 + len(reports)))
    heard = [event for report in reports for event in parse_report(wire.encode(report))[1]]
    assert [note.text.split()[0] for note in heard if isinstance(note, events.Note)] == [
        str(number) for number in range(700)
    ]


def test_a_blade_without_news_reports_that_it_is_there() -> None:
    assert plan_reports(REPORT, []) == [REPORT]


def heard(room: RoomState, report: Report, *told: events.Event) -> RoomState:
    return room.with_report(report, told, "10.77.0.11")


def test_the_room_follows_a_blade_from_waiting_to_finished() -> None:
    room = RoomState.of(["blade01", "blade02"])
    assert room.count(BladePhase.WAITING) == 2
    room = heard(room, REPORT, events.StepStarted(step="fetch", title="Fetching"), STATS)
    state = room.blades["blade01"]
    assert (state.phase, state.step, state.peers, state.down_rate) == (BladePhase.WORKING, "fetch", 3, 7)
    assert room.members_of(HASH) == (("10.77.0.11", 7475),)
    assert room.members_of("cd" * 32) == ()
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


def test_the_same_events_give_the_same_room_by_either_way() -> None:
    told = [events.StepStarted(step="fetch"), STATS, events.Failed(text="no", exit_code=41)]
    reported = heard(RoomState.of(["blade01"]), REPORT, *told).blades["blade01"]
    watched = RoomState.of(["blade01"])
    for event in told:
        watched = watched.with_event(attrs.evolve(event, subject="blade01"))
    seen = watched.blades["blade01"]
    assert (seen.phase, seen.step, seen.exit_code) == (reported.phase, reported.step, 41)


def test_names_that_are_not_utf8_and_odd_numbers_do_not_keep_a_report_from_being_made() -> None:
    facts = {"path\udcff": "\udcff", "large": 2**64, "none": float("nan"), "endless": float("inf")}
    (report,) = plan_reports(REPORT, [events.Note(text="bad\udcffname"), events.Finished(facts=facts)])
    _, (note, finished) = parse_report(wire.encode(report))
    assert note == events.Note(text="bad?name", subject="blade01")
    assert isinstance(finished, events.Finished)
    assert finished.facts == {"path?": "?", "large": str(2**64), "none": None, "endless": None}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_does_not_have_is_refused(number: float) -> None:
    with pytest.raises(NetworkError, match="a number that is none"):
        parse_report(with_events({"event": "StepFinished", "step": "s", "duration_s": number}))


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
