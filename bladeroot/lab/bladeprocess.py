"""A blade that is a process, from power-on to power-off: `python -m bladeroot.lab.bladeprocess`.

It is what firmware and boot loader are to a machine: it looks at what the disk boots, and starts the system
of a slot (its daemon, on this machine's own Python) or the agent, again and again. `lab.blade` starts it, in
namespaces of its own; standard input is its power cable: at its end everything is gone, at once.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import attrs
from attrs import frozen

from bladeroot.core.agentdecision import Why
from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.disklayout import LABELS, Use
from bladeroot.errors import BladerootError, DiskError
from bladeroot.events import Booted, Failed, Reporter, StepStarted, Warned
from bladeroot.host.blockdev import OpenDisk, open_disk, read_table
from bladeroot.host.depot import DEFAULT_DEPOT
from bladeroot.host.esp import read_boot_facts, write_boot_facts
from bladeroot.host.espagent import find_agent
from bladeroot.host.eventlines import EventLines
from bladeroot.host.mounts import mounted
from bladeroot.host.run import DEVNULL, start_process
from bladeroot.ops.machine import RESTART_CODE

FIRMWARE_STEP = "firmware"
"""It begins at every start of the machine: no system runs any more."""
SYSTEM_FOLDER = "system"
"""Below the scratch folder: where the tree of the system that runs is mounted."""
_NO_POWER_CODE = 137
_AGENT_PAUSE_S = 1.0
_DAEMON_PAUSE_S = 5.0
"""Shorter than bladeroot.service's: a lab does not wait for what is broken."""


@frozen(kw_only=True)
class Blade:
    """What is screwed together: the name, the disk, and what was said to the agent that netboots."""

    name: str
    disk: Path
    cluster: Path
    """The cluster folder that agents carry."""
    scratch: Path
    """An empty folder; what is put into it is seen by nobody else, and gone with the power."""
    root: str | None = None
    """The one root, `host:port`, that agent and daemon follow."""
    reporter: Reporter


@frozen
class Start:
    """What a disk boots: a slot, or else the agent for that reason."""

    slot: Use | None
    why: Why = Why.UNKNOWN


def choose_start(disk: OpenDisk) -> Start:
    """What GRUB starts from the disk (see `core.bootplan.render_grub_cfg`); without one, what netboots."""
    facts = read_boot_facts(disk)
    if facts.next_agent and _forget_next_agent(disk, facts) and find_agent(disk):
        return Start(None, Why.DISK)
    if facts.slot is not None:
        return Start(facts.slot)
    return Start(None, Why.DISK if find_agent(disk) else Why.UNKNOWN)


def run_blade(blade: Blade) -> None:
    """Start what the disk boots, as long as there is power. Raises BladerootError where a machine hangs."""
    with open_disk(blade.disk) as disk:
        while True:
            blade.reporter(StepStarted(step=FIRMWARE_STEP, title="Look at what the disk boots"))
            start = choose_start(disk)
            if start.slot is None:
                _run_agent(blade, disk, start.why)
            else:
                with _mounted_system(blade, disk, start.slot) as system:
                    facts = read_boot_facts(disk)
                    blade.reporter(Booted(serial=facts.serial, order=facts.order))
                    _run_daemon(blade, system)


def _forget_next_agent(disk: OpenDisk, facts: BootFacts) -> bool:
    """Whether it is noted that the agent is to start only once."""
    try:
        write_boot_facts(disk, attrs.evolve(facts, next_agent=False))
    except DiskError:
        return False
    return True


def _run_agent(blade: Blade, disk: OpenDisk, why: Why) -> None:
    words = ["--blade", blade.name, "--disk", str(disk.device), "--cluster", str(blade.cluster)]
    words += ["--why", why] if why else []
    code = _run_python(["bladeroot.agent.ondisk", *words, *_name_root(blade)])
    if code != 0:
        blade.reporter(Warned(text=f"the agent ended with exit code {code}"))
        time.sleep(_AGENT_PAUSE_S)


def _run_daemon(blade: Blade, system: Path) -> None:
    """Keep the daemon running, as systemd does, until it wants the machine to restart."""
    cluster, depot = system / "etc/bladeroot", system / DEFAULT_DEPOT.relative_to("/")
    words = ["--json", "--cluster", str(cluster), "--depot", str(depot)]
    words += ["daemon", "--system", str(system), *_name_root(blade)]
    while (code := _run_python(["bladeroot", *words])) != RESTART_CODE:
        blade.reporter(Warned(text=f"the daemon ended with exit code {code}; it is started again"))
        time.sleep(_DAEMON_PAUSE_S)


def _run_python(words: Sequence[str]) -> int:
    argv = [sys.executable, "-m", *words]
    with start_process(argv, stdout=DEVNULL, ends_with_parent=True) as process:
        return process.wait()


def _name_root(blade: Blade) -> list[str]:
    return ["--root", blade.root] if blade.root else []


@contextmanager
def _mounted_system(blade: Blade, disk: OpenDisk, slot: Use) -> Iterator[Path]:
    """The slot, with `data` in its place where there is one: as fstab has it, the blade comes up without."""
    with ExitStack() as stack:
        system = stack.enter_context(_mounted(disk, slot, blade.scratch / SYSTEM_FOLDER))
        try:
            stack.enter_context(_mounted(disk, Use.DATA, system / DEFAULT_DEPOT.relative_to("/")))
        except DiskError as error:
            blade.reporter(Warned(text=f"{blade.name} comes up without its data partition: {error}"))
        yield system


def _mounted(disk: OpenDisk, use: Use, directory: Path) -> AbstractContextManager[Path]:
    table = read_table(disk)
    for partition in table.partitions if table else ():
        if partition.name == LABELS[use]:
            return mounted(disk.partition(partition.number), directory, filesystem=partition.filesystem)
    raise DiskError(f"{disk.source} has no partition {LABELS[use]}", "put an empty disk into the blade")


def _watch_power() -> None:
    """End everything when the cable is pulled, or whoever holds it is gone."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(_NO_POWER_CODE)


def main(argv: Sequence[str] | None = None) -> int:
    """Run until the power is cut; ends by itself only where a machine would hang."""
    threading.Thread(target=_watch_power, daemon=True).start()
    parser = argparse.ArgumentParser(prog="bladeroot.lab.bladeprocess", description=__doc__)
    parser.add_argument("--blade", required=True)
    for name in ("--disk", "--cluster", "--scratch"):
        parser.add_argument(name, required=True, type=Path)
    parser.add_argument("--root")
    words = parser.parse_args(argv)
    reporter = EventLines(sys.stderr)
    blade = Blade(
        name=words.blade,
        disk=words.disk,
        cluster=words.cluster,
        scratch=words.scratch,
        root=words.root,
        reporter=reporter,
    )
    try:
        if os.getpid() != 1:
            raise DiskError("this is no machine of its own", "`bladeroot.lab.blade` starts it")
        socket.sethostname(blade.name)
        with mounted(Path("tmpfs"), blade.scratch, filesystem="tmpfs"):
            os.environ["TMPDIR"] = tempfile.tempdir = str(blade.scratch)
            run_blade(blade)
    except BladerootError as error:
        reporter(Failed(text=str(error), hint=error.hint, exit_code=error.exit_code))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
