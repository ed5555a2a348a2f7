from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.offers import FAN_OUT, OPEN_OFFERS, PATIENCE_S, PICKY_AFTER_S, Offers


class Room:
    """Takers that want everything, and what they were offered."""

    def __init__(self, pieces: int, blades: int, *, seed: int = 1) -> None:
        self.offers: Offers[int] = Offers(pieces, Random(seed))
        self.pieces = pieces
        self.open: dict[int, list[int]] = {}
        self.offered: Counter[int] = Counter()
        self.now_s = 0.0
        for blade in range(blades):
            self.join(blade)

    def join(self, blade: int, has: tuple[int, ...] = ()) -> None:
        self.open[blade] = []
        self.offers.join(blade, has, self.now_s)
        self.offers.note_interest(blade, is_interested=True)

    def make(self) -> None:
        for blade, piece in self.offers.make(self.now_s):
            self.take_note(blade, [piece])

    def take_note(self, blade: int, pieces: list[int]) -> None:
        self.open[blade] += pieces
        for piece in pieces:
            if self.offered.get(piece):
                assert all(self.offered.get(other) for other in range(self.pieces)), (
                    "some have not gone out yet"
                )
            self.offered[piece] += 1

    def complete(self, blade: int, piece: int) -> None:
        if piece in self.open[blade]:
            self.open[blade].remove(piece)
        self.take_note(blade, self.offers.note_has(blade, piece, self.now_s))

    def active(self) -> list[int]:
        return [blade for blade, pieces in self.open.items() if pieces]


@given(st.integers(1, 80), st.integers(1, 30), st.integers(0, 5))
def test_each_piece_goes_out_once_before_any_goes_out_twice(pieces: int, blades: int, seed: int) -> None:
    room = Room(pieces, blades, seed=seed)
    chance = Random(seed)
    room.make()
    while room.active() and len(room.offered) < pieces:
        blade = chance.choice(room.active())
        room.complete(blade, chance.choice(room.open[blade]))
        room.make()
    assert set(room.offered) == set(range(pieces))


def test_few_are_offered_pieces_at_a_time_and_few_pieces_each() -> None:
    room = Room(500, 3 * FAN_OUT)
    room.make()
    assert len(room.active()) == FAN_OUT
    assert {len(pieces) for pieces in room.open.values()} == {0, OPEN_OFFERS}


def test_a_piece_that_came_is_followed_by_another() -> None:
    room = Room(500, 2)
    room.make()
    first = room.open[0][0]
    room.complete(0, first)
    assert len(room.open[0]) == OPEN_OFFERS
    assert first not in room.open[0]
    assert not room.offers.is_offered(0, first)
    assert all(room.offers.is_offered(0, piece) for piece in room.open[0])


def test_who_takes_nothing_makes_way_and_its_pieces_go_to_another() -> None:
    room = Room(2 * OPEN_OFFERS, 1)
    room.make()
    stuck = list(room.open[0])
    for blade in range(1, FAN_OUT + 1):
        room.join(blade)
    room.now_s = PATIENCE_S + 1
    room.offered.clear()
    room.make()
    assert all(room.offers.is_offered(0, piece) for piece in stuck), "it was told so, and asks for them"
    assert set(stuck) <= {piece for blade in range(1, FAN_OUT + 1) for piece in room.open[blade]}


def test_who_gets_a_piece_slowly_keeps_its_place() -> None:
    room = Room(100, 2 * FAN_OUT)
    room.make()
    active = room.active()
    for _ in range(10):
        room.now_s += PATIENCE_S - 1
        for blade in active:
            room.offers.note_given(blade, room.now_s)
        room.make()
    assert room.active() == active


def test_who_takes_nothing_goes_on_where_nobody_waits() -> None:
    room = Room(10, 1)
    room.make()
    room.now_s = 10 * PATIENCE_S
    room.make()
    assert all(room.offers.is_offered(0, piece) for piece in room.open[0])


def test_the_pieces_of_one_who_left_are_offered_again() -> None:
    room = Room(50, 2)
    room.make()
    lost = set(room.open.pop(0))
    room.offers.leave(0)
    for piece in lost:
        del room.offered[piece]
    while len(room.offered) < 50:
        room.complete(1, room.open[1][0])
    assert lost <= set(room.offered)


def test_who_has_everything_takes_no_place() -> None:
    room = Room(4, 0)
    for blade in range(FAN_OUT):
        room.join(blade, (0, 1, 2, 3))
    room.join(99)
    room.make()
    assert room.active() == [99]
    assert room.offers.lacks_nothing(0)
    assert not room.offers.lacks_nothing(99)


def test_who_wants_something_particular_may_choose() -> None:
    offers: Offers[str] = Offers(100, Random(1))
    offers.join("blade", [3], 0.0)
    offers.note_interest("blade", is_interested=False)
    assert len(offers.make(0.0)) == OPEN_OFFERS
    assert not offers.make(PICKY_AFTER_S / 2)
    assert sorted(piece for _, piece in offers.make(PICKY_AFTER_S + 0.1)) == [0, 1, 2, *range(4, 100)]
    assert offers.is_offered("blade", 77)
    assert not offers.is_offered("blade", 100)
    offers.join("other", [], 0.0)
    offers.note_interest("other", is_interested=True)
    assert {name for name, _ in offers.make(9.0)} == {"other"}


@pytest.mark.parametrize("piece", [-1, 5, 1 << 31])
def test_what_no_piece_is_changes_nothing(piece: int) -> None:
    offers: Offers[str] = Offers(5, Random(1))
    offers.join("blade", [], 0.0)
    assert offers.note_has("blade", piece, 0.0) == []
    assert offers.note_has("stranger", 1, 0.0) == []
    assert not offers.is_offered("stranger", 1)
    offers.leave("stranger")
