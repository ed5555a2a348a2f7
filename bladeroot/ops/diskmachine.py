"""A blade whose machine is a process: its disk is named, and to restart is to end with a certain exit code.

Whoever started the process is the firmware then: it looks at the disk, and starts what that boots.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.hardware import Hardware
from bladeroot.host.bootdisk import look_at_disk
from bladeroot.host.esp import read_boot_facts
from bladeroot.host.hardware import read_hardware
from bladeroot.ops.ownboot import note_boot, start_agent_next

RESTART_CODE = 75
"""The exit code of a daemon whose blade is to restart (EX_TEMPFAIL: begin again)."""


class DiskMachine:
    """The daemon's `Machine` with that disk, whoever uses it: a device, or a file with a loop device."""

    def __init__(self, disk: Path) -> None:
        self._path = disk
        self.is_restarting = False
        """The process is being stopped, and is to end with RESTART_CODE."""

    def note_boot(self) -> BootFacts:
        """Raises DiskError where the disk is not one that bladeroot installed."""
        disk = look_at_disk(self._path)
        note_boot(disk)
        return read_boot_facts(disk)

    def read_hardware(self) -> Hardware:
        """From /sys and /proc, of the machine that the process runs on."""
        return read_hardware()

    def start_agent_next(self) -> None:
        """Raises DiskError where the disk keeps no agent."""
        start_agent_next(look_at_disk(self._path))

    def restart(self) -> None:
        """Have this process stopped in order, as its service manager would."""
        self.is_restarting = True
        os.kill(os.getpid(), signal.SIGTERM)
