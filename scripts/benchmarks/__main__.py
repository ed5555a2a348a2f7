"""How fast bladeroot is beside other tools, in one run.

`room`: the same image to rooms of several sizes, over links that are shaped both ways, with bladeroot,
udpcast, aria2 (BitTorrent), nginx, and an rsync daemon.
`local`: publishing and installing beside tar and zstd.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
from rich.console import Console

from benchmarks import local, room
from benchmarks.plot import render_plot
from benchmarks.table import make_table
from bladeroot.core.cluster import MIB
from bladeroot.core.sizes import parse_bit_rate
from bladeroot.errors import BladerootError, ConfigError
from bladeroot.host import interrupts
from bladeroot.host.files import write_atomically

# So slow that two cores can just do the work of 33 machines, and so fast that a run takes ten minutes.
_RATE, _SIZE_MIB = "4M", 16.0
_SIZES, _QUICK_SIZES = [1, 8, 32], [1, 8]
_FLOORS, _COPIES_FLOORS = 8.0, 1.15
_INTERRUPTED_CODE = 130
_PLAIN_WIDTH = 170


def parse_numbers(text: str) -> list[int]:
    """`1,8,32`."""
    numbers = [int(part) for part in text.split(",")]
    if not all(0 < number <= room.MOST_BLADES for number in numbers):
        raise ValueError
    return numbers


def parse_rate(text: str) -> int:
    """Bits per second: `16M`, `1G`."""
    try:
        return parse_bit_rate(text)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse_names(text: str) -> list[str]:
    """`bladeroot,aria2`."""
    names = text.split(",")
    if not set(names) <= {make.name for make in room.CONTENDERS}:
        raise ValueError
    return names


def make_parser() -> argparse.ArgumentParser:
    """What `scripts/bench --help` shows."""
    names = ",".join(make.name for make in room.CONTENDERS)
    parser = argparse.ArgumentParser(
        prog="scripts/bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("part", nargs="?", choices=["room", "local"], help="only this part (default: both)")
    add("--runs", type=int, default=1, metavar="N", help="measure everything so often (default: 1)")
    add("--blades", type=parse_numbers, metavar="N,N", help="sizes of rooms (default: 1,8,32)")
    add("--only", type=parse_names, metavar="NAME,NAME", help=f"of {names}")
    add("--rate", type=parse_rate, default=_RATE, metavar="BITS", help=f"of every link (default: {_RATE})")
    add("--size", type=float, default=_SIZE_MIB, metavar="MIB", help=f"of the image (default: {_SIZE_MIB:g})")
    add("--level", type=int, default=6, help="zstd's, for `local` (default: 6)")
    add("--quick", action="store_true", help="small rooms only")
    add("--json", type=Path, metavar="FILE", help="everything that was measured")
    add("--plot", type=Path, metavar="FILE.svg", help="time against the number of blades")
    add("--lock", type=Path, metavar="FILE", help="hold its lock for each measurement, to take turns")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, write."""
    args = make_parser().parse_args(argv)
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with interrupts.handled(restore=True):
        try:
            result = _measure(args, console)
        except BladerootError as error:
            console.print(f"bench: {error}" + (f" ({error.hint})" if error.hint else ""), markup=False)
            return error.exit_code
        except KeyboardInterrupt:
            console.print("bench: stopped; nothing is left behind")
            return _INTERRUPTED_CODE
    return 1 if result.get("room", {}).get("failures") else 0


def _measure(args: argparse.Namespace, console: Console) -> dict[str, Any]:
    out = Console(highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    result: dict[str, Any] = {}

    def keep(part: str, facts: object) -> None:
        result[part] = facts
        if args.json:
            write_atomically(args.json, json.dumps(result, indent=1, default=str) + "\n")

    if args.part != "local":
        measured = room.run_room(_options(args), console, lambda so_far: keep("room", so_far.facts()))
        out.print(make_table(measured.summaries, measured.titles))
        out.print(measured.caption)
        if args.plot and measured.measurements:
            args.plot.write_text(
                render_plot(
                    measured.summaries, measured.titles, title=measured.title, caption=measured.caption
                )
            )
    if args.part != "room":
        pairs = local.run_local(args.runs, args.level, args.lock)
        keep("local", [{**attrs.asdict(pair), "ratio": pair.ratio} for pair in pairs])
        local.print_pairs(pairs, out)
    return result


def _options(args: argparse.Namespace) -> room.Options:
    return room.Options(
        blades=args.blades or (_QUICK_SIZES if args.quick else _SIZES),
        only=args.only or [make.name for make in room.CONTENDERS],
        rate_bits=args.rate,
        size_bytes=int(args.size * MIB),
        runs=args.runs,
        deadline_floors=_FLOORS,
        copies_deadline_floors=_COPIES_FLOORS,
        lock=args.lock,
    )


if __name__ == "__main__":
    sys.exit(main())
