"""How the room stands, as its root sees it."""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from attrs import frozen

from bladeroot.core import wire
from bladeroot.core.claims import Claim
from bladeroot.core.cluster import DEFAULT_PORT, Cluster
from bladeroot.core.reports import BladeState, RoomState
from bladeroot.errors import NoRootFoundError
from bladeroot.events import Reporter, ignore
from bladeroot.net.client import RootClient
from bladeroot.net.discovery import find_claims, make_no_root_error
from bladeroot.ops.follow import find_root, parse_address

_STATUS_LIMIT_BYTES = 8 << 20


@frozen(kw_only=True)
class RoomStatus:
    """What a root says of itself and of its room. Said by a machine on the network: for looking at only."""

    claim: Claim
    generations: tuple[int, ...] = ()
    blades: Mapping[str, BladeState] = attrs.field(factory=dict)

    @property
    def room(self) -> RoomState:
        """The blades, as event streams are folded."""
        return RoomState(blades=self.blades)


def read_status(client: RootClient) -> RoomStatus:
    """Ask a root. Raises NetworkError for no answer, and for one that is not a status."""
    # the one strict decoder of what comes from outside is that of `wire`, so JSON takes a turn through it
    return wire.decode(RoomStatus, wire.encode(client.status()), _STATUS_LIMIT_BYTES)


def find_room(
    cluster: Cluster | None, *, root: str | None = None, wait_s: float, reporter: Reporter = ignore
) -> RootClient:
    """
    The root to ask: `root` (host:port), or one that the inventory or mDNS knows; without an inventory
    that of any cluster. Raises NoRootFoundError, NetworkError, UsageError.
    """
    if root is not None:
        return RootClient(*parse_address(root, cluster.network.port if cluster else DEFAULT_PORT))
    if cluster is not None:
        return find_root(cluster, root=None, wait_s=wait_s, reporter=reporter)[0]
    heard = find_claims(timeout_s=wait_s)
    if heard.root is None:
        error = make_no_root_error("", heard)
        raise NoRootFoundError(str(error).replace(" of cluster …", ""), error.hint)
    return RootClient(heard.root.host, heard.root.port)
