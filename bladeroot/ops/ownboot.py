"""What a running blade tells its own boot loader: that it runs, and that the agent is wanted next."""

from __future__ import annotations

import attrs

from bladeroot.errors import DiskError
from bladeroot.host.blockdev import OpenDisk
from bladeroot.host.bootdisk import find_booted_disk
from bladeroot.host.esp import read_boot_facts, write_boot_facts
from bladeroot.host.espagent import find_agent


def note_boot(disk: OpenDisk | None = None) -> None:
    """The installed system runs: visits and tries begin anew. Nothing is written where there were none.

    By default this machine's own disk. Raises DiskError.
    """
    disk = disk or find_booted_disk()
    before = read_boot_facts(disk)
    if before.when_booted() != before:
        write_boot_facts(disk, before.when_booted())


def start_agent_next(disk: OpenDisk | None = None) -> None:
    """At the next boot, and only then, GRUB starts the agent that the disk keeps. Raises DiskError."""
    disk = disk or find_booted_disk()
    if find_agent(disk) is None:
        raise DiskError(f"{disk.source} keeps no agent", "boot it over the network to reimage it")
    write_boot_facts(disk, attrs.evolve(read_boot_facts(disk), next_agent=True))
