"""`bladeroot blades strangers|adopt`: machines that netboot and are not in the inventory."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING
from uuid import UUID

from rich.console import Group, RenderableType
from rich.text import Text

from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.ui.cli.blades.changes import apply_change
from bladeroot.ui.cli.blades.machines import (
    add_root,
    ask_root,
    describe_machine,
    read_states,
)
from bladeroot.ui.cli.options import open_folder
from bladeroot.ui.cli.output import Output, make_facts, make_printable
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb

if TYPE_CHECKING:
    from bladeroot.core.cluster import Cluster
    from bladeroot.core.roomstate import BladeState


def add_strangers(actions: Verbs) -> None:
    """`blades strangers`."""
    parser = add_verb(
        actions,
        "strangers",
        run=run_strangers,
        summary="machines that netboot and are not in the inventory",
        description="They wait, and nothing on their disks is touched, until one is adopted.",
        examples=[("bladeroot blades strangers", "who waits")],
        errors=[NoRootFoundError, NetworkError],
    )
    add_root(parser)


def add_adopt(actions: Verbs) -> None:
    """`blades adopt`."""
    parser = add_verb(
        actions,
        "adopt",
        run=run_adopt,
        summary="make a stranger a blade",
        description="Takes over the MAC address and UUID of a machine that waits. NAME is a new blade (with "
        "--role), or one of the inventory that has no MAC address yet. The machine goes on by itself as soon "
        "as `bladeroot publish` has made it known.",
        examples=[
            ("bladeroot blades adopt 52:54:00:aa:bb:07 web07 --role web", "as a new blade"),
            ("bladeroot blades adopt stranger-525400aabb07 spare03", "as a blade that had no machine"),
        ],
    )
    parser.add_argument("machine", metavar="MAC", help="its MAC address, or what `blades strangers` calls it")
    parser.add_argument("name", metavar="NAME", help="which blade it becomes")
    parser.add_argument("--role", help="its role; needed for a new blade")
    add_root(parser)
    add_dry_run(parser)


def run_strangers(args: argparse.Namespace, out: Output) -> int:
    """Print who waits."""
    from bladeroot.core.roomstate import is_stranger

    cluster = open_folder(args).cluster
    states = ask_root(args, cluster)
    strangers = [state for name, state in sorted(states.items()) if is_stranger(name)]
    facts = [
        {
            "name": state.blade,
            "phase": str(state.phase),
            "reason": state.failure,
            "hint": state.hint,
            "hardware": dict(state.hardware),
        }
        for state in strangers
    ]
    out.facts(facts, lambda: _render(strangers))
    return 0


def run_adopt(args: argparse.Namespace, out: Output) -> int:
    """Change the inventory."""
    from bladeroot.core.cluster import parse_mac
    from bladeroot.core.inventory import adopt_machine
    from bladeroot.core.roomstate import is_stranger, stranger_name

    mac = parse_mac(args.machine.removeprefix("stranger-") if is_stranger(args.machine) else args.machine)
    cluster = open_folder(args).cluster
    state = read_states(args, cluster, out).get(stranger_name(mac))
    if state is None:
        out.say(f"no root has seen {mac}: it is adopted without a UUID")
    uuid = _find_uuid(state, cluster) if state is not None else None
    return apply_change(args, out, lambda cluster: adopt_machine(cluster, args.name, mac, uuid, args.role))


def _find_uuid(state: BladeState, cluster: Cluster) -> str | None:
    """The machine's UUID, if it is one: some boards tell none, and some vendors gave the same to all."""
    try:
        found = UUID(str(state.hardware.get("uuid") or ""))
    except ValueError:
        return None
    if found.int in (0, (1 << 128) - 1) or any(str(found) == one.uuid for one in cluster.blades.values()):
        return None
    return str(found)


def _render(strangers: list[BladeState]) -> RenderableType:
    """A table for each: what a machine is made of is too much for a row."""
    if not strangers:
        return "none"
    blocks: list[RenderableType] = []
    for state in strangers:
        rows = [("state", f"{state.phase}: {state.failure}" if state.failure else str(state.phase))]
        told = [(name, value) for name, value in describe_machine(state.hardware) if value]
        blocks += [Text(make_printable(state.blade), style="bold"), make_facts([*rows, *told]), Text()]
    mac = ":".join(re.findall("..", strangers[0].blade.removeprefix("stranger-")))
    return Group(*blocks, Text(f"`bladeroot blades adopt {mac} NAME` makes the first one a blade."))
