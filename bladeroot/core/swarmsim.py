"""A swarm, simulated piece by piece: who sends which piece to whom, and when. Pure: chance is passed in.

The model, which is small on purpose:

- Every link (a blade's up and down, the root's, each rack's uplink both ways) is a queue that passes one
  *parcel* after the other, a parcel being an even part of a piece. A parcel goes through all links on its
  way at once, and arrives when the last of them has let it through.
- Whoever sends has so many slots, a piece to a peer in each, and gives each a parcel in turn: so four slots
  make a piece take four times as long, and a peer whose own link is full leaves its turn to the others. A
  connection has one parcel under way.
- A piece can be passed on when it is whole, which its peers know at once. A blade asks as many peers as
  offer it something, each for another piece. Nobody knows what others have asked for, so two blades may ask
  the root for the same piece. There is no end game: no piece is asked for twice by one blade.

The law to measure it by: M pieces to N equal links take at least M + log2 N piece times (Mundinger, Weber,
Weiss, cs/0606110).
"""

from __future__ import annotations

import random
from collections import deque
from enum import StrEnum
from heapq import heappop, heappush

from attrs import field, frozen
from attrs.validators import ge, gt, optional

from bladeroot.core.swarmgraph import hand_out_peers, place_in_racks, share_pieces

_ROOT = 0
_ASKED_FOR_RARITY = 12
"""Neighbours by whose pieces a blade judges what is rare, at most: more hardly change the choice."""


class PieceChoice(StrEnum):
    """What a blade asks for, of what a peer has and it lacks."""

    RANDOM = "random"
    RAREST = "rarest"
    """What few of its neighbours have."""
    STRIPE = "stripe"
    """Of the root first its own share, which no other blade begins with, and the root gives to those first
    whose share it still has; else the rarest."""


@frozen
class Policy:
    """How the swarm is to behave."""

    degree: int = field(default=16, validator=ge(1))
    """Peers that the root hands each blade, beside itself."""
    slots: int = field(default=4, validator=ge(1))
    """Pieces that a blade sends at a time."""
    root_slots: int = field(default=4, validator=ge(1))
    choice: PieceChoice = PieceChoice.RAREST
    keep_slot_s: float = field(default=0.0, validator=ge(0))
    """How long a slot stays with the same peer while that has something to ask; 0: until a piece is sent."""
    most_asked: int | None = field(default=None, validator=optional(ge(1)))
    """Pieces that a blade has asked for at a time, at most, hence peers that share its down-link. None: as
    many as are offered."""
    is_chain: bool = False
    """Every blade gives to the next before it gives to others."""
    across: int | None = field(default=None, validator=optional(ge(0)))
    """In a room of racks: peers of other racks that each blade is handed, beside `degree` of its own rack.
    None: racks are not known."""
    shares_racks: bool = False
    """A blade fetches only its share of the pieces from other racks, and the rest from its own: so each piece
    comes into a rack once."""


@frozen
class Room:
    """What there is: blades that want the image, their links, and the pieces of the image."""

    blades: int = field(validator=ge(1))
    pieces: int = field(validator=ge(1))
    piece_bits: float = field(validator=gt(0))
    link: float = field(validator=gt(0))
    """Bits per second, each way."""
    root_link: float = field(validator=gt(0))
    racks: int = field(default=1, validator=ge(1))
    uplink: float | None = field(default=None, validator=optional(gt(0)))
    """Of each rack, each way; None: never in the way."""


