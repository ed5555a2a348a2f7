"""`bladeroot daemon`: what runs on an installed blade."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path

from bladeroot.errors import ConfigError, SigningKeyError
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
installed system runs, tells the root that the blade is up and what it is made of, and asks the root for
orders every half minute or so. Without a root it goes on looking for one, and the blade runs on.

When there is an order for this blade that is signed by a key in keys/trusted/ and newer than the last one
that was carried out on its disk, the blade restarts into the agent that it keeps on its EFI system
partition, which installs. A blade that keeps no agent says so, and waits to be started over the network.
It restarts three times at most for one order.

Nothing is written to the disk but one sector of the boot loader's variables, and a count in the depot.
""",
        examples=[
            ("journalctl -u bladeroot", "what it has done"),
            ("systemctl disable --now bladeroot", "a blade that is to be left alone by orders"),
        ],
        files=[
            ("/etc/bladeroot/installed.json", "which blade this is, and which generation it has"),
            ("/var/lib/bladeroot/restarts.json", "how often it restarted for its latest order"),
        ],
        errors=[ConfigError, SigningKeyError],
        see="`bladeroot help reimage`, `bladeroot help orders`",
    )
    parser.add_argument(
        "--root", metavar="HOST:PORT", help="follow this root (default: as cluster.toml says, or mDNS)"
    )
    parser.add_argument(
        "--disk",
        type=Path,
        metavar="DEVICE-OR-FILE",
        help="the disk that this blade runs from, where that is not the one mounted on /; an order then ends "
        "the daemon with exit code 75, for whoever started it to start the agent",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Run until SIGTERM or Ctrl-C."""
    from bladeroot.ops.daemon import open_daemon
    from bladeroot.ops.diskmachine import RESTART_CODE, DiskMachine

    folder = open_folder(args)
    daemon = open_daemon(
        folder.path,
        folder.cluster,
        folder.trusted_keys(),
        depot_path(args),
        root=args.root,
        reporter=out.reporter,
    )
    machine = DiskMachine(args.disk) if args.disk is not None else None
    if machine is not None:
        daemon.machine = machine
    with suppress(KeyboardInterrupt):  # SIGTERM too: to be stopped is how it ends
        daemon.run()
    return RESTART_CODE if machine is not None and machine.is_restarting else 0
