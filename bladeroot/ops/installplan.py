"""What an install will do: the manifest is checked, then the disk is looked at, and nothing is written."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.diskchoice import Disk, choose_disk
from bladeroot.core.disklayout import DATA_LABEL, DiskPlan, Use, plan_disk, render_plan
from bladeroot.core.manifest import (
    TARBALLS,
    Artefact,
    ArtefactKind,
    BladeEntry,
    Manifest,
    SignedManifest,
    accept_manifest,
)
from bladeroot.core.orders import Order
from bladeroot.core.signing import PublicKey
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskError, DiskTooSmallError, TrustError
from bladeroot.host.blockdev import OpenDisk, find_disks, read_table
from bladeroot.host.esp import read_boot_facts
from bladeroot.ops.resume import Standing, find_standing, plan_nothing_new

_DEPOT_SLACK_BYTES = 64 << 20
"""What the data partition needs beside the artefacts: metadata, identity, the filesystem's own."""
_ESP_SLACK_BYTES = 4 << 20
"""What the ESP needs beside the agent: GRUB, its files, and the filesystem's own."""


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
    order: Order | None = None
    """The order that is carried out."""
    before: BootFacts = attrs.field(factory=BootFacts)
    """What the disk said of itself."""

    @property
    def agent(self) -> Artefact | None:
        """The agent's artefact; None where the generation is older than those."""
        return next((one for one in self.manifest.artefacts if one.kind is ArtefactKind.AGENT), None)

    def lines(self) -> list[str]:
        """The plan for people."""
        manifest, blade = self.manifest, self.entry.blade
        first = (
            f"{blade.name} ({blade.role}): generation {manifest.serial} of cluster {manifest.cluster_name}"
        )
        lines = [first, *render_plan(self.layout, self.disk)]
        if self.order is not None:
            lines.append(f"  it carries out order {self.order.number}")
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
            "order": self.order.number if self.order else None,
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
    order: Order | None = None,
) -> InstallPlan:
    """Check the manifest, and only then decide what becomes of the disk.

    A disk that boots this very generation as this blade is not installed anew, unless `again` or `wipe_data`
    or an `order` says so; one that boots a higher serial of the cluster does not go down, unless `wipe_data`
    forgets what it was or the order names the lower one. An order (accepted by the caller) that the disk has
    carried out already counts for nothing. Raises TrustError, InventoryError, DiskTooSmallError, DiskError.
    """
    before = read_boot_facts(opened)
    if before.cluster_id not in ("", cluster_id):
        before = attrs.evolve(before, order=0)  # numbers are each cluster's own
    if order is not None and order.number <= before.order:
        order = None
    lowest_serial = _find_lowest_serial(before, cluster_id, wipe_data, order)
    manifest = accept_manifest(signed, trusted_keys, cluster_id, lowest_serial=lowest_serial)
    if order is not None and order.serial not in (None, manifest.serial):
        raise TrustError(
            f"order {order.number} is for generation {order.serial}, not for {manifest.serial}",
            "ask another root for it",
        )
    if opened.is_read_only:
        raise DiskError(f"{disk.path} is read-only", "take away its write protection, or name another disk")
    again = again or wipe_data or order is not None
    # Once is enough: an install that is taken up again has done it.
    wipe_data = wipe_data or (order is not None and order.wipe_data and before.wiped != order.number)
    entry = manifest.entry(blade_name)
    image_bytes = sum(artefact.raw_size_bytes for artefact in manifest.artefacts if artefact.kind in TARBALLS)
    existing = read_table(opened)
    with _naming(disk.path):
        layout = plan_disk(
            opened.size_bytes,
            entry.layout,
            existing,
            image_bytes=image_bytes,
            sector_bytes=opened.sector_bytes,
            committed=before.slot,
            wipe_data=wipe_data,
        )
    standing = Standing.NEW
    if not again:
        wanted = {"blade": blade_name, "cluster_id": cluster_id, "manifest": signed.hash}
        standing = find_standing(opened, layout, existing, before.slot, wanted)
        if existing is not None and before.slot is not None and standing is not Standing.NEW:
            layout = plan_nothing_new(layout, existing, before.slot)
    plan = InstallPlan(
        signed=signed,
        manifest=manifest,
        entry=entry,
        disk=attrs.evolve(disk, size_bytes=opened.size_bytes),
        layout=layout,
        standing=standing,
        order=order,
        before=before,
    )
    with _naming(disk.path):
        _check_depot_fits(manifest, layout)
        _check_agent_fits(plan)
    return plan


@contextmanager
def _naming(disk: Path) -> Iterator[None]:
    """What does not fit is said with the name of the disk."""
    try:
        yield
    except DiskError as error:
        raise type(error)(f"{disk}: {error}", error.hint) from error


def _find_lowest_serial(before: BootFacts, cluster_id: str, wipe_data: bool, order: Order | None) -> int:
    if wipe_data or before.cluster_id != cluster_id:
        return 1
    ordered = order.serial if order is not None else None
    return max(1, min(before.serial, ordered or before.serial))


def _check_depot_fits(manifest: Manifest, layout: DiskPlan) -> None:
    needed = sum(artefact.size_bytes for artefact in manifest.artefacts) + _DEPOT_SLACK_BYTES
    room = layout.size_bytes(layout.partition(Use.DATA))
    if needed > room:
        raise DiskTooSmallError(
            f"generation {manifest.serial} takes {render_about(needed)} in the depot,"
            f" the partition {DATA_LABEL} would have {render_about(room)}",
            "use a larger disk, or make the slots smaller in cluster.toml",
        )


def _check_agent_fits(plan: InstallPlan) -> None:
    if plan.agent is None or plan.standing is not Standing.NEW:
        return
    needed = plan.agent.size_bytes + _ESP_SLACK_BYTES
    room = plan.layout.size_bytes(plan.layout.partition(Use.ESP))
    if needed > room:
        raise DiskTooSmallError(
            f"the agent of generation {plan.manifest.serial} takes {render_about(needed)} on the ESP,"
            f" layout {plan.entry.layout.name!r} has {render_about(room)}",
            "make esp_size larger in cluster.toml",
        )
