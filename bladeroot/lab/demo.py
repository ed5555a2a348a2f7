"""The whole job in a box: a cluster, a real Debian, a generation, a root, blades that install, and a boot.

Nothing is staged: the root and the blades are the real commands in network namespaces of their own, and
what was installed is booted in QEMU without a network card, in both firmwares.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.cluster import GIB, MIB, Blade, Layout, Role
from bladeroot.core.manifest import Manifest
from bladeroot.core.overlaysettings import SwitchAction
from bladeroot.core.sizes import render_about
from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Event, Note, Reporter, StepFinished
from bladeroot.host.depot import Depot
from bladeroot.host.run import require_root, require_tools
from bladeroot.lab.network import start_network
from bladeroot.lab.qemu import Firmware, boot
from bladeroot.lab.qemuplan import KERNEL_COMMAND_LINE
from bladeroot.lab.room import open_room
from bladeroot.lab.workfolder import make_work_folder
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ops.overlays import read_layer
from bladeroot.ops.publish import plan_publish, publish_snapshot
from bladeroot.ops.snapshots.debian import clone_snapshot, ensure_cached_debian
from bladeroot.ops.snapshots.selfcopy import copy_self
from bladeroot.ops.steps import step

ROLES = {
    "web": Role(name="web", description="answers on port 80 (nginx)"),
    "cache": Role(name="cache", description="keeps things in memory (memcached)"),
}
PACKAGES = ("nginx-light", "memcached")
"""What the roles' services are of."""
DISK_SIZE_BYTES = 6 * GIB
LAYOUT = Layout(name="default", esp_size_bytes=64 * MIB, slot_size_bytes=3 * GIB, data_min_size_bytes=1 * GIB)
FIRMWARES: tuple[Firmware, ...] = ("bios", "uefi")
INSTALL_STEP = "install"
_MARKER = ".bladeroot-demo"
_TOOLS = (
    "ip",
    "tc",
    "setpriv",
    "mmdebstrap",
    "qemu-system-x86_64",
    "sfdisk",
    "mkfs.ext4",
    "mkfs.vfat",
    "mcopy",
)
_INSTALL_TIMEOUT_S = 1800.0
_BOOT_TIMEOUT_S = 600.0


@frozen(kw_only=True)
class BootResult:
    """How a disk booted, by its own word on the serial console."""

    firmware: str
    blade: str
    role: str
    serial: int
    active: tuple[str, ...]
    inactive: tuple[str, ...]
    failed: tuple[str, ...]


@frozen(kw_only=True)
class DemoReport:
    """What the demo saw. Times are wall seconds, sizes bytes."""

    blades: tuple[str, ...]
    phases_s: Mapping[str, float]
    image_bytes: int
    """What a blade fetches: all artefacts, compressed."""
    installed_bytes: int
    """On all disks together, uncompressed."""
    root_up_bytes: int
    boots: tuple[BootResult, ...]

    @property
    def root_copies(self) -> float:
        """How many times the image left the root."""
        return self.root_up_bytes / self.image_bytes

    def facts(self) -> dict[str, Any]:
        """For programs."""
        return {**attrs.asdict(self), "root_copies": round(self.root_copies, 3)}

    def lines(self) -> list[str]:
        """For people."""
        total = sum(self.phases_s.values())
        lines = [f"{len(self.blades)} blades installed, {total:.0f} s in all:"]
        lines += [f"  {name:10} {seconds:6.1f} s" for name, seconds in self.phases_s.items()]
        lines.append(f"{render_about(self.installed_bytes)} installed on {len(self.blades)} disks")
        given, image = render_about(self.root_up_bytes), render_about(self.image_bytes)
        lines.append(f"{given} left the root: {self.root_copies:.2f} times the image ({image})")
        for result in self.boots:
            lines.append(
                f"booted alone, {result.firmware.upper()}: {result.blade} ({result.role}), generation "
                f"{result.serial}; running: {', '.join(result.active)}; not: {', '.join(result.inactive)}"
            )
        return lines


@frozen(kw_only=True)
class DemoOptions:
    """`work` is emptied first, and holds everything that is made; `cache` keeps the Debian between runs."""

    work: Path
    cache: Path | None = None
    blades: int = 8
    link_bits: int | None = None
    """What each link carries, bits per second each way; None for as much as the machine can."""
    seed: int | None = None
    """Which disk is booted is drawn with it."""


def run_demo(options: DemoOptions, reporter: Reporter) -> DemoReport:
    """Do it all. Raises ClaimNotHeldError if anything that should be true at the end is not."""
    require_root("the demo (network namespaces, loop devices)")
    require_tools(_TOOLS)
    phases: dict[str, float] = {}

    def report(event: Event) -> None:
        if isinstance(event, StepFinished) and not event.subject and event.step in _PHASES:
            phases[event.step] = event.duration_s
        reporter(event)

    make_work_folder(options.work, _MARKER)
    demo = _Demo(options, report)
    for name, (title, run_phase) in _PHASES.items():
        with step(name, title, report):
            run_phase(demo)
    manifest = demo.manifest
    return DemoReport(
        blades=tuple(sorted(demo.folder.cluster.blades)),
        phases_s=phases,
        image_bytes=sum(artefact.size_bytes for artefact in manifest.artefacts),
        installed_bytes=demo.installed_bytes,
        root_up_bytes=demo.root_up_bytes,
        boots=tuple(demo.boots),
    )


