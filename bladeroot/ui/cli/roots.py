"""`bladeroot roots`: who claims to be root."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.ui.cli.options import open_folder, parse_seconds
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.ops.roots import RootLine, RootList

_DEFAULT_WAIT_S = 3.0


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "roots",
        run=run,
        summary="who claims to be root, and who is followed",
        description="""
Listens for announcements, asks everybody who announces itself or is named in cluster.toml (`roots`), and
shows each claim. Blades follow the one that answers and has the highest epoch; each time that the role
moves, the epoch grows.

There are two for some seconds while the role moves, or where a split network comes together again. Two
different generations under one serial are said at the end: both are kept, and blades go on with what they
have; publish the one that you mean once more.

Exit code 0 if there is a root.
""",
        examples=[
            ("bladeroot roots", "the claims"),
            ("bladeroot roots --json | jq -r .root", "the root's name, for a script"),
        ],
        errors=[NoRootFoundError, NetworkError],
        see="`bladeroot help promote`, `bladeroot help demote`, `bladeroot help status`",
    )
    parser.add_argument("--root", metavar="HOST:PORT", help="ask this one too")
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=_DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to listen (default: 3)",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Listen, ask, print."""
    from bladeroot.ops.roots import find_roots, to_facts

    folder = open_folder(args)
    roots = find_roots(folder.cluster, wait_s=args.wait, also=args.root)
    if not roots.lines:
        text = f"no root of cluster {folder.cluster.name} in {roots.looked_s:.0f} s"
        raise NoRootFoundError(
            text, "`bladeroot promote` on a blade makes one; `bladeroot status` looks closer"
        )
    out.facts(to_facts(roots), "\n".join(_render(roots)))
    return 0 if roots.root is not None else NoRootFoundError.exit_code


def _render(roots: RootList) -> list[str]:
    rows = [("BLADE", "STATE", "EPOCH", "GENERATION", "WHERE", "")]
    rows += [_row(line, roots) for line in roots.lines]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[5]]).rstrip()
        for row in rows
    ]
    lines += [
        f"two different generations {serial}: publish the one that you mean once more"
        for serial in roots.twins
    ]
    return lines


def _row(line: RootLine, roots: RootList) -> tuple[str, str, str, str, str, str]:
    claim = line.claim
    if claim is None:
        return ("?", "silent", "", "", line.where, "named in cluster.toml, does not answer")
    notes = []
    if roots.root is not None and (claim.blade, claim.epoch) == (roots.root.blade, roots.root.epoch):
        notes.append("is followed")
    if not line.answers:
        notes.append("does not answer")
    if not line.is_announced:
        notes.append("beyond multicast")
    generation = f"{claim.serial} ({claim.manifest_hash[:8]})"
    return (claim.blade, str(claim.state), str(claim.epoch), generation, line.where, ", ".join(notes))
