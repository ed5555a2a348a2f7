"""`bladeroot orders`: what was ordered, and who has done it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from rich.table import Table

from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.ui.cli.options import open_folder, parse_seconds
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.ops.orders import OrderState

_DEFAULT_WAIT_S = 5.0


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "orders",
        run=run,
        summary="what was ordered, and who has carried it out",
        description="Lists the orders that the root has, the newest first. A blade counts as open until "
        "it has said that it carried the order out, or a newer one.",
        examples=[
            ("bladeroot orders", "all of them"),
            ("bladeroot orders --json | jq '.[0].open'", "who is left"),
        ],
        errors=[NoRootFoundError, NetworkError],
        see="`bladeroot help reimage`",
    )
    parser.add_argument("action", nargs="?", choices=["list"], metavar="list", help="what is done anyway")
    parser.add_argument("--root", metavar="HOST:PORT", help="ask this root")
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=_DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to look for a root (default: 5)",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the orders."""
    from bladeroot.ops.orders import read_order_states
    from bladeroot.ops.status import find_room

    folder = open_folder(args)
    client = find_room(folder.cluster, root=args.root, wait_s=args.wait)
    states = read_order_states(client, folder.trusted_keys(), folder.cluster.id)
    out.facts([_describe(state) for state in states], lambda: _render(states) if states else "no orders")
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
    }


def _render(states: list[OrderState]) -> Table:
    from bladeroot.core.nodesets import fold_names

    table = Table(box=None, pad_edge=False)
    for title in ("order", "what", "done", "open"):
        table.add_column(title, no_wrap=title == "order")
    for state in states:
        order = state.order
        what = f"{order.kind} to {order.serial or 'newest'}{', wipe data' if order.wipe_data else ''}"
        table.add_row(str(order.number), what, fold_names(state.done) or "-", fold_names(state.open) or "-")
    return table
