"""Which agent a depot has, and of what it was made: so long as nothing changes, it is not made again."""

from __future__ import annotations

import contextlib

from attrs import frozen

from bladeroot.core import wire
from bladeroot.core.manifest import Artefact
from bladeroot.errors import ArtefactError, DepotError, NetworkError, NoRoomError
from bladeroot.host.depot import Depot
from bladeroot.host.files import write_atomically

_LIMIT_BYTES = 4096


@frozen(kw_only=True)
class _MadeAgent:
    fingerprint: str
    artefact: Artefact


def read_made_agent(depot: Depot, fingerprint: str) -> Artefact | None:
    """The agent that was made last, if it was made of this and is in the depot, whole and undamaged."""
    try:
        made = wire.decode(_MadeAgent, depot.agent_record.read_bytes(), _LIMIT_BYTES)
        if made.fingerprint != fingerprint or not depot.has(made.artefact.info_hash):
            return None
        return None if depot.find_damage(made.artefact) else made.artefact
    except (OSError, NetworkError, DepotError, ArtefactError):
        return None


def keep_made_agent(depot: Depot, fingerprint: str, artefact: Artefact) -> None:
    """Remember what an agent was made of; where there is no room, the next one takes as long as this."""
    made = _MadeAgent(fingerprint=fingerprint, artefact=artefact)
    with contextlib.suppress(OSError, NoRoomError):
        write_atomically(depot.agent_record, wire.encode(made), mode=0o600)
