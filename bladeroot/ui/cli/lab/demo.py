"""`bladeroot lab demo`: the whole job on this machine alone."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bladeroot.core.sizes import parse_bit_rate
from bladeroot.errors import ClaimNotHeldError, MissingToolError, PrivilegeError
from bladeroot.events import Event, StepFinished, StepStarted
from bladeroot.ui.cli.options import parse_count
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.ui.watch import LiveTable

_DEFAULT_WORK = Path("/var/tmp/bladeroot-demo")  # noqa: S108 - root's own, emptied first, and named in the help


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    demo = add_verb(
        verbs,
        "demo",
        run=run_demo,
        summary="the whole job: from a Debian snapshot to a disk that boots alone",
        description="Makes a cluster, builds a real Debian, publishes it, promotes a root, and has blades "
        "install from it and from each other, each in a network namespace of its own with a disk of its own. "
        "Then one of the disks is drawn and booted in QEMU without a network card, in BIOS and in UEFI.\n\n"
        "Nothing outside of the work directory, the cache and namespaces of its own is touched. Exit code 0 "
        "only if all of it came true.",
        examples=[
            ("bladeroot lab demo", "show it"),
            ("bladeroot lab demo --blades 3 --json > summary.json", "a smaller room, for programs"),
        ],
        files=[
            (str(_DEFAULT_WORK), "everything that it makes: cluster folder, depot, disks, logs"),
            ("~/.cache/bladeroot/", "the Debian that the snapshot is made of, kept for the next run"),
        ],
        errors=[PrivilegeError, MissingToolError, ClaimNotHeldError],
    )
    demo.add_argument(
        "--blades", type=parse_count, default=8, metavar="N", help="how many blades (default: 8)"
    )
    demo.add_argument(
        "--work", type=Path, default=_DEFAULT_WORK, metavar="DIR", help="where to work, emptied first"
    )
    demo.add_argument(
        "--link", metavar="RATE", help='what each link carries, in bits a second, as "1G" (default: no limit)'
    )
    demo.add_argument("--seed", type=int, metavar="N", help="draw the disk to boot the same way every time")


def run_demo(args: argparse.Namespace, out: Output) -> int:
    """Run it with a live table while blades install, and sum up."""
    from bladeroot.lab.demo import INSTALL_STEP, DemoOptions
    from bladeroot.lab.demo import run_demo as run_whole_demo

    link_bits = parse_bit_rate(args.link) if args.link else None
    options = DemoOptions(work=args.work, blades=args.blades, link_bits=link_bits, seed=args.seed)
    reporter = out.reporter if out.as_json or not out.is_terminal else _Screen(out, INSTALL_STEP)
    report = run_whole_demo(options, reporter)
    out.facts(report.facts(), "\n".join(report.lines()))
    return 0


class _Screen:
    """Lines for the phases, and in `table_step` a live table in place of the blades' own lines."""

    def __init__(self, out: Output, table_step: str) -> None:
        self._out = out
        self._table_step = table_step
        self._table: LiveTable | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, StepStarted) and not event.subject and event.step == self._table_step:
            from bladeroot.ui.watch import LiveTable

            self._out.say(event.title)
            self._table = LiveTable(self._out.console())
            self._table.__enter__()
        elif self._table is not None and isinstance(event, StepFinished) and event.step == self._table_step:
            self._table.__exit__(None, None, None)
            self._table = None
            self._out.reporter(event)
        elif self._table is not None:
            self._table(event)
        else:
            self._out.reporter(event)
