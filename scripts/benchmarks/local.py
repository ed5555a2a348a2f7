"""Publish and install a real Debian, and do the same with tar and zstd, turn by turn on this machine.

Ratios are what counts: machines differ, and this one may be busy. Both sides read the same tree, compress at
the same level, and write to a fresh filesystem of the same kind behind the same kind of loop device.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import attrs
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.turns import in_turn
from bladeroot.core.cluster import GIB, MIB, Blade, Layout
from bladeroot.core.manifest import ArtefactKind
from bladeroot.events import Event, StepFinished
from bladeroot.host.blockdev import open_disk
from bladeroot.host.depot import Depot
from bladeroot.host.files import sync_filesystem
from bladeroot.host.mounts import mounted
from bladeroot.host.run import PIPE, Argument, require_root, run, start_process
from bladeroot.lab.demo import PACKAGES
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ops.install import apply_install, choose_install_disk, plan_install
from bladeroot.ops.publish import plan_publish, publish_snapshot
from bladeroot.ops.snapshots.debian import clone_snapshot, ensure_cached_debian
from bladeroot.ops.sources import DepotSource

LAYOUT = Layout(esp_size_bytes=64 * MIB, slot_size_bytes=3 * GIB, data_min_size_bytes=1 * GIB)
DISK_SIZE_BYTES = 5 * GIB
CHANGED_SHARE = 0.01
TAR_OPTIONS: tuple[Argument, ...] = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")


class Bench:
    """One tree, one cluster, and the things that are timed."""

    def __init__(self, work: Path, level: int) -> None:
        self.work = work
        self.level = level
        self.snapshot = clone_snapshot(ensure_cached_debian(include=PACKAGES), work / "snapshot")
        self.folder = self._make_cluster()
        self.key = self.folder.secret_key(lambda _prompt: "", work / "key")
        self.depot = Depot.create(work / "depot")
        self.tarball = work / "plain.tar.zst"
        self.extract_s: list[float] = []

    def _make_cluster(self) -> ClusterFolder:
        blade = Blade(name="web01", role="web")
        made = init_cluster(
            self.work / "cluster", name="bench", blades=[blade], secret_key_path=self.work / "key"
        )
        cluster = attrs.evolve(made.folder.cluster, layouts={"default": LAYOUT}, zstd_level=self.level)
        return made.folder.save(cluster)

    def publish(self) -> None:
        """Scan, split, pack, overlays, boot code, sign."""
        self.depot = Depot.create(Path(tempfile.mkdtemp(dir=self.work)) / "depot")
        publish_snapshot(plan_publish(self.folder, self.snapshot), self.depot, self.key)

    def change(self, number: int) -> None:
        """Other bytes in files that hold a hundredth of all, chosen anew for each number."""
        files = [path for path in self.snapshot.rglob("*") if path.is_file() and not path.is_symlink()]
        files.sort(key=lambda path: hashlib.sha256(f"{number} {path}".encode()).digest())
        left = CHANGED_SHARE * sum(path.stat().st_size for path in files)
        for path in files:
            # What boots stays as it is: another kernel would mean another agent, which is another story.
            if 0 < path.stat().st_size <= left and "boot" not in path.parts:
                data = path.read_bytes()
                path.write_bytes(data[: len(data) // 2] + os.urandom(16) + data[len(data) // 2 :])
                left -= len(data)

    def publish_again(self) -> None:
        """Into the depot that has the generation before the change."""
        publish_snapshot(plan_publish(self.folder, self.snapshot), self.depot, self.key)

    def tar_and_compress(self) -> None:
        """`tar c | zstd -T0` of the same tree."""
        with start_process(["tar", *TAR_OPTIONS, "-C", self.snapshot, "-c", "."], stdout=PIPE) as tar:
            argv = ["zstd", "-q", "-f", "-T0", f"-{self.level}", "-o", str(self.tarball)]
            with start_process(argv, stdin=tar.stdout) as zstd:
                check(zstd.wait())
            check(tar.wait())
        sync_filesystem(self.work)

    def install(self) -> None:
        """The whole install of a blade, from a depot on this machine."""
        disk = self._make_disk()
        source = DepotSource(self.depot)
        signed, keys, cluster_id = source.read_manifest(), self.folder.trusted_keys(), self.folder.cluster.id
        chosen = choose_install_disk(signed, keys, cluster_id, "web01", disk)
        steps: dict[str, float] = {}

        def note(event: Event) -> None:
            if isinstance(event, StepFinished):
                steps[event.step] = event.duration_s

        with open_disk(disk) as opened:
            plan = plan_install(signed, keys, cluster_id, "web01", chosen, opened)
            apply_install(plan, opened, source, reporter=note)
        self.extract_s.append(steps["runtime"] + steps["extras"])

    def extract(self) -> None:
        """`zstd -dc | tar x` of the same tarballs, on a fresh filesystem."""
        disk = self._make_disk()
        run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", disk])
        with open_disk(disk) as opened, mounted(opened.device, self.work / "mount") as directory:
            for kind in (ArtefactKind.RUNTIME, ArtefactKind.EXTRAS):
                tarball = self.work / f"{kind}.tar.zst"
                with start_process(["zstd", "-q", "-dc", tarball], stdout=PIPE) as zstd:
                    argv = ["tar", *TAR_OPTIONS, "-C", directory, "-xpf", "-"]
                    with start_process(argv, stdin=zstd.stdout) as tar:
                        check(tar.wait())
                    check(zstd.wait())
            sync_filesystem(directory)

    def export(self) -> None:
        """The tarballs as one file each, for `extract`."""
        serial = self.depot.serials()[-1]
        manifest = self.depot.load(serial, self.folder.trusted_keys(), self.folder.cluster.id)
        for kind in (ArtefactKind.RUNTIME, ArtefactKind.EXTRAS):
            with (self.work / f"{kind}.tar.zst").open("wb") as file:
                for path in self.depot.artefact_files(manifest.artefact(kind).info_hash):
                    file.write(path.read_bytes())

    def _make_disk(self) -> Path:
        disk = self.work / "disk.img"
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(DISK_SIZE_BYTES)
        return disk


def check(code: int) -> None:
    """Stop if a program failed."""
    if code != 0:
        raise SystemExit(f"bench: a program ended with exit code {code}")


def time_it(what: Callable[[], None]) -> float:
    """Wall seconds."""
    started = time.monotonic()
    what()
    return time.monotonic() - started


@attrs.frozen(kw_only=True)
class Pair:
    """Something of ours, and what it is held against; seconds of each run."""

    name: str
    ours: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Of the medians."""
        return statistics.median(self.ours) / statistics.median(self.theirs)


