"""The machine's disks that boot a blade of this cluster already."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bladeroot.agent.agent import Agent
from bladeroot.core.agentdecision import DiskFacts, DiskState
from bladeroot.errors import BladerootError
from bladeroot.host.blockdev import open_disk
from bladeroot.host.finddisks import find_disks
from bladeroot.ops.diskfacts import read_disk_facts

_SETTLED_S = 8.0
_LOOK_S = 0.5


def name_disks() -> frozenset[str]:
    """The disks that there are now."""
    return frozenset(disk.path.name for disk in find_disks())


def wait_for_disks(agent: Agent) -> None:
    """Until no disk has come or gone for a while.

    Controllers show theirs one by one, and a rule that fits two of them must not choose the first.
    """
    while True:
        now = name_disks()
        if now != agent.disks:
            agent.disks, agent.disks_since_s = now, time.monotonic()
        if time.monotonic() - agent.disks_since_s >= _SETTLED_S:
            return
        agent.sleep(_LOOK_S)


def find_installed(agent: Agent) -> Iterator[DiskFacts]:
    """Every disk with a committed slot of the agent's cluster."""
    told = agent.assignment
    for path in [told.disk] if told else [disk.path for disk in find_disks()]:
        try:
            with open_disk(path) as opened:
                facts = read_disk_facts(opened, agent.cluster_id)
        except BladerootError:
            continue  # in use, broken, without a medium: not what this machine boots
        if facts.state is DiskState.COMMITTED:
            yield facts
