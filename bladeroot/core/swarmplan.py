"""How long a room takes to get an image, and what limits it: `swarmsim`, in seconds and words. Pure.

A simulation costs as much as there are blades times pieces, so a large room is simulated with fewer, larger
pieces. What that changes is corrected by the law M + log2 N: what a run takes over its narrowest link's time
is counted in piece times, and these are shorter with more pieces. What many pieces cost in addition (places
where senders collide, and pieces that the root sends twice) is measured in a room so small that all pieces
can be simulated in it, with many and with few, and the difference is added. Beside a simulation of all pieces
this was within 1 % for stripes with `most_asked`, and within 9 % for the plain policy (300 and 1,000 blades).
"""

from __future__ import annotations

import math
import random
from enum import StrEnum

from attrs import evolve, field, frozen
from attrs.validators import and_, ge, gt, le

from bladeroot.core.neighbours import ACROSS, NEAR
from bladeroot.core.swarmsim import PieceChoice, Policy, Room, Run, simulate

PIECE_BYTES = 600 << 10
"""About what a frame of 1 to 4 MiB is after compression."""
MOST_PIECES = 3000
"""`core.framing` makes frames larger rather than more."""
_MOST_SIMULATED = 60_000
"""Blades times pieces, in one run."""
_FEWEST_PIECES = 20
_FEWEST_BLADES = 8
_PASSING_ON_MATTERS = 0.1


@frozen
class Calibration:
    """What the model does not know of itself."""

    wire_efficiency: float = field(default=1448 / 1514, validator=and_(gt(0), le(1)))
    """Of a full Ethernet frame, 1,514 bytes as the kernel's shapers count, 1,448 are TCP's payload: MTU 1,500
    without 20 bytes of IPv4, 20 of TCP and 12 of timestamps."""
    protocol_efficiency: float = field(default=0.99, validator=and_(gt(0), le(1)))
    """What libtorrent makes of a link. Fitted, with `start_up_s`, to five measured rooms of 1, 4, 8, 16 and
    32 blades with links of 5 to 16 Mb/s and 512 pieces: what the model says is within 5 % of each."""
    start_up_s: float = field(default=0.5, validator=ge(0))
    """Until peers are found, connected and unchoked."""

    @property
    def efficiency(self) -> float:
        """The part of a link's bits that are the image's."""
        return self.wire_efficiency * self.protocol_efficiency


DEFAULT_CALIBRATION = Calibration()
DEFAULT_POLICY = Policy(degree=NEAR, slots=8, root_slots=8, choice=PieceChoice.STRIPE)
"""As near as the model comes to what bladeroot does: `core.offers` (a share of the pieces for each blade,
each piece once) and `net.swarm.settings`."""


class Limit(StrEnum):
    """What makes it take as long as it does."""

    LINKS = "links"
    """The blades' own."""
    ROOT = "root"
    """The root's link: one copy has to leave it."""
    UPLINKS = "uplinks"
    """A rack's."""
    PIECES = "pieces"
    """They are so few that passing them on takes long."""
    START_UP = "start-up"


@frozen
class Question:
    """A mass reimage, as asked for."""

    blades: int = field(validator=ge(1))
    """Beside the root."""
    size_bytes: int = field(validator=ge(1))
    link: float = field(validator=gt(0))
    """Bits per second, each way."""
    root_link: float = field(validator=gt(0))
    pieces: int = field(validator=ge(1))
    racks: int = field(default=1, validator=ge(1))
    uplink: float | None = None
    """Of each rack; None: wide enough."""

    @property
    def floor_s(self) -> float:
        """The image over one blade's link, bit by bit."""
        return self.size_bytes * 8 / self.link


@frozen
class Forecast:
    """The answer."""

    question: Question
    policy: Policy
    """With the root's slots and the racks as the room asks for."""
    last_s: float
    median_s: float
    floor_s: float
    one_server_s: float
    """The same from one HTTP server on the root's link."""
    root_copies: float
    uplink_copies: float
    """Images over the busiest rack uplink."""
    use: tuple[float, ...]
    """Of the blades' up-links, in equal parts of the simulated time; where pieces are simulated coarser,
    start and end look longer here than they are."""
    mean_use: float
    """Of the blades' up-links, over the time forecast."""
    limit: Limit
    limit_s: float
    """How long that alone takes."""
    enough_pieces: int
    """From so many on their number hardly matters."""
    simulated_pieces: int
    simulated_parcels: int
    """What the simulation cost, in events."""

    @property
    def ratio(self) -> float:
        """The last blade's time to the floor."""
        return self.last_s / self.floor_s


def default_pieces(size_bytes: int) -> int:
    """About as many as `bladeroot publish` makes."""
    return max(1, min(MOST_PIECES, round(size_bytes / PIECE_BYTES)))


