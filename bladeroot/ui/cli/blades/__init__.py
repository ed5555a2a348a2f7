"""`bladeroot blades`: the inventory's blades, listed and changed."""

from __future__ import annotations

from bladeroot.errors import ConfigError, InventoryError
from bladeroot.ui.cli.blades import edit, files, show, strangers
from bladeroot.ui.cli.blades.changes import NODESETS
from bladeroot.ui.cli.parser import Verbs, add_verb, add_verbs


def add_parser(verbs: Verbs) -> None:
    """`blades list|show|add|set|remove|replace|strangers|adopt|import|export`."""
    parser = add_verb(
        verbs,
        "blades",
        summary="the inventory: list, show, add, change, replace, adopt, import, export",
        description="The blades in cluster.toml. What is changed here reaches blades with the next "
        f"`bladeroot publish`.\n{NODESETS}",
        files=[("cluster.toml", "in the cluster folder; edited in place, comments and order stay")],
        errors=[ConfigError, InventoryError],
        see="`bladeroot help publish`, `bladeroot help overlay`",
    )
    actions = add_verbs(parser)
    show.add_list(actions)
    show.add_show(actions)
    edit.add_add(actions)
    edit.add_set(actions)
    edit.add_remove(actions)
    edit.add_replace(actions)
    strangers.add_strangers(actions)
    strangers.add_adopt(actions)
    files.add_import(actions)
    files.add_export(actions)
