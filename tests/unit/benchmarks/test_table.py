from __future__ import annotations

from benchmarks.figures import Spread, summarise
from benchmarks.table import make_table, render_row, render_spread
from rich.console import Console

from tests.unit.benchmarks.measured import make_measurement


def test_a_row_of_what_was_measured() -> None:
    (summary,) = summarise([make_measurement(redundant_bytes=20_000)])
    assert render_row(summary) == [
        *("11.0", "13.0", "12.0", "14.0", "1.30"),
        *("1.50", "0.00", "5.0% (2.0% twice)", "4.0 (1.0)", "0.43"),
    ]


def test_a_row_of_what_was_stopped_says_so() -> None:
    stopped = make_measurement(bootable_s=(None, None), received_bytes=(300_000, 300_000))
    (summary,) = summarise([stopped])
    row = render_row(summary)
    assert row[:6] == ["> 30", "> 30", "> 30", "> 30", "(10.0)", "30% had come"]


def test_a_spread_shows_where_it_can_be_seen() -> None:
    assert render_spread(Spread(1.0, 1.0, 1.04), 1) == "1.0"
    assert render_spread(Spread(1.0, 0.9, 1.2), 1) == "1.0 (0.9-1.2)"


def test_rooms_come_in_order_and_tools_under_their_titles() -> None:
    summaries = summarise([make_measurement("sync"), make_measurement("sync", bootable_s=(9.0,))])
    console = Console(width=200)
    with console.capture() as capture:
        console.print(make_table(summaries, {"sync": "a daemon"}))
    text = capture.get()
    assert text.index("1 blade\x20") < text.index("9.0") < text.index("2 blades") < text.index("14.0")
    assert text.count("a daemon") == 2