@frozen
class Run:
    """What a simulated transfer was like; times are from the first parcel on."""

    done_s: tuple[float, ...]
    """When each blade was complete, in order of time."""
    root_copies: float
    """Images that left the root."""
    root_busy_s: float
    uplink_copies: float
    """Images over the busiest rack uplink, in its busier direction."""
    use: tuple[float, ...]
    """Mean use of the blades' up-links, in equal parts of the time until the last was complete."""
    parcels: int
    """Simulated events: what the simulation costs."""

    @property
    def last_s(self) -> float:
        """When the last blade was complete."""
        return self.done_s[-1]

    @property
    def median_s(self) -> float:
        """When half of the blades were complete."""
        return self.done_s[(len(self.done_s) - 1) // 2]


def simulate(room: Room, policy: Policy, chance: random.Random, *, parcels_a_piece: int = 4) -> Run:
    """Let the root give the image to all blades."""
    return _Swarm(room, policy, chance, parcels_a_piece).run()


class _Transfer:
    """A piece on its way: one slot of whoever sends."""

    __slots__ = ("bit", "left", "sender", "taker", "until_s")

    def __init__(self, sender: int, taker: int, bit: int, left: int, until_s: float) -> None:
        self.sender = sender
        self.taker = taker
        self.bit = bit
        self.left = left
        self.until_s = until_s


class _Swarm:
    """The state of all nodes: lists by node number, sets of pieces as bits of an integer."""

    def __init__(self, room: Room, policy: Policy, chance: random.Random, parcels_a_piece: int) -> None:
        nodes = room.blades + 1
        self.room = room
        self.policy = policy
        self.random = chance.random
        self.parcels_a_piece = parcels_a_piece
        self.rack = place_in_racks(room.blades, room.racks)
        across = policy.across if room.racks > 1 else None
        self.shares_racks = policy.shares_racks and across is not None
        self.neighbours = hand_out_peers(self.rack, degree=policy.degree, across=across, chance=chance)
        everything = (1 << room.pieces) - 1
        self.everything = everything
        self.have = [everything] + [0] * room.blades
        self.wanted = [0] + [everything] * room.blades
        """Neither there nor asked for."""
        racks = room.racks if self.shares_racks else 1
        shares = share_pieces(self.rack if self.shares_racks else [0] * nodes, racks, room.pieces)
        self.stripe, self.rack_share = shares if policy.choice is PieceChoice.STRIPE else ([], shares[1])
        """What each node asks the root for first; what it may ask for outside its rack."""
        self.free_slots = [policy.root_slots] + [policy.slots] * room.blades
        parcel_bits = room.piece_bits / parcels_a_piece
        self.up_s = [parcel_bits / room.root_link] + [parcel_bits / room.link] * room.blades
        self.down_s = parcel_bits / room.link
        self.uplink_s = parcel_bits / room.uplink if room.uplink else 0.0
        self.up_free_s = [0.0] * nodes
        self.down_free_s = [0.0] * nodes
        self.rack_out_free_s = [0.0] * room.racks
        self.rack_in_free_s = [0.0] * room.racks
        self.rack_out = [0] * room.racks
        self.rack_in = [0] * room.racks
        self.turns: list[deque[_Transfer]] = [deque() for _ in range(nodes)]
        self.events: list[tuple[float, int, int, _Transfer | None]] = []
        self.sent = 0
        self.asked = [0] * nodes
        self.most_asked = policy.most_asked or room.pieces
        self.sent_by_root = 0
        self.sent_at: list[float] = []
        self.done_s: list[float] = []

    def run(self) -> Run:
        self.fill_slots(_ROOT, 0.0)
        events = self.events
        while events:
            now, _, sender, transfer = heappop(events)
            if transfer is not None:
                self.arrive(transfer, now)
            if self.turns[sender] and self.up_free_s[sender] <= now:
                self.send(sender, now)
        per_image = self.room.pieces * self.parcels_a_piece
        return Run(
            done_s=tuple(self.done_s),
            root_copies=self.sent_by_root / per_image,
            root_busy_s=self.sent_by_root * self.up_s[_ROOT],
            uplink_copies=max(*self.rack_in, *self.rack_out, 0) / per_image,
            use=self.measure_use(),
            parcels=self.sent,
        )

    def send(self, sender: int, now: float) -> None:
        """Whose turn it is gets a parcel."""
        transfer = self.turns[sender].popleft()
        taker = transfer.taker
        self.sent += 1
        if sender == _ROOT:
            self.sent_by_root += 1
        else:
            self.sent_at.append(now)
        free_s = now + self.up_s[sender]
        self.up_free_s[sender] = free_s
        arrives_s = free_s
        if self.rack[sender] != self.rack[taker]:
            arrives_s = self.cross(self.rack[sender], self.rack[taker], now, arrives_s)
        down_s = self.down_free_s[taker]
        down_s = (down_s if down_s > now else now) + self.down_s
        if down_s > arrives_s:
            arrives_s = down_s
        self.down_free_s[taker] = down_s
        heappush(self.events, (arrives_s, self.sent, sender, transfer))
        if arrives_s > free_s:
            heappush(self.events, (free_s, -self.sent, sender, None))

    def cross(self, out_of: int, into: int, now: float, arrives_s: float) -> float:
        """Through two racks' uplinks; when the parcel is through."""
        self.rack_out[out_of] += 1
        self.rack_in[into] += 1
        out_s = max(self.rack_out_free_s[out_of], now) + self.uplink_s
        in_s = max(self.rack_in_free_s[into], now) + self.uplink_s
        self.rack_out_free_s[out_of] = out_s
        self.rack_in_free_s[into] = in_s
        return max(arrives_s, out_s, in_s)

    def arrive(self, transfer: _Transfer, now: float) -> None:
        sender, taker = transfer.sender, transfer.taker
        transfer.left -= 1
        if transfer.left:
            self.turns[sender].append(transfer)
            return
        have = self.have[taker] | transfer.bit
        self.have[taker] = have
        if have == self.everything:
            self.done_s.append(now)
        self.asked[taker] -= 1
        if now >= transfer.until_s or not self.ask(sender, taker, now, transfer.until_s):
            self.free_slots[sender] += 1
            self.fill_slots(sender, now)
        if self.free_slots[taker]:
            self.fill_slots(taker, now)
        if self.policy.most_asked:
            self.ask_around(taker, now)

    def ask_around(self, taker: int, now: float) -> None:
        """Ask who has a free slot, the root first: it was not asked while this blade had asked for enough."""
        until_s = now + self.policy.keep_slot_s
        peers = self.neighbours[taker]
        place = int(self.random() * len(peers)) if peers else 0
        for sender in (_ROOT, *peers[place:], *peers[:place]):
            if self.free_slots[sender] and self.ask(sender, taker, now, until_s):
                self.free_slots[sender] -= 1

    def fill_slots(self, sender: int, now: float) -> None:
        """Give free slots to peers that want something, at random; what stays free waits for a new piece."""
        until_s = now + self.policy.keep_slot_s
        have, wanted = self.have[sender], self.wanted
        peers = self.neighbours[sender]
        count = len(peers)
        if self.policy.is_chain and sender < self.room.blades:
            while self.free_slots[sender] and self.ask(sender, sender + 1, now, until_s):
                self.free_slots[sender] -= 1
        if not count:
            return
        if sender == _ROOT and self.stripe:
            self.offer_stripes(now, until_s)
        place = int(self.random() * count)
        seen = 0
        while self.free_slots[sender] and seen < count:
            taker = peers[place]
            if have & wanted[taker] and self.ask(sender, taker, now, until_s):
                self.free_slots[sender] -= 1
            seen += 1
            place += 1
            if place == count:
                place = 0

    def offer_stripes(self, now: float, until_s: float) -> None:
        """The root serves first who has not got its share yet."""
        peers, stripe = self.neighbours[_ROOT], self.stripe
        count = len(peers)
        place = int(self.random() * count)
        for taker in peers[place:] + peers[:place]:
            if not self.free_slots[_ROOT]:
                return
            if stripe[taker] & self.wanted[taker] and self.ask(_ROOT, taker, now, until_s):
                self.free_slots[_ROOT] -= 1

    def ask(self, sender: int, taker: int, now: float, until_s: float) -> bool:
        """Let the taker ask the sender for a piece, if there is one for it."""
        offered = self.have[sender] & self.wanted[taker]
        if self.asked[taker] >= self.most_asked:
            return False
        if self.shares_racks and self.rack[sender] != self.rack[taker]:
            offered &= self.rack_share[taker]
        if not offered:
            return False
        bit = self.choose(sender, taker, offered)
        self.wanted[taker] ^= bit
        self.asked[taker] += 1
        self.turns[sender].append(_Transfer(sender, taker, bit, self.parcels_a_piece, until_s))
        if self.up_free_s[sender] <= now:
            self.send(sender, now)
        return True

    def choose(self, sender: int, taker: int, offered: int) -> int:
        """One bit of `offered`."""
        if sender == _ROOT and self.stripe and offered & self.stripe[taker]:
            offered &= self.stripe[taker]
        elif self.policy.choice is not PieceChoice.RANDOM:
            have, peers = self.have, self.neighbours[taker]
            count = len(peers)
            place = int(self.random() * count)
            for _ in range(min(count, _ASKED_FOR_RARITY)):
                if not offered & (offered - 1):
                    return offered
                rarer = offered & ~have[peers[place]]
                if rarer:
                    offered = rarer
                place = place + 1 if place + 1 < count else 0
        start = int(self.random() * self.room.pieces)
        later = offered >> start << start
        offered = later or offered
        return offered & -offered

    def measure_use(self, parts: int = 20) -> tuple[float, ...]:
        last_s = self.done_s[-1]
        counts = [0] * parts
        for sent_s in self.sent_at:
            counts[min(int(sent_s / last_s * parts), parts - 1)] += 1
        capacity = last_s / parts / self.up_s[1] * self.room.blades
        return tuple(min(count / capacity, 1.0) for count in counts)
