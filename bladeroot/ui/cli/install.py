"""`bladeroot install`: one disk becomes one blade."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bladeroot.errors import (
    ArtefactError,
    ConfigError,
    DepotError,
    DepotFullError,
    DiskBusyError,
    DiskChoiceError,
    DiskError,
    DiskTooSmallError,
    InventoryError,
    MissingToolError,
    NetworkError,
    NoRootFoundError,
    PrivilegeError,
    TrustError,
    UsageError,
)
from bladeroot.ui.cli.options import ask_yes, open_folder, parse_seconds
from bladeroot.ui.cli.output import Output
from bladeroot.ui.cli.parser import DRY_RUN_LINE, Verbs, add_dry_run, add_verb

if TYPE_CHECKING:
    from bladeroot.ops.folder import ClusterFolder
    from bladeroot.ops.follow import Followed
    from bladeroot.ops.install import InstallPlan

_DEFAULT_WAIT_S = 60.0


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "install",
        run=run,
        summary="install a blade on one disk",
        description="Finds a root, checks the generation's signature, and makes the disk a bootable blade: "
        "partitions, filesystems, the runtime extracted while it is fetched from the root and from other "
        "blades, the blade's overlay, GRUB for BIOS and UEFI; then the extras.\n\n"
        "The plan is shown first, and carried out after a yes (or with --yes). An install that was cut off "
        "is taken up again by the same command, and does not fetch again what it has; a disk that boots "
        "this very generation already gets what it lacks, and nothing of it is written over.",
        examples=[
            ("bladeroot install --blade web01 --disk /dev/sdb --dry-run", "see what would happen to a disk"),
            ("bladeroot install --blade web01 --disk web01.img --yes", "install into a file that is a disk"),
            ("bladeroot install --blade web01", "install on the disk that the inventory's rule chooses"),
        ],
        errors=[
            PrivilegeError,
            ConfigError,
            InventoryError,
            TrustError,
            ArtefactError,
            DepotError,
            DepotFullError,
            NoRootFoundError,
            NetworkError,
            DiskError,
            DiskTooSmallError,
            DiskBusyError,
            DiskChoiceError,
            MissingToolError,
        ],
        see="`bladeroot help promote`, `bladeroot help status`",
    )
    parser.add_argument(
        "--blade", required=True, metavar="NAME", help="which blade of the inventory it becomes"
    )
    parser.add_argument(
        "--disk", type=Path, metavar="DEVICE-OR-FILE", help="where (default: by the blade's disk rule)"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--root", metavar="HOST:PORT", help="this root, instead of the one that mDNS finds")
    source.add_argument(
        "--from-depot", type=Path, metavar="DIR", help="without any network, from a depot here"
    )
    parser.add_argument(
        "--wait",
        type=parse_seconds,
        default=_DEFAULT_WAIT_S,
        metavar="SECONDS",
        help="how long to look for a root (default: 60)",
    )
    parser.add_argument(
        "--again", action="store_true", help="install anew even if the disk has exactly this generation"
    )
    parser.add_argument(
        "--wipe-data",
        action="store_true",
        help="forget all that the disk was: make the data partition anew as well",
    )
    parser.add_argument(
        "--linger", action="store_true", help="when done, go on giving to other blades until stopped"
    )
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask")
    add_dry_run(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Find a source, plan, show, ask, apply."""
    from bladeroot.host.blockdev import open_disk
    from bladeroot.host.interrupts import allowed, deferred
    from bladeroot.host.mounts import enter_own_namespace
    from bladeroot.host.run import require_root
    from bladeroot.ops.follow import wait_until_stopped
    from bladeroot.ops.install import apply_install, choose_install_disk, plan_install
    from bladeroot.ops.resume import Standing

    require_root("installing")
    enter_own_namespace()
    folder = open_folder(args)
    with _find_source(args, folder, out) as followed:
        signed = followed.source.read_manifest()
        trusted, cluster_id = folder.trusted_keys(), folder.cluster.id
        disk = choose_install_disk(signed, trusted, cluster_id, args.blade, args.disk)
        with deferred(), open_disk(disk.path) as opened:
            plan = plan_install(
                signed,
                trusted,
                cluster_id,
                args.blade,
                disk,
                opened,
                wipe_data=args.wipe_data,
                again=args.again,
            )
            if args.dry_run:
                out.facts({**plan.facts(), "dry_run": True}, "\n".join([*plan.lines(), DRY_RUN_LINE]))
                return 0
            with allowed():
                _confirm(args, plan, out)

            def show_and_linger(facts: dict[str, Any]) -> None:
                already = " already (--again installs it anew)" if plan.standing is Standing.COMPLETE else ""
                text = f"{args.blade} is installed on {disk.path}: generation {facts['serial']}{already}"
                out.facts(facts, text)
                if args.linger:
                    wait_until_stopped()

            with followed.reporting():
                apply_install(
                    plan, opened, followed.source, reporter=followed.reporter, linger=show_and_linger
                )
    return 0


@contextmanager
def _find_source(args: argparse.Namespace, folder: ClusterFolder, out: Output) -> Iterator[Followed]:
    from bladeroot.host.depot import Depot
    from bladeroot.ops.follow import Followed, follow_root
    from bladeroot.ops.sources import DepotSource

    if args.from_depot is not None:
        yield Followed(source=DepotSource(Depot.open(args.from_depot)), reporter=out.reporter)
        return
    with follow_root(
        folder.cluster, args.blade, root=args.root, wait_s=args.wait, reporter=out.reporter
    ) as followed:
        yield followed


def _confirm(args: argparse.Namespace, plan: InstallPlan, out: Output) -> None:
    from bladeroot.ops.resume import Standing

    for line in plan.lines():
        out.say(line)
    if args.yes or plan.standing is not Standing.NEW:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "an install destroys what is on the disk, and there is no terminal to ask on", "add --yes"
        )
    ask_yes(
        f"Destroy what is on {plan.disk.path} and install {plan.entry.blade.name}?", "nothing was changed"
    )
