"""Rooms of role machines in simulated time: they settle whatever befell them, and they do not storm."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bladeroot.core.takeover import DEMOTED_REST_S, Role, Wish
from tests.simair import LIBRARY, TEXTBOOK, Air, SimBlade
from tests.simroom import SimRoom, make_room
from tests.simtrouble import (
    KINDS,
    SETTLED_S,
    TROUBLE_S,
    Member,
    Story,
    Trouble,
    find_faults,
    play,
    tell_story,
)

AIRS = pytest.mark.parametrize("air", [LIBRARY, TEXTBOOK], ids=["library", "textbook"])
SEEDS = range(10)
SWEEPS, SWEEP = 8, 250
"""So many tests of so many rooms each."""

members = st.builds(
    Member,
    serial=st.integers(0, 3),
    manifest=st.sampled_from(["a" * 16, "b" * 16]),
    priority=st.sampled_from([0, 5]),
    is_automatic=st.sampled_from([True, True, False]),
    starts_s=st.floats(0, 60),
)
troubles = st.builds(
    Trouble,
    when_s=st.floats(0, TROUBLE_S),
    kind=st.sampled_from(KINDS),
    which=st.integers(0, 9),
    much=st.floats(0, 1),
)
stories = st.builds(
    Story,
    members=st.lists(members, min_size=1, max_size=9).map(tuple),
    troubles=st.lists(troubles, max_size=12).map(tuple),
    air=st.sampled_from([LIBRARY, TEXTBOOK]),
    calm_loss=st.sampled_from([0.0, 0.03]),
    is_joined=st.booleans(),
    seed=st.integers(0, 2**32),
)


def check_story(story: Story) -> None:
    """In time there is one root, everybody follows it and holds what it holds, and it stays so."""
    room = play(story)
    room.run(TROUBLE_S + SETTLED_S)
    assert find_faults(room) == []
    roots = [blade.name for blade in room.roots()]
    room.run(TROUBLE_S + SETTLED_S + 20)
    assert [blade.name for blade in room.roots()] == roots
    assert room.lowered == []
    for member, blade in zip(story.members, room.blades.values(), strict=True):
        assert blade.best[0] >= member.serial


@settings(deadline=None)
@given(stories)
def test_a_room_settles_after_any_trouble(story: Story) -> None:
    check_story(story)


@pytest.mark.parametrize("sweep", range(SWEEPS))
def test_thousands_of_rooms_settle(sweep: int) -> None:
    for seed in range(sweep * SWEEP, (sweep + 1) * SWEEP):
        random = Random(seed)
        story = tell_story(random, random.choice((2, 2, 3, 3, 4, 5, 6, 8, 12, 20)))
        try:
            check_story(story)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error


@pytest.mark.parametrize(("size", "seed"), [(60, 1), (60, 2), (60, 3), (200, 4), (500, 5)])
def test_large_rooms_settle(size: int, seed: int) -> None:
    check_story(tell_story(Random(seed), size))


# What persons ask for


def settle(size: int, seed: int, air: Air = LIBRARY, **state: Any) -> SimRoom:
    room = make_room(Random(seed), size, air=air, **state)
    room.run(SETTLED_S)
    return room


def some_follower(room: SimRoom) -> SimBlade:
    return next(blade for blade in room.up() if blade.role is not Role.ROOT)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_manual_room_without_promote_never_has_a_root(seed: int) -> None:
    story = tell_story(Random(seed), 6)
    manual = tuple(attrs.evolve(member, is_automatic=False) for member in story.members)
    befalls = tuple(one for one in story.troubles if one.kind != "promote")
    room = play(attrs.evolve(story, members=manual, troubles=befalls))
    room.run(600)
    assert room.changes == [] or all(role is Role.RETIRED for _when_s, _name, role in room.changes)
    assert room.packets
    assert not any(kind in ("announcement", "probe") for _when_s, kind in room.packets)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_manual_blade_is_root_when_it_is_promoted(seed: int) -> None:
    room = settle(5, seed, is_automatic=False)
    chosen = room.up()[3]
    room.wish(chosen, Wish.PROMOTE)
    room.run(room.now_s + 10)
    assert room.root is chosen
    assert find_faults(room) == []


@AIRS
@pytest.mark.parametrize("seed", SEEDS)
def test_after_demote_another_one_takes_over_and_the_first_stays_away(air: Air, seed: int) -> None:
    room = settle(4, seed, air)
    first = room.root
    room.wish(first, Wish.DEMOTE)
    room.run(room.now_s + 30)
    second = room.root
    assert second is not first
    assert find_faults(room) == []
    room.stop(second)
    room.run(room.now_s + 30)
    assert room.root not in (first, second)


def test_the_only_blade_takes_the_role_back_when_it_has_rested() -> None:
    room = settle(1, 1)
    room.wish(room.root, Wish.DEMOTE)
    room.run(room.now_s + DEMOTED_REST_S * 0.9)
    assert room.roots() == []
    room.run(room.now_s + DEMOTED_REST_S * 0.2)
    assert len(room.roots()) == 1


@AIRS
@pytest.mark.parametrize("seed", SEEDS)
def test_a_promoted_blade_is_root_and_the_old_one_retires(air: Air, seed: int) -> None:
    room = settle(6, seed, air)
    first, chosen = room.root, some_follower(room)
    room.wish(chosen, Wish.PROMOTE)
    room.run(room.now_s + 5)
    assert room.root is chosen
    assert first.role is Role.RETIRED
    room.run(room.now_s + 60)
    assert room.root is chosen
    assert find_faults(room) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_a_blade_that_is_promoted_before_it_has_heard_anybody_stays_root(seed: int) -> None:
    room = settle(4, seed)
    chosen = some_follower(room)
    room.stop(chosen)
    room.run(room.now_s + 30)
    room.start(chosen)
    room.wish(chosen, Wish.PROMOTE)
    room.run(room.now_s + 60)
    assert room.root is chosen
    assert find_faults(room) == []


@pytest.mark.parametrize("seed", SEEDS)
def test_of_two_that_are_promoted_at_once_one_is_root_soon_after(seed: int) -> None:
    room = settle(4, seed)
    for chosen in [blade for blade in room.up() if blade.role is Role.FOLLOWER][:2]:
        room.wish(chosen, Wish.PROMOTE)
    began_s = room.now_s
    room.run(began_s + 30)
    assert find_faults(room) == []
    assert len(room.roots()) == 1
    assert sum(room.count_packets(began_s, began_s + 30).values()) < 60


# Generations


@AIRS
@pytest.mark.parametrize("seed", SEEDS)
def test_two_manifests_with_one_serial_are_reported_and_neither_is_lost(air: Air, seed: int) -> None:
    room = SimRoom(Random(seed), air)
    for rank in range(4):
        blade = room.add(f"blade{rank}", rank=rank, serial=2, manifest=("a", "b")[rank % 2] * 16)
        room.at(room.random.uniform(0, 5), room.start, blade)
    room.run(SETTLED_S)
    assert find_faults(room) == []
    assert {blade.best for blade in room.up()} == {(2, "a" * 16), (2, "b" * 16)}
    assert room.conflicts == {(2, "a" * 16, "b" * 16)}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_generation_that_only_the_last_blade_holds_reaches_all(seed: int) -> None:
    room = SimRoom(Random(seed))
    for rank in range(8):
        room.start(room.add(f"blade{rank}", rank=rank, serial=9 if rank == 7 else rank % 3))
    room.run(SETTLED_S)
    assert {blade.best[0] for blade in room.up()} == {9}


# How soon, and how loud


@pytest.mark.parametrize(("size", "dead", "within_s"), [(3, 0, 15), (12, 0, 15), (40, 5, 30), (500, 100, 30)])
def test_a_dead_root_is_replaced_soon(size: int, dead: int, within_s: float) -> None:
    for seed in range(10 if size < 100 else 1):
        room = settle(size, seed)
        for blade in [room.root, *room.up()[:dead]]:
            room.stop(blade)
        room.run(room.now_s + within_s)
        assert len(room.roots()) == 1, seed


@AIRS
@pytest.mark.parametrize("seed", SEEDS)
def test_a_candidate_that_dies_is_not_waited_for(air: Air, seed: int) -> None:
    room = make_room(Random(seed), 4, air=air, within_s=0.2)
    while not any(blade.role is Role.CANDIDATE and blade.is_public for blade in room.up()):
        room.run(room.now_s + 0.1)
        assert room.now_s < 30
    for blade in room.up():
        if blade.role is Role.CANDIDATE:
            room.stop(blade)
    room.run(room.now_s + 20)
    assert len(room.roots()) == 1


def spoken(packets: Counter[str]) -> int:
    return sum(count for kind, count in packets.items() if kind != "query")


@AIRS
@pytest.mark.parametrize("loss", [0.0, 0.3])
@pytest.mark.parametrize("dead", [0, 100])
@pytest.mark.parametrize("within_s", [0.2, 5.0])
def test_five_hundred_blades_that_come_up_at_once_do_not_storm(
    air: Air, loss: float, dead: int, within_s: float
) -> None:
    air = attrs.evolve(air, loss=loss)
    room = make_room(Random(1), 500, air=air, dead=range(dead), within_s=within_s)
    room.run(60)
    up = len(room.up())
    packets = room.count_packets(0, 60)
    assert up == 500 - dead
    assert len(room.roots()) == 1
    assert room.most_roots <= 2
    assert room.most_candidates < 15
    assert spoken(packets) < 150
    assert packets["query"] <= up * (2 if air.suppresses else 4)
    followers = sum(room.followed(blade) == room.root.name for blade in room.up())
    assert followers >= 0.9 * up


@AIRS
@pytest.mark.parametrize("size", [12, 500])
def test_a_room_at_rest_is_quiet(air: Air, size: int) -> None:
    room = settle(size, 1, air)
    room.run(SETTLED_S + 600)
    packets = room.count_packets(SETTLED_S, SETTLED_S + 600)
    assert 0 < sum(packets.values()) / 600 < 0.2
    assert not packets["probe"]


@AIRS
@pytest.mark.parametrize("seed", SEEDS)
def test_only_a_beacon_brings_two_roots_together_that_never_heard_each_other(air: Air, seed: int) -> None:
    """mDNS repeats nothing by itself, and who remembers no claim has none to refresh."""
    for beacon_s, roots in ((None, 2), (30.0, 1)):
        room = make_room(Random(seed), 2, air=attrs.evolve(air, beacon_s=beacon_s))
        first, second = room.blades.values()
        second.segment = 1
        room.run(60)
        assert room.roots() == [first, second]
        second.segment = 0
        room.run(60 + SETTLED_S)
        assert len(room.roots()) == roots
