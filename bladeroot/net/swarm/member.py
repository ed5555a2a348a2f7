"""One artefact in the session: its pieces, its peers, and who fetches it."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import libtorrent as lt

from bladeroot.core.neighbours import Address
from bladeroot.core.torrentfile import Torrent
from bladeroot.errors import BladerootError, DepotError, DepotFullError, NetworkError
from bladeroot.events import Note, Reporter, SwarmStats, Warned
from bladeroot.net.swarm.fetching import Fetch, Ledger
from bladeroot.net.swarm.firstseeder import FirstSeeder

_NOTE_S = 0.5
_STALL_S = 30.0
WAYS_TO_DISCOVER = lt.torrent_flags.disable_lsd | lt.torrent_flags.disable_pex
"""Flags that switch off BEP 14 and BEP 11."""


class Member:
    """One artefact in the session. The pump thread calls `handle_alert` and `tick`, others the rest."""

    def __init__(
        self,
        handle: lt.torrent_handle,
        torrent: Torrent,
        save_path: Path,
        reporter: Reporter,
        *,
        discovers: bool = True,
    ) -> None:
        self.handle = handle
        self.torrent = torrent
        self.label = f"{torrent.name} {torrent.info_hash[:16]}"
        self.failure: BladerootError | None = None
        self._discovers = discovers
        self.is_trusted = False
        """Whether it is known to be whole."""
        self._first_seeder: FirstSeeder | None = None
        self._given_before_bytes = 0
        self._save_path = save_path
        self._reporter = reporter
        self._lock = threading.Lock()
        self._fetches: list[Fetch] = []
        self._ledger = Ledger()
        self._last_stats: SwarmStats | None = None
        self._moved_at = time.monotonic()
        self._warned_of_stall = False
        self._noted_at = 0.0

    def begin(self, fetch: Fetch) -> None:
        with self._lock:
            self._fetches.append(fetch)
            failure = self.failure
        if failure is not None:
            fetch.fail(failure)
        self.catch_up()

    def end(self, fetch: Fetch) -> None:
        with self._lock:
            if fetch in self._fetches:
                self._fetches.remove(fetch)

    def want_more(self, numbers: Collection[int]) -> None:
        """Raise the priority of pieces that an earlier fetch left out."""
        self.handle.prioritize_pieces([(number, 4) for number in numbers])

    def give_by(self, first_seeder: FirstSeeder | None, *, also_here: bool = False) -> None:
        """Give by the first seeder and not (or also) by libtorrent, or (None) by that alone."""
        former, self._first_seeder = self._first_seeder, first_seeder
        if former is first_seeder:
            return
        if former is not None:
            self._given_before_bytes += _sent(former, self.torrent)[0]
            former.stop_giving(self.torrent.info_hash)
        if first_seeder is None:
            self.handle.resume()
        else:
            if not also_here:
                self.handle.pause()
            first_seeder.give(self.torrent, self._save_path)

    def add_peers(self, peers: Iterable[Address]) -> None:
        for peer in peers:
            self.handle.connect_peer(peer)

    def set_discovering(self, *, discovers: bool) -> None:
        """Whether others are found by multicast (BEP 14) and by what peers tell (BEP 11)."""
        if discovers is not self._discovers:
            self._discovers = discovers
            self.handle.set_flags(0 if discovers else WAYS_TO_DISCOVER, WAYS_TO_DISCOVER)

    def fail(self, error: BladerootError) -> None:
        with self._lock:
            self.failure = self.failure or error
            fetches = list(self._fetches)
        for fetch in fetches:
            fetch.fail(error)

    def fail_as_left(self) -> None:
        """End whatever is fetched, for the artefact is in no session any more."""
        self.fail(NetworkError(f"{self.label}: the swarm was left before the artefact was complete"))

    def _break(self, error: BladerootError) -> None:
        """The session has stopped here: tell whoever fetches, or a person if nobody does."""
        is_news = self.failure is None
        self.fail(error)
        if is_news and not self._current_fetches():
            hint = error.hint or "nobody gets it from here any more; see `bladeroot generations verify`"
            self._reporter(Warned(text=str(error), hint=hint))

    def catch_up(self) -> None:
        """Hand over what is there: after joining, after a check, and should an alert have been lost."""
        fetches = self._current_fetches()
        if not fetches:
            return
        try:
            status = self.handle.status(lt.torrent_handle.query_pieces)
        except RuntimeError:  # removed in the meantime
            self.fail_as_left()
            return
        if status.state in (status.states.checking_files, status.states.checking_resume_data):
            return
        present = [number for number, there in enumerate(status.pieces) if there]
        for fetch in fetches:
            fetch.offer(present)

    def handle_alert(self, alert: lt.torrent_alert) -> None:
        if isinstance(alert, lt.piece_finished_alert):
            self._note_givers()
            for fetch in self._current_fetches():
                fetch.offer([alert.piece_index])
        elif isinstance(alert, lt.read_piece_alert):
            self._take_read(alert)
        elif isinstance(alert, lt.torrent_checked_alert | lt.torrent_finished_alert):
            self.catch_up()
        elif isinstance(alert, lt.cache_flushed_alert):
            for fetch in self._current_fetches():
                fetch.flushed.set()
        elif isinstance(alert, lt.hash_failed_alert):
            name = self.torrent.files[alert.piece_index].name
            self._reporter(Note(text=f"{self.label}: {name} came damaged from a peer, fetching it again"))
        elif isinstance(alert, lt.file_error_alert):
            self._break(self._explain(alert.error, alert.filename()))
        elif isinstance(alert, lt.torrent_error_alert):
            self._break(self._explain(alert.error, ""))

    def tick(self, root_addresses: Collection[str]) -> None:
        """Once a second: report the state if it has changed; and warn if a fetch stands still."""
        if self.failure is not None:
            return
        self.catch_up()
        stats, last = self.measure(root_addresses), self._last_stats
        self._last_stats = stats
        now = time.monotonic()
        if last is None or stats.down_bytes != last.down_bytes or stats.have_bytes != last.have_bytes:
            self._moved_at, self._warned_of_stall = now, False
        missing = any(fetch.missing() for fetch in self._current_fetches())
        if missing and not self._warned_of_stall and now - self._moved_at > _STALL_S:
            self._warned_of_stall = True
            text = f"{self.label}: no data for {_STALL_S:.0f} s from {stats.peers} peers"
            hint = "a peer that has it must be reachable: see `bladeroot status`"
            self._reporter(Warned(text=text, hint=hint))
        if stats != last:
            self._reporter(stats)

    def measure(self, root_addresses: Collection[str]) -> SwarmStats:
        try:
            status, peers = self.handle.status(0), self.handle.get_peer_info()
        except RuntimeError as error:  # removed in the meantime
            raise DepotError(f"{self.label} is neither being fetched nor given") from error
        with self._lock:
            self._ledger.note({peer.ip: peer.total_download for peer in peers})
            given = self._ledger.given()
        sent_bytes, rate, takers = _sent(self._first_seeder, self.torrent)
        return SwarmStats(
            artefact=self.torrent.name,
            peers=status.num_peers + takers,
            sources=sum(1 for amount in given.values() if amount),
            have_bytes=status.total_done,
            total_bytes=status.total_wanted,
            down_bytes=status.total_payload_download,
            up_bytes=status.total_payload_upload + self._given_before_bytes + sent_bytes,
            redundant_bytes=status.total_redundant_bytes,
            from_root_bytes=sum(given.get(address, 0) for address in root_addresses),
            down_rate=status.download_payload_rate,
            up_rate=status.upload_payload_rate + rate,
        )

    def _note_givers(self) -> None:
        """Often, because a connection takes its counter with it when it ends."""
        now = time.monotonic()
        if now - self._noted_at > _NOTE_S:
            self._noted_at = now
            peers = self.handle.get_peer_info()
            with self._lock:
                self._ledger.note({peer.ip: peer.total_download for peer in peers})

    def _current_fetches(self) -> list[Fetch]:
        with self._lock:
            return list(self._fetches)

    def _take_read(self, alert: lt.read_piece_alert) -> None:
        if alert.error.value():
            self.fail(self._explain(alert.error, self.torrent.files[alert.piece].name))
            return
        data = alert.buffer
        for fetch in self._current_fetches():
            fetch.take(alert.piece, data)

    def _explain(self, error: lt.error_code, file: str) -> BladerootError:
        if error.value() in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room there, or drop old generations with `bladeroot generations prune`"
            return DepotFullError(f"no room left for {self.label} in {self._save_path}", hint)
        return DepotError(f"{self.label}: {file or self._save_path}: {error.message()}")


def _sent(first_seeder: FirstSeeder | None, torrent: Torrent) -> tuple[int, int, int]:
    """What went out by the first seeder: bytes, bytes per second, and to how many at the moment."""
    given = first_seeder.find(torrent.info_hash) if first_seeder is not None else None
    return (given.sent_bytes, given.rate, len(given.connections)) if given else (0, 0, 0)
