"""What was measured, as a table for a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.table import Table

from benchmarks.figures import Spread, Summary

HEADINGS = (
    "tool",
    "has it: median",
    "last",
    "bootable: median",
    "last",
    "÷ floor",
    "copies out of root",
    "out of a blade",
    "redundant",
    "CPU s (root)",
    "cores busy",
)


def make_table(summaries: Sequence[Summary], titles: Mapping[str, str]) -> Table:
    """A row for each tool in rooms of each size. Where blades were stopped, the times are bounds."""
    table = Table(*HEADINGS, box=SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for count in sorted({one.blades for one in summaries}):
        table.add_section()
        table.add_row(f"{count} blade{'s' if count > 1 else ''}", style="bold")
        for one in summaries:
            if one.blades == count:
                table.add_row(titles.get(one.contender, one.contender), *render_row(one))
    return table


def render_row(one: Summary) -> list[str]:
    """All but the tool's name."""
    times = (one.have_median_s, one.have_last_s, one.bootable_median_s, one.bootable_last_s)
    return [
        *(render_time(time, one.deadline_s) for time in times),
        f"{one.floors:.2f}" if math.isfinite(one.floors) else f"({one.estimate_s.median / one.floor_s:.1f})",
        render_spread(one.copies, 2) if one.is_whole else f"{one.arrived:.0%} had come",
        f"{one.most_copies:.2f}" if one.is_whole else "",
        render_redundant(one),
        f"{one.cpu_s.median:.1f} ({one.root_cpu_s:.1f})" if one.is_whole else "",
        f"{one.cores_busy:.2f}",
    ]


def render_time(time: Spread, deadline_s: float) -> str:
    """Seconds, or that they were more."""
    return render_spread(time, 1) if math.isfinite(time.median) else f"> {deadline_s:.0f}"


def render_spread(spread: Spread, digits: int) -> str:
    """The median, and between what the runs were if that can be seen."""
    least, most = (f"{value:.{digits}f}" for value in (spread.least, spread.most))
    return f"{spread.median:.{digits}f}" + (f" ({least}-{most})" if least != most else "")


def render_redundant(one: Summary) -> str:
    """On the link, headers and all; and what the tool itself says came twice."""
    if one.redundant is None:
        return ""
    told = "" if one.told_redundant is None else f" ({one.told_redundant:.1%} twice)"
    return f"{one.redundant:.1%}{told}"