class _Demo:
    """What one phase leaves for the next."""

    folder: ClusterFolder
    snapshot: Path
    manifest: Manifest

    def __init__(self, options: DemoOptions, reporter: Reporter) -> None:
        self.options = options
        self.work = options.work
        self.report = reporter
        self.installed_bytes = 0
        self.root_up_bytes = 0
        self.boots: list[BootResult] = []

    def make_cluster(self) -> None:
        roles = list(ROLES)
        blades = [
            Blade(name=f"{role}{number // len(roles) + 1:02d}", role=role)
            for number in range(self.options.blades)
            for role in [roles[number % len(roles)]]
        ]
        made = init_cluster(
            self.work / "cluster",
            name="demo",
            roles=list(ROLES.values()),
            blades=blades,
            kernel_command_line=KERNEL_COMMAND_LINE,
            secret_key_path=self.work / "operator.key",
        )
        cluster = attrs.evolve(made.folder.cluster, layouts={LAYOUT.name: LAYOUT})
        self.folder = made.folder.save(cluster)

    def make_snapshot(self) -> None:
        cached = ensure_cached_debian(self.options.cache, include=PACKAGES, reporter=self.report)
        self.snapshot = clone_snapshot(cached, self.work / "snapshot")
        copied = copy_self(self.snapshot)
        text = f"bladeroot {copied.version} itself is in the snapshot: {render_about(copied.size_bytes)}"
        self.report(Note(text=text))

    def publish(self) -> None:
        secret_key = self.folder.secret_key(lambda _prompt: "", self.work / "operator.key")
        plan = plan_publish(self.folder, self.snapshot, self.report)
        published = publish_snapshot(plan, Depot.create(self.depot), secret_key, reporter=self.report)
        self.manifest = published.manifest
        for artefact in self.manifest.artefacts:
            size, raw = render_about(artefact.size_bytes), render_about(artefact.raw_size_bytes)
            self.report(Note(text=f"{artefact.kind}: {size} ({raw} before compression)"))

    def install(self) -> None:
        with (
            start_network("demo") as network,
            open_room(network, self.folder.path, self.work, self.report, self.options.link_bits) as room,
        ):
            root = room.start_root(self.depot)
            for name in self.folder.cluster.blades:
                room.start_blade(name, DISK_SIZE_BYTES, extra=["--linger"])
            finished = room.wait_for_blades(root, _INSTALL_TIMEOUT_S)
            given = root.stop()["given"]
        self.installed_bytes = sum(int(facts["installed_bytes"]) for facts in finished.values())
        self.root_up_bytes = sum(int(artefact["up_bytes"]) for artefact in given.values())

    def boot_one(self) -> None:
        chance = random.Random(self.options.seed)  # noqa: S311 - which disk to boot is no secret
        blade = chance.choice(sorted(self.folder.cluster.blades))
        self.report(Note(text=f"the disk of {blade} was drawn; it boots without a network card"))
        with ThreadPoolExecutor(len(FIRMWARES)) as pool:
            self.boots = list(pool.map(lambda firmware: self._boot(blade, firmware), FIRMWARES))
        for result in self.boots:
            _check_boot(result, blade, self.folder, self.manifest.serial)

    def _boot(self, blade: str, firmware: Firmware) -> BootResult:
        log = self.work / "logs" / f"boot-{blade}-{firmware}.log"
        disk = self.work / "disks" / f"{blade}.img"
        with boot(disk, firmware, log=log, memory_mib=1024) as machine:
            machine.wait_for(rf"^{blade} login:", _BOOT_TIMEOUT_S)
            told = json.loads(machine.wait_for(r"bladeroot-booted (\{.*\})", _BOOT_TIMEOUT_S)[1])
        self.report(Note(text=f"{firmware.upper()}: {blade} login:"))
        return BootResult(
            firmware=firmware,
            blade=told["blade"],
            role=told["role"],
            serial=int(told["serial"]),
            active=tuple(told["active"]),
            inactive=tuple(told["inactive"]),
            failed=tuple(told["failed"]),
        )

    @property
    def depot(self) -> Path:
        return self.work / "depot"


_PHASES: dict[str, tuple[str, Callable[[_Demo], None]]] = {
    "cluster": ("Make a cluster", _Demo.make_cluster),
    "snapshot": ("Build a Debian snapshot", _Demo.make_snapshot),
    "publish": ("Publish it as generation 1", _Demo.publish),
    INSTALL_STEP: ("Promote a root, and install all blades from it and each other", _Demo.install),
    "boot-alone": ("Boot one of the disks alone, in BIOS and in UEFI", _Demo.boot_one),
}


def _check_boot(result: BootResult, blade: str, folder: ClusterFolder, serial: int) -> None:
    """Raise ClaimNotHeldError unless the disk came up as the blade it should be."""
    role = folder.cluster.blade(blade).role
    services = {name: _read_role_services(folder, name) for name in ROLES}
    others = {service for name in ROLES if name != role for service in services[name]} - services[role]
    wrong = [
        f"calls itself {result.blade}" if result.blade != blade else "",
        f"role {result.role}, not {role}" if result.role != role else "",
        f"generation {result.serial}, not {serial}" if result.serial != serial else "",
        *(f"{service} does not run" for service in services[role] - set(result.active)),
        *(f"{service} runs" for service in others - set(result.inactive)),
        *(f"{service} failed" for service in result.failed),
    ]
    if any(wrong):
        raise ClaimNotHeldError(f"{blade} in {result.firmware}: {'; '.join(filter(None, wrong))}")


def _read_role_services(folder: ClusterFolder, role: str) -> set[str]:
    switches = read_layer(folder.overlays / "role" / role, f"role/{role}").settings.switches
    return {switch.unit for switch in switches if switch.action is SwitchAction.ENABLE}
