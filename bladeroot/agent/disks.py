"""The machine's disks that boot a blade of this cluster already."""

from __future__ import annotations

from collections.abc import Iterator

from bladeroot.agent.agent import Agent
from bladeroot.core.agentdecision import DiskFacts, DiskState
from bladeroot.errors import BladerootError
from bladeroot.host.blockdev import open_disk
from bladeroot.host.finddisks import find_disks
from bladeroot.ops.diskfacts import read_disk_facts


def find_installed(agent: Agent) -> Iterator[DiskFacts]:
    """Every disk with a committed slot of the agent's cluster."""
    for disk in find_disks():
        try:
            with open_disk(disk.path) as opened:
                facts = read_disk_facts(opened, agent.cluster_id)
        except BladerootError:
            continue  # in use, broken, without a medium: not what this machine boots
        if facts.state is DiskState.COMMITTED:
            yield facts
