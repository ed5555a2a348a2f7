"""`bladeroot blades list|show`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import attrs
from rich.table import Table

from bladeroot.ui.cli.blades.changes import NODESETS, choose_blades
from bladeroot.ui.cli.blades.machines import (
    add_root,
    describe_machine,
    read_states,
)
from bladeroot.ui.cli.options import open_folder
from bladeroot.ui.cli.output import Output, make_facts, make_table
from bladeroot.ui.cli.parser import Verbs, add_verb

if TYPE_CHECKING:
    from bladeroot.core.cluster import Blade
    from bladeroot.core.roomstate import BladeState


def add_list(actions: Verbs) -> None:
    """`blades list`."""
    parser = add_verb(
        actions,
        "list",
        run=run_list,
        summary="the blades and what is known of them",
        description=NODESETS,
        examples=[
            ("bladeroot blades list @web", "the blades of a role"),
            ("bladeroot blades list --json | jq -r '.[].name'", "names, for a script"),
        ],
    )
    parser.add_argument("nodeset", nargs="?", metavar="NODESET", help="which blades (default: all)")


def add_show(actions: Verbs) -> None:
    """`blades show`."""
    parser = add_verb(
        actions,
        "show",
        run=run_show,
        summary="everything that is known of a blade, its hardware too",
        description="What the inventory says, and what the blade itself has told the root: processors, "
        "memory, disks, network cards, firmware, serial numbers. Without a root only the inventory.",
        examples=[
            ("bladeroot blades show web07", "one blade"),
            ("bladeroot blades show web07 --json", "for a script"),
        ],
    )
    parser.add_argument("name", metavar="NAME", help="the blade")
    add_root(parser)


def run_list(args: argparse.Namespace, out: Output) -> int:
    """Print blades."""
    blades = choose_blades(open_folder(args).cluster, args.nodeset)
    out.facts([attrs.asdict(blade) for blade in blades], lambda: _render_blades(blades))
    return 0


def run_show(args: argparse.Namespace, out: Output) -> int:
    """Print a blade."""
    cluster = open_folder(args).cluster
    blade = cluster.blade(args.name)
    state = read_states(args, cluster, out).get(blade.name)
    facts = {
        "blade": attrs.asdict(blade),
        "phase": str(state.phase) if state else None,
        "serial": state.serial if state else None,
        "order": state.order if state else None,
        "hardware": dict(state.hardware) if state else {},
    }
    out.facts(facts, lambda: _render_blade(blade, state))
    return 0


def _render_blades(blades: Iterable[Blade]) -> Any:
    chosen = list(blades)
    if not chosen:
        return "no blades yet: `bladeroot blades add`"
    columns: list[tuple[str, Callable[[Blade], object]]] = [
        ("name", lambda blade: blade.name),
        ("role", lambda blade: blade.role),
        ("macs", lambda blade: " ".join(blade.macs)),
        ("address", lambda blade: blade.address),
    ]
    # what all blades have alike needs no column
    extra: list[tuple[str, Callable[[Blade], object], object]] = [
        ("disk", lambda blade: blade.disk, "only"),
        ("layout", lambda blade: blade.layout, "default"),
        ("rack", lambda blade: blade.rack, None),
        ("location", lambda blade: blade.location, ""),
        ("priority", lambda blade: blade.priority, 0),
        ("uuid", lambda blade: blade.uuid, None),
        ("facts", lambda blade: " ".join(f"{name}={value}" for name, value in blade.facts.items()), ""),
    ]
    columns += [
        (name, value) for name, value, usual in extra if any(value(blade) != usual for blade in chosen)
    ]
    return make_table(
        [name for name, _ in columns], [[value(blade) for _, value in columns] for blade in chosen]
    )


def _render_blade(blade: Blade, state: BladeState | None) -> Table:
    from bladeroot.core.roomstate import BladePhase

    rows: list[tuple[str, object]] = [
        ("role", blade.role),
        ("macs", " ".join(blade.macs)),
        ("uuid", blade.uuid),
        ("address", blade.address),
        ("rack", blade.rack),
        ("location", blade.location),
        ("disk rule", blade.disk),
        ("layout", blade.layout),
        ("facts", " ".join(f"{name}={value}" for name, value in blade.facts.items())),
    ]
    if state is not None:
        reason = f": {state.failure}" if state.failure else ""
        rows += [
            ("state", f"{state.phase}{reason}"),
            ("what to do", state.hint if state.phase in (BladePhase.HELD, BladePhase.FAILED) else ""),
            ("generation", state.serial),
            ("last order", state.order),
        ]
        rows += describe_machine(state.hardware)
    return make_facts([("blade", blade.name), *((name, value) for name, value in rows if value)])
