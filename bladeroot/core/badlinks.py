"""Which blades get what all are fetching much slower than the others do. No I/O."""

from __future__ import annotations

import statistics
from collections import defaultdict

from attrs import frozen

from bladeroot.core.roomstate import BladePhase, BladeState, RoomState

_FEWEST = 4
"""Blades that fetch the same at the same time: of fewer nobody can say what is usual."""
_SLOW = 1 / 3
_BEHIND = 2 / 3


@frozen
class BadLink:
    """A blade, what it gets, and what is usual in the room at the moment, in bytes per second."""

    blade: str
    rate: int
    usual: int


def find_bad_links(room: RoomState) -> tuple[BadLink, ...]:
    """Blades that get less than a third of what is usual, and are behind: a moment's lull is no bad link, and
    who has begun late is as fast as others.
    """
    fetching: dict[str, list[BladeState]] = defaultdict(list)
    for state in room.blades.values():
        for artefact, stats in state.swarms.items():
            if state.blade and state.phase is BladePhase.WORKING and stats.have_bytes < stats.total_bytes:
                fetching[artefact].append(state)
    found = {}
    for artefact, states in fetching.items():
        if len(states) < _FEWEST:
            continue
        usual = statistics.median_low(state.swarms[artefact].down_rate for state in states)
        have = statistics.median_low(state.swarms[artefact].have_bytes for state in states)
        for state in states:
            stats = state.swarms[artefact]
            if stats.down_rate < usual * _SLOW and stats.have_bytes < have * _BEHIND:
                found[state.blade] = BadLink(state.blade, stats.down_rate, usual)
    return tuple(found[name] for name in sorted(found))
