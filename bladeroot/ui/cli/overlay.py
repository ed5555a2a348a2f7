"""`bladeroot overlay`: what a blade gets on top of the snapshot, and how two blades differ."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bladeroot.errors import InventoryError, OverlayError, SnapshotError
from bladeroot.ui.cli.options import open_folder
from bladeroot.ui.cli.output import Output, make_printable, make_table
from bladeroot.ui.cli.parser import Parser, Verbs, add_verb, add_verbs

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bladeroot.core.overlaytree import OverlayEntry
    from bladeroot.ops.overlays import OverlayPlan

_LAYERS = (
    "Layers, the later wins: bladeroot's own (host name, hosts, network, cluster.toml and trusted keys), "
    "cluster, role, blade. Each has files/, laid over /, with *.j2 as templates, hooks/, and overlay.toml "
    "with deletions, modes and services."
)
_HOOKS = (
    "Hooks are programs in hooks/WHEN/NAME (or NAME.j2), WHEN being pre-install (in the agent, before the "
    "disk is touched: /bin/sh and python3 are there, little else), post-install (in the installed tree, by "
    "chroot, before it can boot; extras are not there yet) or first-boot (on the blade, once it is up; its "
    "extras may still be on their way; each until it has ended well once). They are in /etc/bladeroot/hooks "
    "on the blade, and run in the order of names. A later layer's of the same name replaces; an empty file "
    "there, or `delete` in overlay.toml, takes away.\n\n"
    "A hook has 300 seconds, then it is killed. One that fails, fails the install: nothing is committed, and "
    "what the disk booted before, if it still can, it boots. What hooks say goes to the root and to the "
    "blade's /var/log/bladeroot/hooks.log. In their environment: BLADEROOT_BLADE, _ROLE, _CLUSTER, _SERIAL, "
    "_ADDRESS, _MACS, _UUID, _DISK, _FIRMWARE (bios, uefi), _ROOT_ADDRESS, _RACK, _LOCATION, _HOOK "
    "(WHEN/NAME), and BLADEROOT_FACT_NAME for each of the blade's facts."
)


def add_parser(verbs: Verbs) -> None:
    """`overlay show|diff`."""
    parser = add_verb(
        verbs,
        "overlay",
        summary="what makes a blade itself: show it, compare two",
        description=f"{_LAYERS}\n\n{_HOOKS}",
        files=[
            ("overlays/cluster/", "in the cluster folder: the layer of all blades"),
            ("overlays/role/ROLE/", "the layer of a role's blades"),
            ("overlays/blade/NAME/", "the layer of one blade"),
            ("overlays/cluster/hooks/post-install/10-NAME", "a hook of all blades"),
        ],
        errors=[OverlayError, InventoryError, SnapshotError],
        see="`bladeroot help publish`",
    )
    actions = add_verbs(parser)
    _add_show(actions)
    _add_diff(actions)


def _add_show(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "show",
        run=run_show,
        summary="what a blade will get, and from which layer",
        description=f"{_LAYERS}\n\nWithout --snapshot services are listed as switches; with it, as the links "
        "that they come to, and what replaces a file of the snapshot is marked.",
        examples=[
            ("bladeroot overlay show web01", "everything that makes web01 itself"),
            ("bladeroot overlay show web01 --snapshot /srv/snapshots/bookworm", "the same, with links"),
            ("bladeroot overlay show web01 --file /etc/hosts", "one file as web01 will have it"),
        ],
    )
    parser.add_argument("blade", metavar="BLADE", help="its name")
    parser.add_argument("--file", metavar="PATH", help="print this file of the overlay instead of the list")
    _add_snapshot(parser)


def _add_diff(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "diff",
        run=run_diff,
        summary="how the overlays of two blades differ",
        description="As `diff -u`: texts line by line, and entries, modes, owners and services. Nothing is "
        "printed where there is no difference.",
        examples=[("bladeroot overlay diff web01 cache01", "what web01 has that cache01 has not")],
    )
    parser.add_argument("blade", metavar="A", help="a blade's name")
    parser.add_argument("other", metavar="B", help="another one's")
    _add_snapshot(parser)


def _add_snapshot(parser: Parser) -> None:
    parser.add_argument(
        "--snapshot", type=Path, metavar="PATH", help="the snapshot that it will be laid over"
    )


def run_show(args: argparse.Namespace, out: Output) -> int:
    """Print a blade's entries, switches and notes; or one file."""
    (plan,) = plan_overlays(args, [args.blade])
    if args.file is not None:
        out.text(_find_file(plan, args.file).content.decode("utf-8", "replace"))
        return 0
    out.facts(describe_plan(plan), lambda: _render_plan(plan))
    for note in plan.notes:
        out.warn(note)
    if not plan.with_snapshot:
        out.say("services are switches here; --snapshot PATH shows the links that they come to")
    return 0


def run_diff(args: argparse.Namespace, out: Output) -> int:
    """Print a unified diff of two blades."""
    first, second = plan_overlays(args, [args.blade, args.other])
    lines = list(diff_plans(first, second))
    out.facts({"from": first.blade, "to": second.blade, "diff": lines}, "\n".join(map(make_printable, lines)))
    return 0


def plan_overlays(args: argparse.Namespace, names: list[str]) -> list[OverlayPlan]:
    """The plans of the blades of these names, by the global options and --snapshot."""
    from bladeroot.ops.overlays import OverlayBuilder

    folder = open_folder(args)
    blades = [folder.cluster.blade(name) for name in names]
    keys = {path.name: path.read_bytes() for path in sorted(folder.trusted_keys_path.glob("*.pub"))}
    text = folder.file.read_text(encoding="utf-8")
    builder = OverlayBuilder(folder.cluster, folder.overlays, keys, text, args.snapshot, folder.read_rules())
    return [builder.plan(blade) for blade in blades]


def describe_plan(plan: OverlayPlan) -> dict[str, Any]:
    """The plan for programs. Sizes in bytes, modes in octal."""
    return {
        "blade": plan.blade,
        "with_snapshot": plan.with_snapshot,
        "layers": list(plan.layers),
        "entries": [
            {
                "path": "/" + entry.path,
                "kind": str(entry.kind),
                "layer": entry.layer,
                "overrides": list(entry.overrides),
                "source": entry.source,
                "size_bytes": len(entry.content),
                "mode": f"{entry.mode:04o}",
                "owner": entry.owner,
                "group": entry.group,
                "target": entry.target or None,
            }
            for entry in plan.entries
        ],
        "services": [
            {
                "unit": switch.unit,
                "action": str(switch.action),
                "layer": switch.layer,
                "overrides": list(switch.overrides),
                "changes": ["/" + path for path in switch.changes],
            }
            for switch in plan.switches
        ],
        "hooks": [
            {
                "when": str(hook.when),
                "name": hook.name,
                "layer": hook.layer,
                "overrides": list(hook.overrides),
                "source": hook.source,
            }
            for hook in plan.hooks
        ],
        "notes": list(plan.notes),
    }


def diff_plans(first: OverlayPlan, second: OverlayPlan) -> Iterator[str]:
    """A unified diff, line by line: services, then every path that differs."""
    yield from _diff_texts("services", _service_lines(first), _service_lines(second), first, second)
    left = {entry.path: entry for entry in first.entries}
    right = {entry.path: entry for entry in second.entries}
    for path in sorted(left.keys() | right.keys()):
        texts = [_entry_lines(side.get(path)) for side in (left, right)]
        yield from _diff_texts("/" + path, texts[0], texts[1], first, second)


def _diff_texts(
    name: str, before: list[str], after: list[str], first: OverlayPlan, second: OverlayPlan
) -> Iterator[str]:
    return difflib.unified_diff(
        before, after, f"{first.blade}:{name}", f"{second.blade}:{name}", lineterm="", n=2
    )


def _service_lines(plan: OverlayPlan) -> list[str]:
    return [f"{switch.action} {switch.unit}" for switch in plan.switches]


def _entry_lines(entry: OverlayEntry | None) -> list[str]:
    if entry is None:
        return []
    if entry.kind == "deletion":
        return ["# deleted"]
    head = f"# {entry.kind}, {entry.mode:04o} {entry.owner}:{entry.group}"
    if entry.target:
        return [f"{head}, -> {entry.target}"]
    try:
        return [head, *entry.content.decode("utf-8").splitlines()]
    except UnicodeDecodeError:
        import hashlib

        return [head, f"# {len(entry.content)} bytes, SHA-256 {hashlib.sha256(entry.content).hexdigest()}"]


def _find_file(plan: OverlayPlan, path: str) -> OverlayEntry:
    for entry in plan.entries:
        if "/" + entry.path == "/" + path.strip("/") and entry.kind == "file":
            return entry
    hint = f"`bladeroot overlay show {plan.blade}` lists its files"
    raise OverlayError(f"the overlay of {plan.blade} has no file {path}", hint)


def _render_plan(plan: OverlayPlan) -> RenderableType:
    from rich.console import Group

    entries = make_table(
        ["path", "what", "mode", "owner", "size", "layer", "instead of"],
        (
            (
                make_printable(f"/{entry.path}" + (f" -> {entry.target}" if entry.target else "")),
                entry.kind,
                "" if entry.kind == "deletion" else f"{entry.mode:04o}",
                "" if entry.kind == "deletion" else f"{entry.owner}:{entry.group}",
                len(entry.content) if entry.kind == "file" else "",
                entry.layer,
                ", ".join(entry.overrides),
            )
            for entry in plan.entries
            if plan.with_snapshot or entry.kind != "directory"  # most are the snapshot's own
        ),
        right=["size"],
    )
    services = make_table(
        ["service", "switch", "layer", "instead of", "links"],
        (
            (
                switch.unit,
                switch.action,
                switch.layer,
                ", ".join(switch.overrides),
                _links(switch.changes, plan),
            )
            for switch in plan.switches
        ),
    )
    hooks = make_table(
        ["hook", "name", "layer", "instead of"],
        ((hook.when, hook.name, hook.layer, ", ".join(hook.overrides)) for hook in plan.hooks),
    )
    parts: list[RenderableType] = [entries]
    parts += ["", services] if plan.switches else []
    parts += ["", hooks] if plan.hooks else []
    return Group(*parts)


def _links(changes: tuple[str, ...], plan: OverlayPlan) -> str:
    if not plan.with_snapshot:
        return "?"
    return str(len(changes)) if changes else "as in the snapshot"
