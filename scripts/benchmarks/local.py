"""Publish and install a real Debian, and do the same with tar and zstd, turn by turn on this machine.

Ratios are what counts: machines differ, and this one may be busy. Both sides read the same tree, compress at
the same level, and write to a fresh filesystem of the same kind behind the same kind of loop device, until
all is on it. Partitions, filesystems and boot code are an install's own: tar finds its filesystem made.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import attrs
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.turns import in_turn
from bladeroot.core.cluster import GIB, MIB, Blade, Layout
from bladeroot.core.manifest import ArtefactKind
from bladeroot.core.tarformat import Member
from bladeroot.events import Event, StepFinished
from bladeroot.host.archive import read_package_order, scan_tree
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
_SETTLE_S = 2.5
_BOOTS = {b"boot", b"modules", b"firmware"}
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

    def change(self, number: int, make_key: Callable[[bytes], str]) -> None:
        """Other bytes in files that hold a hundredth of all. Files of the same key change together; which
        ones is chosen anew for each number.
        """
        together: dict[str, list[Member]] = {}
        for member in scan_tree(self.snapshot):
            # What boots stays as it is: another kernel would mean another agent, which is another story.
            if member.data_size and not _BOOTS.intersection(member.path.split(b"/")):
                together.setdefault(make_key(member.path), []).append(member)
        left = CHANGED_SHARE * sum(member.data_size for group in together.values() for member in group)
        for key in sorted(together, key=lambda key: hashlib.sha256(f"{number} {key}".encode()).digest()):
            size = sum(member.data_size for member in together[key])
            if size <= left:
                left -= size
                for member in together[key]:
                    _change_file(self.snapshot / os.fsdecode(member.path))
        # What was changed just before a publish is not remembered by it (`host.archive.known`).
        time.sleep(_SETTLE_S)

    def change_packages(self, number: int) -> None:
        """As an upgrade does."""
        package_of = read_package_order(self.snapshot)
        self.change(number, lambda path: package_of.get(path, ""))

    def change_files(self, number: int) -> None:
        """All over the tree, as no one does: the worst case."""
        self.change(number, os.fsdecode)

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

    def install(self) -> float:
        """The whole install of a blade, from a depot on this machine."""
        disk = self._make_disk()
        started = time.monotonic()
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
        return time.monotonic() - started

    def extract(self) -> float:
        """`zstd -dc | tar x` of the same tarballs, until all is on the disk."""
        with self._mount_fresh() as directory:
            started = time.monotonic()
            for kind in (ArtefactKind.RUNTIME, ArtefactKind.EXTRAS):
                tarball = self.work / f"{kind}.tar.zst"
                with start_process(["zstd", "-q", "-dc", tarball], stdout=PIPE) as zstd:
                    argv = ["tar", *TAR_OPTIONS, "-C", directory, "-xpf", "-"]
                    with start_process(argv, stdin=zstd.stdout) as tar:
                        check(tar.wait())
                    check(zstd.wait())
            sync_filesystem(directory)
            return time.monotonic() - started

    def export(self) -> None:
        """The tarballs as one file each, for `extract`."""
        serial = self.depot.serials()[-1]
        manifest = self.depot.load(serial, self.folder.trusted_keys(), self.folder.cluster.id)
        for kind in (ArtefactKind.RUNTIME, ArtefactKind.EXTRAS):
            with (self.work / f"{kind}.tar.zst").open("wb") as file:
                for path in self.depot.artefact_files(manifest.artefact(kind).info_hash):
                    file.write(path.read_bytes())

    @contextmanager
    def _mount_fresh(self) -> Iterator[Path]:
        disk = self._make_disk()
        run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=1,lazy_journal_init=1", disk])
        with open_disk(disk) as opened, mounted(opened.device, self.work / "mount") as directory:
            yield directory

    def _make_disk(self) -> Path:
        disk = self.work / "disk.img"
        disk.unlink(missing_ok=True)
        with disk.open("wb") as file:
            file.truncate(DISK_SIZE_BYTES)
        return disk


def _change_file(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + os.urandom(16) + data[len(data) // 2 :])


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
    ours: Sequence[float]
    theirs: Sequence[float]

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
    first, plain, after_packages, after_files = [], [], [], []
    for number in range(runs):
        with in_turn(lock):
            first.append(time_it(bench.publish))
            plain.append(time_it(bench.tar_and_compress))
            bench.change_packages(number)
            after_packages.append(time_it(bench.publish_again))
            bench.change_files(number)
            after_files.append(time_it(bench.publish_again))
    return [
        Pair(name="publish / tar c | zstd -T0", ours=first, theirs=plain),
        Pair(name="publish after 1 % changed, whole packages / publish", ours=after_packages, theirs=first),
        Pair(name="publish after 1 % changed, all over the tree / publish", ours=after_files, theirs=first),
    ]


def _measure_installing(bench: Bench, runs: int, lock: Path | None) -> list[Pair]:
    bench.export()
    ours, theirs = [], []
    for _ in range(runs):
        with in_turn(lock):
            ours.append(bench.install())
            theirs.append(bench.extract())
    return [
        Pair(name="install / zstd -dc | tar x", ours=ours, theirs=theirs),
        Pair(name="fetch and extract / zstd -dc | tar x", ours=bench.extract_s, theirs=theirs),
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
