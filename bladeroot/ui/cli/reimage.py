"""`bladeroot reimage`: order blades to install again."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from bladeroot.errors import (
    ConfigError,
    DepotError,
    InventoryError,
    NetworkError,
    NoRootFoundError,
    SigningKeyError,
    UsageError,
)
from bladeroot.ui.cli.options import (
    ask_yes,
    depot_path,
    open_folder,
    parse_count,
    parse_seconds,
    read_secret_key,
)
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import DRY_RUN_LINE, Verbs, add_dry_run, add_verb

if TYPE_CHECKING:
    from bladeroot.ops.orders import ReimagePlan

_DEFAULT_WAIT_S = 5.0


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "reimage",
        run=run,
        summary="order blades to install again",
        description="Makes a signed order for a set of blades and hands it to the root. Each of them "
        "installs once: as soon as its daemon hears of it, or when it next boots over the network. It starts "
        "the agent that it keeps on its own disk, so hundreds need not fetch one. A blade never does an "
        "order twice, nor an older one after a newer, whatever a root tells it.\n\n"
        "A blade that is held (after too many tries, or because its disk holds something else) takes an "
        "order as a person's word that it may go on.\n\n"
        "The root itself cannot be among them: the others install from it. Promote one of them when they "
        "are up, and reimage the old root then.",
        examples=[
            ("bladeroot reimage 'web[01-40]'", "to the newest generation, after a yes"),
            ("bladeroot reimage @cache --to 7 --yes", "back to generation 7, without asking"),
            ("bladeroot reimage db1 --wipe-data --dry-run", "see what an order would say"),
        ],
        errors=[ConfigError, InventoryError, SigningKeyError, NoRootFoundError, NetworkError, DepotError],
        see="`bladeroot help orders`, `bladeroot help status`",
    )
    parser.add_argument("blades", metavar="NODESET", help="which blades: web[01-40,!07], @ROLE, @all")
    parser.add_argument(
        "--to",
        type=parse_count,
        metavar="SERIAL",
        help="this generation, even a lower one (default: the newest)",
    )
    parser.add_argument("--wipe-data", action="store_true", help="make their data partition anew as well")
    parser.add_argument("--root", metavar="HOST:PORT", help="hand it to this root")
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=_DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to look for a root (default: 5)",
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_dry_run(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Plan, show, ask, order."""
    from bladeroot.core.nodesets import find_blades
    from bladeroot.host.orderbook import OrderBook
    from bladeroot.ops.orders import give_order, plan_reimage
    from bladeroot.ops.status import find_room

    folder = open_folder(args)
    blades = find_blades(args.blades, folder.cluster)
    client = find_room(folder.cluster, root=args.root, wait_s=args.wait)
    plan = plan_reimage(
        client,
        folder.cluster.id,
        blades,
        serial=args.to,
        wipe_data=args.wipe_data,
        known=OrderBook(depot_path(args)).numbers(),
    )
    if args.dry_run:
        out.facts({**plan.facts(), "dry_run": True}, "\n".join([*plan.lines(), DRY_RUN_LINE]))
        return 0
    _confirm(args, plan, out)
    give_order(client, plan, read_secret_key(args, folder))
    out.facts(plan.facts(), f"order {plan.number} is given: `bladeroot orders` shows who has carried it out")
    return 0


def _confirm(args: argparse.Namespace, plan: ReimagePlan, out: Output) -> None:
    for line in plan.lines():
        out.say(line)
    if args.yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "a reimage destroys what is on disks, and there is no terminal to ask on", "add --yes"
        )
    count = len(plan.blades)
    ask_yes(f"Reimage {count} blade{'s' if count > 1 else ''}?", "nothing was ordered")
