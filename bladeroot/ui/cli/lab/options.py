"""Options that verbs of `bladeroot lab` share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bladeroot.errors import UsageError
from bladeroot.ui.cli.options import parse_count

if TYPE_CHECKING:
    from bladeroot.lab.vmcluster import VmClusterOptions

DEFAULT_WORK = Path("/var/lib/bladeroot-lab")
DEFAULT_RUN_WORK = Path("/var/tmp/bladeroot-run")  # noqa: S108 - root's own, emptied first, and named in the help
MARKER = ".bladeroot-lab"


def add_work(parser: argparse.ArgumentParser) -> None:
    """`--work DIR`."""
    parser.add_argument(
        "--work",
        type=Path,
        default=DEFAULT_WORK,
        metavar="DIR",
        help=f"the lab's folder (default: {DEFAULT_WORK})",
    )


def add_run_work(parser: argparse.ArgumentParser) -> None:
    """`--work DIR` of a scenario."""
    parser.add_argument(
        "--work", type=Path, default=DEFAULT_RUN_WORK, metavar="DIR", help="where to work, emptied first"
    )


def add_room_options(parser: argparse.ArgumentParser) -> None:
    """What a room of virtual blades is made of."""
    parser.add_argument("--vm", action="store_true", help="blades are virtual machines (the only kind, yet)")
    parser.add_argument(
        "--blades", type=parse_count, default=2, metavar="N", help="how many blades (default: 2)"
    )
    _add_hardware(parser, "mixed")
    _add_snapshot(parser)


def add_scenario_options(parser: argparse.ArgumentParser) -> None:
    """Of scenarios that blades of either kind play; how many is up to each."""
    parser.add_argument(
        "--vm", action="store_true", help="blades are virtual machines (default: processes with disks)"
    )
    _add_hardware(parser, "bios")
    _add_snapshot(parser)


def read_scenario_options(args: argparse.Namespace, blades: int) -> VmClusterOptions:
    """The options as the lab wants them."""
    from bladeroot.lab.vmcluster import VmClusterOptions

    return VmClusterOptions(
        blades=blades,
        firmware=args.firmware,
        disk=args.disk,
        snapshot=args.snapshot,
        is_vm=args.vm,
        is_slim=args.vm and args.snapshot is None,
        speaks=args.vm and args.snapshot is None,
    )


def _add_hardware(parser: argparse.ArgumentParser, firmware: str) -> None:
    parser.add_argument(
        "--firmware",
        choices=["bios", "uefi", "uefi-http", "mixed"],
        default=firmware,
        help="what virtual machines boot with; mixed: BIOS, UEFI, and UEFI with HTTP Boot in turn "
        f"(default: {firmware})",
    )
    parser.add_argument(
        "--disk",
        choices=["virtio", "sata", "nvme", "mixed"],
        default="virtio",
        help="what their disks are attached to (default: virtio); mixed: one after the other",
    )


def _add_snapshot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--snapshot",
        type=Path,
        metavar="PATH",
        help="what to publish (default: a Debian from the cache, built now if there is none)",
    )


def read_room_options(args: argparse.Namespace) -> VmClusterOptions:
    """The options as the lab wants them. Raises UsageError without --vm."""
    from bladeroot.lab.vmcluster import VmClusterOptions

    if not args.vm:
        raise UsageError(
            "say --vm: so far such rooms are of virtual machines", "`bladeroot lab demo` does without them"
        )
    return VmClusterOptions(
        blades=args.blades, firmware=args.firmware, disk=args.disk, snapshot=args.snapshot
    )
