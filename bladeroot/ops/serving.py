"""A blade that is not root gives what it has, read-only: generations, and the agent to netboot."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bladeroot.core import wire
from bladeroot.core.agentfiles import INITRAMFS, KERNEL
from bladeroot.core.bootanswer import BootQuery
from bladeroot.core.claims import Claim
from bladeroot.core.orders import SignedOrder
from bladeroot.errors import DepotError, NetworkError, PortTakenError, TrustError
from bladeroot.events import Reporter, ignore
from bladeroot.host.agentpayload import find_agent_parts
from bladeroot.host.depot import Depot
from bladeroot.net.control import ControlServer

_NOT_ROOT = "this blade is not root"


class Shelf:
    """What a depot has, for a `ControlServer`; it answers nothing that only a root may."""

    def __init__(self, depot: Depot, agent_hash: str | None) -> None:
        self._depot = depot
        self._agent_hash = agent_hash

    # net.control.ControlView

    def claim(self) -> Claim:
        """There is none. Raises DepotError."""
        raise DepotError(_NOT_ROOT)

    def serials(self) -> Sequence[int]:
        """The generations held."""
        return self._depot.serials()

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        """A generation's manifest. Raises DepotError."""
        return wire.encode(self._depot.read_manifest(serial))

    def torrent(self, info_hash: str) -> bytes | None:
        """An artefact's metadata, if all of it is here."""
        return self._depot.torrent(info_hash) if self._depot.has(info_hash) else None

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        """An artefact's files in order, if all of them are here."""
        return self._depot.artefact_files(info_hash) if self._depot.has(info_hash) else None

    def swarm_port(self) -> int:
        """The swarm's own ways tell of it."""
        return 0

    def blade_names(self) -> Collection[str]:
        """Nobody's reports count."""
        return ()

    def racks(self) -> Mapping[str, str | None]:
        """Nobody is told of others here."""
        return {}

    # net.bootservice.BootView

    def boot_file(self, info_hash: str, name: str) -> Sequence[Path] | None:
        """The agent's kernel or initramfs."""
        if info_hash != self._agent_hash or name not in (KERNEL, INITRAMFS) or not self._depot.has(info_hash):
            return None
        return find_agent_parts(self._depot, info_hash, name)

    def boot_script(self, query: BootQuery, root: str) -> str:
        """Raise NetworkError: what a machine is to do, it hears from a root."""
        del query, root
        raise NetworkError(_NOT_ROOT)

    def orders(self) -> tuple[SignedOrder, ...]:
        """None."""
        return ()

    def take_order(self, signed: SignedOrder) -> None:
        """Raise TrustError."""
        del signed
        raise TrustError(_NOT_ROOT, "give the order to a root")

    def take_role_order(self, signed: SignedOrder) -> None:
        """Raise TrustError."""
        del signed
        raise TrustError("this blade is being installed", "wait until it is up")


@contextmanager
def serve_depot(
    depot: Depot, *, agent_hash: str | None, cluster_id: str, port: int, reporter: Reporter = ignore
) -> Iterator[int]:
    """Serve for the length of the block, at `port` if it is free; yields the port."""
    shelf = Shelf(depot, agent_hash)
    try:
        server = ControlServer(
            shelf, cluster_id=cluster_id, port=port, reporter=reporter, takes_reports=False, boot=shelf
        )
    except PortTakenError:
        server = ControlServer(
            shelf, cluster_id=cluster_id, port=0, reporter=reporter, takes_reports=False, boot=shelf
        )
    with server:
        yield server.port
