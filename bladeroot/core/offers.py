"""Which piece the first seeder offers to whom. No I/O, no clock; chance is passed in.

Who has everything first need bring each piece out once: the room does the rest. So each blade is offered
other pieces, a few at a time, and the next when it has them: the idea of BEP 16 (super-seeding), but with a
bounded number of blades at a time (the more, the later each piece is whole and can be passed on), and without
waiting for anybody who does not get on.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from random import Random
from typing import Generic, TypeVar

from attrs import define, field

FAN_OUT = 12
"""Blades that are offered pieces at a time."""
OPEN_OFFERS = 2
"""Pieces that one is offered at a time: one that comes, and one so that no round trip is lost."""
PATIENCE_S = 5.0
"""Who has taken nothing for so long makes way for another."""
PICKY_AFTER_S = 0.5
"""Who does not want what it was offered for so long wants something particular, and may choose itself."""


K = TypeVar("K", bound=Hashable)


@define(eq=False)
class _Taker:
    has: bytearray
    missing: int
    offered: set[int] = field(factory=set)
    allowed: set[int] = field(factory=set)
    """All that it was ever offered: who was told that it can have a piece asks again and again."""
    is_active: bool = False
    is_interested: bool = False
    is_picky: bool = False
    moved_at_s: float = 0.0


class Offers(Generic[K]):
    """The offers of one torrent to its takers, each named by whatever names a connection. Call `make` to
    get them going.
    """

    def __init__(self, pieces: int, chance: Random, *, fan_out: int = FAN_OUT) -> None:
        self._pieces = pieces
        self._fan_out = fan_out
        self._order = list(range(pieces))
        chance.shuffle(self._order)
        self._next = 0
        self._weights = [0] * pieces
        """How many takers have a piece or are offered it."""
        self._takers: dict[K, _Taker] = {}

    def join(self, name: K, has: Iterable[int], now_s: float) -> None:
        """A taker has come, and said what it has."""
        self.leave(name)
        taker = _Taker(bytearray(self._pieces), self._pieces, moved_at_s=now_s)
        self._takers[name] = taker
        for piece in has:
            self._note(taker, piece)

    def leave(self, name: K) -> None:
        """A taker is gone; what it was offered is another's to take."""
        taker = self._takers.pop(name, None)
        if taker is not None:
            self._withdraw(taker)
            for piece in range(self._pieces):
                self._weights[piece] -= taker.has[piece]

    def note_has(self, name: K, piece: int, now_s: float) -> list[int]:
        """A taker has got a piece, from wherever. Returns what it is to be offered in its place."""
        taker = self._takers.get(name)
        if taker is None or not 0 <= piece < self._pieces or taker.has[piece]:
            return []
        self._note(taker, piece)
        taker.allowed.discard(piece)
        if piece not in taker.offered:
            return []
        taker.offered.remove(piece)
        self._weights[piece] -= 1
        taker.moved_at_s = now_s
        return self._fill(taker)

    def note_interest(self, name: K, *, is_interested: bool) -> None:
        """Whether a taker wants any of what it was offered."""
        taker = self._takers.get(name)
        if taker is not None:
            taker.is_interested = is_interested

    def is_offered(self, name: K, piece: int) -> bool:
        """Whether the taker may ask for the piece."""
        taker = self._takers.get(name)
        return taker is not None and piece in taker.allowed

    def note_given(self, name: K, now_s: float) -> None:
        """A taker has been given a part of a piece: it gets on."""
        taker = self._takers.get(name)
        if taker is not None:
            taker.moved_at_s = now_s

    def lacks_nothing(self, name: K) -> bool:
        """Whether a taker has every piece."""
        taker = self._takers.get(name)
        return taker is not None and not taker.missing

    def make(self, now_s: float) -> list[tuple[K, int]]:
        """What is to be offered now: call it when a taker has come or gone, and now and then."""
        self._choose_active(now_s)
        return [
            (name, piece)
            for name, taker in self._takers.items()
            if taker.is_active
            for piece in (self._offer_all(taker) if _is_picky(taker, now_s) else self._fill(taker))
        ]

    def _choose_active(self, now_s: float) -> None:
        waiting = [
            taker
            for taker in self._takers.values()
            if taker.missing and not (taker.is_active or taker.is_picky)
        ]
        active = [taker for taker in self._takers.values() if taker.is_active]
        for taker in active:
            is_stuck = now_s - taker.moved_at_s > PATIENCE_S
            if not taker.missing or (is_stuck and waiting):
                self._withdraw(taker)
                taker.is_active = False
        places = self._fan_out - sum(taker.is_active for taker in active)
        # Who has waited longest, so that who was stuck has another turn only after all the others.
        for taker in sorted(waiting, key=lambda taker: taker.moved_at_s)[: max(places, 0)]:
            taker.is_active = True
            taker.moved_at_s = now_s

    def _fill(self, taker: _Taker) -> list[int]:
        pieces = []
        while len(taker.offered) < min(OPEN_OFFERS, taker.missing):
            piece = self._choose(taker)
            if piece is None:
                break
            taker.offered.add(piece)
            taker.allowed.add(piece)
            self._weights[piece] += 1
            pieces.append(piece)
        return pieces

    def _offer_all(self, taker: _Taker) -> list[int]:
        self._withdraw(taker)
        taker.is_picky, taker.is_active = True, False
        taker.allowed.update(range(self._pieces))
        return [piece for piece in range(self._pieces) if not taker.has[piece]]

    def _choose(self, taker: _Taker) -> int | None:
        """What fewest have and are offered; in an order that chance has made, going round."""
        best, least = None, 0
        for step in range(self._pieces):
            position = (self._next + step) % self._pieces
            piece = self._order[position]
            if taker.has[piece] or piece in taker.offered:
                continue
            weight = self._weights[piece]
            if best is None or weight < least:
                best, least = piece, weight
            if not weight:
                self._next = position
                break
        return best

    def _note(self, taker: _Taker, piece: int) -> None:
        if not taker.has[piece]:
            taker.has[piece] = 1
            taker.missing -= 1
            self._weights[piece] += 1

    def _withdraw(self, taker: _Taker) -> None:
        for piece in taker.offered:
            self._weights[piece] -= 1
        taker.offered.clear()


def _is_picky(taker: _Taker, now_s: float) -> bool:
    return bool(taker.offered) and not taker.is_interested and now_s - taker.moved_at_s > PICKY_AFTER_S
