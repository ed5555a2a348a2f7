"""The swarm: fetching and giving artefacts over BitTorrent. The one door to libtorrent.

Every artefact is a v2 torrent in which each file is one piece (`core.torrentfile`), so piece number i is
file number i, and a verified piece is handed on as a whole file.
"""

from bladeroot.core.neighbours import Address
from bladeroot.net.swarm.fetching import OnPiece
from bladeroot.net.swarm.session import DEFAULT_SWARM_PORT, Swarm

__all__ = ["DEFAULT_SWARM_PORT", "Address", "OnPiece", "Swarm"]
