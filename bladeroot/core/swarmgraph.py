"""Who is whose peer in a simulated swarm. Pure: chance is passed in.

Node 0 is the root, which everybody may ask; 1 to N are the blades. Connections are used both ways, so a
blade that is handed `degree` peers has about twice as many. One of them is always the next in a ring, hence
there are no islands, whatever chance does.
"""

from __future__ import annotations

import random
from collections.abc import Sequence


def place_in_racks(blades: int, racks: int) -> list[int]:
    """The rack of every node: blades in runs of one length (one more or less), the root in rack 0."""
    return [0, *(blade * racks // blades for blade in range(blades))]


def share_pieces(rack_of: Sequence[int], racks: int, pieces: int) -> tuple[list[int], list[int]]:
    """Pieces as bits, for every node (none for the root): its share of them all, which no other blade has,
    and its share in its rack, which no other blade of the rack has. The first is a part of the second.
    """
    members: list[list[int]] = [[] for _ in range(racks)]
    for blade in range(1, len(rack_of)):
        members[rack_of[blade]].append(blade)
    of_all, of_rack = [0] * len(rack_of), [0] * len(rack_of)
    for piece in range(pieces):
        for rack, blades in enumerate(members):
            blade = blades[piece // racks % len(blades)]
            of_rack[blade] |= 1 << piece
            if piece % racks == rack:
                of_all[blade] |= 1 << piece
    return of_all, of_rack


def hand_out_peers(
    racks: Sequence[int], *, degree: int, across: int | None, chance: random.Random
) -> list[list[int]]:
    """The neighbours of every node. `across` is how many peers of other racks a blade is handed beside
    `degree` of its own rack; None is for peers from anywhere.
    """
    blades = len(racks) - 1
    peers: list[set[int]] = [set() for _ in range(blades + 1)]
    if across is None:
        _join(peers, list(range(1, blades + 1)), degree, chance)
    else:
        by_rack: dict[int, list[int]] = {}
        for blade in range(1, blades + 1):
            by_rack.setdefault(racks[blade], []).append(blade)
        for members in by_rack.values():
            _join(peers, members, degree, chance)
        _join_across(peers, racks, list(by_rack.values()), across, chance)
    neighbours = [sorted(found) for found in peers]
    for found in neighbours:
        chance.shuffle(found)
    neighbours[0] = list(range(1, blades + 1))
    return neighbours


def _join(peers: list[set[int]], members: list[int], degree: int, chance: random.Random) -> None:
    """`degree` peers for each member: the next of a ring, the others at random."""
    count = len(members)
    for place, blade in enumerate(members):
        others = {members[(place + 1) % count]}
        if degree >= count - 1:
            others.update(members)
        while len(others) < degree and degree < count - 1:
            others.add(members[int(chance.random() * count)])
        others.discard(blade)
        peers[blade] |= others
        for other in others:
            peers[other].add(blade)


def _join_across(
    peers: list[set[int]], racks: Sequence[int], members: list[list[int]], across: int, chance: random.Random
) -> None:
    """`across` peers of other racks for each blade; the first of each rack is handed one of the next."""
    if len(members) < 2:
        return
    for place, rack in enumerate(members):
        following = members[(place + 1) % len(members)]
        for number, blade in enumerate(rack):
            others = {following[0]} if number == 0 else set()
            for _ in range(across):
                other = 1 + int(chance.random() * (len(racks) - 1))
                if racks[other] != racks[blade]:
                    others.add(other)
            peers[blade] |= others
            for other in others:
                peers[other].add(blade)
