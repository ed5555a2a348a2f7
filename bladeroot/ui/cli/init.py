"""`bladeroot init`: a new cluster folder and the operator's key."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from bladeroot.errors import ConfigError, InventoryError, SigningKeyError, UsageError
from bladeroot.ui.cli.options import ask_secret, read_passphrase_file
from bladeroot.ui.cli.output import Output, make_facts
from bladeroot.ui.cli.parser import Verbs, add_verb

_PASSPHRASE_TRIES = 3


def add_parser(verbs: Verbs) -> None:
    """`init [DIR]`."""
    parser = add_verb(
        verbs,
        "init",
        run=run,
        summary="make a cluster folder and the operator's key",
        description="""
Makes the folder that holds all that a person decides about a cluster: the inventory (cluster.toml, with
explanations), the overlays that ship, the rules for splitting and capturing, and the public keys that
blades trust.

The operator's secret key signs generations. It is put outside of the folder, readable by you alone: back
it up, and keep it off blades. Without a terminal it gets no passphrase unless --passphrase-file gives
one.

An existing folder or key is never touched, and nothing is left behind if it fails.
""",
        examples=[
            ("bladeroot init", "a cluster in /etc/bladeroot, to be filled with `bladeroot blades`"),
            (
                "bladeroot init lab --blades 'web[01-06]=web' --blades 'db[1-2]=db'",
                "a cluster folder ./lab with eight blades in two roles",
            ),
        ],
        files=[
            ("DIR/cluster.toml", "the inventory"),
            ("DIR/overlays/", "cluster/, role/<role>/, blade/<blade>/: what makes a blade itself"),
            ("DIR/split.rules", "what is runtime, extras, or left out"),
            ("DIR/capture.rules", "what `snapshot capture` does not copy"),
            ("DIR/keys/trusted/*.pub", "whose signatures blades believe"),
            ("~/.config/bladeroot/NAME-ID.key", "the operator's secret key"),
        ],
        errors=[ConfigError, InventoryError, SigningKeyError],
    )
    parser.add_argument(
        "dir", nargs="?", type=Path, metavar="DIR", help="a new directory (default: /etc/bladeroot)"
    )
    parser.add_argument("--name", help="the cluster's name (default: the directory's)")
    parser.add_argument(
        "--role",
        action="append",
        default=[],
        metavar="NAME",
        help="a role without blades yet; may be repeated",
    )
    parser.add_argument(
        "--blades",
        action="append",
        default=[],
        metavar="NODESET=ROLE",
        help="blades of a role, such as web[01-40]=web; may be repeated",
    )
    parser.add_argument(
        "--kernel-command-line", metavar="TEXT", help="what the kernel of every blade is given"
    )
    passphrase = parser.add_mutually_exclusive_group()
    passphrase.add_argument(
        "--passphrase-file", type=Path, metavar="FILE", help="its first line protects the secret key"
    )
    passphrase.add_argument("--no-passphrase", action="store_true", help="do not ask for a passphrase")


def run(args: argparse.Namespace, out: Output) -> int:
    """Make the cluster folder."""
    from bladeroot.core.cluster import Role
    from bladeroot.core.inventory import make_blades
    from bladeroot.core.nodesets import expand_names, fold_names
    from bladeroot.ops.folder import DEFAULT_KERNEL_COMMAND_LINE, find_folder, init_cluster

    if args.dir is not None and args.cluster is not None and args.dir != args.cluster:
        raise UsageError("two directories are named: DIR and --cluster", "give one of them")
    blades = [
        blade
        for nodeset, role in map(_split_blades, args.blades)
        for blade in make_blades(expand_names(nodeset), role=role)
    ]
    names = [blade.name for blade in blades]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise InventoryError(f"given twice: {fold_names(twice)}", "each blade has one role")
    given = args.kernel_command_line
    made = init_cluster(
        find_folder(args.dir or args.cluster),
        name=args.name,
        roles=[Role(name=role) for role in args.role],
        blades=blades,
        kernel_command_line=DEFAULT_KERNEL_COMMAND_LINE if given is None else given,
        passphrase=_choose_passphrase(args),
        secret_key_path=args.key,
    )
    cluster = made.folder.cluster
    facts = {
        "path": str(made.folder.path),
        "name": cluster.name,
        "id": cluster.id,
        "roles": list(cluster.roles),
        "blades": list(cluster.blades),
        "secret_key": str(made.secret_key_path),
        "key_id": made.public_key.key_id,
    }
    shown = [
        ("cluster", f"{cluster.name} ({cluster.id})"),
        ("folder", made.folder.path),
        ("roles", ", ".join(cluster.roles)),
        ("blades", f"{len(names)}: {fold_names(names)}" if names else "none yet: `bladeroot blades add`"),
        ("secret key", f"{made.secret_key_path} (key id {made.public_key.key_id}): back it up"),
    ]
    out.facts(facts, make_facts(shown))
    return 0


def _split_blades(text: str) -> tuple[str, str]:
    nodeset, equals, role = text.rpartition("=")
    if not equals or not nodeset or not role:
        raise UsageError(f"--blades {text!r} names no role", "write it as --blades 'web[01-40]=web'")
    return nodeset, role


def _choose_passphrase(args: argparse.Namespace) -> str | None:
    if args.passphrase_file is not None:
        return read_passphrase_file(args.passphrase_file)
    if args.no_passphrase:
        return None
    file = os.environ.get("BLADEROOT_PASSPHRASE_FILE")
    if file:
        return read_passphrase_file(Path(file))
    if not sys.stdin.isatty() or args.json:
        return None
    for _ in range(_PASSPHRASE_TRIES):
        first = ask_secret("Passphrase for the operator's key (empty for none): ")
        if not first or ask_secret("The same again: ") == first:
            return first or None
        print("They differ.", file=sys.stderr)
    raise SigningKeyError("the two passphrases differ", "nothing was made: try again")
