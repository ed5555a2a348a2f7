"""aria2, an ordinary BitTorrent client, with a tracker: blades extract what it has brought.

A stand-in for what SystemImager and others do: the tarball as one file, cut into pieces of about the size
that bladeroot's frames have.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.contender import Command, listens, render_script, wait_until
from benchmarks.http import first_number
from benchmarks.payload import Payload
from benchmarks.stage import Spot, Stage
from bladeroot.core.torrentfile import bencode, choose_piece_length
from bladeroot.host.run import DEVNULL, Process, run, start_process
from bladeroot.lab.network import INTERFACE

_TRACKER_PORT = 6969
_PORT = 6881
# No peer limits, since the room is small beside what they are for; ask the tracker again soon, since all
# start at once and the first hear of few.
_OPTIONS = (
    "--enable-dht=false --enable-dht6=false --bt-enable-lpd=true "
    f"--bt-lpd-interface={INTERFACE} --listen-port={_PORT} --bt-tracker-interval=5 --bt-max-peers=0 "
    "--bt-request-peer-speed-limit=1024M --seed-ratio=0.0 --file-allocation=none --disk-cache=64M "
    "--console-log-level=error --summary-interval=0 --download-result=hide --show-console-readout=false "
    "--no-conf=true --allow-overwrite=true"
)


class Aria2:
    """Blades give to each other, and extract when they have it all."""

    name = "aria2"
    title = "aria2, then tar"
    settings = "tracker and LPD, no limit of peers, tracker asked every 5 s"
    sends_each = False
    needs: Sequence[str] = ("aria2c", "opentracker", "curl")

    @contextmanager
    def start_root(self, stage: Stage) -> Iterator[Process]:
        """A tracker, and the first seeder."""
        url = f"http://{stage.root.address}:{_TRACKER_PORT}/announce"
        torrent, info_hash = render_torrent(stage.payload, url)
        (stage.folder / "torrent").write_bytes(torrent)
        # It gives up root's rights, and then reads what it may track.
        folder = stage.folder / "tracker"
        folder.mkdir(mode=0o755)
        (folder / "allowed").write_text(f"{info_hash}\n")
        tracker: Command = ["opentracker", "-i", stage.root.address, "-p", str(_TRACKER_PORT)]
        tracker += ["-d", folder, "-w", "allowed"]
        with ExitStack() as stack:
            log = stack.enter_context((stage.folder / "root.log").open("wb"))
            process = stack.enter_context(
                start_process(
                    stage.root.command(tracker), stdout=DEVNULL, stderr=DEVNULL, ends_with_parent=True
                )
            )
            wait_until(lambda: listens(stage.root, _TRACKER_PORT), "the tracker", process)
            words = ["--bt-seed-unverified=true", f"--dir={stage.payload.tarball.parent}"]
            seeding: Command = ["aria2c", *shlex.split(_OPTIONS), *words, stage.folder / "torrent"]
            argv = stage.root.command(seeding)
            process = stack.enter_context(
                start_process(
                    stage.root.command(argv), stdout=log, stderr=log, new_group=True, ends_with_parent=True
                )
            )
            wait_until(lambda: _is_known(stage, info_hash), "aria2", process)
            yield process

    def blade_command(self, stage: Stage, spot: Spot) -> Command:
        """aria2 seeds on while what it brought is extracted."""
        disk, torrent = shlex.quote(str(spot.disk)), shlex.quote(str(stage.folder / "torrent"))
        body = (
            f"mkfifo {disk}/done; hook={disk}/hook\n"
            f"printf '#!/bin/sh\\necho >{disk}/done\\n' >$hook; chmod +x $hook\n"
            f"aria2c {_OPTIONS} --dir={disk} --on-bt-download-complete=$hook {torrent} >&2 &\n"
            f"read -r _ <{disk}/done\nsay have\n"
            f"zstd -dc {disk}/{stage.payload.tarball.name} | {{extract}}\n"
        )
        return render_script(spot, body, end=_END)

    def versions(self) -> str:
        """Of aria2."""
        return first_number(run(["aria2c", "--version"]).stdout)


_END = "sync --file-system {tree}\nsay bootable\nread -r _ || :\nkill $!; wait $! || :\n"


def _is_known(stage: Stage, info_hash: str) -> bool:
    """Whether the tracker has heard of the seeder."""
    quoted = "".join(f"%{info_hash[at : at + 2]}" for at in range(0, len(info_hash), 2))
    url = f"http://{stage.root.address}:{_TRACKER_PORT}/scrape?info_hash={quoted}"
    return "completei1e" in run(stage.root.command(["curl", "-s", url]), check=False).stdout


def render_torrent(payload: Payload, tracker: str) -> tuple[bytes, str]:
    """A v1 torrent (BEP 3) of the tarball, and its info-hash."""
    data = payload.tarball.read_bytes()
    length = choose_piece_length(payload.size_bytes // payload.pieces)
    pieces = [hashlib.sha1(data[at : at + length]).digest() for at in range(0, len(data), length)]  # noqa: S324
    info = {
        "length": len(data),
        "name": payload.tarball.name,
        "piece length": length,
        "pieces": b"".join(pieces),
    }
    info_hash = hashlib.sha1(bencode(info)).hexdigest()  # noqa: S324
    return bencode({"announce": tracker, "info": info}), info_hash
