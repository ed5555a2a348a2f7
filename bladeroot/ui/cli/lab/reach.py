"""Verbs for a lab that runs in another terminal: status, power, console, exec, down."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from rich.table import Table

from bladeroot.errors import ClaimNotHeldError, InventoryError, UsageError
from bladeroot.ui.cli.lab.options import MARKER, add_work
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Parser, Run, Verbs, add_verb

_DOWN_TIMEOUT_S = 60.0
_SEE = "`bladeroot help lab up`"


def add_parsers(verbs: Verbs) -> None:
    """Add the verbs."""
    _add(verbs, "status", run_status, "the machines of the lab that runs")
    power = _add(verbs, "power", run_power, "switch a virtual blade on or off, or pull its plug")
    power.add_argument("blade", metavar="BLADE", help="which one")
    power.add_argument(
        "action",
        choices=["on", "off", "cut"],
        help="off: press its power button, and cut the power if it does not listen; cut: at once",
    )
    console = _add(verbs, "console", run_console, "a virtual blade's serial console (Ctrl-] leaves)")
    console.add_argument("blade", metavar="BLADE", help="which one")
    execute = _add(verbs, "exec", run_exec, "run a program inside the lab's network, as its operator")
    execute.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- COMMAND",
        help="what to run; cluster folder, depot and key in its environment are the lab's",
    )
    _add(verbs, "down", run_down, "end the lab that runs")


def run_status(args: argparse.Namespace, out: Output) -> int:
    """Show the machines."""
    from bladeroot.lab.remote import ask

    answer = ask(args.work, verb="status")
    table = Table(box=None, pad_edge=False)
    for heading in ("BLADE", "POWER", "FIRMWARE", "ADDRESS", "CONSOLE LOG"):
        table.add_column(heading, no_wrap=True)
    for blade in answer["blades"]:
        table.add_row(*(str(blade[key]) for key in ("blade", "power", "firmware", "address", "log")))
    out.facts(dict(answer), table)
    return 0


def run_power(args: argparse.Namespace, out: Output) -> int:
    """Switch it."""
    from bladeroot.lab.remote import ask

    answer = ask(args.work, verb="power", blade=args.blade, action=args.action)
    out.facts(dict(answer), f"{answer['blade']}: {answer['said']}")
    return 0


def run_console(args: argparse.Namespace, out: Output) -> int:
    """Attach the terminal."""
    from bladeroot.lab.remote import ask
    from bladeroot.ui.cli.lab.terminal import attach

    blades = {blade["blade"]: blade for blade in ask(args.work, verb="status")["blades"]}
    if args.blade not in blades:
        raise InventoryError(f"the lab has no blade {args.blade!r}", f"there is: {', '.join(sorted(blades))}")
    blade = blades[args.blade]
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise UsageError("a console needs a terminal", f"what it said so far is in {blade['log']}")
    if blade["power"] == "off":
        raise UsageError(f"{args.blade} is off", f"`bladeroot lab power {args.blade} on` switches it on")
    out.say(f"{args.blade}: Ctrl-] leaves")
    attach(Path(blade["console"]), Path(blade["log"]))
    return 0


def run_exec(args: argparse.Namespace, _out: Output) -> int:
    """Run it to its end; its exit code is ours."""
    from bladeroot.host.run import start_process
    from bladeroot.lab.remote import ask
    from bladeroot.lab.segment import enter_segment

    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("nothing to run", "`bladeroot lab exec -- bladeroot status`")
    answer = ask(args.work, verb="status")
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    argv = enter_segment(answer["holder"], ["env", f"PATH={path}", *command])
    with start_process(argv, stdin=None, environment=answer["environment"]) as process:
        # Ctrl-C is for the program, which has the same terminal.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        code = process.wait()
    return code if code >= 0 else 128 - code


def run_down(args: argparse.Namespace, out: Output) -> int:
    """Tell it to end, and wait until it has."""
    from bladeroot.lab.remote import ask
    from bladeroot.lab.workfolder import wait_until_free

    ask(args.work, verb="down")
    if not wait_until_free(args.work, MARKER, _DOWN_TIMEOUT_S):
        raise ClaimNotHeldError(f"the lab in {args.work} does not end", "stop its `bladeroot lab up`")
    out.facts({"work": str(args.work)}, f"the lab has ended; its files stay in {args.work} until the next")
    return 0


def _add(verbs: Verbs, name: str, run: Run, summary: str) -> Parser:
    parser = add_verb(verbs, name, run=run, summary=summary, errors=[InventoryError], see=_SEE)
    add_work(parser)
    return parser
