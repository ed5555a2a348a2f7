"""
Install: one disk becomes one blade. The same steps in an initramfs, on an image file, and in the lab.

Plan first (what is on the disk, what will be), then the steps of `STEPS`, in their order. *Commit* is the
one write that makes the new slot bootable, after everything in it was verified; what comes behind it (the
extras, and holding the whole generation so that the blade can be root) can be cut off and taken up again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from attrs import frozen

from bladeroot.core.bootplan import render_fstab
from bladeroot.core.diskchoice import Disk, choose_disk
from bladeroot.core.disklayout import DATA_LABEL, DiskPlan, Use, plan_disk, render_plan
from bladeroot.core.framing import FrameIndex, parse_index
from bladeroot.core.manifest import ArtefactKind, BladeEntry, Manifest, SignedManifest, accept_manifest
from bladeroot.core.signing import PublicKey
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskTooSmallError
from bladeroot.events import Finished, Note, Progress, Reporter, ignore
from bladeroot.host.archive import Extraction, extract_plain
from bladeroot.host.blockdev import OpenDisk, apply_partitions, find_disks, format_partition, read_table
from bladeroot.host.bootloader import (
    commit_slot,
    find_kernels,
    install_boot_code,
    read_committed,
    release_slot,
    write_slot_config,
)
from bladeroot.host.depot import DEFAULT_DEPOT, Depot
from bladeroot.host.files import sync_filesystem, write_atomically
from bladeroot.host.mounts import mounted
from bladeroot.ops.identity import write_host_keys, write_installed, write_machine_id
from bladeroot.ops.sources import Source, fetch_artefact
from bladeroot.ops.steps import step

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

    def lines(self) -> list[str]:
        """The plan for people."""
        manifest, blade = self.manifest, self.entry.blade
        first = (
            f"{blade.name} ({blade.role}): generation {manifest.serial} of cluster {manifest.cluster_name}"
        )
        return [first, *render_plan(self.layout, self.disk)]

    def facts(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "blade": self.entry.blade.name,
            "role": self.entry.blade.role,
            "serial": self.manifest.serial,
            "manifest": self.signed.hash,
            "disk": str(self.disk.path),
            "slot": str(self.layout.slot),
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
    """
    The disk to install on: the one that was named, or the one that the blade's rule in the manifest fits.

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
) -> InstallPlan:
    """
    Check the manifest, and only then look at the disk and decide what becomes of it.

    Raises TrustError, InventoryError, DiskTooSmallError, DiskError.
    """
    manifest = accept_manifest(signed, trusted_keys, cluster_id)
    entry = manifest.entry(blade_name)
    image_bytes = sum(
        artefact.raw_size_bytes for artefact in manifest.artefacts if _is_in_slot(artefact.kind)
    )
    existing = read_table(opened)
    layout = plan_disk(
        opened.size_bytes,
        entry.layout,
        existing,
        image_bytes=image_bytes,
        sector_bytes=opened.sector_bytes,
        committed=read_committed(opened),
        wipe_data=wipe_data,
    )
    _check_depot_fits(manifest, layout)
    return InstallPlan(signed=signed, manifest=manifest, entry=entry, disk=disk, layout=layout)


def apply_install(
    plan: InstallPlan, opened: OpenDisk, source: Source, *, reporter: Reporter = ignore
) -> dict[str, Any]:
    """
    Carry the plan out. Returns the facts of the finished install; they are its `Finished` event too.

    If it is cut off, the disk boots what it booted before, or nothing; started again, it does not fetch
    again what it has. Raises ArtefactError, DepotFullError, NetworkError, ToolError, DiskError.
    """
    with Installation(plan, opened, source, reporter) as installation:
        for name, title, run_step in STEPS:
            with step(name, title, reporter):
                run_step(installation)
        facts = installation.facts()
    reporter(Finished(facts=facts))
    return facts