def run_local(runs: int, level: int, lock: Path | None) -> list[Pair]:
    """Each pair turn by turn, so that both meet the same machine."""
    require_root("the bench (loop devices)")
    with tempfile.TemporaryDirectory(prefix="bladeroot-bench-", dir="/var/tmp") as work:
        with in_turn(lock):
            bench = Bench(Path(work), level)
            bench.publish()
        # What is changed later need not run any more.
        installing = _measure_installing(bench, runs, lock)
        return [*_measure_publishing(bench, runs, lock), *installing]


def _measure_publishing(bench: Bench, runs: int, lock: Path | None) -> list[Pair]:
    first, plain, again = [], [], []
    for number in range(runs):
        with in_turn(lock):
            first.append(time_it(bench.publish))
            plain.append(time_it(bench.tar_and_compress))
            bench.change(number)
            again.append(time_it(bench.publish_again))
    return [
        Pair(name="publish / tar c | zstd -T0", ours=tuple(first), theirs=tuple(plain)),
        Pair(name="publish after 1 % changed / publish", ours=tuple(again), theirs=tuple(first)),
    ]


def _measure_installing(bench: Bench, runs: int, lock: Path | None) -> list[Pair]:
    bench.export()
    ours, theirs = [], []
    for _ in range(runs):
        with in_turn(lock):
            ours.append(time_it(bench.install))
            theirs.append(time_it(bench.extract))
    return [
        Pair(name="install / zstd -dc | tar x", ours=tuple(ours), theirs=tuple(theirs)),
        Pair(name="fetch and extract / zstd -dc | tar x", ours=tuple(bench.extract_s), theirs=tuple(theirs)),
    ]


def print_pairs(pairs: list[Pair], console: Console) -> None:
    """For people."""
    table = Table(title="On this machine, without a network", title_justify="left", box=SIMPLE)
    for heading in ("", "ours", "theirs", "ratio", "spread"):
        table.add_column(heading, justify="right" if heading else "left")
    for pair in pairs:
        spread = " / ".join(f"{min(times):.1f}-{max(times):.1f}" for times in (pair.ours, pair.theirs))
        medians = [f"{statistics.median(times):.1f} s" for times in (pair.ours, pair.theirs)]
        table.add_row(pair.name, *medians, f"{pair.ratio:.2f}", spread)
    console.print(table)
