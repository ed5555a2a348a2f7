"""`bladeroot promote`: a machine takes the root role."""

from __future__ import annotations

import argparse
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from bladeroot.errors import (
    ConfigError,
    DepotError,
    InventoryError,
    MissingToolError,
    NetworkError,
    PortTakenError,
    PrivilegeError,
    SigningKeyError,
    UsageError,
)
from bladeroot.ui.cli.options import depot_path, open_depot, open_folder, read_secret_key
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.events import Reporter
    from bladeroot.ops.folder import ClusterFolder
    from bladeroot.ops.promote import RootRole
    from bladeroot.ops.station import Station
    from bladeroot.ui.watch import LiveTable

_TIMEOUT_S = 90.0
_LOOK_S = 0.5
_LISTEN_S = 1.5


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "promote",
        run=run,
        summary="take the root role",
        description="""
The machine announces itself over mDNS as the cluster's root and gives the depot's generations to blades
over BitTorrent. Nothing is built or moved for that: it takes seconds. Whoever was root before retires when
it hears of it.

On an installed blade its daemon takes the role, and keeps it. On any other machine with a depot the command
itself is the root, in the foreground, until it is stopped (Ctrl-C or SIGTERM) or another one is promoted;
on a terminal it shows a live table of what blades report. With BLADE, from elsewhere: that blade is told
to, by an order that is signed with the operator's key.

A generation that is published meanwhile is taken in at once.

With netboot it also answers machines that boot over the network, by a dnsmasq of its own: `dhcp` gives
addresses too, and refuses to where another DHCP server answers; `proxy` works beside one; `off` leaves it.
A machine is sent to its own disk, unless there is an order for it or its disk does not boot.
""",
        examples=[
            ("bladeroot promote", "be root with what the depot holds"),
            ("bladeroot promote web07", "have web07 be it"),
            ("bladeroot promote --publish /srv/snapshots/bookworm", "publish a snapshot first"),
            ("bladeroot promote --netboot proxy --interface eth1", "boot blades beside a site's DHCP server"),
            ("bladeroot promote --json 2> events.jsonl", "every event as a JSON line, for programs"),
        ],
        errors=[
            PrivilegeError,
            ConfigError,
            InventoryError,
            SigningKeyError,
            DepotError,
            NetworkError,
            PortTakenError,
            MissingToolError,
        ],
        see="`bladeroot help demote`, `bladeroot help roots`, `bladeroot help status`",
    )
    parser.add_argument(
        "target", nargs="?", metavar="BLADE", help="who is to be root (default: this machine)"
    )
    parser.add_argument(
        "--publish", type=Path, metavar="PATH", dest="path", help="publish this snapshot first"
    )
    foreground = parser.add_argument_group("IN THE FOREGROUND")
    foreground.add_argument(
        "--blade", metavar="NAME", help="what to announce itself as (default: the host name)"
    )
    foreground.add_argument(
        "--port", type=int, metavar="PORT", help="the control service's port (default: cluster.toml)"
    )
    foreground.add_argument(
        "--netboot",
        choices=["dhcp", "proxy", "off"],
        help="how to answer machines that boot over the network (default: as published)",
    )
    foreground.add_argument(
        "--interface", metavar="NAME", help="where to answer netboot (default: where blades have addresses)"
    )
    foreground.add_argument("--seed-limit", metavar="SIZE", help='give at most so much a second, as "100M"')


def run(args: argparse.Namespace, out: Output) -> int:
    """Publish if asked to; then order another blade, ask this machine's daemon, or be root until stopped."""
    from bladeroot.ops.roots import ask_daemon
    from bladeroot.ui.cli.publish import publish

    folder = open_folder(args)
    if args.target is not None:
        return _order(args, folder, out)
    is_daemon = ask_daemon(depot_path(args), do="status") is not None
    if is_daemon:
        _refuse_foreground_options(args)
    if args.path is not None:
        publish(args, out)
    if not is_daemon:
        return _be_root(args, folder, out)
    answer = ask_daemon(depot_path(args), do="promote")
    if answer is None:
        raise NetworkError("the daemon of this machine has just ended", "`systemctl status bladeroot`")
    text = f"{answer['blade']} is root, with generation {answer['serial']} (epoch {answer['epoch']})"
    waits = answer["netboot"]
    out.facts(dict(answer), text + (f"\nnot answering netboot yet: {waits}" if waits else ""))
    return 0