class Installation:
    """An install under way: what is mounted where. Leaving it unmounts everything."""

    def __init__(self, plan: InstallPlan, opened: OpenDisk, source: Source, reporter: Reporter) -> None:
        self.plan = plan
        self.opened = opened
        self.source = source
        self.reporter = reporter
        self._uuids: dict[Use, str] = {}
        self._installed_bytes = 0
        self._stack = ExitStack()
        self._slot_mount = ExitStack()

    def __enter__(self) -> Installation:
        self._work = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bladeroot-install-")))
        self._stack.push(self._slot_mount)
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    @property
    def slot(self) -> Path:
        """Where the slot's filesystem is mounted."""
        return self._work / "slot"

    @property
    def depot(self) -> Depot:
        """The blade's own depot, on its data partition."""
        return Depot(self._work / "data")

    def facts(self) -> dict[str, Any]:
        """What was installed, as plain values."""
        plan = self.plan
        return {
            "blade": plan.entry.blade.name,
            "role": plan.entry.blade.role,
            "serial": plan.manifest.serial,
            "manifest": plan.signed.hash,
            "disk": str(plan.disk.path),
            "slot": str(plan.layout.slot),
            "installed_bytes": self._installed_bytes,
            "filesystems": {str(use): uuid for use, uuid in self._uuids.items()},
        }

    # The steps

    def partition_disk(self) -> None:
        """Let go of a slot that will be written over, then cut the disk; a table that is as planned stays."""
        release_slot(self.opened, self.plan.layout)
        apply_partitions(self.opened, self.plan.layout)

    def make_filesystems(self) -> None:
        """New filesystems, but for what the plan keeps; then mount the slot and `data`."""
        layout = self.plan.layout
        for partition in layout.partitions:
            if partition.filesystem is not None:
                self._uuids[partition.use] = format_partition(self.opened, layout, partition)
        data = layout.partition(Use.DATA)
        self._stack.enter_context(
            mounted(self.opened.partition(data.number), self.depot.path, filesystem=data.filesystem)
        )
        Depot.create(self.depot.path)
        self._mount_slot()

    def fetch_runtime(self) -> None:
        """Fetch the runtime, and extract each frame as it comes."""
        self._fetch_and_extract(ArtefactKind.RUNTIME)

    def apply_overlay(self) -> None:
        """Make the tree this blade's own."""
        name = self.plan.entry.overlay
        found: list[bytes] = []

        def take(file_name: str, data: bytes) -> None:
            if file_name == name:
                found.append(data)

        fetch_artefact(self.source, self.depot, self.plan.manifest.artefact(ArtefactKind.OVERLAYS), take)
        extract_plain(found[0], self.slot)

    def write_identity(self) -> None:
        """fstab, machine-id, host keys, and the record of this install."""
        layout = self.plan.layout
        fstab = render_fstab(
            root_uuid=self._uuids[layout.slot],
            filesystem=self.plan.entry.layout.filesystem,
            data_uuid=self._uuids[Use.DATA],
            data_filesystem=layout.partition(Use.DATA).filesystem or "ext4",
            esp_uuid=self._uuids[Use.ESP],
            depot=DEFAULT_DEPOT,
        )
        for directory in ("etc", str(DEFAULT_DEPOT).lstrip("/")):
            (self.slot / directory).mkdir(parents=True, exist_ok=True)
        write_atomically(self.slot / "etc/fstab", fstab)
        write_machine_id(self.slot, self.depot.identity)
        if not write_host_keys(self.slot, self.depot.identity):
            self.reporter(Note(text="the snapshot has no sshd: no host keys were made"))
        self._record(complete=False)

    def install_boot_loader(self) -> None:
        """GRUB for BIOS and UEFI, and its configuration; nothing is chosen to boot yet."""
        payload = self._work / "boot"
        payload.mkdir()
        artefact = self.plan.manifest.artefact(ArtefactKind.BOOT)
        fetch_artefact(self.source, self.depot, artefact, lambda name, data: _write(payload / name, data))
        kernel_command_line = self.plan.manifest.kernel_command_line
        install_boot_code(self.opened, payload, kernel_command_line=kernel_command_line)
        slot = self.plan.layout.slot
        write_slot_config(
            self.opened,
            slot,
            partition_number=self.plan.layout.partition(slot).number,
            filesystem_uuid=self._uuids[slot],
            kernels=find_kernels(self.slot),
            kernel_command_line=kernel_command_line,
        )

    def commit(self) -> None:
        """Everything is on the disk and verified: from now on the disk boots the new slot."""
        sync_filesystem(self.slot)
        sync_filesystem(self.depot.path)
        self._slot_mount.close()
        commit_slot(self.opened, self.plan.layout.slot, {"bladeroot_serial": str(self.plan.manifest.serial)})

    def fetch_extras(self) -> None:
        """The extras, and the overlay once more, since it has the last word on them too."""
        self._mount_slot()
        self._fetch_and_extract(ArtefactKind.EXTRAS)
        overlays = self.plan.manifest.artefact(ArtefactKind.OVERLAYS)
        extract_plain(self.depot.read_file(overlays.info_hash, self.plan.entry.overlay), self.slot)

    def keep_generation(self) -> None:
        """Enter the generation into the blade's own depot: it can be root with it from now on."""
        self.depot.add_generation(self.plan.signed, self.plan.manifest)
        self._record(complete=True)
        sync_filesystem(self.slot)
        sync_filesystem(self.depot.path)

    # Their parts

    def _mount_slot(self) -> None:
        partition = self.plan.layout.partition(self.plan.layout.slot)
        node = self.opened.partition(partition.number)
        self._slot_mount.enter_context(mounted(node, self.slot, filesystem=partition.filesystem))

    def _fetch_and_extract(self, kind: ArtefactKind) -> None:
        artefact = self.plan.manifest.artefact(kind)
        index = self._fetch_index(kind)
        self._installed_bytes += artefact.raw_size_bytes
        fetched = 0
        with Extraction(index, self.slot) as extraction:

            def take(name: str, data: bytes) -> None:
                nonlocal fetched
                fetched += len(data)
                if name != "index":
                    extraction.submit(int(name), data)
                self.reporter(Progress(step=kind, done=fetched, total=artefact.size_bytes))

            fetch_artefact(self.source, self.depot, artefact, take)
            extraction.finish()

    def _fetch_index(self, kind: ArtefactKind) -> FrameIndex:
        found: list[bytes] = []
        fetch_artefact(
            self.source,
            self.depot,
            self.plan.manifest.artefact(kind),
            lambda _name, data: found.append(data),
            wanted=("index",),
        )
        return parse_index(found[0])

    def _record(self, *, complete: bool) -> None:
        blade, manifest = self.plan.entry.blade, self.plan.manifest
        write_installed(
            self.slot,
            {
                "blade": blade.name,
                "role": blade.role,
                "cluster": manifest.cluster_name,
                "cluster_id": manifest.cluster_id,
                "serial": manifest.serial,
                "manifest": self.plan.signed.hash,
                "slot": str(self.plan.layout.slot),
                "extras": complete,
                "order": None,
            },
        )


STEPS: tuple[tuple[str, str, Callable[[Installation], None]], ...] = (
    ("partition", "Partition the disk", Installation.partition_disk),
    ("format", "Make filesystems", Installation.make_filesystems),
    ("runtime", "Fetch and extract the runtime", Installation.fetch_runtime),
    ("overlay", "Apply the blade's overlay", Installation.apply_overlay),
    ("identity", "Write fstab, machine-id and host keys", Installation.write_identity),
    ("bootloader", "Install GRUB for BIOS and UEFI", Installation.install_boot_loader),
    ("commit", "Commit: make it bootable", Installation.commit),
    ("extras", "Fetch and extract the extras", Installation.fetch_extras),
    ("depot", "Keep the generation", Installation.keep_generation),
)
"""Every step of an install: its name, what a person reads, and what it does."""


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


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
