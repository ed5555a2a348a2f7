"""Changes of the inventory, shown and written: what the verbs of `blades` have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs

from bladeroot.errors import UsageError
from bladeroot.ui.cli.options import open_folder
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import DRY_RUN_LINE

if TYPE_CHECKING:
    from bladeroot.core.cluster import Blade, Cluster
    from bladeroot.core.inventory import InventoryChange

NODESETS = """
A NODESET is what ClusterShell calls one: web[01-40], db1,db2, @web (a role), @all, web[01-40,!07], a!b, a&b.
"""


def apply_change(args: argparse.Namespace, out: Output, change: Callable[[Cluster], Cluster]) -> int:
    """Show what the change comes to, and write it unless it is a dry run."""
    from bladeroot.core.inventory import compare_blades

    folder = open_folder(args)
    after = change(folder.cluster)
    difference = compare_blades(folder.cluster, after)
    if difference and not args.dry_run:
        folder.save(after)
    facts = {
        "dry_run": args.dry_run,
        "added": [attrs.asdict(blade) for blade in difference.added],
        "removed": [blade.name for blade in difference.removed],
        "changed": {
            name: {key: {"before": old, "after": new} for key, (old, new) in keys.items()}
            for name, keys in difference.changed.items()
        },
    }
    lines = _render_change(difference) or ["nothing to change"]
    if args.dry_run and difference:
        lines.append(DRY_RUN_LINE)
    out.facts(facts, "" if out.quiet else "\n".join(lines))
    if difference and not args.dry_run:
        out.say("`bladeroot publish` makes it known to blades")
    return 0


def choose_blades(cluster: Cluster, nodeset: str | None) -> list[Blade]:
    """Those of a nodeset, or all. Raises InventoryError."""
    from bladeroot.core.nodesets import find_blades, sort_names

    if nodeset is None:
        return [cluster.blades[name] for name in sort_names(cluster.blades)]
    return find_blades(nodeset, cluster)


def choose_names(cluster: Cluster, nodeset: str) -> list[str]:
    """The names of those of a nodeset. Raises InventoryError."""
    return [blade.name for blade in choose_blades(cluster, nodeset)]


def only_role(cluster: Cluster) -> str:
    """The role of whom none is given. Raises UsageError where there are several."""
    if len(cluster.roles) == 1:
        return next(iter(cluster.roles))
    hint = (
        f"--role, one of: {', '.join(cluster.roles)}"
        if cluster.roles
        else "add a [roles.NAME] to cluster.toml"
    )
    raise UsageError("no role is given", hint)


def _render_change(change: InventoryChange) -> list[str]:
    lines = []
    for blade in change.added:
        words = [f"role={blade.role}", *(f"mac={mac}" for mac in blade.macs)]
        words += [f"address={blade.address}"] if blade.address else []
        lines.append(f"+ {blade.name}  {' '.join(words)}")
    for name, keys in change.changed.items():
        told = "; ".join(f"{key}: {_plain(old)} -> {_plain(new)}" for key, (old, new) in keys.items())
        lines.append(f"~ {name}  {told}")
    lines += [f"- {blade.name}" for blade in change.removed]
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={item}" for name, item in value.items()) or "-"
    if isinstance(value, (tuple, list)):
        return " ".join(map(str, value)) or "-"
    return "-" if value is None else str(value)
