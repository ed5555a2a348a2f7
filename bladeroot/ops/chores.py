"""What a daemon does in the background, one after the other: complete the install, pull newer generations,
look after its depot.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import attrs

from bladeroot.core.claims import Claim
from bladeroot.errors import BladerootError, NetworkError
from bladeroot.events import Note, Reporter, Warned
from bladeroot.net.client import RootClient
from bladeroot.ops.installed import Installed
from bladeroot.ops.presence import Presence
from bladeroot.ops.pulling import pull_generation
from bladeroot.ops.station import Station

_PAUSES_S = (5.0, 10.0)
_AFTER_FAILURE_S = (30.0, 60.0)
_CALM_S = (0.2, 3.0)
"""Before a follower fetches what is new: hundreds hear of it at once, and the first should have a start."""


@attrs.define(kw_only=True)
class Chores:
    """See the module. `run` returns when `stop` is set."""

    presence: Presence
    station: Station
    installed: Installed
    folder: Path
    system: Path
    reporter: Reporter
    stop: threading.Event
    on_news: Callable[[], None]
    """Called when the depot holds more than before."""
    chance: Callable[[float, float], float] = random.uniform
    _news: threading.Event = attrs.field(factory=threading.Event)
    _told: set[str] = attrs.field(factory=set)
    _not_before_s: dict[str, float] = attrs.field(factory=dict)

    def run(self) -> None:
        """Again and again; a chore that fails is told of once, and tried again later."""
        while not self.stop.is_set():
            self._try("pull", self.pull)
            if self._news.wait(self.chance(*_PAUSES_S)):
                self._news.clear()

    def wake(self) -> None:
        """There may be something to do. From any thread."""
        self._news.set()

    def pull(self) -> None:
        """Take in a higher generation than the own newest, from whoever shows one."""
        for client, serial in self.find_higher():
            if self.stop.wait(self.chance(*_CALM_S)) or serial <= self.presence.holdings.newest_serial:
                return
            pull_generation(
                client,
                serial,
                self.presence.holdings.depot,
                self.presence.swarm,
                trusted_keys=self.presence.holdings.trusted_keys,
                cluster_id=self.presence.holdings.cluster_id,
                lowest_serial=self.presence.holdings.newest_serial + 1,
                reporter=self.reporter,
            )
            self.station.wake()
            self.on_news()
            return

    def find_higher(self) -> list[tuple[RootClient, int]]:
        """Who shows a higher serial than this blade holds, the highest first."""
        own = self.presence.holdings.newest_serial
        found = [(claim.serial, claim.host, claim.port) for claim in self._claims() if claim.serial > own]
        if self.station.root is not None:
            found += [
                (blade.holds, blade.address, blade.http_port)
                for blade in self.station.root.room.blades.values()
                if blade.holds > own and blade.http_port and blade.address
            ]
        return [(RootClient(host, port), serial) for serial, host, port in sorted(found, reverse=True)]

    def _claims(self) -> list[Claim]:
        """A root goes by every claim; others by that of the root they follow."""
        if self.station.root is not None:
            return [sighting.claim for sighting in self.station.sightings]
        followed = self.station.followed
        return [followed] if followed else []

    def _try(self, name: str, chore: Callable[[], None]) -> None:
        if time.monotonic() < self._not_before_s.get(name, 0.0):
            return
        try:
            chore()
        except BladerootError as error:
            self._not_before_s[name] = time.monotonic() + self.chance(*_AFTER_FAILURE_S)
            if str(error) not in self._told and not self.stop.is_set():
                self._told.add(str(error))
                warn = Note(text=str(error)) if isinstance(error, NetworkError) else None
                self.reporter(warn or Warned(text=str(error), hint=error.hint))
