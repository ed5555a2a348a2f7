"""Promote: this machine takes the root role, with what its depot holds. Nothing is built, nothing moves.

A root announces itself, answers the control service, and seeds. Its state is soft: whatever is known of
the room is what blades report, and they will report it to the next root as well.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bladeroot.core import wire
from bladeroot.core.claims import Claim, ClaimState, choose_epoch
from bladeroot.core.cluster import NAME_PATTERN, Netboot
from bladeroot.core.manifest import Manifest
from bladeroot.core.roomstate import RoomState
from bladeroot.core.signing import PublicKey
from bladeroot.errors import BladerootError, ConfigError, DepotError, NetworkError
from bladeroot.events import Event, Reporter, RootStarted, Warned, ignore
from bladeroot.host.depot import Depot
from bladeroot.net.control import ControlServer
from bladeroot.net.discovery import Announcement, announce, find_claims
from bladeroot.net.swarm import DEFAULT_SWARM_PORT, Swarm
from bladeroot.ops.bootdesk import BootDesk
from bladeroot.ops.netboot import NetbootService, start_netboot

_LISTEN_S = 1.0
"""How long to hear who else is root, before claiming an epoch above theirs."""


def find_own_name() -> str:
    """What this machine calls itself, as a blade's name. Raises ConfigError."""
    name = socket.gethostname().split(".")[0].lower()
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"this machine's host name {name!r} is no blade's name", "name one with --blade")
    return name


class RootRole:
    """The role while it lasts; see `take_root_role`."""

    def __init__(
        self, depot: Depot, trusted_keys: Collection[PublicKey], cluster_id: str, reporter: Reporter
    ) -> None:
        self._depot = depot
        self._trusted_keys = trusted_keys
        self._cluster_id = cluster_id
        self._reporter = reporter
        self._generations: dict[int, Manifest] = {}
        self._rejected: set[int] = set()
        self._hashes: dict[int, str] = {}
        self._claim: Claim | None = None
        self._swarm: Swarm | None = None
        self._announcement: Announcement | None = None
        self._server: ControlServer | None = None
        self._netboot: NetbootService | None = None
        self._desk = BootDesk(
            depot,
            trusted_keys,
            cluster_id,
            newest=lambda: self.newest,
            room=lambda: self.room,
            reporter=lambda: self._tell,
        )

    @property
    def newest(self) -> Manifest:
        """The generation with the highest serial. Raises DepotError where there is none."""
        if not self._generations:
            hint = "`bladeroot publish` makes one, or `bladeroot promote --publish PATH` does both"
            raise DepotError(f"no whole generation of this cluster in {self._depot.path}", hint)
        return self._generations[max(self._generations)]

    @property
    def room(self) -> RoomState:
        """What blades have reported."""
        return self._server.room if self._server else RoomState()

    @property
    def port(self) -> int:
        """The control service's port."""
        return self._server.port if self._server else 0

    def take_in_generations(self) -> bool:
        """Seed and announce whatever whole generation is new in the depot; True if there was one."""
        found = False
        held = self._depot.serials()
        self._let_go_of_pruned(held)
        for serial in held:
            if serial in self._generations or serial in self._rejected:
                continue
            found = self._take_in(serial) or found
        if found and self._swarm is not None:
            self._seed(self._swarm)
            if self._announcement is not None:
                self._announce_again(self._announcement)
        return found

    def refresh_netboot(self) -> None:
        """Let what answers netboot know of a newer generation, and of what blades told."""
        if self._netboot is not None:
            self._netboot.update(self.newest, self.room)

    def _tell(self, event: Event) -> None:
        self._reporter(event)
        if self._server is not None:
            self._server.publish(event)

    def measure_given(self) -> dict[str, Any]:
        """What left this root over BitTorrent, by artefact of the newest generation, in bytes."""
        if self._swarm is None:
            return {}
        return {
            str(artefact.kind): {
                "size_bytes": artefact.size_bytes,
                "up_bytes": self._swarm.stats(artefact.info_hash).up_bytes,
            }
            for artefact in self.newest.artefacts
        }

    def _take_in(self, serial: int) -> bool:
        try:
            manifest = self._depot.load(serial, self._trusted_keys, self._cluster_id)
            if not self._depot.is_whole(manifest):
                return False
            # First: the control service's thread may ask for the newest claim at any time.
            self._hashes[serial] = self._depot.read_manifest(serial).hash
        except BladerootError as error:
            self._reject(serial, error)
            return False
        self._generations[serial] = manifest
        return True

    def _reject(self, serial: int, error: BladerootError) -> None:
        self._rejected.add(serial)
        self._reporter(Warned(text=f"generation {serial} is not served: {error}", hint=error.hint))

    def _let_go_of_pruned(self, held: Collection[int]) -> None:
        """What was pruned is served no longer; but a root always has a newest generation."""
        pruned = [serial for serial in self._generations if serial not in held]
        for serial in pruned:
            if len(self._generations) > 1:
                self._let_go(serial)

    def _let_go(self, serial: int) -> None:
        artefacts = self._generations.pop(serial).artefacts
        used = {a.info_hash for manifest in self._generations.values() for a in manifest.artefacts}
        if self._swarm is not None:
            for artefact in artefacts:
                if artefact.info_hash not in used:
                    self._swarm.remove(artefact.info_hash)

    def _seed(self, swarm: Swarm) -> None:
        """Seed what is new. A generation that cannot be seeded is not served, unless it is the only one."""
        for serial, manifest in sorted(self._generations.items()):
            seeded = swarm.info_hashes()
            try:
                for info_hash in [artefact.info_hash for artefact in manifest.artefacts]:
                    if info_hash not in seeded:
                        swarm.seed(self._depot.torrent(info_hash), self._depot.save_path(info_hash))
            except BladerootError as error:
                if len(self._generations) == 1:
                    raise
                self._reject(serial, error)
                self._let_go(serial)

    def _announce_again(self, announcement: Announcement) -> None:
        try:
            announcement.update(self.claim())
        except NetworkError as error:
            self._reporter(Warned(text=str(error), hint=error.hint))

    def _start_claim(self, blade: str, epoch: int, priority: int, port: int) -> Claim:
        newest = self.newest
        self._claim = Claim(
            cluster_id=self._cluster_id,
            epoch=epoch,
            serial=newest.serial,
            manifest_hash=self._hashes[newest.serial][:16],
            state=ClaimState.ROOT,
            priority=priority,
            blade=blade,
            host="0.0.0.0",  # noqa: S104 - filled in with the address that a client used
            port=port,
        )
        return self._claim

    # What the control service asks for (net.control.ControlView)

    def claim(self) -> Claim:
        """The claim, with the newest serial."""
        if self._claim is None:
            raise DepotError("not root yet")
        before = self._claim
        return self._start_claim(before.blade, before.epoch, before.priority, before.port)

    def serials(self) -> Sequence[int]:
        """The generations served."""
        return sorted(self._generations)

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        """A generation's manifest as blades read it."""
        if serial not in self._generations:
            return None
        return wire.encode(self._depot.read_manifest(serial))

    def torrent(self, info_hash: str) -> bytes | None:
        """An artefact's metadata."""
        return self._depot.torrent(info_hash) if self._depot.has(info_hash) else None

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        """An artefact's files in order."""
        return self._depot.artefact_files(info_hash) if self._depot.has(info_hash) else None

    def swarm_port(self) -> int:
        """Where this root's swarm listens."""
        return self._swarm.port if self._swarm else 0

    def blade_names(self) -> Collection[str]:
        """Whose reports count."""
        return [entry.blade.name for entry in self.newest.blades]


