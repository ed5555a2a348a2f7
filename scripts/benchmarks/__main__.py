"""`scripts/bench`: the command's arguments."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from bladeroot.core.cluster import MIB
from bladeroot.errors import BladerootError
from bladeroot.host import interrupts
from benchmarks import room

_DEFAULT_RATE = "16M"
_DEFAULT_SIZE_MIB = 32
_QUICK = {"blades": [1, 8], "deadline_floors": 3.0}


def parse_numbers(text: str) -> list[int]:
    """`1,8,32`."""
    return [int(part) for part in text.split(",")]


def parse_rate(text: str) -> int:
    """Bits per second: `16M`, `1G`."""
    factors = {"k": 10**3, "M": 10**6, "G": 10**9}
    return int(float(text[:-1]) * factors[text[-1]]) if text[-1] in factors else int(text)


def make_parser() -> argparse.ArgumentParser:
    """What `scripts/bench --help` shows."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("part", nargs="?", choices=["room", "local"], help="only this part (both)")
    parser.add_argument("--runs", type=int, default=1, help="how often everything is measured (1)")
    parser.add_argument("--blades", type=parse_numbers, metavar="N,N", help="sizes of the room (1,8,32)")
    names = [make.name for make in room.CONTENDERS]
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, metavar="NAME,NAME")
    parser.add_argument("--rate", type=parse_rate, default=parse_rate(_DEFAULT_RATE), metavar="BITS")
    parser.add_argument("--size", type=float, default=_DEFAULT_SIZE_MIB, metavar="MIB")
    parser.add_argument("--quick", action="store_true", help="small rooms, and less patience")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.svg")
    parser.add_argument("--lock", type=Path, metavar="FILE", help="hold its lock for each measurement")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = make_parser().parse_args(argv)
    options = room.Options(
        blades=args.blades or ([1, 8] if args.quick else [1, 8, 32]),
        only=args.only,
        rate_bits=args.rate,
        size_bytes=int(args.size * MIB),
        runs=args.runs,
        deadline_floors=3 if args.quick else room.DEADLINE_FLOORS,
        lock=args.lock,
    )
    console = Console(stderr=True, soft_wrap=True)
    with interrupts.handled(restore=True):
        try:
            result = room.run_room(options, console)
        except BladerootError as error:
            console.print(f"bench: {error}", f"({error.hint})" if error.hint else "")
            return error.exit_code
        except KeyboardInterrupt:
            return 130
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
