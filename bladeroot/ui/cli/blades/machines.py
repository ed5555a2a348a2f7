"""Machines as they told a root of themselves, in words for people."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bladeroot.errors import NetworkError
from bladeroot.ui.cli.options import parse_seconds
from bladeroot.ui.cli.output import Output

if TYPE_CHECKING:
    from bladeroot.core.cluster import Cluster
    from bladeroot.core.roomstate import BladeState

_DEFAULT_WAIT_S = 5.0


def add_root(parser: argparse.ArgumentParser) -> None:
    """Which root to ask, and how long to look for one."""
    parser.add_argument("--root", metavar="HOST:PORT", help="ask this root")
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=_DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to look for a root (default: 5)",
    )


def ask_root(args: argparse.Namespace, cluster: Cluster) -> Mapping[str, BladeState]:
    """What the root knows. Raises NetworkError."""
    from bladeroot.ops.status import find_room, read_status

    return read_status(find_room(cluster, root=args.root, wait_s=args.wait)).blades


def read_states(args: argparse.Namespace, cluster: Cluster, out: Output) -> Mapping[str, BladeState]:
    """What the root knows; without one nothing, unless one was named."""
    try:
        return ask_root(args, cluster)
    except NetworkError as error:
        if args.root is not None:
            raise
        out.say(f"no root tells more: {error}")
        return {}


def describe_machine(hardware: Mapping[str, Any]) -> list[tuple[str, object]]:
    """What it is made of, as rows for people. What the machine did not tell is empty."""
    from bladeroot.core.sizes import render_about

    memory = _number(hardware.get("memory_bytes"))
    rows: list[tuple[str, object]] = [
        ("machine", _join(hardware, "vendor", "product")),
        ("serial", hardware.get("serial")),
        ("smbios uuid", hardware.get("uuid")),
        ("firmware", _join(hardware, "firmware", "firmware_version")),
        ("processors", _describe_processors(hardware)),
        ("memory", render_about(memory) if memory else ""),
    ]
    rows += [("disk", _describe_disk(disk)) for disk in _list_tables(hardware, "disks")]
    rows += [("network card", _describe_nic(nic)) for nic in _list_tables(hardware, "nics")]
    return rows


def _join(hardware: Mapping[str, Any], *keys: str) -> str:
    return " ".join(str(hardware[key]) for key in keys if hardware.get(key))


def _describe_processors(hardware: Mapping[str, Any]) -> str:
    return f"{hardware['cpus']} x {hardware.get('cpu_model') or '?'}" if hardware.get("cpus") else ""


def _describe_disk(disk: Mapping[str, Any]) -> str:
    from bladeroot.core.sizes import render_about

    facts = [disk.get("model"), disk.get("serial") and f"serial {disk['serial']}", disk.get("transport")]
    told = ", ".join(str(fact) for fact in (render_about(_number(disk.get("size_bytes"))), *facts) if fact)
    return f"{disk.get('name')} ({told})"


def _describe_nic(nic: Mapping[str, Any]) -> str:
    link = f"{nic.get('speed_mbits') or '?'} Mb/s" if nic.get("has_link") else "no link"
    return f"{nic.get('name')} {nic.get('mac')} ({nic.get('driver') or '?'}, {link})"


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _list_tables(hardware: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A list of tables that a machine on the network told of; whatever is none is left out."""
    found = hardware.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list | tuple) else []
