"""`bladeroot status`: how the room stands."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import attrs
from rich.console import Group
from rich.text import Text

from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.ui.cli.options import find_folder_if_any, parse_seconds
from bladeroot.ui.cli.output import Output, make_printable
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.ops.status import RoomStatus

_DEFAULT_WAIT_S = 5.0


def add_parser(verbs: Verbs) -> None:
    """`status`."""
    parser = add_verb(
        verbs,
        "status",
        run=run,
        summary="who is root, and how far every blade is",
        description="""
Asks the root: the one that --root names, else one that cluster.toml names (roots), else the one that
announces itself over mDNS. On a machine without a cluster folder the root of any cluster will do.

A blade that is `up` runs from its own disk; one that is `held` waits for a person, and the lines below the
table say for what. A blade that gets much less than the others, of what all are fetching, has a line there
too. A machine that is called stranger-… netboots and is not in the inventory:
`bladeroot blades strangers` tells more.

What is shown is what blades have reported to that root; it is not signed, and nothing depends on it.
""",
        examples=[
            ("bladeroot status", "the room's table"),
            ("bladeroot status --root 10.77.0.11", "of a root that mDNS does not reach"),
            ("bladeroot status --json | jq '.blades | map_values(.phase)'", "for a script"),
        ],
        errors=[NoRootFoundError, NetworkError],
        see="`bladeroot help promote`",
    )
    parser.add_argument("--root", metavar="HOST:PORT", help="ask this one")
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=_DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to look for one (default: 5)",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the room."""
    from bladeroot.core.badlinks import find_bad_links
    from bladeroot.ops.status import find_room, read_status

    folder = find_folder_if_any(args)
    client = find_room(folder.cluster if folder else None, root=args.root, wait_s=args.wait)
    status = read_status(client)
    slow = [link.blade for link in find_bad_links(status.room)]
    out.facts({**attrs.asdict(status), "slow": slow}, lambda: _render(status))
    return 0


def _render(status: RoomStatus) -> Group:
    from bladeroot.core.roomstate import BladePhase
    from bladeroot.ui.watch import render_all

    room, claim = status.room, status.claim
    counts = ", ".join(f"{count} {phase}" for phase in BladePhase if (count := room.count(phase)))
    generations = ", ".join(map(str, status.generations)) or "none"
    head = f"{claim}, cluster {claim.cluster_id[:8]}, holds generations: {generations}"
    lines = [Text(make_printable(head)), Text(f"blades: {counts or 'none yet'}")]
    if not any(room.blades):
        return Group(*lines)
    return Group(*lines, Text(), render_all(room))
