"""`bladeroot blades import|export`: the inventory and other programs' files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from bladeroot.errors import ConfigError
from bladeroot.ui.cli.blades.changes import apply_change, choose_blades, only_role
from bladeroot.ui.cli.options import open_folder
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb

if TYPE_CHECKING:
    from bladeroot.core.cluster import Cluster

_EXPORT_FORMATS = ("csv", "json", "hosts", "dnsmasq")


def add_import(actions: Verbs) -> None:
    """`blades import`."""
    parser = add_verb(
        actions,
        "import",
        run=run_import,
        summary="add and change blades from a file",
        description="""
Reads CSV with a header (name, role, macs, address, uuid, disk, layout, rack, location, priority; in any
order, only name is needed; several MACs separated by blanks), dnsmasq's dhcp-host= lines, or dhcpd's
host { … }; which one it is shows by itself. A blade that is known is changed in what the file says of it;
none is removed.
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


def add_export(actions: Verbs) -> None:
    """`blades export`."""
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


def run_import(args: argparse.Namespace, out: Output) -> int:
    """Merge a file into the inventory."""
    from bladeroot.core.inventory import merge_blades
    from bladeroot.core.inventoryfiles import parse_blades

    def change(cluster: Cluster) -> Cluster:
        entries = parse_blades(_read_input(args.file), args.file, role=args.role, prefix_length=args.prefix)
        for entry in entries:
            if "role" not in entry and entry["name"] not in cluster.blades:
                entry["role"] = only_role(cluster)
        return merge_blades(cluster, entries)

    return apply_change(args, out, change)


def run_export(args: argparse.Namespace, out: Output) -> int:
    """Write blades in another program's format."""
    from bladeroot.core import inventoryfiles

    cluster = open_folder(args).cluster
    blades = choose_blades(cluster, args.nodeset)
    if out.as_json or args.format == "json":
        Output(as_json=True).facts([attrs.asdict(blade) for blade in blades])
    elif args.format == "hosts":
        out.text(inventoryfiles.render_hosts(blades, cluster.network.domain))
    elif args.format == "dnsmasq":
        out.text(inventoryfiles.render_dnsmasq(blades))
    else:
        out.text(inventoryfiles.render_csv(blades))
    return 0


def _read_input(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from None
