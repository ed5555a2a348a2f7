from __future__ import annotations

import pytest

from bladeroot.core.badlinks import BadLink, find_bad_links
from bladeroot.core.roomstate import RoomState
from bladeroot.events import Failed, StepStarted, SwarmStats


def make_room(*blades: tuple[int, int]) -> RoomState:
    """Blades that fetch: what each has, in hundredths, and its rate."""
    room = RoomState()
    for number, (have, rate) in enumerate(blades):
        name = f"web{number:02d}"
        room = room.with_event(StepStarted(subject=name, step="runtime"))
        stats = SwarmStats(
            subject=name,
            artefact="runtime",
            peers=3,
            sources=2,
            have_bytes=have,
            total_bytes=100,
            down_bytes=have,
            up_bytes=0,
            down_rate=rate,
        )
        room = room.with_event(stats)
    return room


USUAL = ((50, 1000), (55, 1100), (45, 900), (52, 1000))


def test_a_blade_that_lags_behind_is_named_with_what_is_usual() -> None:
    assert find_bad_links(make_room(*USUAL, (10, 200))) == (BadLink("web04", 200, 1000),)


@pytest.mark.parametrize(
    "blade",
    [
        (50, 0),  # a lull
        (5, 1000),  # begun late
        (10, 400),  # slower, but not by much
        (100, 0),  # has everything
    ],
)
def test_others_are_not(blade: tuple[int, int]) -> None:
    assert find_bad_links(make_room(*USUAL, blade)) == ()


def test_of_few_nobody_knows_what_is_usual() -> None:
    assert find_bad_links(make_room((50, 1000), (55, 1000), (1, 10))) == ()


def test_who_has_failed_has_other_troubles() -> None:
    room = make_room(*USUAL, (10, 200))
    assert find_bad_links(room.with_event(Failed(subject="web04", text="no disk"))) == ()
