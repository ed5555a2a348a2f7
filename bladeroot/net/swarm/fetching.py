"""One fetch's way from verified pieces to whoever takes them; and who gave how much.

Knows nothing of libtorrent: `member` tells it what there is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from bladeroot.core.neighbours import Address
from bladeroot.core.torrentfile import Torrent
from bladeroot.errors import ArtefactError, BladerootError, DepotError, InterruptedByUserError, NetworkError

OnPiece = Callable[[str, bytes], None]
"""Takes a file's name and its verified bytes. May block; may raise, which ends the fetch."""

_READ_AHEAD_BYTES = 32 << 20
"""Verified bytes that wait for `on_piece`, at most; a piece that is larger comes alone."""
_FLUSH_TIMEOUT_S = 120.0


class Fetch:
    """One call of `Swarm.fetch`. Pieces pass through: offered (verified, in a file or about to be) ->
    being read -> taken -> given to `on_piece`. Only so many bytes are between "being read" and "given".
    """

    def __init__(
        self,
        torrent: Torrent,
        save_path: Path,
        wanted: frozenset[int],
        on_piece: OnPiece | None,
        *,
        read: Callable[[int], None],
        flush: Callable[[], None],
    ) -> None:
        """`read` asks for a piece that `take` will get, `flush` for `flushed` to be set; neither blocks."""
        self._torrent = torrent
        self._save_path = save_path
        self._wanted = wanted
        self._on_piece = on_piece
        self._read = read
        self._ask_to_flush = flush
        self._label = f"{torrent.name} {torrent.info_hash[:16]}"
        self._condition = threading.Condition()
        self._offered: set[int] = set()
        self._waiting: deque[int] = deque()
        self._reading: set[int] = set()
        self._taken: deque[tuple[int, bytes]] = deque()
        self._in_flight_bytes = 0
        self._given = 0
        self._failure: BladerootError | None = None
        self.flushed = threading.Event()
        """Set by whoever learns that all is in the files."""

    def missing(self) -> int:
        """Wanted files that have not come yet."""
        with self._condition:
            return len(self._wanted) - len(self._offered)

    def offer(self, numbers: Iterable[int]) -> None:
        """These pieces are verified and can be read; those offered before are passed over."""
        with self._condition:
            news = [n for n in numbers if n in self._wanted and n not in self._offered]
            self._offered.update(news)
            if self._on_piece is None:
                self._given += len(news)
            else:
                self._waiting.extend(news)
            self._condition.notify()
        self._read_more()

    def take(self, number: int, data: bytes) -> None:
        """The bytes of a piece that was to be read."""
        with self._condition:
            if number in self._reading:
                self._reading.discard(number)
                self._taken.append((number, data))
                self._condition.notify()

    def fail(self, error: BladerootError) -> None:
        """Let `run` raise this."""
        with self._condition:
            self._failure = self._failure or error
            self._condition.notify()

    def run(self, cancel: threading.Event | None, deadline_s: float | None) -> None:
        """Give pieces to `on_piece` until all have been given and are in their files."""
        until = None if deadline_s is None else time.monotonic() + deadline_s
        while True:
            with self._condition:
                if not self._taken and self._failure is None and self._given < len(self._wanted):
                    self._condition.wait(0.2)
                self._check(cancel, until)
                if self._given == len(self._wanted):
                    break
                taken = self._taken.popleft() if self._taken else None
            if taken is not None and self._on_piece is not None:
                number, data = taken
                self._on_piece(self._torrent.files[number].name, data)
                del taken, data
                with self._condition:
                    self._given += 1
                    self._in_flight_bytes -= self._torrent.files[number].size_bytes
                self._read_more()
        self._flush()

    def _read_more(self) -> None:
        with self._condition:
            numbers = []
            while self._waiting:
                size_bytes = self._torrent.files[self._waiting[0]].size_bytes
                if self._in_flight_bytes and self._in_flight_bytes + size_bytes > _READ_AHEAD_BYTES:
                    break
                self._in_flight_bytes += size_bytes
                numbers.append(self._waiting.popleft())
            self._reading.update(numbers)
        for number in numbers:
            self._read(number)

    def _check(self, cancel: threading.Event | None, until: float | None) -> None:
        if self._failure is not None:
            raise self._failure
        if cancel is not None and cancel.is_set():
            raise InterruptedByUserError(f"{self._label}: fetching was cancelled")
        if until is not None and time.monotonic() > until:
            missing = len(self._wanted) - self._given
            raise NetworkError(
                f"{self._label}: {missing} of {len(self._wanted)} files had not come by the deadline"
            )

    def _flush(self) -> None:
        self.flushed.clear()
        self._ask_to_flush()
        if not self.flushed.wait(_FLUSH_TIMEOUT_S):
            raise DepotError(f"{self._label}: not written after {_FLUSH_TIMEOUT_S:.0f} s")
        for number in self._wanted:
            file = self._torrent.files[number]
            path = self._save_path / self._torrent.name / file.name
            if not path.is_file() or path.stat().st_size != file.size_bytes:
                raise DepotError(f"{path} is not as long as it was fetched")


class Ledger:
    """Who gave how much, across reconnections: a connection's counter starts from 0 again."""

    def __init__(self) -> None:
        self._closed: dict[str, int] = {}
        self._open: dict[Address, int] = {}

    def note(self, current: Mapping[Address, int]) -> None:
        """What each open connection has given so far."""
        for endpoint, amount in self._open.items():
            if current.get(endpoint, -1) < amount:
                self._closed[endpoint[0]] = self._closed.get(endpoint[0], 0) + amount
        self._open = dict(current)

    def given(self) -> dict[str, int]:
        """Bytes by address."""
        total = dict(self._closed)
        for (address, _port), amount in self._open.items():
            total[address] = total.get(address, 0) + amount
        return total


def choose_pieces(torrent: Torrent, wanted: Collection[str] | None) -> frozenset[int]:
    """Piece number i is file number i: each file is one piece, and v2 pieces never span files (BEP 52)."""
    if wanted is None:
        return frozenset(range(len(torrent.files)))
    by_name = {file.name: number for number, file in enumerate(torrent.files)}
    unknown = sorted(set(wanted) - set(by_name))
    if unknown:
        raise ArtefactError(f"{torrent.name} {torrent.info_hash[:16]} has no file {unknown[0]!r}")
    return frozenset(by_name[name] for name in wanted)
