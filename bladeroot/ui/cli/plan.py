"""`bladeroot plan`: how long a mass reimage will take, and what limits it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from bladeroot.core.sizes import parse_bit_rate, parse_size, render_about
from bladeroot.errors import ConfigError, UsageError
from bladeroot.ui.cli.options import parse_count
from bladeroot.ui.cli.output import Output, make_facts
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.core.swarmplan import Forecast, Question

_SEED = 1
"""The same question has the same answer."""
_MOST_BLADES = 20_000
_MOST_PIECES = 1_000_000
_BARS = " ▁▂▃▄▅▆▇█"

T = TypeVar("T")


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "plan",
        run=run,
        summary="how long a mass reimage will take, and what limits it",
        description="""
Simulates the swarm piece by piece, and says when half of the blades and when the last one will have the
image, what limits it, and what would help. Needs no cluster folder, no root and no network.

The time is that of the transfer. Blades extract meanwhile, so a blade whose processor and disk keep up with
its link can boot seconds later; firmware, DHCP and a slow disk come on top.

Links are full duplex and in bits per second, powers of 1000 (`1G`); sizes are in powers of 1024 (`2G`). The
size is that of what travels: what `bladeroot publish` says, not what it was before compression. The root is
one machine more than --blades. A room with --racks is taken as one whose inventory names them (`rack`), and
the root as in the first of them. Large rooms are simulated with coarser pieces, and corrected for that.
""",
        examples=[
            ("bladeroot plan --blades 300 --size 2G --link 1G", "a room of 300 at one switch"),
            (
                "bladeroot plan --blades 300 --size 2G --link 1G --root-link 10G --racks 12 --uplink 40G",
                "the same in 12 racks, with a root at 10 Gb/s",
            ),
            (
                "bladeroot plan --blades 40 --size 2G --link 1G --json | jq .last_s",
                "the seconds until the last one has it",
            ),
        ],
        errors=[],
        see="`bladeroot help publish`, `bladeroot help reimage`",
    )
    parser.add_argument("--blades", type=parse_count, required=True, metavar="N", help="how many fetch it")
    parser.add_argument("--size", type=_as_argument(parse_size), required=True, help="of the image: 2G, 700M")
    parser.add_argument(
        "--link",
        type=_as_argument(parse_bit_rate),
        required=True,
        metavar="RATE",
        help="of a blade: 1G, 100M",
    )
    parser.add_argument(
        "--root-link",
        type=_as_argument(parse_bit_rate),
        metavar="RATE",
        help="of the root (default: as a blade's)",
    )
    parser.add_argument(
        "--racks", type=parse_count, metavar="N", help="how many, of equal size (default: one)"
    )
    parser.add_argument(
        "--uplink",
        type=_as_argument(parse_bit_rate),
        metavar="RATE",
        help="of each rack (default: never in the way)",
    )
    parser.add_argument(
        "--pieces", type=parse_count, metavar="N", help="of the image (default: as publish would make)"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Ask, simulate, print."""
    import random

    from bladeroot.core.swarmplan import forecast

    question = _read_question(args)
    answer = forecast(question, random.Random(_SEED))  # noqa: S311 - no secret
    out.facts(_describe(answer), lambda: _render(answer))
    return 0


def _as_argument(parse: Callable[[str], T]) -> Callable[[str], T]:
    """The same, with the error that argparse wants."""

    def parse_argument(text: str) -> T:
        try:
            return parse(text)
        except ConfigError as error:
            raise argparse.ArgumentTypeError(f"{error} ({error.hint})") from None

    return parse_argument


def _read_question(args: argparse.Namespace) -> Question:
    from bladeroot.core.swarmplan import Question, default_pieces

    if args.blades > _MOST_BLADES:
        raise UsageError(f"{args.blades} blades are too many to simulate", f"up to {_MOST_BLADES}")
    if args.size < 1:
        raise UsageError("an image of no bytes takes no time", "--size is what has to travel: --size 2G")
    if args.uplink is not None and args.racks is None:
        raise UsageError("--uplink without --racks", "an uplink is a rack's: say how many racks, --racks 12")
    if args.racks is not None and args.racks > args.blades:
        raise UsageError(f"{args.racks} racks for {args.blades} blades", "each rack has a blade at least")
    pieces = default_pieces(args.size) if args.pieces is None else args.pieces
    if pieces > min(args.size, _MOST_PIECES):
        raise UsageError(f"{pieces} pieces are too many", f"up to {min(args.size, _MOST_PIECES)} here")
    return Question(
        blades=args.blades,
        size_bytes=args.size,
        link=args.link,
        root_link=args.root_link or args.link,
        pieces=pieces,
        racks=args.racks or 1,
        uplink=args.uplink,
    )