def _order(args: argparse.Namespace, folder: ClusterFolder, out: Output) -> int:
    from bladeroot.core.takeover import Wish
    from bladeroot.ops.roots import order_role, to_facts, wait_for_role

    _refuse_foreground_options(args)
    if args.path is not None:
        hint = f"run it on {args.target}, or publish first"
        raise UsageError("--publish is for the machine that it runs on", hint)
    blade = folder.cluster.blade(args.target)
    where = order_role(folder.cluster, blade, Wish.PROMOTE, read_secret_key(args, folder))
    out.say(f"{blade.name} at {where} has the order")
    roots = wait_for_role(folder.cluster, blade.name, is_root=True, timeout_s=_TIMEOUT_S)
    out.facts(to_facts(roots), f"{blade.name} is root")
    return 0


def _refuse_foreground_options(args: argparse.Namespace) -> None:
    given = {
        "--blade": args.blade,
        "--port": args.port,
        "--netboot": args.netboot,
        "--interface": args.interface,
        "--seed-limit": args.seed_limit,
    }
    used = [option for option, value in given.items() if value is not None]
    if used:
        raise UsageError(
            f"{', '.join(used)}: only where the command itself is the root, and not a blade's daemon",
            "what a daemon does as root is in cluster.toml",
        )


def _be_root(args: argparse.Namespace, folder: ClusterFolder, out: Output) -> int:
    from bladeroot.core.sizes import parse_size
    from bladeroot.events import Finished
    from bladeroot.host.files import allow_many_files
    from bladeroot.ops.holdings import Holdings
    from bladeroot.ops.presence import Limits, open_presence
    from bladeroot.ops.promote import find_own_name
    from bladeroot.ops.station import running

    allow_many_files()  # a connection or two for each blade of a large room
    cluster = folder.cluster
    port = args.port if args.port is not None else cluster.network.port
    if not 0 <= port < 65536:
        raise UsageError(f"not a port: {port}", "0 (any) to 65535")
    limit = parse_size(args.seed_limit) if args.seed_limit else 0
    blade = args.blade or find_own_name()
    depot = open_depot(args)
    table = _make_table(out)
    reporter = table or out.reporter
    holdings = Holdings(depot, folder.trusted_keys(), cluster.id, reporter)
    holdings.take_in()
    holdings.newest  # noqa: B018 - raises before anything is started
    stop = _stop_on_signals()
    with open_presence(
        holdings, port=port, limits=Limits(as_root=limit, otherwise=limit), reporter=reporter
    ) as presence:
        station = _make_station(args, presence, folder, blade, reporter)
        with running(station):
            role = _take_role(station)
            _serve(station, role, table, stop)
        given = role.measure_given()
        out.reporter(Finished(facts={"serial": role.newest.serial, "given": given}))
    return 0


def _make_station(
    args: argparse.Namespace, presence: Any, folder: ClusterFolder, blade: str, reporter: Reporter
) -> Station:
    from bladeroot.core.cluster import Netboot
    from bladeroot.ops.daemon import make_station

    return make_station(
        presence,
        folder.cluster,
        blade,
        takes_over=False,
        netboot=Netboot(args.netboot) if args.netboot else None,
        interface=args.interface,
        reporter=reporter,
    )


def _take_role(station: Station) -> RootRole:
    """Be root. Where nobody else is, netboot must work at once: nobody is there to let go of it."""
    # Whom it has to outdo, it should have heard before.
    station.wait_until(lambda: bool(station.sightings), _LISTEN_S)
    role = station.promote()
    why_not = station.why_no_netboot
    if why_not is not None and not station.sightings:
        raise why_not
    return role


def _serve(station: Station, role: RootRole, table: LiveTable | None, stop: threading.Event) -> None:
    def serve() -> None:
        while not stop.wait(_LOOK_S) and station.root is not None:
            pass

    if table is None:
        serve()
        return
    table.expect(role.blade_names())
    with table:
        serve()


def _make_table(out: Output) -> LiveTable | None:
    from bladeroot.ui.watch import LiveTable

    return None if out.as_json or out.quiet or not out.is_terminal else LiveTable(out.console())


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop
