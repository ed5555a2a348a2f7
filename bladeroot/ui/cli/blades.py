"""`bladeroot blades`: the inventory's blades, listed and changed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from bladeroot.errors import ConfigError, InventoryError, UsageError
from bladeroot.ui.cli import bladesroom
from bladeroot.ui.cli.options import open_folder
from bladeroot.ui.cli.output import Output, make_table
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb, add_verbs

if TYPE_CHECKING:
    from bladeroot.core.cluster import Blade, Cluster
    from bladeroot.core.inventory import InventoryChange

_NODESETS = """
A NODESET is what ClusterShell calls one: web[01-40], db1,db2, @web (a role), @all, web[01-40,!07], a!b, a&b.
"""
_EXPORT_FORMATS = ("csv", "json", "hosts", "dnsmasq")


def add_parser(verbs: Verbs) -> None:
    """`blades list|show|add|set|remove|replace|strangers|adopt|import|export`."""
    parser = add_verb(
        verbs,
        "blades",
        summary="the inventory: list, show, add, change, replace, adopt, import, export",
        description="The blades in cluster.toml. What is changed here reaches blades with the next "
        f"`bladeroot publish`.\n{_NODESETS}",
        files=[("cluster.toml", "in the cluster folder; edited in place, comments and order stay")],
        errors=[ConfigError, InventoryError],
        see="`bladeroot help publish`, `bladeroot help overlay`",
    )
    actions = add_verbs(parser)
    _add_list(actions)
    bladesroom.add_show(actions)
    _add_add(actions)
    _add_set(actions)
    _add_remove(actions)
    _add_replace(actions)
    bladesroom.add_strangers(actions)
    bladesroom.add_adopt(actions, _apply)
    _add_import(actions)
    _add_export(actions)


def _add_list(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "list",
        run=run_list,
        summary="the blades and what is known of them",
        description=_NODESETS,
        examples=[
            ("bladeroot blades list @web", "the blades of a role"),
            ("bladeroot blades list --json | jq -r '.[].name'", "names, for a script"),
        ],
    )
    parser.add_argument("nodeset", nargs="?", metavar="NODESET", help="which blades (default: all)")


def _add_add(actions: Verbs) -> None:
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
    parser.add_argument(
        "--priority", type=int, default=0, metavar="N", help="higher becomes root first (default: 0)"
    )
    parser.add_argument(
        "--fact", action="append", default=[], metavar="NAME=VALUE", help="for templates; may be repeated"
    )
    add_dry_run(parser)


def _add_set(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "set",
        run=run_set,
        summary="change what is known of blades",
        description="""
Keys: role, macs, uuid, address, disk, layout, rack, priority, and fact.NAME for templates. An empty value
puts back the default. For a set, macs is one for each blade, separated by commas, and address is the
first of a range.
""",
        examples=[
            ("bladeroot blades set @db disk=fast rack=r2", "another disk rule and rack for a role's blades"),
            ("bladeroot blades set web01 fact.colour=", "forget a fact"),
        ],
    )
    parser.add_argument("nodeset", metavar="NODESET", help="which blades")
    parser.add_argument("settings", nargs="+", metavar="KEY=VALUE", help="what to change")
    add_dry_run(parser)


def _add_remove(actions: Verbs) -> None:
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


def _add_replace(actions: Verbs) -> None:
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


def _add_import(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "import",
        run=run_import,
        summary="add and change blades from a file",
        description="""
Reads CSV with a header (name, role, macs, address, uuid, disk, layout, rack, priority; in any order, only
name is needed; several MACs separated by blanks), dnsmasq's dhcp-host= lines, or dhcpd's host { … };
which one it is shows by itself. A blade that is known is changed in what the file says of it; none is
removed.
""",
        examples=[
            ("bladeroot blades import room.csv --dry-run", "see what would change"),
            ("bladeroot blades import /etc/dnsmasq.d/hosts --role web --prefix 24", "from a DHCP server"),
        ],
    )
    parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
    parser.add_argument("--role", help="the role of blades that the file gives none (default: the only one)")
    parser.add_argument(
        "--prefix", type=int, metavar="LENGTH", help="the prefix length of addresses without one"
    )
    add_dry_run(parser)


def _add_export(actions: Verbs) -> None:
    parser = add_verb(
        actions,
        "export",
        run=run_export,
        summary="write blades for other programs",
        description="csv reads back with `blades import`; hosts is for /etc/hosts; dnsmasq for dhcp-host=.",
        examples=[("bladeroot blades export --format hosts >> /etc/hosts", "names for this machine")],
    )
    parser.add_argument("nodeset", nargs="?", metavar="NODESET", help="which blades (default: all)")
    formats = f"{', '.join(_EXPORT_FORMATS)} (default: csv)"
    parser.add_argument("--format", choices=_EXPORT_FORMATS, default="csv", metavar="FORMAT", help=formats)


def run_list(args: argparse.Namespace, out: Output) -> int:
    """Print blades."""
    blades = _choose(open_folder(args).cluster, args.nodeset)
    out.facts([attrs.asdict(blade) for blade in blades], lambda: _render_blades(blades))
    return 0


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
            role=args.role or _only_role(cluster),
            uuid=args.uuid,
            disk=args.disk,
            layout=args.layout,
            rack=args.rack,
            priority=args.priority,
            facts=facts,
        )
        return add_blades(cluster, blades)

    return _apply(args, out, change)


def run_set(args: argparse.Namespace, out: Output) -> int:
    """Change blades."""
    from bladeroot.core.inventory import set_blades

    settings = dict(_split_setting(text, "setting") for text in args.settings)
    return _apply(
        args, out, lambda cluster: set_blades(cluster, _choose_names(cluster, args.nodeset), settings)
    )


def run_remove(args: argparse.Namespace, out: Output) -> int:
    """Remove blades."""
    from bladeroot.core.inventory import remove_blades

    return _apply(args, out, lambda cluster: remove_blades(cluster, _choose_names(cluster, args.nodeset)))


def run_replace(args: argparse.Namespace, out: Output) -> int:
    """Give a blade another machine."""
    from bladeroot.core.inventory import replace_blade

    return _apply(args, out, lambda cluster: replace_blade(cluster, args.name, args.mac, args.uuid))


def run_import(args: argparse.Namespace, out: Output) -> int:
    """Merge a file into the inventory."""
    from bladeroot.core.inventory import merge_blades
    from bladeroot.core.inventoryfiles import parse_blades

    def change(cluster: Cluster) -> Cluster:
        entries = parse_blades(_read_input(args.file), args.file, role=args.role, prefix_length=args.prefix)
        for entry in entries:
            if "role" not in entry and entry["name"] not in cluster.blades:
                entry["role"] = _only_role(cluster)
        return merge_blades(cluster, entries)

    return _apply(args, out, change)


def run_export(args: argparse.Namespace, out: Output) -> int:
    """Write blades in another program's format."""
    from bladeroot.core import inventoryfiles

    cluster = open_folder(args).cluster
    blades = _choose(cluster, args.nodeset)
    if out.as_json or args.format == "json":
        Output(as_json=True).facts([attrs.asdict(blade) for blade in blades])
    elif args.format == "hosts":
        out.text(inventoryfiles.render_hosts(blades, cluster.network.domain))
    elif args.format == "dnsmasq":
        out.text(inventoryfiles.render_dnsmasq(blades))
    else:
        out.text(inventoryfiles.render_csv(blades))
    return 0


def _apply(args: argparse.Namespace, out: Output, change: Callable[[Cluster], Cluster]) -> int:
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
        lines.append("(nothing was written: --dry-run)")
    out.facts(facts, "" if out.quiet else "\n".join(lines))
    return 0


def _choose(cluster: Cluster, nodeset: str | None) -> list[Blade]:
    from bladeroot.core.nodesets import find_blades, sort_names

    if nodeset is None:
        return [cluster.blades[name] for name in sort_names(cluster.blades)]
    return find_blades(nodeset, cluster)


def _choose_names(cluster: Cluster, nodeset: str) -> list[str]:
    return [blade.name for blade in _choose(cluster, nodeset)]


def _only_role(cluster: Cluster) -> str:
    if len(cluster.roles) == 1:
        return next(iter(cluster.roles))
    hint = (
        f"--role, one of: {', '.join(cluster.roles)}"
        if cluster.roles
        else "add a [roles.NAME] to cluster.toml"
    )
    raise UsageError("no role is given", hint)


def _split_setting(text: str, what: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"{what} {text!r} is not KEY=VALUE", "an empty VALUE puts back the default")
    return key.strip(), value.strip()


def _read_input(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None


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
