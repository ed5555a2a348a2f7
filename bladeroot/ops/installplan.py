"""What an install will do: the manifest is checked, then the disk is looked at, and nothing is written."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.diskchoice import Disk, choose_disk
from bladeroot.core.disklayout import DATA_LABEL, DiskPlan, Use, plan_disk, render_plan
from bladeroot.core.manifest import ArtefactKind, BladeEntry, Manifest, SignedManifest, accept_manifest
from bladeroot.core.signing import PublicKey
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskTooSmallError
from bladeroot.host.blockdev import OpenDisk, find_disks, read_table
from bladeroot.host.bootloader import read_committed, read_committed_serial
from bladeroot.ops.resume import Standing, find_standing, plan_nothing_new

_DEPOT_SLACK_BYTES = 64 << 20
"""What the data partition needs beside the artefacts: metadata, identity, the filesystem's own."""


@frozen(kw_only=True)
class InstallPlan:
    """What an install will do to a disk, decided before anything is written."""

    signed: SignedManifest
    manifest: Manifest
    entry: BladeEntry
    disk: Disk
    layout: DiskPlan
    standing: Standing = Standing.NEW
    """What of it is there already: with COMMITTED nothing is formatted, with COMPLETE nothing is done."""

    def lines(self) -> list[str]:
        """The plan for people."""
        manifest, blade = self.manifest, self.entry.blade
        first = (
            f"{blade.name} ({blade.role}): generation {manifest.serial} of cluster {manifest.cluster_name}"
        )
        lines = [first, *render_plan(self.layout, self.disk)]
        if self.standing is Standing.COMMITTED:
            lines.append(
                "  it boots this generation already: only what is missing is fetched, nothing is lost"
            )
        if self.standing is Standing.COMPLETE:
            lines.append("  it has exactly this generation, and all of it: there is nothing to do")
        return lines

    def facts(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "blade": self.entry.blade.name,
            "role": self.entry.blade.role,
            "serial": self.manifest.serial,
            "manifest": self.signed.hash,
            "disk": str(self.disk.path),
            "slot": str(self.layout.slot),
            "standing": str(self.standing),
            "lost": list(self.layout.lost),
            "partitions": [
                {
                    "number": partition.number,
                    "label": partition.label,
                    "size_bytes": self.layout.size_bytes(partition),
                    "filesystem": partition.filesystem,
                    "keep": partition.keep,
                }
                for partition in self.layout.partitions
            ],
        }


def choose_install_disk(
    signed: SignedManifest,
    trusted_keys: Collection[PublicKey],
    cluster_id: str,
    blade_name: str,
    named: Path | None = None,
) -> Disk:
    """The disk to install on: the one that was named, or the one that the blade's rule in the manifest fits.

    The manifest is checked before any disk is looked at. Raises TrustError, InventoryError, DiskChoiceError.
    """
    entry = accept_manifest(signed, trusted_keys, cluster_id).entry(blade_name)
    disks = find_disks()
    if named is None:
        return choose_disk(entry.disk, disks)
    for disk in disks:
        if named.exists() and disk.path.resolve() == named.resolve():
            return disk
    return Disk(path=named, size_bytes=named.stat().st_size if named.is_file() else 0)


def plan_install(
    signed: SignedManifest,
    trusted_keys: Collection[PublicKey],
    cluster_id: str,
    blade_name: str,
    disk: Disk,
    opened: OpenDisk,
    *,
    wipe_data: bool = False,
    again: bool = False,
) -> InstallPlan:
    """Check the manifest, and only then decide what becomes of the disk.

    A disk that boots this very generation as this blade is not installed anew, unless `again` or `wipe_data`;
    one that boots a higher serial of the cluster does not go down, unless `wipe_data` forgets what it was.
    Raises TrustError, InventoryError, DiskTooSmallError, DiskError.
    """
    lowest_serial = 1 if wipe_data else read_committed_serial(opened, cluster_id)
    manifest = accept_manifest(signed, trusted_keys, cluster_id, lowest_serial=lowest_serial)
    entry = manifest.entry(blade_name)
    image_bytes = sum(
        artefact.raw_size_bytes for artefact in manifest.artefacts if _is_in_slot(artefact.kind)
    )
    existing = read_table(opened)
    committed = read_committed(opened)
    layout = plan_disk(
        opened.size_bytes,
        entry.layout,
        existing,
        image_bytes=image_bytes,
        sector_bytes=opened.sector_bytes,
        committed=committed,
        wipe_data=wipe_data,
    )
    _check_depot_fits(manifest, layout)
    standing = Standing.NEW
    if not again and not wipe_data:
        wanted = {"blade": blade_name, "cluster_id": cluster_id, "manifest": signed.hash}
        standing = find_standing(opened, layout, existing, committed, wanted)
        if existing is not None and committed is not None and standing is not Standing.NEW:
            layout = plan_nothing_new(layout, existing, committed)
    disk = attrs.evolve(disk, size_bytes=opened.size_bytes)
    return InstallPlan(
        signed=signed, manifest=manifest, entry=entry, disk=disk, layout=layout, standing=standing
    )


def _is_in_slot(kind: ArtefactKind) -> bool:
    return kind in (ArtefactKind.RUNTIME, ArtefactKind.EXTRAS)


def _check_depot_fits(manifest: Manifest, layout: DiskPlan) -> None:
    needed = sum(artefact.size_bytes for artefact in manifest.artefacts) + _DEPOT_SLACK_BYTES
    room = layout.size_bytes(layout.partition(Use.DATA))
    if needed > room:
        raise DiskTooSmallError(
            f"generation {manifest.serial} takes {render_about(needed)} in the depot,"
            f" the partition {DATA_LABEL} would have {render_about(room)}",
            "use a larger disk, or make the slots smaller in cluster.toml",
        )
