"""`bladeroot lab run powerloss` and `replicate`: rooms that come back, and blades that make each other."""

from __future__ import annotations

import argparse

from bladeroot.ui.cli.lab.options import (
    DEFAULT_RUN_WORK,
    MARKER,
    add_run_work,
    add_scenario_options,
    read_scenario_options,
)
from bladeroot.ui.cli.options import parse_count
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb

_FILES = [(str(DEFAULT_RUN_WORK), "cluster folder, depot, disks, logs; emptied at the next start")]
_KINDS = """
Blades are processes with disk files, in network namespaces; with --vm they are virtual machines, and the
operator installs their first disks from outside, to save time.
""".strip()
_POWERLOSS = f"""
All blades are installed from an operator's root, which is gone from then on. The power of all is cut at once,
the disk of the first in line is replaced by an empty one, and all are switched on at once: those with disks
boot alone, one becomes root, and the empty one is installed from it. Then all others lose their disks, and
everything comes back from the one that was just installed. (Of two blades the one loss is the other.)

{_KINDS}

Exit code 0 only if each time all blades were up in the end with one root, and one of those with a disk was
root within a minute of being up (three, of emulated machines).
"""
_REPLICATE = f"""
Blade A is installed from an operator's root, which is gone from then on. B has an empty disk and is installed
from A, is promoted by an order that is signed with the operator's key, and another order has A installed from
B, with all that A had wiped. Both are switched off, and what they boot is compared: names, contents, owners,
modes, times, links, ACLs and attributes of all files, but for those that are in their overlays, that are a
machine's identity, or that a running system writes. Then B gets an empty disk again.

{_KINDS}

Exit code 0 only if the two were the same after each round.
"""


def add_parsers(verbs: Verbs) -> None:
    """Add the two verbs."""
    powerloss = add_verb(
        verbs,
        "powerloss",
        run=run_powerloss,
        summary="everything off at once, then on; and all blades lost but one",
        description=_POWERLOSS,
        examples=[
            ("bladeroot lab run powerloss --blades 4", "processes: a minute or two"),
            ("bladeroot lab run powerloss --vm --blades 3 --firmware bios", "machines"),
        ],
        files=_FILES,
    )
    add_scenario_options(powerloss)
    powerloss.add_argument(
        "--blades", type=parse_count, default=3, metavar="N", help="how many blades (default: 3)"
    )
    add_run_work(powerloss)
    replicate = add_verb(
        verbs,
        "replicate",
        run=run_replicate,
        summary="blade A reimages B, B is promoted and reimages A, and so on",
        description=_REPLICATE,
        examples=[
            ("bladeroot lab run replicate", "three rounds"),
            ("bladeroot lab run replicate --vm --rounds 1 --firmware uefi", "machines, and one round"),
        ],
        files=_FILES,
    )
    add_scenario_options(replicate)
    replicate.add_argument(
        "--rounds", type=parse_count, default=3, metavar="N", help="how many in a row (default: 3)"
    )
    add_run_work(replicate)


def run_powerloss(args: argparse.Namespace, out: Output) -> int:
    """Run it and sum up."""
    from bladeroot.lab.powerlossscenario import run_powerloss as run_whole
    from bladeroot.lab.workfolder import occupied_work_folder

    options = read_scenario_options(args, args.blades)
    with occupied_work_folder(args.work, MARKER) as work:
        report = run_whole(work, options, out.reporter)
    out.facts(report.facts(), "\n".join(report.lines()))
    return 0


def run_replicate(args: argparse.Namespace, out: Output) -> int:
    """Run it and sum up."""
    from bladeroot.lab.replicatescenario import BLADES
    from bladeroot.lab.replicatescenario import run_replicate as run_whole
    from bladeroot.lab.workfolder import occupied_work_folder

    options = read_scenario_options(args, BLADES)
    with occupied_work_folder(args.work, MARKER) as work:
        report = run_whole(work, options, out.reporter, rounds=args.rounds)
    out.facts(report.facts(), "\n".join(report.lines()))
    return 0
