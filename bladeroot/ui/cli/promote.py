"""`bladeroot promote`: this machine takes the root role."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from types import FrameType

from bladeroot.errors import (
    ConfigError,
    DepotError,
    MissingToolError,
    NetworkError,
    PortTakenError,
    PrivilegeError,
    UsageError,
)
from bladeroot.ui.cli.options import open_depot, open_folder
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "promote",
        run=run,
        summary="take the root role, in the foreground",
        description="Announces this machine over mDNS as the cluster's root and gives the depot's "
        "generations to blades over BitTorrent, until it is stopped (Ctrl-C or SIGTERM). On a terminal it "
        "shows a live table of what blades report.\n\n"
        "A generation that is published meanwhile is taken in at once.\n\n"
        "With netboot it also answers machines that boot over the network, by a dnsmasq of its own: `dhcp` "
        "gives addresses too, and refuses to where another DHCP server answers; `proxy` works beside one; "
        "`off` leaves it. A machine is sent to its own disk, unless there is an order for it or its disk "
        "does not boot.",
        examples=[
            ("bladeroot promote", "be root with what the depot holds"),
            ("bladeroot promote --publish /srv/snapshots/bookworm", "publish a snapshot first"),
            ("bladeroot promote --netboot proxy --interface eth1", "boot blades beside a site's DHCP server"),
            ("bladeroot promote --json 2> events.jsonl", "every event as a JSON line, for programs"),
        ],
        errors=[PrivilegeError, ConfigError, DepotError, NetworkError, PortTakenError, MissingToolError],
        see="`bladeroot help publish`, `bladeroot help install`, `bladeroot help status`",
    )
    parser.add_argument(
        "--publish", type=Path, metavar="PATH", dest="path", help="publish this snapshot first"
    )
    parser.add_argument("--blade", metavar="NAME", help="what to announce itself as (default: the host name)")
    parser.add_argument(
        "--port", type=int, metavar="PORT", help="the control service's port (default: cluster.toml)"
    )
    parser.add_argument(
        "--netboot",
        choices=["dhcp", "proxy", "off"],
        help="how to answer machines that boot over the network (default: as published)",
    )
    parser.add_argument(
        "--interface", metavar="NAME", help="where to answer netboot (default: where blades have addresses)"
    )
    parser.add_argument("--seed-limit", metavar="SIZE", help='give at most so much a second, as "100M"')


def run(args: argparse.Namespace, out: Output) -> int:
    """Publish if asked to, then be root until stopped."""
    from bladeroot.core.cluster import Netboot
    from bladeroot.core.sizes import parse_size
    from bladeroot.events import Finished
    from bladeroot.host.files import allow_many_files
    from bladeroot.ops.promote import find_own_name, serve_until, take_root_role
    from bladeroot.ui.cli.publish import publish
    from bladeroot.ui.watch import LiveTable

    allow_many_files()  # a connection or two for each blade of a large room
    folder = open_folder(args)
    port = args.port if args.port is not None else folder.cluster.network.port
    if not 0 <= port < 65536:
        raise UsageError(f"not a port: {port}", "0 (any) to 65535")
    limit = parse_size(args.seed_limit) if args.seed_limit else 0
    blade = args.blade or find_own_name()
    if args.path is not None:
        publish(args, out)
    depot = open_depot(args)
    table = None if out.as_json or out.quiet or not out.is_terminal else LiveTable(out.console())
    with take_root_role(
        depot,
        folder.trusted_keys(),
        folder.cluster.id,
        blade=blade,
        port=port,
        upload_limit=limit,
        netboot=Netboot(args.netboot) if args.netboot else None,
        interface=args.interface,
        reporter=table or out.reporter,
    ) as role:
        stop = _stop_on_signals()
        if table is None:
            serve_until(role, stop)
        else:
            table.expect(role.blade_names())
            with table:
                serve_until(role, stop)
        given = role.measure_given()
        out.reporter(Finished(facts={"serial": role.newest.serial, "given": given}))
    return 0


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop
