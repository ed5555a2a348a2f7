"""`bladeroot daemon`: what runs on an installed blade."""

from __future__ import annotations

import argparse
import sys
from contextlib import suppress
from pathlib import Path
from typing import cast

from bladeroot.errors import ConfigError, DepotError, NetworkError, SigningKeyError
from bladeroot.ui.cli.options import depot_path, open_folder
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "daemon",
        run=run,
        summary="what runs on an installed blade (systemd starts it)",
        description="""
Runs until it is stopped: bladeroot.service starts it on every blade. It notes on the disk that the
installed system runs, gives what the blade's depot holds to others, follows whichever root there is, tells
it that the blade is up and what it is made of, and asks it for orders every half minute or so.

Where there is no root, one of the blades takes the role by itself: after a power loss, or when the root dies,
within seconds. Those with a higher `priority` in cluster.toml are first. With `takeover = "manual"` under
[daemon] that is left to `bladeroot promote`. `seed_limit` says what a blade that is not root gives to others
in a second at most.

In the background it fetches what its install left for later, and newer generations that the root announces:
any blade can be root with them.

When there is an order for this blade that is signed by a key in keys/trusted/ and newer than the last one
that was carried out on its disk, the blade restarts into the agent that it keeps on its EFI system
partition, which installs. A blade that keeps no agent says so, and waits to be started over the network.
It restarts three times at most for one order.
""",
        examples=[
            ("journalctl -u bladeroot", "what it has done"),
            ("systemctl disable --now bladeroot", "a blade that is to be left alone by orders"),
        ],
        files=[
            ("/etc/bladeroot/installed.json", "which blade this is, and which generation it has"),
            ("/var/lib/bladeroot/", "its depot: generations, orders, and how often it restarted for one"),
            ("/var/lib/bladeroot/daemon.sock", "where `bladeroot promote` and `demote` reach it"),
        ],
        errors=[ConfigError, SigningKeyError, DepotError, NetworkError],
        see="`bladeroot help promote`, `bladeroot help roots`, `bladeroot help reimage`",
    )
    parser.add_argument(
        "--root",
        metavar="HOST:PORT",
        help="a root that multicast does not reach (also: bladeroot.root= on the kernel's command line)",
    )
    parser.add_argument(
        "--netboot",
        choices=["dhcp", "proxy", "off"],
        help="how to answer netboot as root (default: as published)",
    )
    parser.add_argument("--interface", metavar="NAME", help="where to answer netboot as root")
    parser.add_argument(
        "--system",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="where the installed system is mounted, for labs: an order to restart ends the daemon then, "
        "with exit code 75 (default: /)",
    )


def _do_without_tls() -> None:
    """Python and aiohttp get along without `ssl`, nothing here speaks TLS, and each blade saves 4 MB."""
    cast("dict[str, None]", sys.modules).setdefault("ssl", None)


def run(args: argparse.Namespace, out: Output) -> int:
    """Run until SIGTERM or Ctrl-C."""
    _do_without_tls()
    from bladeroot.core.cluster import Netboot
    from bladeroot.host.bootarguments import find_named_root
    from bladeroot.host.files import allow_many_files
    from bladeroot.host.restart import restart_in_order
    from bladeroot.ops.daemon import Daemon, open_daemon
    from bladeroot.ops.machine import RESTART_CODE, OwnMachine

    allow_many_files()  # a connection or two for each blade of a large room
    folder = open_folder(args)
    is_own = args.system == Path("/")
    running: list[Daemon] = []
    restarting: list[bool] = []

    def leave() -> None:
        restarting.append(True)
        running[0].stop.set()

    machine = OwnMachine(args.system, restart_in_order if is_own else leave)
    opening = open_daemon(
        folder.path,
        folder.cluster,
        folder.trusted_keys(),
        depot_path(args),
        root=args.root or (find_named_root() if is_own else None),
        netboot=Netboot(args.netboot) if args.netboot else None,
        interface=args.interface,
        machine=machine,
        system=args.system,
        reporter=out.reporter,
    )
    with suppress(KeyboardInterrupt), opening as daemon:  # SIGTERM too: to be stopped is how it ends
        running.append(daemon)
        daemon.run()
    return RESTART_CODE if restarting else 0
