"""Where an install gets a generation from: a root and its swarm, or a depot on this machine.

The steps of an install do not know which it is; whatever comes is checked against the signed manifest.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from bladeroot.core.framing import INDEX_NAME, rebuild_torrent
from bladeroot.core.manifest import Artefact, SignedManifest
from bladeroot.core.torrentfile import Torrent, TorrentFile, hash_file_root, parse_torrent
from bladeroot.errors import (
    ArtefactError,
    DepotError,
    DepotFullError,
    InterruptedByUserError,
    NetworkError,
    RefusedError,
)
from bladeroot.host import interrupts
from bladeroot.host.depot import Depot
from bladeroot.host.files import explain_full_disk
from bladeroot.net.client import RootClient
from bladeroot.net.swarm import Address, Swarm
from bladeroot.ops.currentroot import CurrentRoot

OnFile = Callable[[str, bytes], None]
_PEER_REFRESH_S = 5.0
_MOST_PEERS_KNOWN = 128


class Source(Protocol):
    """Who has a generation."""

    def read_manifest(self) -> SignedManifest:
        """The newest manifest it offers, unchecked."""

    def read_torrent(self, artefact: Artefact) -> bytes:
        """An artefact's metadata, unchecked."""

    def read_file(self, artefact: Artefact, name: str) -> bytes:
        """One file of an artefact, checked against the info-hash, and not in the depot for it."""

    def fetch(
        self,
        torrent_bytes: bytes,
        torrent: Torrent,
        save_path: Path,
        wanted: Collection[str] | None,
        on_file: OnFile,
    ) -> None:
        """Write the wanted files (None: all) below `save_path`, each verified, and hand each over once."""


def fetch_artefact(
    source: Source,
    depot: Depot,
    artefact: Artefact,
    on_file: OnFile = lambda _name, _data: None,
    *,
    wanted: Collection[str] | None = None,
    make_room: Callable[[], bool] = lambda: False,
) -> None:
    """Bring an artefact (or only the wanted files of it) into the depot, handing over every file verified.

    What the depot holds is not fetched. A frame in it that is damaged is found here, and fetched again.
    `make_room` is called where the depot is full, as long as it says that it made some.
    """
    info_hash = artefact.info_hash
    given: set[str] = set()

    def give(name: str, data: bytes) -> None:
        interrupts.check()
        if name not in given:
            given.add(name)
            on_file(name, data)

    if depot.has(info_hash):
        try:
            for name, data in depot.read_files(info_hash, wanted):
                give(name, data)
        except ArtefactError:
            depot.distrust(info_hash)
        else:
            return
    torrent_bytes = source.read_torrent(artefact)
    while True:
        try:
            torrent = depot.begin_artefact(torrent_bytes, info_hash)
            break
        except DepotFullError:
            if not make_room():
                raise
    source.fetch(torrent_bytes, torrent, depot.save_path(info_hash), wanted, give)
    if wanted is None:
        depot.finish_artefact(info_hash)


class DepotSource:
    """A depot on this machine."""

    def __init__(self, depot: Depot, serial: int | None = None) -> None:
        self._depot = depot
        self._serial = serial

    def read_manifest(self) -> SignedManifest:
        """The chosen generation, or the newest. Raises DepotError."""
        serials = self._depot.serials()
        if not serials:
            raise DepotError(f"no generation in {self._depot.path}", "`bladeroot publish` makes one")
        return self._depot.read_manifest(self._serial or serials[-1])

    def read_torrent(self, artefact: Artefact) -> bytes:
        """The metadata as the depot has it."""
        return self._depot.torrent(artefact.info_hash)

    def read_file(self, artefact: Artefact, name: str) -> bytes:
        """The file as the depot has it. Raises DepotError, ArtefactError."""
        return self._depot.read_file(artefact.info_hash, name)

    def fetch(
        self,
        torrent_bytes: bytes,
        torrent: Torrent,
        save_path: Path,
        wanted: Collection[str] | None,
        on_file: OnFile,
    ) -> None:
        """Copy file after file, each checked against its hash."""
        del torrent_bytes
        for name, data in self._depot.read_files(torrent.info_hash, wanted):
            with explain_full_disk(save_path, DepotFullError):
                (save_path / torrent.name / name).write_bytes(data)
            on_file(name, data)


