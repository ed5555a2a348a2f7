"""The live table: every blade's step, progress, rate and peers, folded from the event stream."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bladeroot.core.badlinks import BadLink, find_bad_links
from bladeroot.core.roomstate import BladePhase, BladeState, RoomState, is_stranger
from bladeroot.core.sizes import render_about
from bladeroot.events import Event

_REFRESH_PER_S = 4
_BAR_WIDTH = 12
_PHASE_STYLES = {
    BladePhase.WAITING: "dim",
    BladePhase.WORKING: "",
    BladePhase.FINISHED: "green",
    BladePhase.HELD: "yellow",
    BladePhase.UP: "green",
    BladePhase.FAILED: "bold red",
}
_AT_REST = (BladePhase.HELD, BladePhase.UP)
_STEP_WIDTH = 44
_WORDS = {BladePhase.HELD: "waits for you", BladePhase.FAILED: "failed"}
_MOST_REMARKS = 8


def render_room(room: RoomState, title: str = "") -> Table:
    """The room as a table, a row a blade, strangers last; this process itself (subject "") is not shown."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
    )
    states = sorted(room.blades.values(), key=lambda state: (is_stranger(state.blade), state.blade))
    shown = [state for state in states if state.blade]
    # a name is never cut: it is what one types next
    longest = max((len(state.blade) for state in shown), default=0)
    table.add_column("BLADE", no_wrap=True, min_width=max(longest, 6))
    is_busy = any(state.phase not in _AT_REST for state in shown)
    table.add_column("STEP", no_wrap=True, min_width=26, max_width=_STEP_WIDTH if is_busy else None)
    if is_busy:
        table.add_column("FETCHED", no_wrap=True, min_width=_BAR_WIDTH + 5)
        table.add_column("EXTRACTED", justify="right", no_wrap=True)
        for heading in ("DOWN", "UP"):
            table.add_column(heading, justify="right", no_wrap=True, min_width=10)
        table.add_column("PEERS", justify="right")
        table.add_column("FROM OTHERS", justify="right", no_wrap=True)
    for state in shown:
        cells = _render_row(state)
        table.add_row(*(cells if is_busy else cells[:2]), style=_PHASE_STYLES[state.phase])
    return table


def render_remarks(room: RoomState) -> list[Text]:
    """A line for each blade that needs a person: what is wrong, and what to do. The first few of them. Then
    those whose links are slow.
    """
    troubled = [
        state
        for name, state in sorted(room.blades.items())
        if name and state.phase in (BladePhase.HELD, BladePhase.FAILED)
    ]
    lines = [
        Text(
            f"{state.blade} {_WORDS[state.phase]}: {state.failure}"
            + (f" ({state.hint})" if state.hint else ""),
            style=_PHASE_STYLES[state.phase],
        )
        for state in troubled[:_MOST_REMARKS]
    ]
    if left := len(troubled) - len(lines):
        lines.append(Text(f"… and {left} more"))
    return [*lines, *(_render_bad_link(link) for link in find_bad_links(room)[:_MOST_REMARKS])]


def _render_bad_link(link: BadLink) -> Text:
    text = f"{link.blade} is slow: {render_about(link.rate)}/s where others get {render_about(link.usual)}/s"
    return Text(f"{text} (look at its cable and its port)", style="yellow")


def render_all(room: RoomState, title: str = "") -> Group:
    """The table, and below it who needs a person."""
    remarks = render_remarks(room)
    return Group(render_room(room, title), *([Text(), *remarks] if remarks else []))


def _render_row(state: BladeState) -> tuple[str | Text | Table, ...]:
    is_moving = state.phase is BladePhase.WORKING and state.total > 0
    return (
        state.blade,
        _describe_step(state),
        _render_progress(state),
        _format_extracted(state),
        _format_rate(state.down_rate) if is_moving else "",
        _format_rate(state.up_rate) if is_moving else "",
        _count_peers(state),
        _format_share(state),
    )


def _describe_step(state: BladeState) -> Text:
    match state.phase:
        case BladePhase.FAILED:
            return Text(state.failure, overflow="ellipsis")
        case BladePhase.HELD:
            return Text(f"held: {state.failure}", overflow="ellipsis")
        case BladePhase.UP:
            news = f": {state.note}" if state.note else ""
            return Text(f"up, generation {state.serial}{news}", overflow="ellipsis")
        case BladePhase.FINISHED:
            took = sum(state.steps_s.values())
            return Text(f"installed in {took:.0f} s" if took else "finished")
        case BladePhase.WAITING:
            return Text("waiting")
    return Text(state.title or state.step, overflow="ellipsis")


def _render_progress(state: BladeState) -> Text | Table:
    if not _has_progress(state):
        return Text("")
    cell = Table.grid(padding=(0, 1))
    share = min(1.0, state.done / state.total)
    cell.add_row(ProgressBar(total=1.0, completed=share, width=_BAR_WIDTH), f"{share:4.0%}")
    return cell


def _format_extracted(state: BladeState) -> str:
    if state.extracted is None or not _has_progress(state):
        return ""
    return f"{min(1.0, state.extracted / state.total):.0%}"


def _has_progress(state: BladeState) -> bool:
    return state.total > 0 and state.phase not in (BladePhase.FINISHED, BladePhase.HELD, BladePhase.UP)


def _format_rate(rate: int) -> str:
    return f"{render_about(rate)}/s" if rate else ""


def _count_peers(state: BladeState) -> str:
    """Those connected now, or those that gave something if there were more: seeds leave each other."""
    return str(max((max(stats.peers, stats.sources) for stats in state.swarms.values()), default="") or "")


def _format_share(state: BladeState) -> str:
    """How much of what it has came from other blades, not from the root."""
    down = sum(stats.down_bytes for stats in state.swarms.values())
    from_root = sum(stats.from_root_bytes for stats in state.swarms.values())
    return f"{1 - min(from_root, down) / down:.0%}" if down else ""


class LiveTable:
    """A reporter that keeps a table on the terminal up to date while its `with` block runs."""

    def __init__(self, console: Console, room: RoomState | None = None, title: str = "") -> None:
        self.room = room or RoomState()
        self._title = title
        self._lock = threading.Lock()
        self._live = Live(console=console, refresh_per_second=_REFRESH_PER_S, get_renderable=self._render)

    def expect(self, blades: Iterable[str]) -> None:
        """Show these blades from the beginning, and no others."""
        with self._lock:
            self.room = RoomState.of(blades)

    def __call__(self, event: Event) -> None:
        with self._lock:
            self.room = self.room.with_event(event)

    def __enter__(self) -> LiveTable:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _render(self) -> Group:
        with self._lock:
            return render_all(self.room, self._title)
