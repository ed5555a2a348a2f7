"""A cluster for a room of process blades, with a system that is only large enough to be installed.

Process blades run this machine's own Python, so what is on their disks need not boot: what is tried is the
room. It has a kernel by name, a daemon by name, and a bulk that cannot be compressed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import attrs
from attrs import frozen

from bladeroot.core.cluster import MIB, Blade, Daemon, Layout, Network, Role, Takeover
from bladeroot.core.manifest import Manifest
from bladeroot.events import Reporter, ignore
from bladeroot.host.depot import Depot
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ops.owndaemon import LAUNCHER, SERVICE, WANTED_BY
from bladeroot.ops.publish import plan_publish, publish_snapshot

DISK_SIZE_BYTES = 1152 * MIB
LAYOUT = Layout(
    name="default", esp_size_bytes=128 * MIB, slot_size_bytes=384 * MIB, data_min_size_bytes=384 * MIB
)
RELEASE_FILE = "etc/lab-release"
"""What a new generation changes."""
_FIRST_ADDRESS = 11
"""As a room gives them."""
_BULK_FILE_BYTES = MIB
_UNITS = "usr/lib/systemd/system"


@frozen(kw_only=True)
class SmallClusterOptions:
    """What a small cluster is made of."""

    blades: int
    bulk_bytes: int = 16 * MIB
    takeover: Takeover = Takeover.AUTO
    roots: Sequence[str] = ()
    """As in cluster.toml: roots that multicast does not reach."""


@frozen(kw_only=True)
class SmallCluster:
    """What `prepare_small_cluster` made: generation 1 is in `depot`, the operator's."""

    folder: ClusterFolder
    key_path: Path
    snapshot: Path
    depot: Depot
    disk_size_bytes: int = DISK_SIZE_BYTES

    @property
    def blades(self) -> list[str]:
        """Their names, in order."""
        return sorted(self.folder.cluster.blades)

    def change(self, what: str) -> None:
        """Let the snapshot be another: what is published next is a new generation."""
        (self.snapshot / RELEASE_FILE).write_text(f"{what}\n", encoding="utf-8")

    def publish(self, reporter: Reporter = ignore) -> Manifest:
        """Publish the snapshot as it is, into the operator's depot."""
        secret_key = self.folder.secret_key(lambda _prompt: "", self.key_path)
        plan = plan_publish(self.folder, self.snapshot, reporter)
        return publish_snapshot(plan, self.depot, secret_key, reporter=reporter).manifest


def prepare_small_cluster(
    work: Path, options: SmallClusterOptions, reporter: Reporter = ignore
) -> SmallCluster:
    """Cluster folder, key, snapshot and generation 1, in a folder that is empty."""
    made = init_cluster(
        work / "cluster",
        name="lab",
        roles=[Role(name="blade")],
        blades=[_plan_blade(number) for number in range(options.blades)],
        secret_key_path=work / "operator.key",
    )
    cluster = attrs.evolve(
        made.folder.cluster,
        layouts={LAYOUT.name: LAYOUT},
        zstd_level=1,
        network=Network(roots=tuple(options.roots)),
        daemon=Daemon(takeover=options.takeover),
    )
    write_small_system(snapshot := work / "snapshot", options.bulk_bytes)
    small = SmallCluster(
        folder=made.folder.save(cluster),
        key_path=work / "operator.key",
        snapshot=snapshot,
        depot=Depot.create(work / "depot"),
    )
    small.publish(reporter)
    return small


def write_small_system(target: Path, bulk_bytes: int) -> None:
    """The tree. It is the same every time, but nothing in it can be made smaller."""
    chance = random.Random(bulk_bytes)  # noqa: S311 - filling, no secret
    wants = f"etc/systemd/system/{WANTED_BY}.wants"
    folders = ("bin", "boot", "dev", "proc", "root", "run", "sys", "tmp", "var/lib", "usr/share/doc/lab")
    for name in (*folders, wants, _UNITS, "usr/bin", "usr/lib/bulk"):
        (target / name).mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("etc/os-release", 'ID=lab\nNAME="Lab"\nVERSION_ID=1\n'),
        ("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("etc/hostname", "lab\n"),
        (RELEASE_FILE, "1\n"),
        ("usr/share/doc/lab/README.gz", "of the extras\n"),
        (f"{_UNITS}/{SERVICE}", f"[Service]\nExecStart=/{LAUNCHER} daemon\n"),
        (LAUNCHER, "#!/bin/sh\n"),
    ):
        (target / name).write_text(text, encoding="utf-8")
    (target / LAUNCHER).chmod(0o755)
    (target / wants / SERVICE).symlink_to(f"/{_UNITS}/{SERVICE}")
    for name in ("vmlinuz-1-lab", "initrd.img-1-lab"):
        (target / "boot" / name).write_bytes(chance.randbytes(64 << 10))
    for number in range(-(-bulk_bytes // _BULK_FILE_BYTES)):
        (target / f"usr/lib/bulk/{number:03d}").write_bytes(chance.randbytes(_BULK_FILE_BYTES))


def _plan_blade(number: int) -> Blade:
    return Blade(name=f"blade{number + 1:02d}", role="blade", address=f"10.77.0.{_FIRST_ADDRESS + number}/24")
