"""The first seeder: gives what a root has in the order that `core.offers` says, to whoever speaks BitTorrent.

libtorrent's own super-seeding does not begin for ten seconds (its first offers are made before the handshake
is over, and dropped), and it offers to all at once. This gives and never takes; taking is libtorrent's.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from attrs import define, field

from bladeroot.core import peerwire
from bladeroot.core.offers import Offers
from bladeroot.core.peerwire import Block
from bladeroot.core.torrentfile import Torrent
from bladeroot.errors import NetworkError, PortTakenError
from bladeroot.net.listening import BACKLOG
from bladeroot.net.swarm.connection import Connection

_MOST_CONNECTIONS = 4000
_OTHER_FILES = 300
"""Open files that are for everything else in this process."""
_TICK_S = 0.25
_REFILL_S = 0.02
_T = TypeVar("_T")


@define(eq=False)
class GivenArtefact:
    """An artefact that is given."""

    torrent: Torrent
    folder: Path
    offers: Offers[Connection]
    connections: set[Connection] = field(factory=set)
    sent_bytes: int = 0
    rate: int = 0
    """Bytes per second, of late."""
    _sent_before_bytes: int = 0
    _open_piece: int = -1
    _descriptor: int = -1

    def offer(self) -> None:
        """Tell the takers what they may ask for now."""
        for connection, piece in self.offers.make(time.monotonic()):
            connection.offer(piece)

    def read(self, block: Block) -> bytes:
        """Part of a file. Raises OSError, and NetworkError where that is not all there."""
        if block.piece != self._open_piece:
            self.close_file()
            path = self.folder / self.torrent.files[block.piece].name
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._open_piece = block.piece
        data = os.pread(self._descriptor, block.size_bytes, block.offset)
        if len(data) != block.size_bytes:
            raise NetworkError(f"{self.torrent.files[block.piece].name} is torn")
        return data

    def close_file(self) -> None:
        """Let go of the file that was read last."""
        if self._open_piece >= 0:
            os.close(self._descriptor)
            self._open_piece = -1

    def measure_rate(self, passed_s: float) -> None:
        """Call it now and then, with what has passed since the last time."""
        self.rate = int((self.sent_bytes - self._sent_before_bytes) / passed_s)
        self._sent_before_bytes = self.sent_bytes


class FirstSeeder:
    """Gives artefacts on a port of its own, in a thread of its own, until it is closed.

    Any thread may call it. Raises PortTakenError.
    """

    def __init__(self, *, addresses: Sequence[str], port: int, limit: int = 0) -> None:
        self._artefacts: dict[bytes, GivenArtefact] = {}
        self._connections: dict[Connection, None] = {}
        self._most_connections = _allow_open_files(_MOST_CONNECTIONS)
        self._limit = limit
        self._budget = 0.0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="first-seeder", daemon=True)
        self._thread.start()
        try:
            self.port = self._call(self._open(addresses, port))
            """The TCP port that it listens on."""
        except BaseException:
            self._end_thread()
            raise

    def close(self) -> None:
        """Stop giving, and free the port."""
        self._call(self._shut())
        self._end_thread()

    def give(self, torrent: Torrent, save_path: Path) -> None:
        """Give an artefact that is complete and verified below `save_path`."""
        offers: Offers[Connection] = Offers(len(torrent.files), random.Random())  # noqa: S311
        given = GivenArtefact(torrent, save_path / torrent.name, offers)
        key = peerwire.shorten(torrent.info_hash)
        self._loop.call_soon_threadsafe(self._artefacts.setdefault, key, given)

    def stop_giving(self, info_hash: str) -> None:
        """Let go of an artefact, and of whoever takes it."""

        def drop() -> None:
            given = self._artefacts.pop(peerwire.shorten(info_hash), None)
            if given is not None:
                given.close_file()
                for connection in list(given.connections):
                    connection.close()

        self._loop.call_soon_threadsafe(drop)

    def find(self, info_hash: str) -> GivenArtefact | None:
        """An artefact that is given, for its figures."""
        return self._artefacts.get(peerwire.shorten(info_hash))

    def set_limit(self, bytes_per_s: int) -> None:
        """Give at most so much from now on; 0 for no limit."""
        self._limit = bytes_per_s

    # In the thread

    def _call(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _open(self, addresses: Sequence[str], port: int) -> int:
        def accept() -> Connection:
            return Connection(self._artefacts.get, self._spend, self._note_begin, self._note_end)

        try:
            self._server = await self._loop.create_server(accept, list(addresses), port, backlog=BACKLOG)
        except OSError as error:
            raise PortTakenError(f"swarm port {port} is taken", "another program runs here") from error
        self._jobs = [asyncio.create_task(job) for job in (self._tick(), self._refill())]
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def _shut(self) -> None:
        self._server.close()
        for job in self._jobs:
            job.cancel()
        for connection in list(self._connections):
            connection.close()
        for given in self._artefacts.values():
            given.close_file()
        await asyncio.gather(*self._jobs, return_exceptions=True)

    def _note_begin(self, connection: Connection) -> bool:
        self._connections[connection] = None
        return len(self._connections) <= self._most_connections

    def _note_end(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = time.monotonic()
            for given in self._artefacts.values():
                given.measure_rate(_TICK_S)
                given.offer()
            for connection in list(self._connections):
                connection.say_alive(now_s)
                if connection.is_silent(now_s):
                    connection.close()

    def _spend(self, size_bytes: int) -> bool:
        """Whether so much may be given now; what was refused is asked for again when there is a budget."""
        if not self._limit:
            return True
        if self._budget <= 0:
            return False
        self._budget -= size_bytes
        return True

    async def _refill(self) -> None:
        while True:
            await asyncio.sleep(_REFILL_S)
            if not self._limit:
                continue
            self._budget = min(self._budget + self._limit * _REFILL_S, self._limit * _REFILL_S * 2)
            for connection in list(self._connections):
                connection.give_more()
                # Who comes first next time is another.
                if self._budget <= 0:
                    self._connections[connection] = self._connections.pop(connection)
                    break


def _allow_open_files(wanted: int) -> int:
    """Let this process have so many connections, or as many as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + _OTHER_FILES
    if soft < needed:
        soft = min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(wanted, soft - _OTHER_FILES)
