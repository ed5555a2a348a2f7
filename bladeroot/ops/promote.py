"""Promote: this machine takes the root role, with what its depot holds. Nothing is built, nothing moves.

A root announces itself, answers the control service, and seeds. Its state is soft: whatever is known of
the room is what blades report, and they will report it to the next root as well.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from bladeroot.core.claims import Claim, ClaimState, choose_epoch
from bladeroot.core.cluster import NAME_PATTERN, Netboot
from bladeroot.core.manifest import Manifest
from bladeroot.core.roomstate import RoomState
from bladeroot.core.signing import PublicKey
from bladeroot.errors import ConfigError, NetworkError
from bladeroot.events import Reporter, RootStarted, Warned, ignore
from bladeroot.host.depot import Depot
from bladeroot.net.discovery import Announcement, announce, find_claims
from bladeroot.ops.bootdesk import BootDesk
from bladeroot.ops.holdings import Holdings
from bladeroot.ops.netboot import NetbootService, start_netboot
from bladeroot.ops.presence import Limits, Presence, open_presence

_LISTEN_S = 1.0
"""How long to hear who else is root, before claiming an epoch above theirs."""


def find_own_name() -> str:
    """What this machine calls itself, as a blade's name. Raises ConfigError."""
    name = socket.gethostname().split(".")[0].lower()
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"this machine's host name {name!r} is no blade's name", "name one with --blade")
    return name


class RootRole:
    """What a machine adds to its presence while it is root: see `ops.presence.RootPart`.

    `claim()` is what it says of itself; `announcement` and `netboot` are kept up to date, if they are there.
    """

    def __init__(
        self, presence: Presence, *, blade: str, epoch: int, priority: int = 0, successor: str = ""
    ) -> None:
        self.presence = presence
        self.announcement: Announcement | None = None
        self.netboot: NetbootService | None = None
        self.successor = successor
        self._blade = blade
        self._epoch = epoch
        self._priority = priority
        holdings = presence.holdings
        self.desk = BootDesk(
            holdings.depot,
            holdings.trusted_keys,
            holdings.cluster_id,
            newest=lambda: self.newest,
            room=lambda: self.room,
            reporter=lambda: presence.tell,
        )

    @property
    def newest(self) -> Manifest:
        """The generation with the highest serial. Raises DepotError where there is none."""
        return self.presence.holdings.newest

    @property
    def room(self) -> RoomState:
        """What blades have reported."""
        return self.presence.server.room

    @property
    def port(self) -> int:
        """The control service's port."""
        return self.presence.server.port

    def claim(self, state: ClaimState = ClaimState.ROOT) -> Claim:
        """Of the newest generation. Raises DepotError where there is none."""
        newest = self.newest
        return Claim(
            cluster_id=newest.cluster_id,
            epoch=self._epoch,
            serial=newest.serial,
            manifest_hash=self.presence.holdings.manifest_hash(newest.serial)[:16],
            state=state,
            priority=self._priority,
            blade=self._blade,
            host="0.0.0.0",  # noqa: S104 - filled in with the address that a client used
            port=self.port,
            successor=self.successor,
        )

    def blade_names(self) -> Collection[str]:
        """Whose reports count."""
        return [entry.blade.name for entry in self.newest.blades]

    def racks(self) -> dict[str, str | None]:
        """Where the inventory has the blades."""
        return {entry.blade.name: entry.blade.rack for entry in self.newest.blades}

    def take_in_generations(self) -> bool:
        """Seed and announce whatever whole generation is new in the depot; True if there was one."""
        found = self.presence.holdings.take_in()
        if found:
            self.announce_again()
        return found

    def announce_again(self) -> None:
        """Say once more what this root is and has."""
        if self.announcement is None:
            return
        try:
            self.announcement.update(self.claim())
        except NetworkError as error:
            self.presence.tell(Warned(text=str(error), hint=error.hint))

    def refresh_netboot(self) -> None:
        """Let what answers netboot know of a newer generation, and of what blades told."""
        if self.netboot is not None:
            self.netboot.update(self.newest, self.room)

    def tell_started(self) -> None:
        """Say that whoever starts now finds this root."""
        newest = self.newest
        started = RootStarted(
            blade=self._blade, cluster=newest.cluster_name, serial=newest.serial, port=self.port
        )
        self.presence.tell(started)

    def measure_given(self) -> dict[str, Any]:
        """What left this root over BitTorrent, by artefact of the newest generation, in bytes."""
        return {
            str(artefact.kind): {
                "size_bytes": artefact.size_bytes,
                "up_bytes": self.presence.swarm.stats(artefact.info_hash).up_bytes,
            }
            for artefact in self.newest.artefacts
        }


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
    """Be root for the length of the block, whoever else is: seed, serve, announce, answer netboot.

    `upload_limit` is in bytes per second; `netboot` and `interface` are instead of what the inventory says.
    What blades report comes through `reporter`, and so do the root's own swarms. Raises DepotError without
    a generation, PortTakenError, NetworkError, and what `start_netboot` raises.
    """
    holdings = Holdings(depot, trusted_keys, cluster_id, reporter)
    holdings.take_in()
    holdings.newest  # noqa: B018 - raises before anything is started
    heard = find_claims(cluster_id, timeout_s=_LISTEN_S)
    for other in heard.claims:
        reporter(Warned(text=f"there is another root: {other}", hint="stop one of the two"))
    with ExitStack() as stack:
        presence = stack.enter_context(
            open_presence(holdings, port=port, limits=Limits(as_root=upload_limit), reporter=reporter)
        )
        role = RootRole(presence, blade=blade, epoch=choose_epoch(heard.claims), priority=priority)
        presence.begin_root(role)
        role.netboot = stack.enter_context(serve_netboot(role, mode=netboot, interface=interface))
        role.announcement = stack.enter_context(announce(role.claim()))
        role.tell_started()
        yield role


@contextmanager
def serve_netboot(
    role: RootRole, *, mode: Netboot | None = None, interface: str | None = None
) -> Iterator[NetbootService | None]:
    """Answer netboot with what that root has, for the length of the block; by default as was published.

    Raises what `start_netboot` raises.
    """
    newest = role.newest
    with start_netboot(
        role.presence.holdings.depot,
        newest,
        mode=newest.network.netboot if mode is None else mode,
        port=role.port,
        interface=interface,
        room=lambda: role.room,
        reporter=role.presence.tell,
    ) as service:
        yield service


def serve_until(role: RootRole, stop: threading.Event, *, interval_s: float = 2.0) -> None:
    """Serve, taking in what is published meanwhile, until `stop` is set."""
    while not stop.wait(interval_s):
        role.take_in_generations()
        role.refresh_netboot()
