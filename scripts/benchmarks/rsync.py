"""An rsync daemon on the root, of the unpacked tree: what the first bladeroot did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from benchmarks.contender import Command, listens, render_script, wait_until
from benchmarks.http import first_number
from benchmarks.stage import Spot, Stage
from bladeroot.host.run import DEVNULL, Process, run, start_process

_PORT = 873
_CONF = """\
use chroot = no
uid = root
gid = root
max connections = 0
[image]
path = {tree}
read only = yes
"""


class Rsync:
    """A copy for each blade, file by file."""

    name = "rsync"
    title = "rsync daemon"
    settings = "-aHAX --numeric-ids -z (zstd); on these links better than without -z"
    sends_each = True
    needs: Sequence[str] = ("rsync",)

    @contextmanager
    def start_root(self, stage: Stage) -> Iterator[Process]:
        """In the foreground."""
        conf = stage.folder / "rsyncd.conf"
        conf.write_text(_CONF.format(tree=stage.payload.tree))
        words = ["--daemon", "--no-detach", f"--config={conf}", f"--port={_PORT}"]
        argv = stage.root.command(["rsync", *words])
        with start_process(argv, stdout=DEVNULL, new_group=True, ends_with_parent=True) as process:
            wait_until(lambda: listens(stage.root, _PORT), "rsync", process)
            yield process

    def blade_command(self, stage: Stage, spot: Spot) -> Command:
        """To have it and to have it extracted are one here."""
        source = f"rsync://{stage.root.address}:{_PORT}/image/"
        words = "-aHAX --numeric-ids --quiet --compress --compress-choice=zstd"
        return render_script(spot, f"rsync {words} {source} {{tree}}/\nsay have\n")

    def versions(self) -> str:
        """Of rsync."""
        return first_number(run(["rsync", "--version"]).stdout)
