from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from benchmarks.figures import summarise
from benchmarks.plot import plan_lines, render_plot, spread_labels
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.benchmarks.measured import make_measurement

ROOMS = [
    make_measurement("swarm", bootable_s=(12.0,)),
    make_measurement("sync", bootable_s=(12.0,)),
    make_measurement("swarm", bootable_s=(12.0, 13.0)),
    make_measurement("sync", bootable_s=(None, None), received_bytes=(500_000, 500_000)),
]


def test_points_say_whether_they_were_measured() -> None:
    swarm, sync = plan_lines(summarise(ROOMS))
    assert [(point.blades, point.time_s, point.is_measured) for point in swarm.points] == [
        (1, 12.0, True),
        (2, 13.0, True),
    ]
    assert [point.is_measured for point in sync.points] == [True, False]
    assert sync.points[1].time_s > 30.0


def test_a_tool_that_brought_nothing_has_no_line() -> None:
    nothing = make_measurement("sync", bootable_s=(None,), received_bytes=(0,))
    assert plan_lines(summarise([nothing])) == []
    with pytest.raises(ValueError, match="nothing"):
        render_plot(summarise([nothing]), {}, title="", caption="")


def test_the_plot_is_a_picture_with_a_line_and_a_label_for_each() -> None:
    svg = render_plot(summarise(ROOMS), {"sync": "a & b"}, title="<title>", caption="here")
    ElementTree.fromstring(svg)  # noqa: S314
    assert svg.count("stroke-dasharray=") == 1
    assert svg.count("<circle") == 4
    assert len(re.findall(r'<circle [^>]*fill="none"', svg)) == 1
    assert "swarm: 13 s" in svg
    assert "a &amp; b: " in svg
    assert "here" in svg
    assert "open circles" in svg
    assert "open circles" not in render_plot(summarise(ROOMS[:1]), {}, title="", caption="")


def test_one_room_alone_can_be_drawn() -> None:
    ElementTree.fromstring(render_plot(summarise(ROOMS[:1]), {}, title="", caption=""))  # noqa: S314


@given(st.lists(st.floats(0, 400), min_size=1, max_size=6))
def test_labels_do_not_cover_each_other(heights: list[float]) -> None:
    placed = spread_labels(heights, 10.0)
    between = [b - a for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False)]
    assert all(distance > 7.0 for distance in between)
    order = sorted(range(len(heights)), key=lambda number: heights[number])
    assert [placed[number] for number in order] == sorted(placed)
