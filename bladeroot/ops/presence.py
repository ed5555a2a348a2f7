"""A machine's presence in the room: one control service and one swarm, as long as it runs, whatever its role.

What it holds it gives, as root or not. What only a root may answer comes and goes with the role.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from attrs import frozen

from bladeroot.core.agentfiles import INITRAMFS, KERNEL
from bladeroot.core.bootanswer import BootQuery, find_boot_files
from bladeroot.core.claims import Claim
from bladeroot.core.orders import SignedOrder
from bladeroot.errors import DepotError, NetworkError, PortTakenError, TrustError
from bladeroot.events import Event, Reporter, Warned
from bladeroot.host.agentpayload import find_agent_parts
from bladeroot.net.bootservice import BootView
from bladeroot.net.control import ControlServer
from bladeroot.net.swarm import DEFAULT_SWARM_PORT, Swarm
from bladeroot.ops.holdings import Holdings

_NOT_ROOT = "this blade is not root"


@frozen(kw_only=True)
class Limits:
    """What is given in the swarm at most, in bytes per second; 0 for no limit."""

    as_root: int = 0
    otherwise: int = 0


class RootPart(Protocol):
    """What a root adds: its claim, and what it answers to machines that boot and to those who give orders."""

    @property
    def desk(self) -> BootView:
        """For `net.bootservice`."""

    def claim(self) -> Claim:
        """What it says of itself."""

    def blade_names(self) -> Collection[str]:
        """Whose reports count."""

    def racks(self) -> Mapping[str, str | None]:
        """The rack of each blade."""


class Presence:
    """Made by `open_presence`. It is what its own control service asks (`ControlView`, `BootView`)."""

    def __init__(self, holdings: Holdings, limits: Limits, reporter: Reporter) -> None:
        self.holdings = holdings
        self._limits = limits
        self.root: RootPart | None = None
        self.take_role_order: Callable[[SignedOrder], None] = _refuse_role
        """Who obeys an order that moves the root role."""
        self._reporter = reporter
        self._server: ControlServer | None = None
        self._swarm: Swarm | None = None

    @property
    def server(self) -> ControlServer:
        """The control service. Raises NetworkError before it is open."""
        if self._server is None:
            raise NetworkError("the control service is not open yet")
        return self._server

    @property
    def swarm(self) -> Swarm:
        """The membership in swarms. Raises NetworkError before it is open."""
        if self._swarm is None:
            raise NetworkError("the swarm is not open yet")
        return self._swarm

    def tell(self, event: Event) -> None:
        """A reporter: whoever watches this machine's service hears it too."""
        self._reporter(event)
        if self._server is not None:
            self._server.publish(event)

    def begin_root(self, part: RootPart) -> None:
        """From now on answer as root, to a room that is empty."""
        self.root = part
        self.server.open_room()
        self.swarm.set_as_root(as_root=True)
        self.swarm.set_upload_limit(self._limits.as_root)

    def end_root(self) -> None:
        """From now on answer as one that only has what it has."""
        self.root = None
        self.server.close_room()
        self.swarm.set_as_root(as_root=False)
        self.swarm.set_upload_limit(self._limits.otherwise)

    # net.control.ControlView

    def claim(self) -> Claim:
        """The root's. Raises DepotError where this is none."""
        root = self.root  # which the station's thread may end meanwhile
        if root is None:
            raise DepotError(_NOT_ROOT)
        return root.claim()

    def serials(self) -> Sequence[int]:
        """The generations held."""
        return self.holdings.serials()

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        """A generation's manifest as blades read it."""
        return self.holdings.signed_manifest_bytes(serial)

    def torrent(self, info_hash: str) -> bytes | None:
        """An artefact's metadata."""
        return self.holdings.torrent(info_hash)

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        """An artefact's files in order."""
        return self.holdings.artefact_files(info_hash)

    def swarm_port(self) -> int:
        """Where the swarm listens."""
        return self._swarm.giving_port if self._swarm else 0

    def blade_names(self) -> Collection[str]:
        """Whose reports count: nobody's, where this is no root."""
        root = self.root
        return root.blade_names() if root else ()

    def racks(self) -> Mapping[str, str | None]:
        """Of the blades of the newest generation."""
        root = self.root
        return root.racks() if root else {}

    # net.bootservice.BootView

    def boot_file(self, info_hash: str, name: str) -> Sequence[Path] | None:
        """A root's boot files; of others the agent's kernel and initramfs."""
        root = self.root
        if root is not None:
            return root.desk.boot_file(info_hash, name)
        depot, agent = self.holdings.depot, find_boot_files(self.holdings.newest)[1]
        if info_hash != agent or name not in (KERNEL, INITRAMFS) or not depot.has(info_hash):
            return None
        return find_agent_parts(depot, info_hash, name)

    def boot_script(self, query: BootQuery, root: str) -> str:
        """What a machine is to do, it hears from a root only. Raises NetworkError."""
        part = self.root
        if part is None:
            raise NetworkError(_NOT_ROOT)
        return part.desk.boot_script(query, root)

    def orders(self) -> tuple[SignedOrder, ...]:
        """What a root has to say to its blades."""
        root = self.root
        return root.desk.orders() if root else ()

    def take_order(self, signed: SignedOrder) -> None:
        """Keep an order, as root. Raises TrustError, DepotError."""
        root = self.root
        if root is None:
            raise TrustError(_NOT_ROOT, "give the order to a root")
        root.desk.take_order(signed)


def _refuse_role(_signed: SignedOrder) -> None:
    raise TrustError("no daemon runs here that could take the role", "`bladeroot promote` on the machine")


@contextmanager
def open_presence(
    holdings: Holdings, *, port: int, limits: Limits, yields_ports: bool = False, reporter: Reporter
) -> Iterator[Presence]:
    """Serve and seed what is held for the length of the block.

    A port that is taken raises PortTakenError, or with `yields_ports` another one is used, with a warning.
    """
    presence = Presence(holdings, limits, reporter)
    with ExitStack() as stack:
        presence._server = stack.enter_context(_open_server(presence, port, yields_ports=yields_ports))
        presence._swarm = stack.enter_context(_open_swarm(presence, limits, yields_ports=yields_ports))
        holdings.seed(presence.swarm)
        yield presence


def _open_server(presence: Presence, port: int, *, yields_ports: bool) -> ControlServer:
    def open_at(port: int) -> ControlServer:
        return ControlServer(
            presence,
            cluster_id=presence.holdings.cluster_id,
            port=port,
            reporter=presence._reporter,
            takes_reports=False,
            boot=presence,
        )

    try:
        return open_at(port)
    except PortTakenError as error:
        if not yields_ports:
            raise
        presence._reporter(Warned(text=f"{error}; another one is used", hint=error.hint))
        return open_at(0)


def _open_swarm(presence: Presence, limits: Limits, *, yields_ports: bool) -> Swarm:
    try:
        return Swarm(port=DEFAULT_SWARM_PORT, reporter=presence.tell, upload_limit=limits.otherwise)
    except PortTakenError as error:
        if not yields_ports:
            raise
        presence._reporter(Warned(text=f"{error}; another one is used", hint=error.hint))
        return Swarm(port=0, reporter=presence.tell, upload_limit=limits.otherwise)
