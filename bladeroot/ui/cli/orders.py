"""`bladeroot orders`: what was ordered, who has done it, and taking it back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from bladeroot.errors import ConfigError, InventoryError, NetworkError, NoRootFoundError, SigningKeyError
from bladeroot.ui.cli.options import depot_path, open_folder, parse_seconds, read_secret_key
from bladeroot.ui.cli.output import Output, make_table
from bladeroot.ui.cli.parser import DRY_RUN_LINE, Verbs, add_dry_run, add_verb, add_verbs

if TYPE_CHECKING:
    from rich.table import Table

    from bladeroot.ops.orders import OrderState

_DEFAULT_WAIT_S = 5.0


def add_parser(verbs: Verbs) -> None:
    """Add the verbs."""
    parser = add_verb(
        verbs,
        "orders",
        run=run_list,
        summary="what was ordered, who has carried it out, and taking it back",
        description="Without a verb it lists the orders that the root has.",
        examples=[
            ("bladeroot orders", "all of them"),
            ("bladeroot orders cancel 'web[01-40]'", "what they have not begun, they shall not do"),
        ],
        see="`bladeroot help reimage`",
    )
    _add_root_options(parser)
    nested = add_verbs(parser, required=False)
    listing = add_verb(
        nested,
        "list",
        run=run_list,
        summary="what was ordered, and who has carried it out",
        description="Lists the orders that the root has, the newest first. A blade counts as open until it "
        "has said that it carried the order out, and as superseded if it has a newer order: it does that one "
        "alone.",
        examples=[
            ("bladeroot orders list", "all of them"),
            ("bladeroot orders list --json | jq '.[0].open'", "who is left"),
        ],
        errors=[NoRootFoundError, NetworkError],
        see="`bladeroot help reimage`",
    )
    _add_root_options(listing, is_below=True)
    cancel = add_verb(
        nested,
        "cancel",
        run=run_cancel,
        summary="take orders back",
        description="Makes a newer order that says to do nothing, and hands it to the root. What a blade has "
        "begun to carry out goes on. It holds with roots that have heard of it: one that has the old order "
        "and not this one may still hand the old one out.",
        examples=[("bladeroot orders cancel web07", "it shall not be reimaged after all")],
        errors=[ConfigError, InventoryError, SigningKeyError, NoRootFoundError, NetworkError],
        see="`bladeroot help reimage`",
    )
    cancel.add_argument("blades", metavar="NODESET", help="whose orders: web[01-40,!07], @ROLE, @all")
    _add_root_options(cancel, is_below=True)
    add_dry_run(cancel)


def _add_root_options(parser: argparse.ArgumentParser, *, is_below: bool = False) -> None:
    """A verb below does not put its defaults over what stood before it."""

    def add(name: str, default: float | None, **options: Any) -> None:
        parser.add_argument(name, default=argparse.SUPPRESS if is_below else default, **options)

    add("--root", None, metavar="HOST:PORT", help="ask this root")
    hint = "how long to look for a root (default: 5)"
    add("--wait", _DEFAULT_WAIT_S, type=parse_seconds, metavar="SECONDS", help=hint)


def run_list(args: argparse.Namespace, out: Output) -> int:
    """Print the orders."""
    from bladeroot.ops.orders import read_order_states
    from bladeroot.ops.status import find_room

    folder = open_folder(args)
    client = find_room(folder.cluster, root=args.root, wait_s=args.wait)
    states = read_order_states(client, folder.trusted_keys(), folder.cluster.id)
    out.facts([_describe(state) for state in states], lambda: _render(states) if states else "no orders")
    return 0


def run_cancel(args: argparse.Namespace, out: Output) -> int:
    """Plan, show, hand over."""
    from bladeroot.core.nodesets import find_blades
    from bladeroot.host.orderbook import OrderBook
    from bladeroot.ops.orders import give_order, plan_cancel
    from bladeroot.ops.status import find_room

    folder = open_folder(args)
    blades = find_blades(args.blades, folder.cluster)
    client = find_room(folder.cluster, root=args.root, wait_s=args.wait)
    known = OrderBook(depot_path(args)).numbers()
    plan = plan_cancel(client, folder.trusted_keys(), folder.cluster.id, blades, known=known)
    if args.dry_run:
        out.facts({**plan.facts(), "dry_run": True}, "\n".join([*plan.lines(), DRY_RUN_LINE]))
        return 0
    for line in plan.lines():
        out.say(line)
    give_order(client, plan, read_secret_key(args, folder))
    out.facts(plan.facts(), f"order {plan.number} is given: it takes back the older ones")
    return 0


def _describe(state: OrderState) -> dict[str, Any]:
    order = state.order
    return {
        "number": order.number,
        "kind": str(order.kind),
        "serial": order.serial,
        "wipe_data": order.wipe_data,
        "done": list(state.done),
        "open": list(state.open),
        "superseded": list(state.superseded),
    }


def _render(states: list[OrderState]) -> Table:
    from bladeroot.core.nodesets import fold_names
    from bladeroot.core.orders import OrderKind

    rows = []
    for state in states:
        order = state.order
        what = str(order.kind)
        if order.kind is OrderKind.REIMAGE:
            what += f" to {order.serial or 'newest'}{', wipe data' if order.wipe_data else ''}"
        groups = (state.done, state.open, state.superseded)
        rows.append((order.number, what, *(fold_names(names) or None for names in groups)))
    return make_table(("order", "what", "done", "open", "superseded"), rows, right=("order",))
