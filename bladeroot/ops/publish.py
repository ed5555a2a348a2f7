"""Publish: a snapshot becomes the next generation in the depot.

Plan (scan and split), pack runtime and extras, render every blade's overlay, make the boot code, sign.
The manifest is written last: until then the depot has some frames more, and nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import attrs
from attrs import frozen

from bladeroot.core import wire
from bladeroot.core.agentfiles import INITRAMFS, KERNEL, cut_into_parts
from bladeroot.core.cluster import Cluster, StrangerPolicy, Strangers
from bladeroot.core.manifest import (
    Artefact,
    ArtefactKind,
    Manifest,
    OverlayIndex,
    SignedManifest,
    make_blade_entries,
    sign_manifest,
)
from bladeroot.core.nodesets import find_blades, fold_names
from bladeroot.core.signing import SecretKey
from bladeroot.core.splitting import DEFAULT_SPLIT_RULES, Part, parse_split_rules, split_members
from bladeroot.core.tarformat import Member
from bladeroot.errors import ConfigError, InventoryError
from bladeroot.events import Progress, Reporter, Warned, ignore
from bladeroot.host.archive import KnownFrames, pack_members, read_package_order, scan_tree
from bladeroot.host.artefactwriter import ArtefactWriter
from bladeroot.host.bootloader import build_boot_payload
from bladeroot.host.depot import Depot
from bladeroot.host.files import scratch_folder
from bladeroot.host.interrupts import allowed, check
from bladeroot.host.ipxe import copy_ipxe_loaders
from bladeroot.ops.folder import ClusterFolder
from bladeroot.ops.initramfs import plan_agent
from bladeroot.ops.initramfs.made import keep_made_agent, read_made_agent
from bladeroot.ops.overlays import OverlayBuilder
from bladeroot.ops.snapshots.tree import require_tree
from bladeroot.ops.steps import step

_IPXE_HINT = "install the package ipxe, here or in the snapshot, and publish again"
_PARTS = {ArtefactKind.RUNTIME: Part.RUNTIME, ArtefactKind.EXTRAS: Part.EXTRAS}


@frozen(kw_only=True)
class PublishPlan:
    """What would be published: which member of the snapshot goes where."""

    folder: ClusterFolder
    snapshot: Path
    parts: Mapping[Part, list[Member]]

    def count(self, part: Part) -> tuple[int, int]:
        """How many members a part has, and their bytes before compression."""
        members = self.parts[part]
        return len(members), sum(member.size for member in members)


@frozen(kw_only=True)
class Published:
    """A generation in the depot. `is_new` is False where the newest one already was exactly this."""

    signed: SignedManifest
    manifest: Manifest
    is_new: bool


def plan_publish(folder: ClusterFolder, snapshot: Path, reporter: Reporter = ignore) -> PublishPlan:
    """Scan the snapshot and split it by the cluster folder's rules; nothing is written.

    Raises SnapshotError where it is none, ConfigError for bad rules, InventoryError without blades.
    """
    require_tree(snapshot)
    if not folder.cluster.blades:
        raise InventoryError(f"cluster {folder.cluster.name} has no blades", "see `bladeroot help blades`")
    rules = parse_split_rules(_read_rules(folder.split_rules_path), str(folder.split_rules_path))
    with step("scan", f"Scan {snapshot}", reporter):
        members = scan_tree(snapshot)
    return PublishPlan(folder=folder, snapshot=snapshot, parts=split_members(members, rules))


def publish_snapshot(
    plan: PublishPlan,
    depot: Depot,
    secret_key: SecretKey,
    *,
    threads: int | None = None,
    reporter: Reporter = ignore,
) -> Published:
    """Make the plan the depot's next generation. The same tree gives the same artefacts; if blades and
    settings are the same too, there is no new generation. Frames of what has not changed since the depot's
    last publishes are not made again.

    On an installed blade the overlays stay what they are in the newest generation.

    Raises SnapshotError, OverlayError, ConfigError, DepotFullError, DepotError, ToolError.
    """
    cluster = plan.folder.cluster
    package_of = read_package_order(plan.snapshot)
    known = KnownFrames(depot.packed_record, plan.snapshot)

    def pack(kind: ArtefactKind) -> Artefact:
        with step(kind, f"Pack {kind}", reporter), depot.new_artefact() as writer:
            packed = pack_members(
                plan.snapshot,
                plan.parts[_PARTS[kind]],
                writer.write,
                level=cluster.zstd_level,
                package_of=package_of,
                threads=threads,
                known=known,
                take=writer.take,
                reporter=reporter,
                step=kind,
            )
            artefact = writer.finish(kind, packed.files, packed.raw_size_bytes)
        known.save()
        return artefact

    with depot.lock():
        depot.drop_drafts()
        before = _read_newest(plan, depot)
        overlays = _find_overlays(plan, before) if plan.folder.is_of_blade else None
        artefacts = (
            pack(ArtefactKind.RUNTIME),
            pack(ArtefactKind.EXTRAS),
            overlays or _publish_overlays(plan, depot, reporter),
            _publish_boot_code(plan, depot, reporter),
            *_publish_agent(plan, depot, reporter),
        )
        return _sign_and_add(plan, depot, secret_key, artefacts, before)


def _find_overlays(plan: PublishPlan, before: tuple[SignedManifest, Manifest] | None) -> Artefact:
    """A blade has its own overlay, but not what all are made of. Raises ConfigError where that matters."""
    folder = plan.folder
    if before is None or before[1].blades != make_blade_entries(folder.cluster):
        raise ConfigError(
            f"{folder.path} has no overlays, and its inventory is not that of the newest generation here",
            "publish where the whole cluster folder is",
        )
    return before[1].artefact(ArtefactKind.OVERLAYS)


def _publish_overlays(plan: PublishPlan, depot: Depot, reporter: Reporter) -> Artefact:
    folder = plan.folder
    entries = make_blade_entries(folder.cluster)
    toml, trusted = _read_site(folder)
    rules = folder.read_rules()
    builder = OverlayBuilder(folder.cluster, folder.overlays, trusted, toml, plan.snapshot, rules)
    title = f"Render {len(entries)} overlays"
    with step(ArtefactKind.OVERLAYS, title, reporter), depot.new_artefact() as writer:
        files, raw_size = [], 0
        for done, entry in enumerate(entries, start=1):
            check()
            built = builder.build(entry.blade)
            for note in built.plan.notes:
                reporter(Warned(text=f"overlay of {entry.blade.name}: {note}"))
            files.append(writer.add_file(entry.overlay, built.tar_zst))
            raw_size += built.raw_size_bytes
            reporter(Progress(step=ArtefactKind.OVERLAYS, done=done, total=len(entries), unit="blades"))
        index = OverlayIndex(blades=tuple(entry.blade.name for entry in entries))
        files.append(writer.add_file("index", wire.encode(index)))
        return writer.finish(ArtefactKind.OVERLAYS, files, raw_size)


def _publish_boot_code(plan: PublishPlan, depot: Depot, reporter: Reporter) -> Artefact:
    with (
        step(ArtefactKind.BOOT, "Make boot code for BIOS and UEFI", reporter),
        scratch_folder("bladeroot-boot-") as payload,
        depot.new_artefact() as writer,
    ):
        build_boot_payload(plan.snapshot, payload)
        for name in copy_ipxe_loaders(plan.snapshot, payload):
            reporter(Warned(text=f"no {name} here: no blade can boot over the network", hint=_IPXE_HINT))
        return _take_directory(writer, ArtefactKind.BOOT, payload)


def _publish_agent(plan: PublishPlan, depot: Depot, reporter: Reporter) -> tuple[Artefact, ...]:
    """None for a snapshot without a kernel: it is for containers, or not yet whole."""
    toml, trusted = _read_site(plan.folder)
    with step(ArtefactKind.AGENT, "Make the agent's initramfs", reporter):
        with allowed():
            agent = plan_agent(plan.snapshot, toml, trusted, reporter)
            if agent is None:
                return ()
            fingerprint = agent.fingerprint
            made_before = read_made_agent(depot, fingerprint)
            if made_before is not None:
                return (made_before,)
            built = agent.build()
        with depot.new_artefact() as writer:
            parts = chain(cut_into_parts(KERNEL, built.kernel), cut_into_parts(INITRAMFS, *built.archives))
            files = [writer.add_file(name, data) for name, data in parts]
            files.insert(0, writer.add_file("info", wire.encode(built.info)))
            artefact = writer.finish(ArtefactKind.AGENT, files, built.raw_size_bytes + len(built.kernel))
        keep_made_agent(depot, fingerprint, artefact)
        return (artefact,)


def _read_site(folder: ClusterFolder) -> tuple[str, dict[str, bytes]]:
    """cluster.toml, and the public keys that blades trust, as every blade gets them."""
    trusted = {path.name: path.read_bytes() for path in sorted(folder.trusted_keys_path.glob("*.pub"))}
    return folder.file.read_text(encoding="utf-8"), trusted


def _take_directory(writer: ArtefactWriter, kind: ArtefactKind, directory: Path) -> Artefact:
    files = [writer.add_file(path.name, path.read_bytes()) for path in sorted(directory.iterdir())]
    return writer.finish(kind, files, sum(file.size_bytes for file in files))


def _read_newest(plan: PublishPlan, depot: Depot) -> tuple[SignedManifest, Manifest] | None:
    """What the new generation comes after; a depot that cannot take it is known before the long work."""
    serials = depot.serials()
    if not serials:
        return None
    manifest = depot.load(serials[-1], plan.folder.trusted_keys(), plan.folder.cluster.id)
    return depot.read_manifest(serials[-1]), manifest


def _sign_and_add(
    plan: PublishPlan,
    depot: Depot,
    secret_key: SecretKey,
    artefacts: tuple[Artefact, ...],
    newest_and_before: tuple[SignedManifest, Manifest] | None,
) -> Published:
    cluster = plan.folder.cluster
    newest, before = newest_and_before or (None, None)
    manifest = Manifest(
        cluster_id=cluster.id,
        cluster_name=cluster.name,
        serial=before.serial + 1 if before else 1,
        previous=newest.hash if newest else None,
        arch=cluster.arch,
        created=int(time.time()),
        kernel_command_line=cluster.kernel_command_line,
        artefacts=artefacts,
        blades=make_blade_entries(cluster),
        network=cluster.network,
        strangers=_name_pool(cluster),
    )
    if newest is not None and before is not None and _says_the_same(manifest, before):
        return Published(signed=newest, manifest=before, is_new=False)
    signed = sign_manifest(manifest, secret_key)
    depot.add_generation(signed, manifest)
    return Published(signed=signed, manifest=manifest, is_new=True)


def _name_pool(cluster: Cluster) -> Strangers:
    """With the pool's blades by name: who reads a manifest does not know what a group was."""
    strangers = cluster.strangers
    if strangers.policy is not StrangerPolicy.ASSIGN:
        return strangers
    names = (blade.name for blade in find_blades(strangers.pool, cluster))
    return attrs.evolve(strangers, pool=fold_names(names))


def _says_the_same(one: Manifest, other: Manifest) -> bool:
    def content(manifest: Manifest) -> tuple[object, ...]:
        return (
            manifest.artefacts,
            manifest.blades,
            manifest.kernel_command_line,
            manifest.network,
            manifest.strangers,
            manifest.arch,
        )

    return content(one) == content(other)


def _read_rules(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return DEFAULT_SPLIT_RULES
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
