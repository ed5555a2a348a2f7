"""The root that is followed now. An install outlives a root: whoever takes the role over is asked next."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import TypeVar

from bladeroot.core.claims import Claim
from bladeroot.core.manifest import SignedManifest
from bladeroot.core.orders import OrderList
from bladeroot.core.reports import Heard, PeerList, Report
from bladeroot.errors import BladerootError, NetworkError
from bladeroot.events import Note, Reporter, Warned, ignore
from bladeroot.net.client import RootClient

_Answer = TypeVar("_Answer")

_PATIENCE = 3
"""So often in a row a root does not answer before another one is looked for."""
_PAUSE_S = (0.5, 2.0)
"""Before the first round of looking; hundreds of blades lose their root in the same moment."""
_MOST_DOUBLINGS = 3
"""Each round in vain doubles the pause, up to so often."""


class CurrentRoot:
    """Asked like a `RootClient`; what answers is the root of the moment. From any thread.

    A call that fails raises its NetworkError, and leaves no caller waiting. After some in a row `find` is
    called in the background until it returns a root (of this cluster, and one that answers), which is
    followed from then on. `find` is one round of looking; what it raises is taken as "none yet".
    """

    def __init__(
        self,
        client: RootClient,
        find: Callable[[], RootClient],
        reporter: Reporter = ignore,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._client = client
        self._find = find
        self._reporter = reporter
        self._chance = chance
        self._listeners: list[Callable[[RootClient], None]] = []
        self._lock = threading.Lock()
        self._silences = 0
        self._rounds = 0
        """Of looking, since this root is followed."""
        self._told_of_silence = False
        self._is_looking = False
        self._closed = threading.Event()

    @property
    def client(self) -> RootClient:
        """The root of this moment."""
        return self._client

    @property
    def host(self) -> str:
        """Its address."""
        return self._client.host

    def on_change(self, listener: Callable[[RootClient], None]) -> None:
        """Call it with every root that is followed from now on, in a thread of its own."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Look for no other root any more. A round that is under way ends by itself, and changes nothing."""
        self._closed.set()

    # As in RootClient

    def claim(self) -> Claim:
        """What the root announces."""
        return self._ask(lambda root: root.claim())

    def manifest(self, serial: int) -> SignedManifest:
        """A generation's manifest, unchecked."""
        return self._ask(lambda root: root.manifest(serial))

    def torrent(self, info_hash: str) -> bytes:
        """An artefact's torrent file, unchecked."""
        return self._ask(lambda root: root.torrent(info_hash))

    def artefact_file(self, info_hash: str, name: str, file: str, size_bytes: int) -> bytes:
        """A file of an artefact, unchecked."""
        return self._ask(lambda root: root.artefact_file(info_hash, name, file, size_bytes))

    def peers(self, info_hash: str) -> PeerList:
        """A few members of an artefact's swarm."""
        return self._ask(lambda root: root.peers(info_hash))

    def report(self, report: Report) -> Heard:
        """Tell the root, which may be another one than was told before."""
        return self._ask(lambda root: root.report(report))

    def read_orders(self) -> OrderList:
        """The orders that it has, unchecked."""
        return self._ask(lambda root: root.read_orders())

    def read_clock(self) -> float:
        """What time it is there."""
        return self._ask(lambda root: root.read_clock())

    def read_boot_script(self, mac: str, uuid: str) -> str:
        """What it tells a machine that boots over the network."""
        return self._ask(lambda root: root.read_boot_script(mac, uuid))

    # Silence

    def _ask(self, question: Callable[[RootClient], _Answer]) -> _Answer:
        client = self._client
        try:
            answer = question(client)
        except NetworkError as error:
            self._note_silence(client, error)
            raise
        with self._lock:
            if client == self._client:
                self._silences = 0
        return answer

    def _note_silence(self, client: RootClient, error: NetworkError) -> None:
        with self._lock:
            if client != self._client:
                return  # asked before there was another one
            self._silences += 1
            if self._silences < _PATIENCE or self._is_looking or self._closed.is_set():
                return
            self._is_looking = True
            is_news, self._told_of_silence = not self._told_of_silence, True
        if is_news:
            text = f"the root does not answer, going on without it and looking for another: {error}"
            self._reporter(Note(text=text))
        threading.Thread(target=self._look, name="root-search", daemon=True).start()

    def _look(self) -> None:
        """Until a root is found, or the one that was lost answers again."""
        try:
            while not self._closed.wait(self._choose_pause()) and self._silences:
                self._rounds += 1
                try:
                    self._follow(self._find())
                except BladerootError:
                    continue
                except Exception as error:  # a defect is no reason to stop looking
                    self._reporter(Warned(text=f"looking for another root failed: {error!r}"))
                    continue
                return
        finally:
            with self._lock:
                self._is_looking = False

    def _choose_pause(self) -> float:
        return self._chance(*_PAUSE_S) * 2.0 ** min(self._rounds, _MOST_DOUBLINGS)

    def _follow(self, found: RootClient) -> None:
        with self._lock:
            is_same = (found.host, found.port) == (self._client.host, self._client.port)
            answers_again = not self._silences
            self._silences = 0
            if self._closed.is_set() or is_same or answers_again:
                return
            self._client, self._rounds, self._told_of_silence = found, 0, False
        for listener in self._listeners:
            listener(found)
        self._reporter(Note(text=f"following another root now, at {found.host}:{found.port}"))
