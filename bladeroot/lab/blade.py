"""A process blade from outside: its power switch, its cable, its disk, and what it says."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from attrs import frozen

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.disklayout import LABELS
from bladeroot.errors import BladerootError, ClaimNotHeldError, DiskError, UsageError
from bladeroot.events import Booted, Event, Failed, Reporter, StepStarted, Warned, about
from bladeroot.host.blockdev import OpenDisk, open_disk, read_table
from bladeroot.host.bootdisk import look_at_disk
from bladeroot.host.depot import DEFAULT_DEPOT, Depot
from bladeroot.host.esp import read_boot_facts
from bladeroot.host.espagent import find_agent
from bladeroot.host.loopdev import find_loops
from bladeroot.host.mounts import parse_mountinfo
from bladeroot.host.run import DEVNULL, PIPE, Argument, Process, start_process
from bladeroot.lab.bladeprocess import FIRMWARE_STEP, SYSTEM_FOLDER
from bladeroot.lab.network import LabHost, LabNetwork
from bladeroot.lab.roomprocess import RoomProcess, parse_line
from bladeroot.ops.identity import INSTALLED_FILE
from bladeroot.ops.resume import read_slot

_OWN_NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--uts", "--mount-proc")
"""Whatever a machine has started ends with the first process of its PID namespace, and by SIGKILL."""
_DISK_DEADLINE_S = 240.0
"""What a blade has written goes to this machine's own disk first, and that of a whole room at once."""
_POLL_S = 0.05


@frozen(kw_only=True)
class BladeParts:
    """What a process blade is made of. Its files go below `folder`."""

    name: str
    network: LabNetwork
    host: LabHost
    cluster: Path
    """The cluster folder that agents carry."""
    folder: Path
    disk: Path
    disk_size_bytes: int
    root: str | None = None
    """The one root that it follows, `host:port`, instead of those that it finds."""


