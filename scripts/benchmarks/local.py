"""Publish and install a real Debian, and do the same with tar and zstd, turn by turn on this machine.

Ratios are what counts: machines differ, and this one may be busy. Both sides read the same tree, compress at
the same level, and write to a fresh filesystem of the same kind behind the same kind of loop device.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs

from bladeroot.core.cluster import GIB, MIB, Blade, Layout
from bladeroot.core.manifest import ArtefactKind
from bladeroot.events import Event, StepFinished
from bladeroot.host.blockdev import open_disk
from bladeroot.host.depot import Depot
from bladeroot.host.files import sync_filesystem
from bladeroot.host.mounts import mounted
from bladeroot.host.run import PIPE, Argument, require_root, run, start_process
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ops.install import apply_install, choose_install_disk, plan_install
from bladeroot.ops.publish import plan_publish, publish_snapshot
from bladeroot.ops.snapshots.debian import ensure_cached_debian
from bladeroot.ops.sources import DepotSource

LAYOUT = Layout(esp_size_bytes=64 * MIB, slot_size_bytes=3 * GIB, data_min_size_bytes=1 * GIB)
DISK_SIZE_BYTES = 5 * GIB
TAR_OPTIONS: tuple[Argument, ...] = ("--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner")


class Bench:
    """One tree, one cluster, and the four things that are timed."""

    def __init__(self, work: Path, level: int) -> None:
        self.work = work
        self.level = level
        self.snapshot = ensure_cached_debian(include=("memcached", "nginx-light"))
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


def summarise(times: list[float]) -> dict[str, float]:
    """Median and spread."""
    return {"median_s": statistics.median(times), "least_s": min(times), "most_s": max(times)}


def measure(bench: Bench, runs: int) -> dict[str, Any]:
    """Each pair turn by turn, so that both meet the same machine."""
    pairs: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
        "publish / tar c | zstd -T0": (bench.publish, bench.tar_and_compress),
        "install / zstd -dc | tar x": (bench.install, bench.extract),
    }
    result: dict[str, Any] = {
        "level": bench.level,
        "runs": runs,
        "cores": os.cpu_count(),
        "load": os.getloadavg(),
    }
    for name, (ours, theirs) in pairs.items():
        if ours == bench.install:
            bench.export()
        times: tuple[list[float], list[float]] = ([], [])
        for _ in range(runs):
            times[0].append(time_it(ours))
            times[1].append(time_it(theirs))
        ratio = statistics.median(times[0]) / statistics.median(times[1])
        result[name] = {"ours": summarise(times[0]), "theirs": summarise(times[1]), "ratio": ratio}
        if ours == bench.install:
            extract = summarise(bench.extract_s)
            ratio = extract["median_s"] / statistics.median(times[1])
            result["fetch and extract / zstd -dc | tar x"] = {
                "ours": extract,
                "theirs": summarise(times[1]),
                "ratio": ratio,
            }
    return result


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=3, help="how often each (3)")
    parser.add_argument("--level", type=int, default=6, help="zstd's level for both sides (6)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    args = parser.parse_args()
    require_root("the bench (loop devices)")
    with tempfile.TemporaryDirectory(prefix="bladeroot-bench-", dir="/var/tmp") as work:
        result = measure(Bench(Path(work), args.level), args.runs)
    if args.json:
        json.dump(result, sys.stdout, indent=2)
        return
    sys.stdout.write(f"{'':40} {'ours':>8} {'theirs':>8} {'ratio':>6}   spread\n")
    for name, pair in result.items():
        if isinstance(pair, dict):
            ours, theirs = pair["ours"], pair["theirs"]
            spread = (
                f"{ours['least_s']:.1f}-{ours['most_s']:.1f} / {theirs['least_s']:.1f}-{theirs['most_s']:.1f}"
            )
            medians = f"{ours['median_s']:7.1f}s {theirs['median_s']:7.1f}s"
            sys.stdout.write(f"{name:40} {medians} {pair['ratio']:6.2f}   {spread}\n")


if __name__ == "__main__":
    main()