@contextmanager
def take_root_role(
    depot: Depot,
    trusted_keys: Collection[PublicKey],
    cluster_id: str,
    *,
    blade: str,
    port: int,
    priority: int = 0,
    upload_limit: int = 0,
    netboot: Netboot | None = None,
    interface: str | None = None,
    reporter: Reporter = ignore,
) -> Iterator[RootRole]:
    """Be root for the length of the block: seed, serve, announce, answer netboot.

    `upload_limit` is in bytes per second; `netboot` and `interface` are instead of what the inventory says.
    What blades report comes through `reporter`, and so do the root's own swarms. Raises DepotError without
    a generation, PortTakenError, NetworkError, and what `start_netboot` raises.
    """
    role = RootRole(depot, trusted_keys, cluster_id, reporter)
    role.take_in_generations()
    role.newest  # noqa: B018 - raises before anything is started
    heard = find_claims(cluster_id, timeout_s=_LISTEN_S)
    for other in heard.claims:
        reporter(Warned(text=f"there is another root: {other}", hint="stop one of the two"))
    epoch = choose_epoch(heard.claims)
    with ExitStack() as stack:
        server = stack.enter_context(
            ControlServer(role, cluster_id=cluster_id, port=port, reporter=reporter, boot=role._desk)
        )
        claim = role._start_claim(blade, epoch, priority, server.port)
        role._server = server
        role._swarm = stack.enter_context(_start_swarm(upload_limit, role._tell))
        role._seed(role._swarm)
        newest = role.newest
        role._netboot = stack.enter_context(
            start_netboot(
                depot,
                newest,
                mode=newest.network.netboot if netboot is None else netboot,
                port=server.port,
                interface=interface,
                room=lambda: role.room,
                reporter=role._tell,
            )
        )
        role._announcement = stack.enter_context(announce(claim))
        names = {"blade": blade, "cluster": newest.cluster_name}
        role._tell(RootStarted(serial=newest.serial, port=server.port, **names))
        yield role


def serve_until(role: RootRole, stop: threading.Event, *, interval_s: float = 2.0) -> None:
    """Serve, taking in what is published meanwhile, until `stop` is set."""
    while not stop.wait(interval_s):
        role.take_in_generations()
        role.refresh_netboot()


def _start_swarm(upload_limit: int, reporter: Reporter) -> Swarm:
    return Swarm(port=DEFAULT_SWARM_PORT, reporter=reporter, as_root=True, upload_limit=upload_limit)
