"""A blade as bladeroot installs it, but for partitions and boot loader: `python -m benchmarks.member`.

It finds the root by mDNS, checks the signed manifest, joins the swarm, extracts each frame as it comes, and
gives to others until its input ends. See `contender` for what it says.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import attrs

from benchmarks.stage import TREE
from bladeroot.core.manifest import ArtefactKind, accept_manifest
from bladeroot.events import Event, Progress, SwarmStats
from bladeroot.host.depot import Depot
from bladeroot.host.files import sync_filesystem
from bladeroot.ops.fetching import Fetcher
from bladeroot.ops.folder import ClusterFolder
from bladeroot.ops.follow import follow_root

_WAIT_S = 60.0


class _Telling:
    """Hears what the fetch says."""

    def __init__(self) -> None:
        self.stats: SwarmStats | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, SwarmStats):
            self.stats = event
        elif isinstance(event, Progress) and event.step == ArtefactKind.RUNTIME and event.done == event.total:
            _say("have")


def _say(word: str) -> None:
    print(word, time.clock_gettime(time.CLOCK_BOOTTIME), flush=True)  # noqa: T201


def main(blade: str, cluster_path: Path, disk: Path) -> None:
    """Be that blade."""
    folder = ClusterFolder.open(cluster_path)
    telling, tree = _Telling(), disk / TREE
    tree.mkdir()
    _say("ready")
    sys.stdin.readline()
    with follow_root(folder.cluster, blade, wait_s=_WAIT_S, reporter=telling) as followed:
        _say("found")
        signed = followed.source.read_manifest()
        manifest = accept_manifest(signed, folder.trusted_keys(), folder.cluster.id)
        depot = Depot.create(disk / "depot")
        with followed.reporting():
            fetcher = Fetcher(followed.source, depot, manifest, followed.reporter)
            fetcher.fetch_and_extract(ArtefactKind.RUNTIME, tree)
            sync_filesystem(disk)
            _say("bootable")
            sys.stdin.read()
    if telling.stats is not None:
        print("told", json.dumps(attrs.asdict(telling.stats)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
