"""Reports are bounded and checked."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from bladeroot import events
from bladeroot.core import wire
from bladeroot.core.reports import (
    MAX_ARTEFACTS,
    MAX_EVENTS,
    MAX_TEXT,
    REPORT_LIMIT_BYTES,
    Report,
    choose_pause,
    parse_pause,
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
        events.Progress(step="fetch", done=2, total=3, extracted=1),
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


def test_a_small_room_reports_all_the_time_and_a_large_one_every_few_seconds() -> None:
    assert choose_pause(8) < 1 < choose_pause(32) < choose_pause(500) <= 5
    for blades in (0, 8, 32, 500):
        assert parse_pause(f"{choose_pause(blades):.1f}") == pytest.approx(choose_pause(blades), abs=0.05)


@pytest.mark.parametrize("odd", [None, "", "soon", "-1", "1e9", "nan", "inf"])
def test_an_odd_pause_is_none(odd: str | None) -> None:
    assert parse_pause(odd) == 0


def test_a_blade_without_news_reports_that_it_is_there() -> None:
    assert plan_reports(REPORT, []) == [REPORT]


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
