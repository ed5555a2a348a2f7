from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console

from bladeroot.core.roomstate import RoomState
from bladeroot.events import (
    Booted,
    Event,
    Failed,
    Finished,
    Held,
    Note,
    Progress,
    StepFinished,
    StepStarted,
    SwarmStats,
)
from bladeroot.ui.watch import LiveTable, render_remarks, render_room


def render(room: RoomState) -> list[str]:
    memory = io.StringIO()
    Console(file=memory, width=140, color_system=None).print(render_room(room))
    return memory.getvalue().splitlines()


def fold(names: Iterable[str], *heard: Event) -> RoomState:
    room = RoomState.of(names)
    for event in heard:
        room = room.with_event(event)
    return room


FETCHING = (
    StepStarted(subject="web01", step="runtime", title="Fetch and extract the runtime"),
    Progress(subject="web01", step="runtime", done=50, total=200, extracted=40),
    SwarmStats(
        subject="web01",
        artefact="runtime",
        peers=2,
        sources=5,
        have_bytes=50,
        total_bytes=200,
        down_bytes=100,
        up_bytes=3,
        from_root_bytes=25,
        down_rate=3 << 20,
        up_rate=1 << 20,
    ),
)


def test_a_blade_that_fetches_shows_step_progress_rates_peers_and_how_much_came_from_others() -> None:
    lines = render(fold(["web01"], *FETCHING))
    assert len(lines) == 2
    for shown in (
        "web01",
        "Fetch and extract the runtime",
        "25%",
        "20%",
        "3.0 MiB/s",
        "1.0 MiB/s",
        " 5 ",
        "75%",
    ):
        assert shown in lines[1]


def test_a_step_that_extracts_nothing_shows_only_how_far_it_is() -> None:
    room = fold(
        ["web01"],
        *FETCHING,
        StepStarted(subject="web01", step="other"),
        Progress(subject="web01", step="other", done=1, total=2),
    )
    assert "50%" in render(room)[1]
    assert "20%" not in render(room)[1]


def test_rates_are_not_shown_when_nothing_is_fetched_any_more() -> None:
    done = StepFinished(subject="web01", step="runtime", duration_s=41.6)
    lines = render(fold(["web01"], *FETCHING, done, Finished(subject="web01")))
    assert "installed in 42 s" in lines[1]
    assert "MiB/s" not in lines[1]


def test_who_waits_and_who_failed() -> None:
    lines = render(fold(["web01", "web02"], Failed(subject="web02", text="the disk is too small")))
    assert "waiting" in lines[1]
    assert "the disk is too small" in lines[2]


def test_a_blade_that_is_up_tells_its_generation_and_its_news() -> None:
    news = Note(subject="web01", text="restarts for order 5")
    lines = render(fold(["web01", "web02"], Booted(subject="web01", serial=7), news))
    assert "up, generation 7: restarts for order 5" in lines[1]


def test_many_blades_that_need_a_person_are_not_all_listed_and_names_are_never_cut() -> None:
    names = [f"stranger-5254000000{number:02}" for number in range(20)]
    room = fold([], *(Held(subject=name, reason="who? " * 40, hint="adopt it") for name in names))
    remarks = [text.plain for text in render_remarks(room)]
    assert remarks[0].startswith(f"{names[0]} waits for you: who?")
    assert remarks[0].endswith("(adopt it)")
    assert remarks[-1] == "… and 12 more"
    memory = io.StringIO()
    Console(file=memory, width=80, color_system=None).print(render_room(room))
    assert all(name in memory.getvalue() for name in names)


def test_this_process_itself_is_no_row() -> None:
    assert len(render(fold(["web01"], Progress(step="x", done=1, total=2)))) == 2


def test_the_live_table_follows_events_from_any_thread_and_knows_whom_to_expect() -> None:
    memory = io.StringIO()
    table = LiveTable(Console(file=memory, width=140, color_system=None))
    table.expect(["web01"])
    with table:
        for event in FETCHING:
            table(event)
        table(Progress(subject="stranger", step="x", done=1, total=2))
    assert "25%" in memory.getvalue()
    assert "stranger" not in memory.getvalue()


def test_a_slow_link_has_a_line() -> None:
    rates = {"web01": 1000 << 10, "web02": 1000 << 10, "web03": 1000 << 10, "web04": 100 << 10}
    room = RoomState()
    for blade, rate in rates.items():
        stats = SwarmStats(
            subject=blade,
            artefact="runtime",
            peers=3,
            sources=3,
            have_bytes=rate,
            total_bytes=1 << 30,
            down_bytes=rate,
            up_bytes=0,
            down_rate=rate,
        )
        room = room.with_event(StepStarted(subject=blade, step="runtime")).with_event(stats)
    (line,) = render_remarks(room)
    assert line.plain.startswith("web04 is slow: 100 KiB/s where others get 1.0 MiB/s")
