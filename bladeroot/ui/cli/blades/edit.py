"""`bladeroot blades add|set|remove|replace`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bladeroot.errors import InventoryError, UsageError
from bladeroot.ui.cli.blades.changes import apply_change, choose_names, only_role
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb

if TYPE_CHECKING:
    from bladeroot.core.cluster import Cluster


def add_add(actions: Verbs) -> None:
    """`blades add`."""
    parser = add_verb(
        actions,
        "add",
        run=run_add,
        summary="add blades",
        description="""
One blade takes every --mac; of a set, each blade takes one, in the order of names. --address is the first
of a range that counts up within its network.
""",
        examples=[
            ("bladeroot blades add web07 --role web --mac 52:54:00:aa:bb:07", "one machine"),
            (
                "bladeroot blades add 'web[01-40]' --role web --address 10.77.0.11/24",
                "forty blades with the addresses 10.77.0.11 to 10.77.0.50",
            ),
        ],
    )
    parser.add_argument("nodeset", metavar="NODESET", help="their names")
    parser.add_argument("--role", help="their role (default: the only one)")
    parser.add_argument("--mac", action="append", default=[], help="a MAC address; may be repeated")
    parser.add_argument("--address", metavar="ADDRESS/PREFIX", help="the address of the first one")
    parser.add_argument("--uuid", help="the SMBIOS UUID, of a single blade")
    parser.add_argument("--disk", default="only", metavar="RULE", help="a table of [disks] (default: only)")
    parser.add_argument(
        "--layout", default="default", metavar="NAME", help="a table of [layouts] (default: default)"
    )
    parser.add_argument("--rack", help="where they stand")
    parser.add_argument("--location", default="", metavar="TEXT", help="where to find them, in words")
    parser.add_argument(
        "--priority", type=int, default=0, metavar="N", help="higher becomes root first (default: 0)"
    )
    parser.add_argument(
        "--fact", action="append", default=[], metavar="NAME=VALUE", help="for templates; may be repeated"
    )
    add_dry_run(parser)


def add_set(actions: Verbs) -> None:
    """`blades set`."""
    parser = add_verb(
        actions,
        "set",
        run=run_set,
        summary="change what is known of blades",
        description="""
Keys: role, macs, uuid, address, disk, layout, rack, location, priority, and fact.NAME for templates. An
empty value puts back the default. For a set, macs is one for each blade, separated by commas, and address
is the first of a range.
""",
        examples=[
            ("bladeroot blades set @db disk=fast rack=r2", "another disk rule and rack for a role's blades"),
            ("bladeroot blades set web01 fact.colour=", "forget a fact"),
        ],
    )
    parser.add_argument("nodeset", metavar="NODESET", help="which blades")
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="what to change")
    add_dry_run(parser)


def add_remove(actions: Verbs) -> None:
    """`blades remove`."""
    parser = add_verb(
        actions,
        "remove",
        run=run_remove,
        summary="take blades out of the inventory",
        description="Their overlays (overlays/blade/NAME/) and what is on their disks stay as they are.",
        examples=[
            ("bladeroot blades remove 'web[38-40]' --dry-run", "see who would be taken out"),
        ],
    )
    parser.add_argument("nodeset", metavar="NODESET", help="which blades")
    add_dry_run(parser)


def add_replace(actions: Verbs) -> None:
    """`blades replace`."""
    parser = add_verb(
        actions,
        "replace",
        run=run_replace,
        summary="give a blade's name and role to another machine",
        description="""
For a dead blade: the new machine takes its name, role, address, rules and overlay. The old machine's MAC
addresses and UUID are forgotten.
""",
        examples=[("bladeroot blades replace web07 --mac 52:54:00:aa:bb:77", "new machine, old place")],
    )
    parser.add_argument("name", metavar="NAME", help="the blade")
    parser.add_argument("--mac", action="append", required=True, help="a new MAC address; may be repeated")
    parser.add_argument("--uuid", help="the new machine's SMBIOS UUID")
    add_dry_run(parser)


def run_add(args: argparse.Namespace, out: Output) -> int:
    """Add blades."""
    from bladeroot.core.inventory import add_blades, make_blades
    from bladeroot.core.nodesets import expand_names

    names = expand_names(args.nodeset)
    if not names:
        raise InventoryError(f"{args.nodeset!r} is no name at all")
    if args.uuid and len(names) > 1:
        raise UsageError("--uuid is for a single blade", "a UUID belongs to one machine")
    facts = dict(_split_setting(text, "--fact") for text in args.fact)

    def change(cluster: Cluster) -> Cluster:
        blades = make_blades(
            names,
            macs=args.mac,
            first_address=args.address,
            role=args.role or only_role(cluster),
            uuid=args.uuid,
            disk=args.disk,
            layout=args.layout,
            rack=args.rack,
            location=args.location,
            priority=args.priority,
            facts=facts,
        )
        return add_blades(cluster, blades)

    return apply_change(args, out, change)


def run_set(args: argparse.Namespace, out: Output) -> int:
    """Change blades."""
    from bladeroot.core.inventory import set_blades

    settings = dict(_split_setting(text, "setting") for text in args.settings)
    return apply_change(
        args, out, lambda cluster: set_blades(cluster, choose_names(cluster, args.nodeset), settings)
    )


def run_remove(args: argparse.Namespace, out: Output) -> int:
    """Remove blades."""
    from bladeroot.core.inventory import remove_blades

    return apply_change(
        args, out, lambda cluster: remove_blades(cluster, choose_names(cluster, args.nodeset))
    )


def run_replace(args: argparse.Namespace, out: Output) -> int:
    """Give a blade another machine."""
    from bladeroot.core.inventory import replace_blade

    return apply_change(args, out, lambda cluster: replace_blade(cluster, args.name, args.mac, args.uuid))


def _split_setting(text: str, what: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{what} {text!r} is not KEY=VALUE", "an empty VALUE puts back the default")
    return key.strip(), value.strip()