class ProcessBlade:
    """A machine that is off at first, with an empty disk unless there is one. See `lab.bladeprocess`.

    Each of its methods may be called from any thread, one at a time.
    """

    def __init__(self, parts: BladeParts, reporter: Reporter) -> None:
        self.parts = parts
        self.name = parts.name
        self.disk = parts.disk
        self.log = parts.folder / "log.jsonl"
        """Everything that it has said, from its first power-on."""
        self._scratch = parts.folder / "scratch"
        self._tell = about(self.name, reporter)
        self._power = ExitStack()
        self._process: Process | None = None
        self._running: RoomProcess | None = None
        self._changed = threading.Condition()
        self._serial = 0
        """The generation whose system runs; 0 while none does."""
        self._trouble = ""
        self._scratch.mkdir(parents=True, exist_ok=True)
        if not self.disk.exists():
            self.replace_disk()

    @property
    def is_on(self) -> bool:
        """Whether it has power, and has not hung."""
        return self._running is not None and not self._running.is_silent

    @property
    def serial(self) -> int:
        """The generation whose system runs just now; 0 in the agent, and without power."""
        return self._serial if self.is_on else 0

    def power_on(self) -> None:
        """Plug it in, and switch it on. Raises UsageError if it is on."""
        if self._running is not None:
            raise UsageError(f"{self.name} is on already")
        parts = self.parts
        argv = [sys.executable, "-m", "bladeroot.lab.bladeprocess", "--blade", self.name]
        argv += ["--disk", str(self.disk), "--cluster", str(parts.cluster), "--scratch", str(self._scratch)]
        argv += ["--root", parts.root] if parts.root else []
        parts.network.set_link(parts.host.name, up=True)
        self._process = self._power.enter_context(
            start_process(
                parts.host.command([*_OWN_NAMESPACES, *argv]),
                stdin=PIPE,
                stdout=DEVNULL,
                stderr=PIPE,
                new_group=True,  # Ctrl-C is for the lab, which then cuts the power
            )
        )
        self._running = RoomProcess(self.name, self._process, self.log, self._hear)

    def cut_power(self) -> None:
        """Everything of it ends at once: nothing more gets onto the network, nobody says goodbye.

        Returns when its disk is free. What was written to the disk is there: the kernel under a process
        blade does not lose its caches. Does nothing if it is off.
        """
        running, self._running, self._process = self._running, None, None
        if running is None:
            return
        self.parts.network.set_link(self.parts.host.name, up=False)
        running.kill()
        self._power.close()
        self._set_state(serial=0)
        _wait_until(lambda: not find_loops(self.disk), f"{self.disk} is still in use, and {self.name} is off")

    def wait_until_up(self, serial: int, timeout_s: float) -> None:
        """Until its own disk has booted that generation, and its daemon was started.

        Raises ClaimNotHeldError if it is off, hangs, or takes longer.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while self.serial != serial:
                if not self.is_on or time.monotonic() > deadline:
                    what = f"is not up with generation {serial} after {timeout_s:g} s"
                    state = f"it runs {self._serial}" if self._serial else "no system runs"
                    why = f"{what}: {state}" if self.is_on else "has no power, or hangs"
                    raise ClaimNotHeldError(
                        f"{self.name} {why}; {self._trouble or 'no trouble known'}", f"its log: {self.log}"
                    )
                self._changed.wait(1.0)

    def facts(self) -> BootFacts:
        """What its disk says of itself just now."""
        with self._look() as disk:
            return read_boot_facts(disk)

    def installed(self) -> dict[str, Any]:
        """What the slot that the disk boots says of itself; empty where none does, or nobody can look now.

        (While the machine is on, only a slot that it has mounted can be looked into.)
        """
        with self._look() as disk:
            slot, table = read_boot_facts(disk).slot, read_table(disk)
            if slot is None or table is None:
                return {}
            if self._process is None:
                return read_slot(disk, table, slot).told
            numbers = [part.number for part in table.partitions if part.name == LABELS[slot]]
            return _read_mounted(self._process.pid, [str(disk.partition(number)) for number in numbers])

    def events(self) -> Iterator[Event]:
        """Everything that it has said so far, from its first power-on."""
        if self.log.exists():
            yield from filter(None, map(parse_line, self.log.read_bytes().splitlines()))

    @property
    def depot_path(self) -> Path | None:
        """Where the depot of the system that runs is, as seen from outside; None while it is off."""
        process = self._process
        if process is None:
            return None
        return Path("/proc", str(process.pid), "root", self._depot_inside.relative_to("/"))

    def held_generations(self) -> dict[int, str]:
        """The hash of each generation's manifest in the depot of the system that runs, by serial; empty where
        none does.
        """
        path = self.depot_path
        try:
            depot = Depot.open(path) if path else None
            return {serial: depot.read_manifest(serial).hash for serial in depot.serials()} if depot else {}
        except (BladerootError, OSError):
            return {}  # it is not mounted, or just now written

    def command(self, argv: Sequence[Argument]) -> list[Argument]:
        """What runs `argv` on the machine, with its network and its files; `{depot}` in a word is its depot.

        Raises UsageError while it is off.
        """
        if self._process is None:
            raise UsageError(f"{self.name} is off")
        enter = ["nsenter", "--target", str(self._process.pid), "--mount", "--net", "--"]
        return [*enter, *(str(word).replace("{depot}", str(self._depot_inside)) for word in argv)]

    def has_agent(self) -> bool:
        """Whether the disk keeps an agent that carries an install on."""
        with self._look() as disk:
            return find_agent(disk) is not None

    def replace_disk(self, size_bytes: int | None = None) -> None:
        """Take its disk out, and put an empty one in. Raises UsageError while it is on."""
        if self._running is not None:
            raise UsageError(f"{self.name} is on", "cut its power first")
        self.disk.unlink(missing_ok=True)
        self.disk.parent.mkdir(parents=True, exist_ok=True)
        with self.disk.open("wb") as file:
            file.truncate(size_bytes or self.parts.disk_size_bytes)

    @property
    def _depot_inside(self) -> Path:
        return self._scratch.absolute() / SYSTEM_FOLDER / DEFAULT_DEPOT.relative_to("/")

    @contextmanager
    def _look(self) -> Iterator[OpenDisk]:
        if self._running is None:
            with open_disk(self.disk) as disk:
                yield disk
            return
        what = f"{self.name} is on, and does not use its disk {self.disk}"
        _wait_until(lambda: bool(find_loops(self.disk)), what)
        yield look_at_disk(self.disk)

    def _hear(self, event: Event) -> None:
        if not event.subject:  # a root also tells what others reported
            self._note(event)
        self._tell(event)

    def _note(self, event: Event) -> None:
        match event:
            case Booted():
                self._set_state(serial=event.serial)
            case StepStarted() if event.step == FIRMWARE_STEP:
                self._set_state(serial=0)
            case Failed() | Warned():
                self._set_state(trouble=event.text)

    def _set_state(self, serial: int | None = None, trouble: str | None = None) -> None:
        with self._changed:
            self._serial = self._serial if serial is None else serial
            self._trouble = self._trouble if trouble is None else trouble
            self._changed.notify_all()


def _read_mounted(process: int, nodes: list[str]) -> dict[str, Any]:
    """`installed.json` of one of these partitions, where that process has it mounted."""
    proc = Path("/proc") / str(process)
    try:
        mounts = parse_mountinfo((proc / "mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
        for mount in mounts:
            if mount.source in nodes:
                path = proc / "root" / mount.target.relative_to("/") / INSTALLED_FILE
                told = json.loads(path.read_bytes())
                return told if isinstance(told, dict) else {}
    except (OSError, ValueError):
        return {}  # unmounted, or written, just now
    return {}


def _wait_until(is_so: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _DISK_DEADLINE_S
    while not is_so():
        if time.monotonic() > deadline:
            raise DiskError(otherwise, "see who has it: `losetup -a`")
        time.sleep(_POLL_S)
