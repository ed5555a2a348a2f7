"""A cluster for a room of virtual blades: inventory, snapshot, and a generation to netboot from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
from attrs import field, frozen

from bladeroot.core.cluster import GIB, MIB, Blade, Layout, Netboot, Role
from bladeroot.core.manifest import Manifest
from bladeroot.core.sizes import render_about
from bladeroot.events import Note, Reporter
from bladeroot.host.depot import Depot
from bladeroot.host.run import require_root, require_tools
from bladeroot.lab.demo import PACKAGES, ROLES
from bladeroot.lab.qemuplan import KERNEL_COMMAND_LINE, Bus, Firmware
from bladeroot.lab.vmroom import VmRoom, choose_buses, choose_firmwares, plan_blade
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ops.publish import plan_publish, publish_snapshot
from bladeroot.ops.snapshots.debian import clone_snapshot, ensure_cached_debian
from bladeroot.ops.snapshots.selfcopy import copy_self
from bladeroot.ops.steps import step

DISK_SIZE_BYTES = 7 * GIB
LAYOUT = Layout(
    name="default", esp_size_bytes=256 * MIB, slot_size_bytes=3 * GIB, data_min_size_bytes=1 * GIB
)
PREPARING = ("cluster", "snapshot", "publish")
_TOOLS = ("ip", "nsenter", "unshare", "setpriv", "qemu-system-x86_64", "dnsmasq", "mkfs.vfat", "mcopy")
_PROCESS_TOOLS = ("ip", "tc", "setpriv", "unshare", "sfdisk", "mkfs.ext4", "mkfs.vfat", "mcopy")
_JOURNAL_TO_CONSOLE = """\
[Service]
StandardOutput=journal+console
StandardError=journal+console
"""
_NOT_OF_MACHINES = """
# Hardware that these machines have not: a quarter of what each would install.
leave-out  /usr/lib/modules/*/kernel/sound/*
leave-out  /usr/lib/modules/*/kernel/drivers/gpu/*
leave-out  /usr/lib/modules/*/kernel/drivers/iio/*
leave-out  /usr/lib/modules/*/kernel/drivers/infiniband/*
leave-out  /usr/lib/modules/*/kernel/drivers/media/*
leave-out  /usr/lib/modules/*/kernel/drivers/net/ethernet/*
leave-out  /usr/lib/modules/*/kernel/drivers/net/wireless/*
leave-out  /usr/lib/modules/*/kernel/drivers/staging/*
"""
_PLAIN_ROLES = {"blade": Role(name="blade", description="what the snapshot is, and no more")}


@frozen(kw_only=True)
class VmClusterOptions:
    """`snapshot` is any tree to publish; by default a Debian with a service for each of two roles."""

    blades: int = 3
    firmware: str = "mixed"
    """A key of `vmroom.FIRMWARE_MIXES`."""
    disk: str = "virtio"
    """A key of `vmroom.DISK_MIXES`."""
    snapshot: Path | None = None
    cache: Path | None = None
    """Keeps the Debian between runs."""
    is_vm: bool = True
    """False: the blades are processes. They have no firmware, and need nobody to answer netboot."""
    is_slim: bool = False
    """Whether drivers that virtual machines have no use for are left out: emulated, these install slowly."""
    speaks: bool = False
    """Whether the daemon's journal goes to the console too."""


@frozen(kw_only=True)
class VmCluster:
    """What a room needs to be started."""

    folder: ClusterFolder
    key_path: Path
    depot: Path
    manifest: Manifest
    firmwares: Mapping[str, Firmware]
    """By blade."""
    buses: Mapping[str, Bus] = field(factory=dict)
    """What a blade's disk is attached to, where that is not virtio."""
    disk_size_bytes: int = DISK_SIZE_BYTES

    def environment(self) -> dict[str, str]:
        """What `bladeroot` goes by inside the room."""
        return {
            "BLADEROOT_CLUSTER": str(self.folder.path),
            "BLADEROOT_DEPOT": str(self.depot),
            "BLADEROOT_KEY": str(self.key_path),
        }

    def furnish(self, room: VmRoom) -> None:
        """Put the blades into the room: off, with empty disks."""
        for name, firmware in self.firmwares.items():
            blade = self.folder.cluster.blade(name)
            bus = self.buses.get(name, "virtio")
            room.add_blade(blade, firmware=firmware, bus=bus, disk_size_bytes=self.disk_size_bytes)


def prepare_cluster(work: Path, options: VmClusterOptions, reporter: Reporter) -> VmCluster:
    """Make it all in an empty folder, in the steps `PREPARING`. Raises PrivilegeError, MissingToolError."""
    require_root("a room of blades")
    require_tools(_TOOLS if options.is_vm else _PROCESS_TOOLS)
    with step("cluster", "Make a cluster", reporter):
        folder, key_path = make_cluster(work, options)
    with step("snapshot", "Get a snapshot", reporter):
        snapshot = make_snapshot(work, options, reporter)
    with step("publish", "Publish it as generation 1", reporter):
        return publish(work, folder, key_path, snapshot, options, reporter)


def plan_blades(count: int, roles: Mapping[str, Role]) -> list[Blade]:
    """So many blades, the roles in turn: web01, cache01, web02, …"""
    names = list(roles)
    return [
        plan_blade(number + 1, f"{role}{number // len(names) + 1:02d}", role)
        for number in range(count)
        for role in [names[number % len(names)]]
    ]


def make_cluster(work: Path, options: VmClusterOptions) -> tuple[ClusterFolder, Path]:
    """The cluster folder with its inventory, and where the operator's key is."""
    roles = ROLES if options.snapshot is None else _PLAIN_ROLES
    key_path = work / "operator.key"
    made = init_cluster(
        work / "cluster",
        name="lab",
        roles=list(roles.values()),
        blades=plan_blades(options.blades, roles),
        kernel_command_line=KERNEL_COMMAND_LINE,
        secret_key_path=key_path,
    )
    if options.speaks:
        drop_in = made.folder.overlays / "cluster/files/etc/systemd/system/bladeroot.service.d/lab.conf"
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(_JOURNAL_TO_CONSOLE)
    cluster = made.folder.cluster
    network = cluster.network
    if options.is_slim:
        with made.folder.split_rules_path.open("a") as rules:
            rules.write(_NOT_OF_MACHINES)
    if options.is_vm:
        network = attrs.evolve(network, netboot=Netboot.DHCP, dhcp_range=("10.77.0.220", "10.77.0.250"))
    return made.folder.save(attrs.evolve(cluster, layouts={LAYOUT.name: LAYOUT}, network=network)), key_path


def make_snapshot(work: Path, options: VmClusterOptions, reporter: Reporter) -> Path:
    """What is published: the named tree as it is, else a Debian with bladeroot itself in it."""
    if options.snapshot is not None:
        return options.snapshot
    cached = ensure_cached_debian(options.cache, include=PACKAGES, reporter=reporter)
    snapshot = clone_snapshot(cached, work / "snapshot")
    copied = copy_self(snapshot)
    size = render_about(copied.size_bytes)
    reporter(Note(text=f"bladeroot {copied.version} itself is in the snapshot: {size}"))
    return snapshot


def publish(
    work: Path,
    folder: ClusterFolder,
    key_path: Path,
    snapshot: Path,
    options: VmClusterOptions,
    reporter: Reporter,
) -> VmCluster:
    """Make generation 1 of it."""
    depot = work / "depot"
    secret_key = folder.secret_key(lambda _prompt: "", key_path)
    plan = plan_publish(folder, snapshot, reporter)
    published = publish_snapshot(plan, Depot.create(depot), secret_key, reporter=reporter)
    for artefact in published.manifest.artefacts:
        reporter(Note(text=f"{artefact.kind}: {render_about(artefact.size_bytes)}"))
    names = sorted(folder.cluster.blades)
    return VmCluster(
        folder=folder,
        key_path=key_path,
        depot=depot,
        manifest=published.manifest,
        firmwares=dict(zip(names, choose_firmwares(options.firmware, len(names)), strict=True)),
        buses=dict(zip(names, choose_buses(options.disk, len(names)), strict=True)),
    )
