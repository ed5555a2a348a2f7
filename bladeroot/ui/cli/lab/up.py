"""`bladeroot lab up`: a room of virtual blades, until Ctrl-C or `lab down`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bladeroot.errors import ClaimNotHeldError, MissingToolError, PrivilegeError
from bladeroot.events import Event
from bladeroot.ui.cli.lab.options import (
    DEFAULT_WORK,
    MARKER,
    add_room_options,
    add_work,
    read_room_options,
)
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.ui.watch import LiveTable


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "up",
        run=run,
        summary="a room of virtual blades to try things on",
        description="Makes a cluster, publishes a snapshot, takes the root role, and switches on virtual "
        "blades with empty disks: they boot over the network, install themselves, and boot from their disks "
        "from then on. It runs until Ctrl-C or `bladeroot lab down`; machines, processes and "
        "network end with it, also when it is killed. The folder is emptied at the next start.\n\n"
        "Processors are emulated, so that it runs anywhere; expect a few minutes until blades are up.",
        examples=[
            ("bladeroot lab up --vm --blades 3", "a blade of each firmware"),
            ("bladeroot lab console web01", "in another terminal: what the blade says (Ctrl-] leaves)"),
            ("bladeroot lab exec -- bladeroot status", "any program inside the room's network"),
            ("bladeroot lab exec -- bladeroot reimage web01", "order a blade to install again"),
            ("bladeroot lab power web01 cut", "pull its plug"),
        ],
        files=[
            (str(DEFAULT_WORK), "cluster folder, key, depot, disks, consoles"),
            ("~/.cache/bladeroot/", "the Debian that the snapshot is made of, kept for the next run"),
        ],
        errors=[PrivilegeError, MissingToolError, ClaimNotHeldError],
        see="`bladeroot help lab run`",
    )
    add_room_options(parser)
    add_work(parser)
    parser.add_argument(
        "--disk-first",
        action="store_true",
        help="firmware tries the disk before the network (default: the network at every start)",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Prepare, then keep the room up."""
    from bladeroot.lab.vmcluster import prepare_cluster
    from bladeroot.lab.vmlab import run_vm_lab
    from bladeroot.lab.workfolder import occupied_work_folder

    options = read_room_options(args)
    screen = _Screen(out)
    with occupied_work_folder(args.work, MARKER) as work:
        cluster = prepare_cluster(work, options, screen)
        names = sorted(cluster.firmwares)

        def when_up() -> None:
            out.facts({"work": str(work), "blades": names}, "\n".join(describe(args.work, names[0])))
            screen.show_table(names)

        try:
            run_vm_lab(cluster, work, screen, start="disk" if args.disk_first else "network", when_up=when_up)
        except KeyboardInterrupt:
            out.say("stopped")
        finally:
            screen.close()
    return 0


def describe(work: Path, blade: str) -> list[str]:
    """What can be done with a lab that is up."""
    where = "" if work == DEFAULT_WORK else f" --work {work}"
    commands = [
        (f"lab console{where} {blade}", "what it says, and typing (Ctrl-] leaves)"),
        (f"lab power{where} {blade} cut", "or on, or off"),
        (f"lab status{where}", "the machines"),
        (f"lab exec{where} -- bladeroot status", "what the root knows"),
        (f"lab exec{where} -- bladeroot reimage {blade}", "order an install"),
        (f"lab down{where}", "the end; or Ctrl-C here"),
    ]
    width = max(len(command) for command, _what in commands)
    return [
        f"The room is up: blades netboot from a root at 10.77.0.1. Consoles: {work}/blades/*/console.log",
        "In another terminal:",
        *(f"  bladeroot {command:<{width}}  {what}" for command, what in commands),
    ]


class _Screen:
    """Lines at first; then, on a terminal, a live table of the room."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._table: LiveTable | None = None

    def show_table(self, blades: list[str]) -> None:
        if self._out.as_json or self._out.quiet or not self._out.is_terminal:
            return
        from bladeroot.ui.watch import LiveTable

        table = LiveTable(self._out.console())
        table.expect(blades)
        self._table = table.__enter__()

    def close(self) -> None:
        table, self._table = self._table, None
        if table is not None:
            table.__exit__(None, None, None)

    def __call__(self, event: Event) -> None:
        (self._table or self._out.reporter)(event)
