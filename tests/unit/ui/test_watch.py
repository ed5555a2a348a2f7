from __future__ import annotations

import io
from collections.abc import Iterable

from rich.console import Console

from bladeroot.core.reports import RoomState
from bladeroot.events import Event, Failed, Finished, Progress, StepFinished, StepStarted, SwarmStats
from bladeroot.ui.watch import LiveTable, render_room


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
    Progress(subject="web01", step="runtime", done=50, total=200),
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
    for shown in ("web01", "Fetch and extract the runtime", "25%", "3.0 MiB/s", "1.0 MiB/s", " 5 ", "75%"):
        assert shown in lines[1]


def test_rates_are_not_shown_when_nothing_is_fetched_any_more() -> None:
    done = StepFinished(subject="web01", step="runtime", duration_s=41.6)
    lines = render(fold(["web01"], *FETCHING, done, Finished(subject="web01")))
    assert "installed in 42 s" in lines[1]
    assert "MiB/s" not in lines[1]


def test_who_waits_and_who_failed() -> None:
    lines = render(fold(["web01", "web02"], Failed(subject="web02", text="the disk is too small")))
    assert "waiting" in lines[1]
    assert "the disk is too small" in lines[2]


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
