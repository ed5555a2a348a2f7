"""Room for a generation in a blade's own depot: who installs a blade cannot be asked to clean up first."""

from __future__ import annotations

from bladeroot.core.manifest import Manifest
from bladeroot.core.sizes import render_about
from bladeroot.errors import DepotError
from bladeroot.events import Note, Reporter, ignore
from bladeroot.host.depot import Depot
from bladeroot.host.pruning import prune_depot


class RoomMaker:
    """Drops from a depot what the wanted generation does not need, a little more each time it is called.

    First the rests of fetches that were given up, then older generations, the oldest first; the newest `keep`
    of them stay.
    """

    def __init__(self, depot: Depot, wanted: Manifest, reporter: Reporter = ignore, *, keep: int = 0) -> None:
        self._keep = keep
        self._depot = depot
        self._wanted = wanted
        self._reporter = reporter

    def __call__(self) -> bool:
        """Make some room; False where there is nothing left to drop. Raises DepotError if locked."""
        with self._depot.lock():
            for keep in range(len(self._depot.serials()), self._keep - 1, -1):
                try:
                    pruned = prune_depot(self._depot, keep, spare=self._wanted.artefacts)
                except DepotError:
                    continue  # what a damaged manifest needs is not known; its turn to go may come
                if pruned.freed_bytes:
                    gone = ", ".join(map(str, pruned.serials)) or "none"
                    freed = render_about(pruned.freed_bytes)
                    self._reporter(Note(text=f"made room: {freed} freed, generations dropped: {gone}"))
                    return True
        return False
