"""Events as lines, for another program."""

from __future__ import annotations

import io
import json

from bladeroot.events import Booted, Warned, from_mapping
from bladeroot.host.eventlines import EventLines


def test_each_event_is_one_line_that_can_be_read_back() -> None:
    told = [Booted(serial=7, order=3), Warned(text="two\nlines", hint="none")]
    stream = io.StringIO()
    lines = EventLines(stream)
    for event in told:
        lines(event)
    assert [from_mapping(json.loads(line)) for line in stream.getvalue().splitlines()] == told


def test_who_reads_may_leave() -> None:
    stream = io.StringIO()
    stream.close()
    EventLines(stream)(Booted(serial=7))
