"""What a tool has to bring to be measured: a root, and a program for each blade.

A blade's program says on standard output how far it is, a line each: `ready`, then after a line of input
`have SECONDS` and `bootable SECONDS` (of the clock that /proc/uptime shows), and at its end, which it may put
off until its input ends, perhaps `told JSON` with what it knows of itself.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from benchmarks.stage import TREE, Spot, Stage
from bladeroot.errors import ClaimNotHeldError
from bladeroot.host.interrupts import allowed
from bladeroot.host.run import Argument, Process, run
from bladeroot.lab.network import LabHost

Command = list[Argument]
_READY_TIMEOUT_S = 30.0
_POLL_S = 0.05
# /proc/uptime: what a shell can read of a clock that does not jump, without a process for it.
_SHELL_FRAME = """\
set -eu
say() {{ read -r now _ </proc/uptime; echo "$1 $now" >&9; }}
exec 9>&1
mkdir -p {tree}
echo ready >&9
read -r _
{body}
"""
_SHELL_END = "sync --file-system {tree}\nsay bootable\nread -r _ || :\n"
TAR_EXTRACT = "tar --xattrs --xattrs-include='*' --acls --numeric-owner -C {tree} -xpf -"


class Contender(Protocol):
    """A tool in the race."""

    name: str
    """As in `--only`."""
    title: str
    """As in the table."""
    settings: str
    """What differs from its defaults, for people."""
    sends_each: bool
    """Whether the root sends each blade a copy: then it takes as many links' times as there are blades."""
    needs: Sequence[str]
    """The programs that it is made of."""

    def start_root(self, stage: Stage) -> AbstractContextManager[Process]:
        """Have the root give from now on, in a process group of its own; yields when it does."""

    def blade_command(self, stage: Stage, spot: Spot) -> Command:
        """A blade's program. It runs in the blade's namespace."""

    def versions(self) -> str:
        """Which it is."""


def render_script(spot: Spot, body: str, *, end: str = _SHELL_END) -> Command:
    """A blade's program as a shell script: between `ready` and `bootable` it is `body`, which says `have`.

    `{tree}` in it is where to extract, `{extract}` what reads a tar from standard input.
    """
    tree = shlex.quote(str(spot.disk / TREE))
    filled = (body + end).format(tree=tree, extract=TAR_EXTRACT.format(tree=tree))
    return ["sh", "-c", _SHELL_FRAME.format(tree=tree, body=filled)]


def wait_until(is_so: Callable[[], bool], what: str, process: Process | None = None) -> None:
    """Raise ClaimNotHeldError where it takes too long, or the process that should see to it has ended."""
    until = time.monotonic() + _READY_TIMEOUT_S
    while not is_so():
        if time.monotonic() > until or (process is not None and process.poll() is not None):
            raise ClaimNotHeldError(f"{what} did not come up")
        with allowed():
            time.sleep(_POLL_S)


def listens(host: LabHost, port: int) -> bool:
    """Whether something takes TCP connections there."""
    return bool(run(host.command(["ss", "-Hltn", f"sport = :{port}"])).stdout.strip())
