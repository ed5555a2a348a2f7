"""One libtorrent session: this machine's membership in swarms."""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, cast

import libtorrent as lt

from bladeroot.core.neighbours import Address
from bladeroot.core.torrentfile import Torrent, parse_torrent
from bladeroot.errors import (
    ArtefactError,
    DepotError,
    NetworkError,
    PortTakenError,
)
from bladeroot.events import Reporter, SwarmStats, ignore
from bladeroot.net.swarm.fetching import Fetch, OnPiece, choose_pieces
from bladeroot.net.swarm.firstseeder import FirstSeeder
from bladeroot.net.swarm.links import find_fastest_mbits, find_links
from bladeroot.net.swarm.member import WAYS_TO_DISCOVER, Member
from bladeroot.net.swarm.settings import MAX_PEERS_PER_TORRENT, make_settings

DEFAULT_SWARM_PORT = 7475
DEFAULT_FIRST_SEEDER_PORT = 7476
_WIDE_MBITS = 2500
"""More than one thread of Python gives out: what is left is for libtorrent, whose copies do no harm there."""
_TICK_S = 1.0
_POLL_MS = 200
_LISTEN_TIMEOUT_S = 10.0


class Swarm:
    """A machine's membership in swarms: one session, one port, any number of artefacts.

    Use it as a context manager; leaving it ends all fetching and giving. Every method may be called from
    any thread. `port` 0 takes a free one. Rates are bytes per second, 0 for no limit. Once a second the
    reporter gets a `SwarmStats` for each artefact in which something happens. `root_address` is whose bytes
    count as `from_root_bytes`; `as_root` is for the member that has everything first: see `set_as_root`.
    Raises PortTakenError.
    """

    def __init__(
        self,
        *,
        port: int = DEFAULT_SWARM_PORT,
        reporter: Reporter = ignore,
        addresses: Sequence[str] = ("0.0.0.0",),  # noqa: S104 - a blade serves its whole room
        root_address: str | None = None,
        as_root: bool = False,
        upload_limit: int = 0,
        download_limit: int = 0,
    ) -> None:
        self._reporter = reporter
        self._root_addresses = frozenset([root_address] if root_address else [])
        self._members: dict[str, Member] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        parameters = lt.session_params()
        settings = make_settings(
            addresses=addresses, port=port, upload_limit=upload_limit, download_limit=download_limit
        )
        parameters.settings = cast("lt.settings_pack", settings)
        parameters.disk_io_constructor = "posix_disk_io_constructor"
        self._addresses = addresses
        self._upload_limit = upload_limit
        self._first_seeder: FirstSeeder | None = None
        self._is_wide = False
        self._links = find_links()
        self._session = lt.session(parameters)
        _limit_local_peers_too(self._session)
        self.port = self._wait_until_listening(addresses, port)
        """The TCP port that this member listens on."""
        self._pump = threading.Thread(target=self._run_pump, name="swarm-alerts", daemon=True)
        self._pump.start()
        if as_root:
            self.set_as_root(as_root=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave all swarms and free the port. A fetch that still runs ends with NetworkError."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self.set_as_root(as_root=False)
        for member in self._find_members():
            member.fail_as_left()
        self._pump.join()
        self._session.pause()
        del self._session

    def seed(self, torrent: bytes, save_path: Path, *, peers: Iterable[Address] = ()) -> str:
        """Give an artefact that is complete and verified under `save_path`; returns its info-hash.

        The files are trusted. Raises DepotError if one is missing or has another size.
        """
        parsed = parse_torrent(torrent)
        for file in parsed.files:
            path = save_path / parsed.name / file.name
            if not path.is_file() or path.stat().st_size != file.size_bytes:
                hint = "see `bladeroot generations verify`"
                raise DepotError(f"{path} is missing or does not have {file.size_bytes} bytes", hint)
        with self._lock:
            member = self._members.get(parsed.info_hash)
            if member is None:
                member = self._join(torrent, parsed, save_path, wanted=None, peers=peers, trusted=True)
            member.is_trusted = True
            if self._first_seeder is not None:
                member.give_by(self._first_seeder, also_here=self._is_wide)
        return parsed.info_hash

    def fetch(
        self,
        torrent: bytes,
        save_path: Path,
        *,
        peers: Iterable[Address] = (),
        wanted: Collection[str] | None = None,
        discovers: bool = True,
        on_piece: OnPiece | None = None,
        cancel: threading.Event | None = None,
        deadline_s: float | None = None,
    ) -> SwarmStats:
        """Fetch an artefact's files (or those `wanted`), and go on giving them until closed.

        `on_piece` is called in this thread for every wanted file exactly once, in any order; what is
        already there is checked first, and handed over without fetching it. Returns when everything is
        in the files (but not yet synced to the disk). Without a deadline it waits for ever, and warns
        when nothing comes. A fetch that fails leaves the swarm, if it was the one that joined it.

        `discovers`: see `set_discovering`.

        Raises ArtefactError for an unknown file name, DepotFullError, DepotError, NetworkError (deadline),
        InterruptedByUserError (cancel), and what `on_piece` raises.
        """
        parsed = parse_torrent(torrent)
        numbers = choose_pieces(parsed, wanted)
        with self._lock:
            known = self._members.get(parsed.info_hash)
            if known is None:
                save_path.mkdir(parents=True, exist_ok=True)
                member = self._join(
                    torrent,
                    parsed,
                    save_path,
                    wanted=numbers,
                    peers=peers,
                    trusted=False,
                    discovers=discovers,
                )
            else:
                member = known
                member.want_more(numbers)
                member.add_peers(peers)
                member.set_discovering(discovers=discovers)
        fetch = Fetch(
            parsed,
            save_path,
            numbers,
            on_piece,
            read=member.handle.read_piece,
            flush=member.handle.flush_cache,
        )
        try:
            member.begin(fetch)
            fetch.run(cancel, deadline_s)
        except BaseException:
            if not self._stopping.is_set() and (known is None or member.failure is not None):
                self.remove(parsed.info_hash)
            raise
        finally:
            member.end(fetch)
        return member.measure(self._root_addresses)

    def add_peers(self, info_hash: str, peers: Iterable[Address]) -> None:
        """Tell of members to connect to. Raises DepotError for an artefact that is not in the session."""
        self._member(info_hash).add_peers(peers)

    def set_discovering(self, info_hash: str, *, discovers: bool) -> None:
        """Whether to look for other members on the local network, and to hear of them from members.

        Raises DepotError like `add_peers`.
        """
        self._member(info_hash).set_discovering(discovers=discovers)

    def stats(self, info_hash: str) -> SwarmStats:
        """The artefact's swarm as seen from here, now. Raises DepotError like `add_peers`."""
        return self._member(info_hash).measure(self._root_addresses)

    def info_hashes(self) -> tuple[str, ...]:
        """The artefacts that are being fetched or given."""
        return tuple(member.torrent.info_hash for member in self._find_members())

    def remove(self, info_hash: str) -> None:
        """Leave one swarm; the files stay. Does nothing for an artefact that is not in the session."""
        with self._lock:
            member = self._members.pop(info_hash, None)
        if member is not None:
            member.give_by(None)
            self._session.remove_torrent(member.handle)

    def count_as_root(self, address: str) -> None:
        """From now on `from_root_bytes` are of this member too: the role has moved there."""
        self._root_addresses |= {address}

    def set_upload_limit(self, bytes_per_s: int) -> None:
        """Give at most so much from now on; 0 for no limit."""
        self._upload_limit = bytes_per_s
        self._session.apply_settings({"upload_rate_limit": bytes_per_s})
        if self._first_seeder is not None:
            self._first_seeder.set_limit(bytes_per_s)

    @property
    def giving_port(self) -> int:
        """Where others get from this member what it was told to seed."""
        first_seeder = self._first_seeder
        return first_seeder.port if first_seeder is not None else self.port

    def set_as_root(self, *, as_root: bool) -> None:
        """Give as the first seeder does from now on (`net.swarm.firstseeder`), or as everybody.

        Over a wide link (10 Gb/s) it gives in both ways.
        """
        self._is_wide = as_root and find_fastest_mbits() >= _WIDE_MBITS
        with self._lock:
            former, self._first_seeder = self._first_seeder, self._open_first_seeder() if as_root else None
            for member in self._members.values():
                if member.is_trusted:
                    member.give_by(self._first_seeder, also_here=self._is_wide)
        if former is not None:
            former.close()

    def _open_first_seeder(self) -> FirstSeeder:
        """At its usual port, if that is free and this member is at its own."""
        usual = DEFAULT_FIRST_SEEDER_PORT if self.port == DEFAULT_SWARM_PORT else 0
        try:
            return FirstSeeder(addresses=self._addresses, port=usual, limit=self._upload_limit)
        except PortTakenError:
            return FirstSeeder(addresses=self._addresses, port=0, limit=self._upload_limit)

    def _join(
        self,
        torrent: bytes,
        parsed: Torrent,
        save_path: Path,
        *,
        wanted: frozenset[int] | None,
        peers: Iterable[Address],
        trusted: bool,
        discovers: bool = True,
    ) -> Member:
        try:
            parameters = lt.load_torrent_buffer(torrent)
            parameters.save_path = str(save_path)
            parameters.peers = list(peers)
            parameters.max_connections = MAX_PEERS_PER_TORRENT
            parameters.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
            if not discovers:
                parameters.flags |= WAYS_TO_DISCOVER
            if trusted:
                parameters.flags |= lt.torrent_flags.seed_mode
                parameters.verified_pieces = [True] * len(parsed.files)
            elif wanted is not None:
                parameters.piece_priorities = [4 if i in wanted else 0 for i in range(len(parsed.files))]
            handle = self._session.add_torrent(parameters)
        except RuntimeError as error:
            raise ArtefactError(f"{parsed.name} {parsed.info_hash[:16]}: {error}") from error
        member = Member(handle, parsed, save_path, self._reporter, discovers=discovers)
        self._members[parsed.info_hash] = member
        return member

    def _member(self, info_hash: str) -> Member:
        with self._lock:
            member = self._members.get(info_hash)
        if member is None:
            raise DepotError(f"artefact {info_hash[:16]} is neither being fetched nor given")
        return member

    def _find_members(self) -> list[Member]:
        with self._lock:
            return list(self._members.values())

    def _wait_until_listening(self, addresses: Sequence[str], port: int) -> int:
        waiting, until = len(addresses), time.monotonic() + _LISTEN_TIMEOUT_S
        while waiting > 0 and time.monotonic() < until:
            self._session.wait_for_alert(_POLL_MS)
            for alert in self._session.pop_alerts():
                if isinstance(alert, lt.listen_failed_alert):
                    raise _explain_listening(alert, port)
                if isinstance(alert, lt.listen_succeeded_alert) and alert.socket_type == lt.socket_type_t.tcp:
                    waiting -= 1
                    port = alert.port
        if waiting > 0:
            raise NetworkError(f"could not listen for the swarm on {', '.join(addresses)} port {port}")
        return port

    def _run_pump(self) -> None:
        next_tick = time.monotonic() + _TICK_S
        while not self._stopping.is_set():
            self._session.wait_for_alert(_POLL_MS)
            for alert in self._session.pop_alerts():
                with self._failing_loudly():
                    self._handle_alert(alert)
            if time.monotonic() >= next_tick:
                next_tick = time.monotonic() + _TICK_S
                self._listen_on_new_links()
                for member in self._find_members():
                    with self._failing_loudly():
                        member.tick(self._root_addresses)

    def _listen_on_new_links(self) -> None:
        """Where there is no link libtorrent stops listening, and it does not hear when the link is back."""
        before, self._links = self._links, find_links()
        if self._links - before:
            self._session.reopen_network_sockets(0)

    @contextlib.contextmanager
    def _failing_loudly(self) -> Iterator[None]:
        """The pump goes on whatever happens in the block; but fetches must not wait for what is lost."""
        try:
            yield
        except (RuntimeError, DepotError):  # the torrent was removed meanwhile
            return
        except Exception as error:  # a reporter that raises, although it must not
            for member in self._find_members():
                member.fail(NetworkError(f"{member.label}: {error!r} in the midst of fetching"))

    def _handle_alert(self, alert: lt.alert) -> None:
        if isinstance(alert, lt.alerts_dropped_alert):
            for member in self._find_members():
                member.catch_up()
            return
        if not isinstance(alert, lt.torrent_alert):
            return
        info_hash = alert.handle.info_hashes().v2.to_bytes().hex()
        with self._lock:
            subject = self._members.get(info_hash)
        if subject is not None:
            subject.handle_alert(alert)


def _explain_listening(alert: lt.listen_failed_alert, port: int) -> NetworkError:
    where = f"{alert.address}:{alert.port or port}"
    if alert.error.value() == errno.EADDRINUSE:
        hint = "another bladeroot, or another program, runs here; stop it"
        return PortTakenError(f"swarm port {where} is taken", hint)
    return NetworkError(f"cannot listen for the swarm on {where}: {alert.error.message()}")


def _limit_local_peers_too(session: lt.session) -> None:
    """By default libtorrent lets peers with private addresses skip slots and rates; here all are private."""
    everybody = lt.ip_filter()
    only_global = 1 << lt.session.global_peer_class_id
    everybody.add_rule("0.0.0.0", "255.255.255.255", only_global)  # noqa: S104
    everybody.add_rule("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", only_global)
    session.set_peer_class_filter(everybody)
