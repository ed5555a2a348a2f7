"""bladeroot itself: the real root, and blades that do what an install does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import bladeroot
from bladeroot.events import RootStarted
from bladeroot.host.run import DEVNULL, Process, start_process
from benchmarks.contender import Command, wait_until
from benchmarks.payload import Payload
from benchmarks.stage import Spot, Stage


class Bladeroot:
    """`bladeroot promote`, and the code that `bladeroot install` fetches and extracts with."""

    name = "bladeroot"
    title = "bladeroot"
    needs: Sequence[str] = ()

    def prepare(self, payload: Payload, work: Path) -> None:
        """Nothing: the payload is a depot already."""

    @contextmanager
    def start_root(self, stage: Stage) -> Iterator[Process]:
        """The command itself."""
        words = ["--json", "--cluster", stage.payload.cluster, "--depot", stage.payload.depot]
        argv = [sys.executable, "-m", "bladeroot", *words, "promote", "--blade", "root"]
        log = stage.folder / "root.jsonl"
        with (
            log.open("wb") as file,
            start_process(
                stage.root.command(argv), stdout=DEVNULL, stderr=file, ends_with_parent=True
            ) as process,
        ):
            wait_until(lambda: f'"{RootStarted.__name__}"' in log.read_text(), "the root", process)
            yield process

    def blade_command(self, stage: Stage, spot: Spot) -> Command:
        """See `benchmarks.member`."""
        return [sys.executable, "-m", "benchmarks.member", spot.name, stage.payload.cluster, spot.disk]

    def versions(self) -> str:
        """Of the package."""
        return str(bladeroot.__version__)