def _describe(answer: Forecast) -> dict[str, Any]:
    asked = answer.question
    return {
        "blades": asked.blades,
        "size_bytes": asked.size_bytes,
        "link_bps": asked.link,
        "root_link_bps": asked.root_link,
        "pieces": asked.pieces,
        "racks": asked.racks,
        "uplink_bps": asked.uplink,
        "median_s": round(answer.median_s, 2),
        "last_s": round(answer.last_s, 2),
        "floor_s": round(answer.floor_s, 2),
        "ratio": round(answer.ratio, 3),
        "one_server_s": round(answer.one_server_s, 2),
        "root_copies": round(answer.root_copies, 2),
        "uplink_copies": round(answer.uplink_copies, 2) if asked.racks > 1 else None,
        "mean_up_link_use": round(answer.mean_use, 3),
        "up_link_use": [round(part, 3) for part in answer.use],
        "limit": str(answer.limit),
        "limit_s": round(answer.limit_s, 2),
        "advice": _advise(answer),
        "simulated": {"pieces": answer.simulated_pieces, "events": answer.simulated_parcels},
    }


def _render(answer: Forecast) -> Any:
    asked = answer.question
    floor = f"{render_about(asked.size_bytes)} at {_render_rate(asked.link)}: {_render_time(answer.floor_s)}"
    facts: list[tuple[str, object]] = [
        ("half of them", _render_time(answer.median_s)),
        ("the last", f"{_render_time(answer.last_s)}, {answer.ratio:.2f} times the floor ({floor})"),
        ("what limits it", _advise(answer)),
        ("the root sends", f"{answer.root_copies:.1f} copies"),
    ]
    if asked.racks > 1:
        facts.append(("busiest uplink", f"{answer.uplink_copies:.1f} copies"))
    use = f"{100 * answer.mean_use:.0f} %, over time |{_draw(answer.use)}|"
    facts.append(("up-links used", use))
    facts.append(("from one server", _render_time(answer.one_server_s)))
    return make_facts(facts)


def _advise(answer: Forecast) -> str:
    """One sentence: what it is, and what to do."""
    from bladeroot.core.swarmplan import Limit

    asked = answer.question
    size, time = render_about(asked.size_bytes), _render_time(answer.limit_s)
    match answer.limit:
        case Limit.LINKS:
            floor = f"{size} at {_render_rate(asked.link)} is {_render_time(answer.floor_s)}"
            hint = "nothing in the room makes that faster, only a smaller image or wider links"
            return f"the blades' own links: {floor}; {hint}"
        case Limit.ROOT:
            what = f"the root's link: one copy at {_render_rate(asked.root_link)} takes {time}"
            return f"{what}; promote a blade with a wider one"
        case Limit.UPLINKS:
            copies = f"{answer.uplink_copies:.1f} copies at {_render_rate(asked.uplink or 0)}"
            what = f"the racks' uplinks: {copies} take {time}"
            return f"{what}; widen them, or reimage a rack at a time with a root in it"
        case Limit.PIECES:
            what = f"the piece count: with {asked.pieces} pieces passing them on takes {time}"
            return f"{what}; from {answer.enough_pieces} on that hardly matters"
        case Limit.START_UP:
            return f"the start: blades find each other in {time}; the image itself takes less"


def _draw(use: tuple[float, ...]) -> str:
    return "".join(_BARS[round(part * (len(_BARS) - 1))] for part in use)


def _render_time(seconds: float) -> str:
    if seconds < 119.95:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7170 else f"{seconds / 3600:.1f} h"


def _render_rate(rate: float) -> str:
    for unit, factor in (("Gb/s", 1e9), ("Mb/s", 1e6), ("kb/s", 1e3)):
        if rate >= factor:
            return f"{rate / factor:g} {unit}"
    return f"{rate:g} b/s"
