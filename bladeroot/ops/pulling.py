"""Pulling a generation: a blade takes what another holds into its own depot, checked, and drops no whole one
for it before the new one is whole too.
"""

from __future__ import annotations

import threading
from collections.abc import Collection

from bladeroot.core.manifest import Manifest, accept_manifest
from bladeroot.core.signing import PublicKey
from bladeroot.events import Note, Reporter
from bladeroot.host import interrupts
from bladeroot.host.depot import Depot
from bladeroot.net.client import RootClient
from bladeroot.net.swarm import Swarm
from bladeroot.ops.room import RoomMaker
from bladeroot.ops.sources import SwarmSource, fetch_artefact


def pull_generation(
    client: RootClient,
    serial: int,
    depot: Depot,
    swarm: Swarm,
    *,
    trusted_keys: Collection[PublicKey],
    cluster_id: str,
    lowest_serial: int,
    patience_s: float | None = None,
    stop: threading.Event = interrupts.requested,
    reporter: Reporter,
) -> Manifest:
    """Bring that generation into the depot, from who has it and from its swarms.

    Raises TrustError for one that is not signed, of another cluster, or lower than `lowest_serial`;
    NetworkError (also where nobody gives anything for `patience_s`), ArtefactError, DepotError (another
    generation has that serial), DepotFullError, InterruptedByUserError if `stop` is set. What came stays,
    and is not fetched again.
    """
    signed = client.manifest(serial)
    manifest = accept_manifest(signed, trusted_keys, cluster_id, lowest_serial=lowest_serial)
    source = SwarmSource(client, swarm, manifest.serial, set(), patience_s=patience_s, stop=stop)
    reporter(Note(text=f"fetching generation {manifest.serial} from {client.host} and its swarm"))
    make_room = RoomMaker(depot, manifest, reporter, keep=1)
    for artefact in manifest.artefacts:
        fetch_artefact(source, depot, artefact, make_room=make_room)
    depot.add_generation(signed, manifest)
    reporter(Note(text=f"generation {manifest.serial} is whole here"))
    return manifest
