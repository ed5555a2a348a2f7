"""bladeroot itself: the real root, and blades that do what an install does."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import bladeroot
from benchmarks.contender import Command, wait_until
from benchmarks.stage import Spot, Stage
from bladeroot.events import RootStarted
from bladeroot.host.run import DEVNULL, Process, start_process


class Bladeroot:
    """`bladeroot promote`, and the code that `bladeroot install` fetches and extracts with."""

    name = "bladeroot"
    title = "bladeroot"
    settings = "as it comes"
    sends_each = False
    needs: Sequence[str] = ()

    @contextmanager
    def start_root(self, stage: Stage) -> Iterator[Process]:
        """The command itself."""
        words: Command = ["--json", "--cluster", stage.payload.cluster, "--depot", stage.payload.depot]
        argv = [sys.executable, "-m", "bladeroot", *words, "promote", "--blade", "root"]
        log = stage.folder / "root.jsonl"
        with (
            log.open("wb") as file,
            start_process(
                stage.root.command(argv), stdout=DEVNULL, stderr=file, new_group=True, ends_with_parent=True
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
