"""The machine that a daemon runs on: what it looks at, and the little that it changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.hardware import Hardware
from bladeroot.host.bootdisk import find_booted_disk
from bladeroot.host.esp import read_boot_facts
from bladeroot.host.hardware import read_hardware
from bladeroot.host.restart import restart_in_order
from bladeroot.ops.ownboot import note_boot, start_agent_next

RESTART_CODE = 75
"""The exit code of a daemon whose machine is a process, and is to start anew (sysexits.h, EX_TEMPFAIL)."""


class Machine(Protocol):
    """What the daemon looks at and changes of its machine. All of it raises BladerootError."""

    def note_boot(self) -> BootFacts:
        """Note on the disk that the installed system runs; what the disk says of itself then."""

    def read_hardware(self) -> Hardware:
        """What it is made of."""

    def start_agent_next(self) -> None:
        """Let the boot loader start the agent next time, and only then."""

    def restart(self) -> None:
        """Begin to restart."""


class OwnMachine:
    """The machine that this process runs on; its disk is the one that has the filesystem of `root`."""

    def __init__(self, root: Path = Path("/"), restart: Callable[[], None] = restart_in_order) -> None:
        self._root = root
        self._restart = restart

    def note_boot(self) -> BootFacts:
        """Raises DiskError where its disk is not one that bladeroot installed."""
        disk = find_booted_disk(self._root)
        note_boot(disk)
        return read_boot_facts(disk)

    def read_hardware(self) -> Hardware:
        """From /sys and /proc."""
        return read_hardware()

    def start_agent_next(self) -> None:
        """Raises DiskError where the disk keeps no agent."""
        start_agent_next(find_booted_disk(self._root))

    def restart(self) -> None:
        """Through systemd, unless it was given another way."""
        self._restart()
