"""udpcast: the root sends the tarball once, to all at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.contender import Command, render_script, wait_until
from benchmarks.http import first_number
from benchmarks.stage import Spot, Stage
from bladeroot.host.run import Process, run, start_process
from bladeroot.lab.network import INTERFACE

_SHARE = 0.95
"""Of a link, for what udpcast counts: it leaves headers out, and a queue that is always full loses."""
_PORT = 9000
_MEETING = "--nokbd --mcast-rdv-address 224.0.0.1"


class Udpcast:
    """All blades must start together, and wait for the slowest."""

    name = "udpcast"
    title = "udpcast | tar"
    settings = f"--full-duplex, --max-bitrate {_SHARE:.0%} of the link"
    sends_each = False
    needs: Sequence[str] = ("udp-sender", "udp-receiver")

    @contextmanager
    def start_root(self, stage: Stage) -> Iterator[Process]:
        """It begins when all receivers are there."""
        words: list[str | Path] = ["--interface", INTERFACE, "--file", stage.payload.tarball]
        words += _MEETING.split()
        words += ["--min-receivers", str(len(stage.blades)), "--full-duplex"]
        # Else it does nothing for two seconds when all are there.
        words += ["--rexmit-hello-interval", "100"]
        words += ["--max-bitrate", str(int(stage.rate_bits * _SHARE))]
        argv = stage.root.command(["udp-sender", *words])
        with (
            (stage.folder / "sender.log").open("wb") as log,
            start_process(argv, stdout=log, stderr=log, new_group=True, ends_with_parent=True) as process,
        ):
            wait_until(lambda: _is_bound(stage), "udp-sender", process)
            yield process

    def blade_command(self, stage: Stage, spot: Spot) -> Command:
        """One pipe."""
        del stage
        receive = f"udp-receiver --interface {INTERFACE} {_MEETING}"
        return render_script(spot, f"{{{{ {receive}; say have; }}}} | zstd -dc | {{extract}}\n")

    def versions(self) -> str:
        """Of udpcast."""
        return first_number(run(["udp-sender", "--license"], check=False).stderr)


def _is_bound(stage: Stage) -> bool:
    told = run(stage.root.command(["ss", "-Hlun", f"sport = :{_PORT + 1} or sport = :{_PORT}"])).stdout
    return bool(told.strip())
