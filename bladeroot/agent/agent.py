"""The agent's state: what it knows of its machine and its job, and who hears of it."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.agent.arguments import AgentArguments
from bladeroot.agent.session import Offer, Session
from bladeroot.agent.site import Site
from bladeroot.core.agentdecision import Install
from bladeroot.core.hardware import Hardware
from bladeroot.core.manifest import Manifest, SignedManifest
from bladeroot.core.roomstate import stranger_name
from bladeroot.core.signing import PublicKey
from bladeroot.events import Event, HardwareFound, Reporter, ignore
from bladeroot.host.blockdev import OpenDisk
from bladeroot.host.links import Connection
from bladeroot.net.client import RootClient
from bladeroot.ops.currentroot import CurrentRoot
from bladeroot.ops.findroot import find_root_again
from bladeroot.ops.installplan import InstallPlan

_MOST_REMEMBERED = 200


class HeldError(Exception):
    """The machine waits for a person: why, and what to do."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


class DoneError(Exception):
    """An attempt came to its end: nothing is left to do but to restart."""


@frozen(kw_only=True)
class Assignment:
    """What the agent is told instead of finding it out: which blade it installs, and on which disk.

    The machine that it runs on is another one then: nothing but that disk is changed, or looked at.
    """

    blade: str
    disk: Path


@attrs.define(kw_only=True)
class Agent:
    """What is known so far; the steps fill it in, one after the other."""

    arguments: AgentArguments
    site: Site
    console: Reporter
    assignment: Assignment | None = None
    """None on a real blade, which is the machine that the agent runs on."""
    sleep: Callable[[float], None] = time.sleep
    chance: Callable[[float, float], float] = random.uniform

    lasting: ExitStack = attrs.field(factory=ExitStack)
    """What stays when an attempt has failed: the network."""
    attempt: ExitStack = attrs.field(factory=ExitStack)
    """What ends with an attempt: the disk."""

    hardware: Hardware = attrs.field(factory=Hardware)
    disks: frozenset[str] = frozenset()
    disks_since_s: float = 0.0
    """Since when (of the monotonic clock) these and no others are there."""
    connection: Connection | None = None
    session: Session | None = None
    offer: Offer | None = None
    """What the decision goes by."""
    signed: SignedManifest | None = None
    manifest: Manifest | None = None
    blade: str = ""
    opened: OpenDisk | None = None
    decision: Install | None = None
    plan: InstallPlan | None = None
    facts: dict[str, Any] = attrs.field(factory=dict)
    """Of the finished install."""
    begun: dict[int, int] = attrs.field(factory=dict)
    """How many installs this agent has begun, by order: a disk may be unable to note it."""
    _remembered: deque[Event] = attrs.field(factory=lambda: deque(maxlen=_MOST_REMEMBERED))

    @property
    def trusted_keys(self) -> tuple[PublicKey, ...]:
        """Whose signatures this machine believes."""
        return self.site.trusted_keys

    @property
    def cluster_id(self) -> str:
        """The cluster that this machine is of, or would be."""
        return self.site.cluster.id

    @property
    def mac(self) -> str:
        """What the machine is called by while nobody knows it."""
        macs = [nic.mac for nic in self.hardware.nics]
        if self.arguments.mac in macs:
            return self.arguments.mac
        if self.connection is not None:
            return self.connection.nic.mac
        return macs[0] if macs else "00:00:00:00:00:00"

    def report(self, event: Event) -> None:
        """Tell the consoles and the root."""
        self.console(event)
        self.tell_root(event)

    def tell_root(self, event: Event) -> None:
        """Tell the root; what is told before there is one, it hears as soon as it is found."""
        if self.session is not None:
            self.session.report(event)
        else:
            self._remembered.append(event)

    def follow(self, client: RootClient) -> Session:
        """Follow a root from now on, and whichever replaces it."""
        self.leave_root()
        root = CurrentRoot(client, lambda: self.look_for_root(ignore), self.report, self.chance)
        session = Session(root, self.cluster_id, self.blade or stranger_name(self.mac))
        self._tell_hardware(session)
        while self._remembered:
            session.report(self._remembered.popleft())
        self.session = session
        return session

    def look_for_root(self, reporter: Reporter) -> RootClient:
        """One round of looking. Raises NetworkError, NoRootFoundError."""
        named = [self.arguments.root] if self.arguments.root else []
        return find_root_again(self.site.cluster, named=named, reporter=reporter)

    def leave_root(self) -> None:
        """Follow none."""
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def be(self, blade: str) -> None:
        """Know, and let the root know, which blade this machine is."""
        self.blade = blade
        if self.session is not None and self.session.report_as(blade):
            self._tell_hardware(self.session)

    def _tell_hardware(self, session: Session) -> None:
        session.report(HardwareFound(hardware=attrs.asdict(self.hardware)))
