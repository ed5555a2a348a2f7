"""Time against the number of blades, a line for each tool: an SVG for light and dark backgrounds. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from attrs import frozen

from benchmarks.figures import Summary

WIDTH, HEIGHT = 860, 470
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 210, 58, 60
_LABEL_DISTANCE = 17.0
_TICKS_S = (10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_COLOURS = ("#e4572e", "#2a9d8f", "#8e6bd1", "#3d85c6", "#b8860b")
"""Between light and dark, so that both backgrounds let them be seen."""
_STYLE = """\
text { font: 13px system-ui, sans-serif; fill: #767676; }
.title { font-size: 15px; font-weight: 600; }
.small { font-size: 12px; fill: #767676; }
.grid { stroke: #8886; stroke-width: 1; }
.floor { stroke: #888; stroke-width: 1.5; stroke-dasharray: 2 4; }
@media (prefers-color-scheme: dark) { text { fill: #ccc; } .small { fill: #999; } }
"""


@frozen
class Point:
    """The last blade is bootable after so long; `is_measured` is False where that is extrapolated."""

    blades: int
    time_s: float
    least_s: float
    most_s: float
    is_measured: bool


@frozen
class Line:
    """One tool."""

    contender: str
    points: tuple[Point, ...]


def plan_lines(summaries: Sequence[Summary]) -> list[Line]:
    """Lines in the order of the tools, without points that nothing can be said of."""
    names = list(dict.fromkeys(one.contender for one in summaries))
    lines = []
    for name in names:
        points = [
            Point(
                one.blades,
                one.estimate_s.median,
                one.estimate_s.least,
                one.estimate_s.most,
                one.is_whole,
            )
            for one in summaries
            if one.contender == name and math.isfinite(one.estimate_s.most)
        ]
        if points:
            lines.append(Line(name, tuple(sorted(points, key=lambda point: point.blades))))
    return lines


def spread_labels(heights: Sequence[float], distance: float = _LABEL_DISTANCE) -> list[float]:
    """Heights near those, none nearer to another than that; in the given order."""
    order = sorted(range(len(heights)), key=lambda number: heights[number])
    placed = [heights[number] for number in order]
    for _ in range(len(placed)):
        for i in range(1, len(placed)):
            overlap = distance - (placed[i] - placed[i - 1])
            if overlap > 0:
                placed[i - 1] -= overlap / 2
                placed[i] += overlap / 2
    found = [0.0] * len(heights)
    for number, height in zip(order, placed, strict=True):
        found[number] = height
    return found


@frozen
class _Axes:
    """Logarithmic, both."""

    blades: tuple[float, float]
    times_s: tuple[float, float]

    @classmethod
    def around(cls, lines: Sequence[Line], floor_s: float) -> _Axes:
        points = [point for line in lines for point in line.points]
        counts = [point.blades for point in points]
        least = min(floor_s, *(point.least_s for point in points))
        return cls(
            (min(counts), max(*counts, 2 * min(counts))),
            (least / 1.25, 1.15 * max(point.most_s for point in points)),
        )

    def x(self, blades: float) -> float:
        low, high = self.blades
        share = math.log(blades / low) / math.log(high / low)
        return _LEFT + 14 + share * (WIDTH - _LEFT - _RIGHT - 14)

    def y(self, time_s: float) -> float:
        low, high = self.times_s
        share = math.log(time_s / low) / math.log(high / low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def render_plot(summaries: Sequence[Summary], titles: Mapping[str, str], *, title: str, caption: str) -> str:
    """The whole file. Raises ValueError where there is nothing to draw."""
    lines = plan_lines(summaries)
    if not lines:
        raise ValueError("nothing was measured to its end")
    floor_s = summaries[0].floor_s
    axes = _Axes.around(lines, floor_s)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        _text(16, 24, title, "title"),
        _text(16, 43, _describe(lines), "small"),
        *_render_grid(lines, axes),
        *_render_floor(axes, floor_s),
    ]
    ends = [axes.y(line.points[-1].time_s) for line in lines]
    for number, (line, height) in enumerate(zip(lines, spread_labels(ends), strict=True)):
        parts += _render_line(line, axes, _COLOURS[number % len(_COLOURS)])
        last = line.points[-1]
        label = f"{titles.get(line.contender, line.contender)}: {last.time_s:.0f} s"
        x = axes.x(last.blades) + 14
        parts.append(_text(x, height + 4.5, label, colour=_COLOURS[number % len(_COLOURS)]))
    parts.append(_text(16, HEIGHT - 8, caption, "small"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _describe(lines: Sequence[Line]) -> str:
    is_all_measured = all(point.is_measured for line in lines for point in line.points)
    note = "" if is_all_measured else "; open circles: stopped, and extrapolated"
    return f"seconds until the last blade is bootable, both axes logarithmic{note}"


def _render_grid(lines: Sequence[Line], axes: _Axes) -> list[str]:
    left, right = _LEFT, WIDTH - _RIGHT
    parts = []
    low, high = axes.times_s
    for tick_s in _TICKS_S:
        if low <= tick_s <= high:
            y = axes.y(tick_s)
            parts.append(f'<path class="grid" d="M{left} {y:.1f}H{right}"/>')
            parts.append(_text(left - 8, y + 4, f"{tick_s}", "small", anchor="end"))
    counts = sorted({point.blades for line in lines for point in line.points})
    parts += [_text(axes.x(count), HEIGHT - _BOTTOM + 20, f"{count}", anchor="middle") for count in counts]
    return [*parts, _text(right + 14, HEIGHT - _BOTTOM + 20, "blades", "small")]


def _render_floor(axes: _Axes, floor_s: float) -> list[str]:
    y = axes.y(floor_s)
    return [
        f'<path class="floor" d="M{_LEFT} {y:.1f}H{WIDTH - _RIGHT}"/>',
        _text(
            WIDTH - _RIGHT, y + 15, f"one link's time for the image: {floor_s:.0f} s", "small", anchor="end"
        ),
    ]


def _render_line(line: Line, axes: _Axes, colour: str) -> list[str]:
    parts = []
    for before, after in zip(line.points, line.points[1:], strict=False):
        dash = "" if after.is_measured else ' stroke-dasharray="7 5"'
        a, b = (f"{axes.x(point.blades):.1f} {axes.y(point.time_s):.1f}" for point in (before, after))
        parts.append(f'<path d="M{a}L{b}" stroke="{colour}" stroke-width="2.5" fill="none"{dash}/>')
    for point in line.points:
        x, y = axes.x(point.blades), axes.y(point.time_s)
        if point.most_s > point.least_s:
            low, high = axes.y(point.least_s), axes.y(point.most_s)
            parts.append(f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}" stroke-width="1.5"/>')
        fill = colour if point.is_measured else "none"
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{colour}" stroke-width="2"/>'
        )
    return parts


def _text(x: float, y: float, text: str, kind: str = "", *, anchor: str = "start", colour: str = "") -> str:
    style = f' style="fill:{colour};font-weight:600"' if colour else ""
    name = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}{style}>{escape(text)}</text>'
