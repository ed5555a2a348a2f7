"""`bladeroot lab run`: scenarios, each of which says what it saw and whether its claim held."""

from __future__ import annotations

import argparse

from bladeroot.errors import ClaimNotHeldError, MissingToolError, PrivilegeError
from bladeroot.ui.cli.lab import losses, rooms
from bladeroot.ui.cli.lab.options import (
    DEFAULT_RUN_WORK,
    MARKER,
    add_room_options,
    add_run_work,
    read_room_options,
)
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb, add_verbs


def add_parser(verbs: Verbs) -> None:
    """Add the verb and a verb for each scenario."""
    parser = add_verb(
        verbs,
        "run",
        summary="a scenario from its beginning to its end",
        errors=[PrivilegeError, MissingToolError, ClaimNotHeldError],
        see="`bladeroot help lab up`",
    )
    inner = add_verbs(parser)
    netboot = add_verb(
        inner,
        "netboot",
        run=run_netboot,
        summary="empty disks, network boot, install, and a boot without network card",
        description="Virtual blades with empty disks are switched on and boot over the network until each is "
        "installed; they netboot once more and are sent to their own disks; then everything is switched off, "
        "and each boots alone, without a network card. Each says on its serial console who it is.\n\n"
        "Exit code 0 only if every blade got there as the blade it should be.",
        examples=[
            ("bladeroot lab run netboot --vm --blades 3", "one blade of each firmware"),
            ("bladeroot lab run netboot --vm --blades 1 --firmware bios --json", "for programs"),
        ],
        files=[(str(DEFAULT_RUN_WORK), "cluster folder, depot, disks, consoles; emptied at the next start")],
    )
    add_room_options(netboot)
    add_run_work(netboot)
    rooms.add_parsers(inner)
    losses.add_parsers(inner)


def run_netboot(args: argparse.Namespace, out: Output) -> int:
    """Run it and sum up."""
    from bladeroot.lab.netbootscenario import run_netboot as run_whole
    from bladeroot.lab.workfolder import occupied_work_folder

    options = read_room_options(args)
    with occupied_work_folder(args.work, MARKER) as work:
        report = run_whole(work, options, out.reporter)
    out.facts(report.facts(), "\n".join(report.lines()))
    return 0
