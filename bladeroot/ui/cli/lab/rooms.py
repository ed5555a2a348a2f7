"""`bladeroot lab run takeover|split|soak`: what becomes of a room when roots die and networks break."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bladeroot.errors import ClaimNotHeldError, MissingToolError, PrivilegeError, UsageError
from bladeroot.events import Note
from bladeroot.ui.cli.lab.options import DEFAULT_RUN_WORK, MARKER, add_run_work
from bladeroot.ui.cli.options import parse_count
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Parser, Run, Verbs, add_verb

_LARGEST_SEED = 10**6
_MOST_BLADES = 200
"""Their addresses are in one network of 256."""
_PROCESSES = """

Blades are processes with disks and network namespaces of their own, which run the real agent and the real
daemon; the system that they install is small. Exit code 0 only if all of that came true."""


class _Report(Protocol):
    def facts(self) -> dict[str, Any]:
        """For programs."""

    def lines(self) -> list[str]:
        """For people."""


def add_parsers(verbs: Verbs) -> None:
    """Add a verb for each."""
    takeover = _add(
        verbs,
        "takeover",
        run_takeover,
        blades=12,
        summary="the root dies in mid-swarm, three times, and all blades finish",
        description="Two blades are installed first, and one of them is root. The others are switched on "
        "with empty disks, over slow links; while they install, the root's power is cut at a random moment, "
        "and that of each next one; a dead one is switched on again as soon as there is a root. All "
        "finish, and the last root has heard it from each of them.",
        examples=[
            ("bladeroot lab run takeover", "12 blades, three deaths"),
            ("bladeroot lab run takeover --manual --blades 6", "nobody may take over, and all finish"),
            ("bladeroot lab run takeover --seed 7 --json", "the moments of another run again, for programs"),
        ],
    )
    takeover.add_argument(
        "--manual",
        action="store_true",
        help="takeover is forbidden: the root dies once, when one blade has a copy",
    )
    _add_seed(takeover)
    _add(
        verbs,
        "split",
        run_split,
        blades=4,
        summary="a network in two halves has two roots, and one when it is joined",
        description="All blades are installed and up; then the network is split in two, and each half has a "
        "root. A generation that is published in one half is everywhere when they are joined, and one of the "
        "roots has retired. Split again, each half gets a generation with the same serial: that is said, and "
        "neither is lost.",
        examples=[("bladeroot lab run split --blades 6", "two halves of three")],
    )
    soak = _add(
        verbs,
        "soak",
        run_soak,
        blades=12,
        summary="power cuts, reimages, new generations and splits at random",
        description="All blades are installed and up; then, for some minutes, one thing after the other "
        "happens to them that is drawn at random. After each, every disk must have a system that boots, "
        "or an agent that goes on with its install. In the end, left alone, every blade runs the highest "
        "serial, and there is one root.",
        examples=[
            ("bladeroot lab run soak --minutes 30", "half an hour of it"),
            ("bladeroot lab run soak --seed 4 --blades 6", "what another run drew"),
        ],
    )
    soak.add_argument(
        "--minutes",
        type=_parse_minutes,
        default=3.0,
        metavar="N",
        help="how long there is trouble (default: 3)",
    )
    _add_seed(soak)


def run_takeover(args: argparse.Namespace, out: Output) -> int:
    """Run it and sum up."""
    from bladeroot.lab.takeoverscenario import TakeoverOptions
    from bladeroot.lab.takeoverscenario import run_takeover as run_whole

    options = TakeoverOptions(blades=args.blades, seed=_choose_seed(args, out), manual=args.manual)
    return _run(args, out, lambda work: run_whole(work, options, out.reporter))


def run_split(args: argparse.Namespace, out: Output) -> int:
    """Run it and sum up."""
    from bladeroot.lab.splitscenario import SplitOptions
    from bladeroot.lab.splitscenario import run_split as run_whole

    options = SplitOptions(blades=args.blades)
    return _run(args, out, lambda work: run_whole(work, options, out.reporter))


def run_soak(args: argparse.Namespace, out: Output) -> int:
    """Run it and sum up."""
    from bladeroot.lab.soakscenario import SoakOptions
    from bladeroot.lab.soakscenario import run_soak as run_whole

    options = SoakOptions(blades=args.blades, seconds=args.minutes * 60, seed=_choose_seed(args, out))
    return _run(args, out, lambda work: run_whole(work, options, out.reporter))


def _run(args: argparse.Namespace, out: Output, run_in: Callable[[Path], _Report]) -> int:
    from bladeroot.lab.workfolder import occupied_work_folder

    if args.blades > _MOST_BLADES:
        raise UsageError(f"{args.blades} blades do not fit into the lab's network", f"up to {_MOST_BLADES}")
    with occupied_work_folder(args.work, MARKER) as work:
        report = run_in(work)
    out.facts(report.facts(), "\n".join(report.lines()))
    return 0


def _choose_seed(args: argparse.Namespace, out: Output) -> int:
    """Said at once: a run that fails is to be repeated."""
    seed = args.seed if args.seed is not None else secrets.randbelow(_LARGEST_SEED)
    out.reporter(Note(text=f"seed {seed}: --seed {seed} draws the same again"))
    return int(seed)


def _add(
    verbs: Verbs,
    name: str,
    run: Run,
    *,
    blades: int,
    summary: str,
    description: str,
    examples: list[tuple[str, str]],
) -> Parser:
    parser = add_verb(
        verbs,
        name,
        run=run,
        summary=summary,
        description=description + _PROCESSES,
        examples=examples,
        files=[(str(DEFAULT_RUN_WORK), "cluster folder, depot, disks, logs; emptied at the next start")],
        errors=[PrivilegeError, MissingToolError, ClaimNotHeldError],
    )
    parser.add_argument(
        "--blades",
        type=parse_count,
        default=blades,
        metavar="N",
        help=f"how many blades (default: {blades})",
    )
    add_run_work(parser)
    return parser


def _add_seed(parser: Parser) -> None:
    parser.add_argument(
        "--seed", type=int, metavar="N", help="draw the same as a run before (default: another each time)"
    )


def _parse_minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 24 * 60:
        raise argparse.ArgumentTypeError(f"not a number of minutes above 0, a day at most: {text!r}")
    return minutes