class SwarmSource:
    """A root, and whoever else is in its swarms: one generation, even if the root gets a newer one.

    Losing the root does not end a fetch: the swarm goes on.
    """

    def __init__(
        self,
        client: RootClient | CurrentRoot,
        swarm: Swarm,
        serial: int,
        wants: set[str],
        *,
        patience_s: float | None = None,
        stop: threading.Event = interrupts.requested,
    ) -> None:
        """`patience_s`: without a file for so long a fetch ends with NetworkError; None to wait for ever.
        `stop` ends it with InterruptedByUserError.
        """
        self._patience_s = patience_s
        self._stop = stop
        self._client = client
        self._swarm = swarm
        self._serial = serial
        # Info-hashes of the swarms joined: reports say them, so that other blades find this one.
        self._wants = wants
        self._torrents: dict[str, bytes] = {}
        self._indexes: dict[str, bytes] = {}
        self._peers: dict[Address, None] = {}
        self._are_all_known = False
        """Whether the root says that no others are to be looked for; it cannot while it is away."""

    def read_manifest(self) -> SignedManifest:
        """The generation that the root announced. Raises NetworkError."""
        return self._client.manifest(self._serial)

    def read_torrent(self, artefact: Artefact) -> bytes:
        """The metadata from the root, which is asked once for each. Raises NetworkError, ArtefactError."""
        info_hash = artefact.info_hash
        if info_hash not in self._torrents:
            data = self._make_torrent(artefact) or self._client.torrent(info_hash)
            parse_torrent(data, info_hash)
            self._torrents[info_hash] = data
        return self._torrents[info_hash]

    def _make_torrent(self, artefact: Artefact) -> bytes | None:
        """Of the frame index, where the root gives that: it is needed anyhow, and hundreds ask at once.

        Raises NetworkError for a root that does not answer: to ask it for something else is no help.
        """
        if artefact.index is None:
            return None
        with contextlib.suppress(RefusedError, ArtefactError):
            index = self._read_checked(artefact, artefact.index)
            self._indexes[artefact.info_hash] = index
            return rebuild_torrent(artefact.kind, index)
        return None

    def read_file(self, artefact: Artefact, name: str) -> bytes:
        """The file from the root. Raises NetworkError, ArtefactError."""
        info_hash = artefact.info_hash
        torrent = parse_torrent(self.read_torrent(artefact), info_hash)
        if name == INDEX_NAME and info_hash in self._indexes:
            return self._indexes[info_hash]
        for file in torrent.files:
            if file.name == name:
                return self._read_checked(artefact, file)
        raise ArtefactError(f"artefact {info_hash[:16]} has no file {name!r}", "publish it again")

    def _read_checked(self, artefact: Artefact, file: TorrentFile) -> bytes:
        data = self._client.artefact_file(artefact.info_hash, artefact.kind, file.name, file.size_bytes)
        if hash_file_root(data) != file.root:
            raise ArtefactError(f"the root's {artefact.kind}/{file.name} is not what was signed")
        return data

    def fetch(
        self,
        torrent_bytes: bytes,
        torrent: Torrent,
        save_path: Path,
        wanted: Collection[str] | None,
        on_file: OnFile,
    ) -> None:
        """Join the artefact's swarm, and stay in it afterwards."""
        self._wants.add(torrent.info_hash)
        if not self._peers:
            self._find_peers(torrent.info_hash)
        patience = _Patience(self._patience_s, self._stop)

        def take(name: str, data: bytes) -> None:
            patience.renew()
            on_file(name, data)

        try:
            with self._fresh_peers(torrent.info_hash):
                self._swarm.fetch(
                    torrent_bytes,
                    save_path,
                    peers=tuple(self._peers),
                    discovers=not self._are_all_known,
                    wanted=wanted,
                    on_piece=take,
                    cancel=patience,
                )
        except InterruptedByUserError:
            if not patience.is_over:
                raise
            text = (
                f"{torrent.name} {torrent.info_hash[:16]}: nobody gave anything for {self._patience_s:.0f} s"
            )
            raise NetworkError(text, "whoever has it must be up: see `bladeroot status`") from None

    def _find_peers(self, info_hash: str) -> None:
        """Ask the root, and remember: who is in one artefact's swarm comes to the others' too, and is there
        when the root is not.
        """
        try:
            found = self._client.peers(info_hash)
        except NetworkError:
            self._are_all_known = False
            return
        self._are_all_known = found.are_all
        known = list({**dict.fromkeys(found.peers), **self._peers})
        self._peers = dict.fromkeys(known[:_MOST_PEERS_KNOWN])

    @contextmanager
    def _fresh_peers(self, info_hash: str) -> Iterator[None]:
        """Ask the root again now and then: blades that started later are peers too."""
        done = threading.Event()

        def refresh() -> None:
            while not done.wait(_PEER_REFRESH_S):
                self._find_peers(info_hash)
                with contextlib.suppress(DepotError, RuntimeError):  # the swarm was left meanwhile
                    if not done.is_set() and info_hash in self._swarm.info_hashes():
                        self._swarm.add_peers(info_hash, tuple(self._peers))
                        self._swarm.set_discovering(info_hash, discovers=not self._are_all_known)

        # Not waited for: a root that lost its power would hold up every artefact's end for seconds.
        threading.Thread(target=refresh, name="peer-refresh", daemon=True).start()
        try:
            yield
        finally:
            done.set()


class _Patience(threading.Event):
    """Set when `stop` is, or when it was not renewed for so long. For what asks `is_set` now and then."""

    def __init__(self, patience_s: float | None, stop: threading.Event) -> None:
        super().__init__()
        self._patience_s = patience_s
        self._stop = stop
        self.renew()

    def renew(self) -> None:
        self._since_s = time.monotonic()

    @property
    def is_over(self) -> bool:
        return self._patience_s is not None and time.monotonic() > self._since_s + self._patience_s

    def is_set(self) -> bool:
        return self._stop.is_set() or self.is_over