def forecast(
    question: Question,
    chance: random.Random,
    *,
    policy: Policy = DEFAULT_POLICY,
    calibration: Calibration = DEFAULT_CALIBRATION,
) -> Forecast:
    """Simulate it, and say what limits it."""
    policy = fit_policy(policy, question)
    image_bits = question.size_bytes * 8 / calibration.efficiency
    pieces = min(question.pieces, max(_FEWEST_PIECES, _MOST_SIMULATED // question.blades))
    room = _make_room(question, pieces, image_bits)
    run = simulate(room, policy, chance)
    bounds = _find_bounds(room, run)
    narrowest = max(bounds, key=lambda limit: bounds[limit])
    extra, parcels = _measure_hidden(question, policy, room, image_bits, chance)
    scale = pieces / question.pieces
    over_s = (
        max(0.0, run.last_s - bounds[narrowest]) * scale + extra * image_bits / question.pieces / room.link
    )
    moving_s = bounds[narrowest] + over_s
    passing_s = _count_hops(question, policy) * image_bits / question.pieces / question.link
    limit, limit_s = narrowest, bounds[narrowest]
    if calibration.start_up_s > moving_s:
        limit, limit_s = Limit.START_UP, calibration.start_up_s
    elif passing_s > _PASSING_ON_MATTERS * limit_s and over_s > passing_s / 2 and question.blades > 1:
        limit, limit_s = Limit.PIECES, over_s
    root_copies = run.root_copies
    if room.pieces < question.pieces:
        root_copies = max(1.0, run.root_busy_s / run.last_s * moving_s * room.root_link / image_bits)
    return Forecast(
        question=question,
        policy=policy,
        last_s=calibration.start_up_s + moving_s,
        median_s=calibration.start_up_s + max(moving_s - (run.last_s - run.median_s) * scale, moving_s / 2),
        floor_s=question.floor_s,
        one_server_s=_time_one_server(question, calibration),
        root_copies=root_copies,
        uplink_copies=run.uplink_copies,
        use=run.use,
        mean_use=max(0.0, 1 - root_copies / question.blades) * image_bits / question.link / moving_s,
        limit=limit,
        limit_s=limit_s,
        enough_pieces=math.ceil(_count_hops(question, policy) / _PASSING_ON_MATTERS),
        simulated_pieces=pieces,
        simulated_parcels=run.parcels + parcels,
    )


def fit_policy(policy: Policy, question: Question) -> Policy:
    """A root with a wider link needs more slots to fill it; and racks that are known are used.

    Blades give to those that give to them fastest, and those are in their rack; the model has no such
    choking, and has shares in its place. Of two measured rooms (3 racks of 6, uplinks of 1.25 and 2 links) it
    says 9 % and 6 % too little.
    """
    wider = max(1.0, question.root_link / question.link)
    across, shares_racks = policy.across, policy.shares_racks
    if question.racks > 1 and across is None:
        across, shares_racks = ACROSS, True
    root_slots = math.ceil(policy.root_slots * wider)
    return evolve(policy, root_slots=root_slots, across=across, shares_racks=shares_racks)


def _make_room(question: Question, pieces: int, image_bits: float) -> Room:
    return Room(
        blades=question.blades,
        pieces=pieces,
        piece_bits=image_bits / pieces,
        link=question.link,
        root_link=question.root_link,
        racks=question.racks,
        uplink=question.uplink,
    )


def _find_bounds(room: Room, run: Run) -> dict[Limit, float]:
    """How long each kind of link is needed at least. Of equals the first counts."""
    image_bits = room.piece_bits * room.pieces
    bounds = {Limit.LINKS: image_bits / room.link, Limit.ROOT: image_bits / room.root_link}
    if room.uplink:
        bounds[Limit.UPLINKS] = run.uplink_copies * image_bits / room.uplink
    return bounds


def _measure_hidden(
    question: Question, policy: Policy, room: Room, image_bits: float, chance: random.Random
) -> tuple[float, int]:
    """Piece times that coarse pieces do not show, measured in a small room; and what measuring cost."""
    if room.pieces == question.pieces:
        return 0.0, 0
    blades = min(question.blades, max(_FEWEST_BLADES, _MOST_SIMULATED // 2 // question.pieces))
    fine = min(question.pieces, max(room.pieces, _MOST_SIMULATED // blades))
    over, parcels = [], 0
    for pieces in (fine, room.pieces):
        small = evolve(_make_room(question, pieces, image_bits), blades=blades, racks=1, uplink=None)
        run = simulate(small, evolve(policy, across=None), chance)
        bounds = _find_bounds(small, run)
        over.append((run.last_s - max(bounds.values())) / small.piece_bits * small.link)
        parcels += run.parcels
    return max(0.0, over[0] - over[1]) * question.pieces / fine, parcels


def _count_hops(question: Question, policy: Policy) -> float:
    """Piece times until a piece that has left the root is everywhere: each who has it makes `slots` more, in
    as many piece times.
    """
    return policy.slots * math.log(question.blades + 1) / math.log(policy.slots + 1)


def _time_one_server(question: Question, calibration: Calibration) -> float:
    """All blades at one HTTP server at once: TCP's overhead, and no other."""
    rate = min(question.link, question.root_link / question.blades)
    return question.size_bytes * 8 / calibration.wire_efficiency / rate
