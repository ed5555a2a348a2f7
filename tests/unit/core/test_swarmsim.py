"""The simulated swarm: what no policy can beat, and what every policy must do."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bladeroot.core.swarmgraph import hand_out_peers, place_in_racks, share_pieces
from bladeroot.core.swarmsim import PieceChoice, Policy, Room, Run, simulate


def room(blades: int, pieces: int, **changes: Any) -> Room:
    """With links of a piece a second."""
    return Room(**{"blades": blades, "pieces": pieces, "piece_bits": 1, "link": 1, "root_link": 1, **changes})


def run(asked: Room, policy: Policy | None = None, seed: int = 1) -> Run:
    return simulate(asked, policy or Policy(), random.Random(seed))


policies = st.builds(
    Policy,
    degree=st.integers(1, 8),
    slots=st.integers(1, 6),
    root_slots=st.integers(1, 6),
    choice=st.sampled_from(PieceChoice),
    keep_slot_s=st.sampled_from([0.0, 3.0]),
    most_asked=st.none() | st.integers(1, 6),
    is_chain=st.booleans(),
    across=st.none() | st.integers(0, 2),
)


@st.composite
def rooms(draw: st.DrawFn) -> Room:
    blades = draw(st.integers(1, 20))
    return room(
        blades,
        draw(st.integers(1, 30)),
        root_link=draw(st.sampled_from([0.5, 1, 10])),
        racks=draw(st.integers(1, blades)),
        uplink=draw(st.sampled_from([None, 0.5, 4])),
    )


@settings(max_examples=80, deadline=None)
@given(rooms(), policies, st.integers(0, 9))
def test_whatever_the_policy_all_get_it_and_no_link_is_beaten(asked: Room, policy: Policy, seed: int) -> None:
    ran = run(asked, policy, seed)
    slack = 1 + 1e-9

    assert len(ran.done_s) == asked.blades
    assert list(ran.done_s) == sorted(ran.done_s)
    assert ran.median_s <= ran.last_s
    assert ran.done_s[0] * slack >= asked.pieces / min(asked.link, asked.root_link)
    assert ran.last_s * slack >= ran.root_busy_s
    assert 1 <= ran.root_copies <= asked.blades
    assert ran.parcels == asked.blades * asked.pieces * 4
    assert all(0 <= part <= 1 for part in ran.use)
    if asked.racks > 1:
        assert ran.uplink_copies >= 1
        assert ran.last_s * slack >= ran.uplink_copies * asked.pieces / (asked.uplink or math.inf)
    else:
        assert ran.uplink_copies == 0


@given(policies)
def test_one_blade_gets_it_at_its_links_speed(policy: Policy) -> None:
    assert run(room(1, 40), policy).last_s == pytest.approx(40)


def test_the_same_seed_gives_the_same_run() -> None:
    assert run(room(30, 40)) == run(room(30, 40))
    assert run(room(30, 40)) != run(room(30, 40), seed=2)


def test_the_law_holds_from_below_and_is_neared_by_the_best_policy() -> None:
    best = Policy(choice=PieceChoice.STRIPE, most_asked=4)
    for blades in (8, 32, 64):
        last_s = run(room(blades, 300), best).last_s
        assert 300 + math.log2(blades) - 1 <= last_s < 1.15 * 300


def test_stripes_keep_the_root_from_repeating_itself() -> None:
    plain = run(room(32, 300), Policy(choice=PieceChoice.RANDOM))
    striped = run(room(32, 300), Policy(choice=PieceChoice.STRIPE))

    assert striped.root_copies < plain.root_copies
    assert striped.last_s < plain.last_s


def test_a_chain_with_a_slot_each_takes_a_piece_time_a_blade() -> None:
    chain = Policy(degree=1, slots=1, root_slots=1, is_chain=True, most_asked=1)
    ran = run(room(2, 100), chain)

    assert 101 <= ran.last_s < 130
    assert ran.root_copies < 1.3


def test_many_slots_make_few_pieces_slow_to_pass_on() -> None:
    few = run(room(63, 1), Policy(degree=63, slots=1, root_slots=1))
    many = run(room(63, 1), Policy(degree=63, slots=8, root_slots=8))

    assert few.last_s == pytest.approx(6)  # log2(64): each who has it makes one more in a piece time
    assert many.last_s > few.last_s


def test_a_wider_root_is_not_slower() -> None:
    times = [
        min(
            run(room(24, 100, root_link=width), Policy(root_slots=4 * width), seed).last_s
            for seed in range(3)
        )
        for width in (1, 4, 16)
    ]
    assert times == sorted(times, reverse=True)


def test_racks_that_are_known_are_crossed_about_once() -> None:
    asked = room(48, 100, racks=4, uplink=1)
    unaware = run(asked, Policy(choice=PieceChoice.STRIPE))
    aware = run(asked, Policy(choice=PieceChoice.STRIPE, across=1, shares_racks=True))

    assert aware.uplink_copies < 3 < unaware.uplink_copies
    assert aware.last_s < unaware.last_s / 2


@given(st.integers(1, 60), st.integers(1, 80), st.data())
def test_shares_are_of_one_blade_each(blades: int, pieces: int, data: st.DataObject) -> None:
    racks = data.draw(st.integers(1, blades))
    rack_of = place_in_racks(blades, racks)
    of_all, of_rack = share_pieces(rack_of, racks, pieces)

    assert sum(of_all) == (1 << pieces) - 1
    assert sum(share.bit_count() for share in of_all) == pieces
    for rack in range(racks):
        shares = [of_rack[blade] for blade in range(1, blades + 1) if rack_of[blade] == rack]
        assert sum(shares) == (1 << pieces) - 1
        assert sum(share.bit_count() for share in shares) == pieces
    assert all(mine & ~rack_share == 0 for mine, rack_share in zip(of_all, of_rack, strict=True))


@given(st.integers(1, 60), st.integers(1, 70), st.none() | st.integers(0, 3), st.data())
def test_peers_are_mutual_and_there_are_no_islands(
    blades: int, degree: int, across: int | None, data: st.DataObject
) -> None:
    rack_of = place_in_racks(blades, data.draw(st.integers(1, blades)))
    peers = hand_out_peers(rack_of, degree=degree, across=across, chance=random.Random(1))

    assert sorted(peers[0]) == list(range(1, blades + 1))
    reached, edge = {1}, [1]
    while edge:
        blade = edge.pop()
        assert blade not in peers[blade]
        for other in peers[blade]:
            assert blade in peers[other]
            if other not in reached:
                reached.add(other)
                edge.append(other)
    assert len(reached) == blades
