"""How the room stands, as its root sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core import wire
from bladeroot.core.claims import Claim
from bladeroot.core.cluster import DEFAULT_PORT, Cluster
from bladeroot.core.roomstate import BladeState, RoomState
from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.events import Reporter, ignore
from bladeroot.net.client import RootClient
from bladeroot.net.discovery import find_claims, make_no_root_error
from bladeroot.ops.findroot import find_root, parse_address

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
    said = _make_printable(client.status())
    try:
        # the one strict decoder of what comes from outside is that of `wire`: JSON takes a turn through it
        data = wire.encode(said)
    except (OverflowError, ValueError, RecursionError) as error:
        raise NetworkError(f"{client.host}:{client.port}: not a status: {error}") from error
    return wire.decode(RoomStatus, data, _STATUS_LIMIT_BYTES)


def _make_printable(value: Any) -> Any:
    """Without what could steer the terminal of whoever looks at it."""
    if isinstance(value, dict):
        return {_make_printable(key): _make_printable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_make_printable(item) for item in value]
    if isinstance(value, str):
        return "".join(
            character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in value
        )
    return value


def find_room(
    cluster: Cluster | None, *, root: str | None = None, wait_s: float, reporter: Reporter = ignore
) -> RootClient:
    """The root to ask: `root` (host:port), or one that the inventory or mDNS knows; without an inventory
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
