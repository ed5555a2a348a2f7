"""`bladeroot blades show|strangers|adopt`: machines as a root knows them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.ui.cli.options import open_folder, parse_seconds
from bladeroot.ui.cli.output import Output, make_printable, make_table
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb

if TYPE_CHECKING:
    from bladeroot.core.cluster import Blade, Cluster
    from bladeroot.core.reports import BladeState

_DEFAULT_WAIT_S = 5.0
_Apply = Callable[[argparse.Namespace, Output, "Callable[[Cluster], Cluster]"], int]


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
    _add_root(parser)


def add_strangers(actions: Verbs) -> None:
    """`blades strangers`."""
    parser = add_verb(
        actions,
        "strangers",
        run=run_strangers,
        summary="machines that netboot and are not in the inventory",
        description="They wait, and nothing on their disks is touched, until one is adopted.",
        examples=[("bladeroot blades strangers", "who waits")],
        errors=[NoRootFoundError, NetworkError],
    )
    _add_root(parser)


def add_adopt(actions: Verbs, apply: _Apply) -> None:
    """`blades adopt`; `apply` changes the inventory."""
    parser = add_verb(
        actions,
        "adopt",
        run=lambda args, out: run_adopt(args, out, apply),
        summary="make a stranger a blade",
        description="Takes over the MAC address and UUID of a machine that waits. NAME is a new blade (with "
        "--role), or one of the inventory that has no MAC address yet. The machine goes on by itself as soon "
        "as `bladeroot publish` has made it known.",
        examples=[
            ("bladeroot blades adopt 52:54:00:aa:bb:07 web07 --role web", "as a new blade"),
            ("bladeroot blades adopt stranger-525400aabb07 spare03", "as a blade that had no machine"),
        ],
    )
    parser.add_argument("machine", metavar="MAC", help="its MAC address, or what `blades strangers` calls it")
    parser.add_argument("name", metavar="NAME", help="which blade it becomes")
    parser.add_argument("--role", help="its role; needed for a new blade")
    _add_root(parser)
    add_dry_run(parser)


def run_show(args: argparse.Namespace, out: Output) -> int:
    """Print a blade."""
    cluster = open_folder(args).cluster
    blade = cluster.blade(args.name)
    state = _read_states(args, cluster, out).get(blade.name)
    facts = {
        "blade": attrs.asdict(blade),
        "phase": str(state.phase) if state else None,
        "serial": state.serial if state else None,
        "order": state.order if state else None,
        "hardware": dict(state.hardware) if state else {},
    }
    out.facts(facts, lambda: "\n".join(_describe(blade, state)))
    return 0


def run_strangers(args: argparse.Namespace, out: Output) -> int:
    """Print who waits."""
    from bladeroot.core.reports import is_stranger

    cluster = open_folder(args).cluster
    states = _ask(args, cluster)
    strangers = [state for name, state in sorted(states.items()) if is_stranger(name)]
    facts = [
        {
            "name": state.blade,
            "phase": str(state.phase),
            "reason": state.failure,
            "hardware": dict(state.hardware),
        }
        for state in strangers
    ]
    columns = ["stranger", "macs", "uuid", "machine", "memory", "disks", "says"]
    out.facts(
        facts, lambda: make_table(columns, [_row(state) for state in strangers]) if strangers else "none"
    )
    return 0


def run_adopt(args: argparse.Namespace, out: Output, apply: _Apply) -> int:
    """Change the inventory."""
    from bladeroot.core.cluster import parse_mac
    from bladeroot.core.inventory import adopt_machine
    from bladeroot.core.reports import is_stranger, stranger_name

    mac = parse_mac(args.machine.removeprefix("stranger-") if is_stranger(args.machine) else args.machine)
    state = _read_states(args, open_folder(args).cluster, out).get(stranger_name(mac))
    uuid = _usable_uuid(str(state.hardware.get("uuid") or "")) if state else None
    code = apply(args, out, lambda cluster: adopt_machine(cluster, args.name, mac, uuid, args.role))
    out.say("`bladeroot publish` makes it known; the machine goes on by itself then")
    return code


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", metavar="HOST:PORT", help="ask this root")
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=_DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to look for a root (default: 5)",
    )


def _ask(args: argparse.Namespace, cluster: Cluster) -> Mapping[str, BladeState]:
    from bladeroot.ops.status import find_room, read_status

    return read_status(find_room(cluster, root=args.root, wait_s=args.wait)).blades


def _read_states(args: argparse.Namespace, cluster: Cluster, out: Output) -> Mapping[str, BladeState]:
    """What the root knows; without one nothing."""
    try:
        return _ask(args, cluster)
    except NetworkError as error:
        out.say(f"no root tells more: {error}")
        return {}


def _usable_uuid(text: str) -> str | None:
    """A UUID that is one machine's: some boards all have the same, of zeros or of ones."""
    digits = set(text.lower().replace("-", ""))
    return text if len(digits) > 1 else None


def _describe(blade: Blade, state: BladeState | None) -> list[str]:
    from bladeroot.core.sizes import render_about

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
            ("generation", state.serial),
            ("last order", state.order),
        ]
        hardware = state.hardware
        rows += [
            ("machine", f"{hardware.get('vendor') or ''} {hardware.get('product') or ''}".strip()),
            ("serial", hardware.get("serial")),
            ("smbios uuid", hardware.get("uuid")),
            ("processors", _processors(hardware)),
            ("memory", render_about(_number(hardware.get("memory_bytes"))) if hardware else ""),
            (
                "firmware",
                f"{hardware.get('firmware') or ''} {hardware.get('firmware_version') or ''}".strip(),
            ),
        ]
        rows += [("disk", _disk(disk)) for disk in _tables(hardware, "disks")]
        rows += [("network card", _nic(nic)) for nic in _tables(hardware, "nics")]
    shown = [(name, make_printable(str(value))) for name, value in rows if value]
    return [blade.name, *(f"  {name:<13} {value}" for name, value in shown)]


def _row(state: BladeState) -> list[object]:
    from bladeroot.core.sizes import render_about

    hardware = state.hardware
    return [
        state.blade,
        " ".join(str(nic.get("mac") or "") for nic in _tables(hardware, "nics")),
        hardware.get("uuid"),
        f"{hardware.get('vendor') or ''} {hardware.get('product') or ''}".strip(),
        render_about(_number(hardware.get("memory_bytes"))),
        ", ".join(_disk(disk) for disk in _tables(hardware, "disks")),
        state.failure or str(state.phase),
    ]


def _processors(hardware: Mapping[str, Any]) -> str:
    return f"{hardware['cpus']} x {hardware.get('cpu_model') or '?'}" if hardware.get("cpus") else ""


def _disk(disk: Mapping[str, Any]) -> str:
    from bladeroot.core.sizes import render_about

    facts = [disk.get("model"), disk.get("serial") and f"serial {disk['serial']}", disk.get("transport")]
    told = ", ".join(str(fact) for fact in (render_about(_number(disk.get("size_bytes"))), *facts) if fact)
    return f"{disk.get('name')} ({told})"


def _nic(nic: Mapping[str, Any]) -> str:
    link = f"{nic.get('speed_mbits') or '?'} Mb/s" if nic.get("has_link") else "no link"
    return f"{nic.get('name')} {nic.get('mac')} ({nic.get('driver') or '?'}, {link})"


def _number(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _tables(hardware: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    """A list of tables that a machine on the network told of; whatever is none is left out."""
    found = hardware.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list | tuple) else []
