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
from bladeroot.core.manifest import Artefact
from bladeroot.errors import ArtefactError, BladerootError, ConfigError, NetworkError, TrustError
from bladeroot.events import Note, Reporter, Warned
from bladeroot.host.depot import Depot
from bladeroot.host.memory import give_back_memory
from bladeroot.net.client import RootClient
from bladeroot.ops.completing import complete_install, find_own_manifest, read_own_generation
from bladeroot.ops.presence import Presence
from bladeroot.ops.pulling import pull_generation
from bladeroot.ops.saidonce import SaidOnce
from bladeroot.ops.sources import SwarmSource
from bladeroot.ops.station import Station
from bladeroot.ops.verifying import DepotVerifier, fetch_lost

_PAUSES_S = (5.0, 10.0)
_AFTER_FAILURE_S = (30.0, 60.0)
_PATIENCE_S = 300.0
"""So long nobody gives anything before a fetch is given up, for what else there is to do."""
_DISTRUST_S = 600.0
"""So long who did not have what it shows comes after all others."""
_MOST_TRIES = 8
_ROUNDS_UNTIL_IDLE = 5
_CALM_S = (0.2, 3.0)
"""Before a follower fetches what is new: hundreds hear of it at once, and the first should have a start."""


@attrs.define(kw_only=True)
class Chores:
    """See the module. `run` returns when `stop` is set."""

    presence: Presence
    station: Station
    system: Path
    """Where the installed system's tree is."""
    reporter: Reporter
    stop: threading.Event
    on_news: Callable[[], None]
    """Called when the depot holds more than before."""
    chance: Callable[[float, float], float] = random.uniform
    _news: threading.Event = attrs.field(factory=threading.Event)
    _said: SaidOnce = attrs.field(factory=SaidOnce)
    _distrusted_s: dict[RootClient, float] = attrs.field(factory=dict)
    """Until when."""
    _not_before_s: dict[str, float] = attrs.field(factory=dict)
    _is_complete: bool = False
    _idle_rounds: int = 0
    """Since something was done; the start is the first."""
    _has_lost: bool = True
    """Whether something of the depot may have to be fetched again."""

    def run(self) -> None:
        """Again and again; a chore that fails is told of once, and tried again later."""
        verifier = DepotVerifier(
            depot=self._depot, pause=self.stop.wait, reporter=self.reporter, on_lost=self._note_lost
        )
        threading.Thread(target=verifier.run, name="verifier", daemon=True).start()
        while not self.stop.is_set():
            # In this order: what the blade lacks of its own would make room for what is newer.
            self._try("complete", self.complete)
            self._try("mend", self.mend)
            self._try("pull", self.pull)
            if self._news.wait(self.chance(*_PAUSES_S)):
                self._news.clear()
            self._idle_rounds += 1
            if self._idle_rounds == _ROUNDS_UNTIL_IDLE:
                give_back_memory()

    def wake(self) -> None:
        """There may be something to do: another root, or another generation. From any thread."""
        self._not_before_s.pop("pull", None)
        self._news.set()

    def complete(self) -> None:
        """Bring what the install left for later: extras, and the depot that this blade can be root with."""
        client = self._find_root()
        if self._is_complete or client is None:
            return
        try:
            own = read_own_generation(self.system)
        except ConfigError:
            self._is_complete = True  # the daemon has said what is wrong with it
            return
        if not own.is_complete:
            signed = find_own_manifest(self._depot, own) or client.manifest(own.serial)
            source = self._source(client, own.serial)
            keys = self.presence.holdings.trusted_keys
            complete_install(self.system, self._depot, source, signed, keys, reporter=self.reporter)
            self._tell_of_more()
        self._is_complete = True

    def mend(self) -> None:
        """Fetch again what was found to be damaged."""
        client = self._find_root()
        if not self._has_lost or client is None or self.station.root is not None:
            return
        self.presence.holdings.take_in()  # its swarm must be left before what is lost can be fetched
        source = self._source(client, self.presence.holdings.newest_serial)
        self._has_lost = False  # first: more may be found damaged meanwhile
        try:
            left = fetch_lost(self._depot, source, self.reporter)
        except BaseException:
            self._has_lost = True
            raise
        if left:
            self._has_lost = True
            raise NetworkError(f"{len(left)} artefacts of this depot are still not whole")
        self._tell_of_more()

    def pull(self) -> None:
        """Take in a higher generation than the own newest, from whoever shows one.

        Anybody can say that it has one: who does not is not what the others are kept waiting for.
        """
        failure: BladerootError | None = None
        for client, serial in self.find_higher()[:_MOST_TRIES]:
            if self.stop.wait(self.chance(*_CALM_S)) or serial <= self.presence.holdings.newest_serial:
                return
            try:
                self._pull(client, serial)
            except (NetworkError, TrustError, ArtefactError) as error:
                self._distrust(client)
                failure = failure or error
                continue
            self._tell_of_more()
            return
        if failure is not None:
            raise failure

    def _pull(self, client: RootClient, serial: int) -> None:
        pull_generation(
            client,
            serial,
            self._depot,
            self.presence.swarm,
            trusted_keys=self.presence.holdings.trusted_keys,
            cluster_id=self.presence.holdings.cluster_id,
            lowest_serial=self.presence.holdings.newest_serial + 1,
            patience_s=_PATIENCE_S,
            stop=self.stop,
            reporter=self.reporter,
        )

    def _distrust(self, client: RootClient) -> None:
        now = time.monotonic()
        kept = {one: until for one, until in self._distrusted_s.items() if until > now}
        self._distrusted_s = {**kept, client: now + _DISTRUST_S}

    def find_higher(self) -> list[tuple[RootClient, int]]:
        """Who shows a higher serial than this blade holds, the highest first; distrusted ones at the end."""
        own = self.presence.holdings.newest_serial
        found = [(claim.serial, claim.host, claim.port) for claim in self._claims() if claim.serial > own]
        if self.station.root is not None:
            found += [
                (blade.holds, blade.address, blade.http_port)
                for blade in self.station.root.room.blades.values()
                if blade.holds > own and blade.http_port and blade.address
            ]
        higher = [(RootClient(host, port), serial) for serial, host, port in sorted(found, reverse=True)]
        now = time.monotonic()
        return sorted(higher, key=lambda one: self._distrusted_s.get(one[0], 0.0) > now)

    @property
    def _depot(self) -> Depot:
        return self.presence.holdings.depot

    def _source(self, client: RootClient, serial: int) -> SwarmSource:
        swarm = self.presence.swarm
        return SwarmSource(client, swarm, serial, set(), patience_s=_PATIENCE_S, stop=self.stop)

    def _find_root(self) -> RootClient | None:
        followed = self.station.followed
        return RootClient(followed.host, followed.port) if followed else None

    def _note_lost(self, _artefact: Artefact) -> None:
        self._has_lost = True
        self.station.wake()
        self.wake()

    def _tell_of_more(self) -> None:
        self._idle_rounds = 0
        self.station.wake()
        self.on_news()

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
        except Exception as error:  # whatever it is, the others are done, and this one is tried again
            self._not_before_s[name] = time.monotonic() + self.chance(*_AFTER_FAILURE_S)
            if not self.stop.is_set():
                self._said.say(_describe(name, error), self.reporter)


def _describe(name: str, error: Exception) -> Note | Warned:
    if isinstance(error, NetworkError):
        return Note(text=str(error))
    if isinstance(error, BladerootError):
        return Warned(text=str(error), hint=error.hint)
    return Warned(text=f"could not {name}: {error!r}")
