"""`bladeroot demote`: the root gives its role away."""

from __future__ import annotations

import argparse

from bladeroot.errors import (
    ConfigError,
    InventoryError,
    NetworkError,
    PrivilegeError,
    SigningKeyError,
    UsageError,
)
from bladeroot.ui.cli.options import depot_path, open_folder, read_secret_key
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb

_TIMEOUT_S = 90.0


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "demote",
        run=run,
        summary="have the root hand its role over",
        description="""
On the blade that is root: the role goes to the next in order that is up and holds what the root holds, or
to --to BLADE. The root serves until that one does, and is a blade like others then. Where nobody can take
the role it stays, and says so; --force gives it up all the same, and this blade does not take it again by
itself for ten minutes.

With BLADE, from elsewhere: that blade is told to hand over, by an order that is signed with the operator's
key.
""",
        examples=[
            ("bladeroot demote", "before this blade is switched off"),
            ("bladeroot demote --to web07", "to that one"),
            ("bladeroot demote web01", "from the operator's machine"),
        ],
        errors=[PrivilegeError, ConfigError, InventoryError, SigningKeyError, NetworkError],
        see="`bladeroot help promote`, `bladeroot help roots`",
    )
    parser.add_argument("blade", nargs="?", metavar="BLADE", help="which root (default: this machine)")
    parser.add_argument("--to", metavar="BLADE", help="who is to be root (default: the next in order)")
    parser.add_argument("--force", action="store_true", help="even if nobody takes the role over")


def run(args: argparse.Namespace, out: Output) -> int:
    """Ask the daemon here, or order it elsewhere."""
    from bladeroot.core.takeover import Wish
    from bladeroot.ops.roots import ask_daemon, order_role, wait_for_role

    folder = open_folder(args)
    if args.to is not None:
        folder.cluster.blade(args.to)
    if args.blade is not None:
        if args.to or args.force:
            raise UsageError("--to and --force are for the root's own shell", f"run it on {args.blade}")
        blade = folder.cluster.blade(args.blade)
        order_role(folder.cluster, blade, Wish.DEMOTE, read_secret_key(args, folder))
        roots = wait_for_role(folder.cluster, blade.name, is_root=False, timeout_s=_TIMEOUT_S)
        now = roots.root.blade if roots.root else "nobody"
        out.facts({"demoted": blade.name, "root": now}, f"{blade.name} is not root any more; {now} is")
        return 0
    answer = ask_daemon(depot_path(args), do="demote", to=args.to, force=args.force)
    if answer is None:
        raise UsageError(
            "no daemon runs on this machine", "`bladeroot demote BLADE`, or stop `bladeroot promote` there"
        )
    now = str(answer["root"] or "nobody yet")
    out.facts(dict(answer), f"{answer['blade']} is not root any more; {now} is")
    return 0
