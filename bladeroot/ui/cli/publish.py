"""`bladeroot publish`: a snapshot becomes the next generation."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bladeroot.core.sizes import render_about
from bladeroot.errors import (
    ConfigError,
    DepotFullError,
    MissingToolError,
    OverlayError,
    PrivilegeError,
    SigningKeyError,
    SnapshotError,
)
from bladeroot.ui.cli.options import depot_path, open_folder, read_secret_key
from bladeroot.ui.cli.output import Output, make_table
from bladeroot.ui.cli.parser import Verbs, add_dry_run, add_verb

if TYPE_CHECKING:
    from bladeroot.host.depot import Depot
    from bladeroot.ops.folder import ClusterFolder
    from bladeroot.ops.publish import Published, PublishPlan

_SELF_SNAPSHOT = "snapshot"
"""In the depot."""


def add_parser(verbs: Verbs) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        "publish",
        run=run,
        summary="make a snapshot the next generation",
        description="Splits the snapshot at PATH into runtime and extras by the cluster folder's "
        "split.rules, renders every blade's overlay, makes the boot code, signs, and puts it all into "
        "the depot.\n\n"
        "On an installed blade PATH may be `/`, the running system itself: it is captured first, by "
        "capture.rules, into a directory of the depot. The overlays stay what they are in the newest "
        "generation there.\n\n"
        "The same tree gives the same artefacts, bit by bit. If nothing has changed since the newest "
        "generation, there is no new one.",
        examples=[
            ("bladeroot publish /srv/snapshots/bookworm", "make the next generation of it"),
            ("bladeroot publish --dry-run /srv/snapshots/bookworm", "see how it would be split"),
        ],
        files=[
            ("/etc/bladeroot/split.rules", "what is runtime, extras, or left out"),
            ("/etc/bladeroot/overlays/", "what makes a blade itself"),
            ("~/.config/bladeroot/", "the operator's secret key"),
        ],
        errors=[
            PrivilegeError,
            ConfigError,
            OverlayError,
            SnapshotError,
            SigningKeyError,
            DepotFullError,
            MissingToolError,
        ],
        see="`bladeroot help snapshot`, `bladeroot help generations`, `bladeroot help promote`",
    )
    parser.add_argument("path", type=Path, metavar="PATH", help="the snapshot")
    add_dry_run(parser)


def run(args: argparse.Namespace, out: Output) -> int:
    """Plan, and unless --dry-run publish."""
    from bladeroot.ops.publish import plan_publish

    if args.dry_run:
        _require_root()
        folder = open_folder(args)
        plan = plan_publish(folder, args.path, out.reporter)
        facts = {"snapshot": str(args.path), "parts": _describe_parts(plan)}
        out.facts(facts, lambda: make_table(["part", "files", "size"], _rows(plan), right=["files", "size"]))
        return 0
    published, plan = publish(args, out)
    out.facts(describe_published(published, plan), lambda: render_published(published, plan))
    return 0


def publish(args: argparse.Namespace, out: Output) -> tuple[Published, PublishPlan]:
    """Publish `args.path` by the global options. The key is asked for before the long work begins."""
    from bladeroot.host.depot import Depot
    from bladeroot.host.interrupts import deferred
    from bladeroot.ops.publish import plan_publish, publish_snapshot
    from bladeroot.ops.snapshots.tree import require_tree

    _require_root()
    folder = open_folder(args)
    # Of another machine than a blade it would be a mistake: require_tree says what to do.
    is_self = args.path.resolve() == Path("/") and folder.is_of_blade
    if not is_self:
        require_tree(args.path)
    secret_key = read_secret_key(args, folder)
    depot = Depot.create(depot_path(args))
    snapshot = _capture_self(folder, depot, out) if is_self else args.path
    plan = plan_publish(folder, snapshot, out.reporter)
    with deferred():
        return publish_snapshot(plan, depot, secret_key, reporter=out.reporter), plan


def _capture_self(folder: ClusterFolder, depot: Depot, out: Output) -> Path:
    """The running system's own tree as a snapshot beside the generations; next time only what changed."""
    from bladeroot.ops.snapshots.capture import capture_snapshot, read_capture_rules
    from bladeroot.ops.snapshots.source import Source

    rules = read_capture_rules(folder.capture_rules_path if folder.capture_rules_path.exists() else None)
    path = depot.path / _SELF_SNAPSHOT
    capture_snapshot(Source("/"), path, rules=rules, reporter=out.reporter)
    return path


def _require_root() -> None:
    from bladeroot.host.run import require_root

    require_root("publishing (a snapshot has files that only root can read)")


def describe_published(published: Published, plan: PublishPlan) -> dict[str, Any]:
    """What was published, for programs."""
    manifest = published.manifest
    return {
        "serial": manifest.serial,
        "manifest": published.signed.hash,
        "new": published.is_new,
        "parts": _describe_parts(plan),
        "artefacts": [
            {
                "kind": str(artefact.kind),
                "info_hash": artefact.info_hash,
                "size_bytes": artefact.size_bytes,
                "raw_size_bytes": artefact.raw_size_bytes,
                "files": artefact.files,
            }
            for artefact in manifest.artefacts
        ],
        "blades": [entry.blade.name for entry in manifest.blades],
    }


def render_published(published: Published, plan: PublishPlan) -> str:
    """What was published, for people."""
    from bladeroot.core.splitting import Part

    manifest = published.manifest
    lines = [f"generation {manifest.serial} of {manifest.cluster_name} for {len(manifest.blades)} blades"]
    if not published.is_new:
        lines = [f"nothing has changed: generation {manifest.serial} is still the newest"]
    for artefact in manifest.artefacts:
        size, raw = render_about(artefact.size_bytes), render_about(artefact.raw_size_bytes)
        lines.append(f"  {artefact.kind:9} {size:>9} ({raw:>9} before compression, {artefact.files} pieces)")
    count, size_bytes = plan.count(Part.LEFT_OUT)
    lines.append(f"  left out  {render_about(size_bytes):>9} in {count} files")
    return "\n".join(lines)


def _describe_parts(plan: PublishPlan) -> dict[str, dict[str, int]]:
    from bladeroot.core.splitting import Part

    counts = {str(part): plan.count(part) for part in Part}
    return {part: {"members": members, "size_bytes": size} for part, (members, size) in counts.items()}


def _rows(plan: PublishPlan) -> list[tuple[str, int, str]]:
    parts = _describe_parts(plan).items()
    return [(part, counted["members"], render_about(counted["size_bytes"])) for part, counted in parts]
