"""What an install takes from its source into the blade's own depot, and from there to where it belongs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from attrs import frozen

from bladeroot.core.framing import FrameIndex, parse_index
from bladeroot.core.manifest import ArtefactKind, Manifest
from bladeroot.events import Progress, Reporter
from bladeroot.host.archive import Extraction
from bladeroot.host.depot import Depot
from bladeroot.ops.room import RoomMaker
from bladeroot.ops.sources import OnFile, Source, fetch_artefact


@frozen
class Fetcher:
    """Gets a generation's artefacts: what the depot holds already is not fetched again."""

    source: Source
    depot: Depot
    manifest: Manifest
    reporter: Reporter

    def fetch(
        self,
        kind: ArtefactKind,
        on_file: OnFile = lambda _name, _data: None,
        *,
        wanted: Collection[str] | None = None,
    ) -> None:
        """See `ops.sources.fetch_artefact`; generations that are not needed any more make room."""
        make_room = RoomMaker(self.depot, self.manifest, self.reporter)
        artefact = self.manifest.artefact(kind)
        fetch_artefact(self.source, self.depot, artefact, on_file, wanted=wanted, make_room=make_room)

    def fetch_and_extract(self, kind: ArtefactKind, target: Path) -> None:
        """Extract each frame as it comes."""
        size_bytes = self.manifest.artefact(kind).size_bytes
        fetched = 0
        with Extraction(self._fetch_index(kind), target, are_verified=True) as extraction:

            def take(name: str, data: bytes) -> None:
                nonlocal fetched
                fetched += len(data)
                if name != "index":
                    extraction.submit(int(name), data)
                self.reporter(Progress(step=kind, done=fetched, total=size_bytes))

            self.fetch(kind, take)
            extraction.finish()

    def fetch_overlay(self, name: str) -> bytes:
        """The archive of that overlay."""
        found: list[bytes] = []

        def take(file_name: str, data: bytes) -> None:
            if file_name == name:
                found.append(data)

        self.fetch(ArtefactKind.OVERLAYS, take)
        return found[0]

    def _fetch_index(self, kind: ArtefactKind) -> FrameIndex:
        found: list[bytes] = []
        self.fetch(kind, lambda _name, data: found.append(data), wanted=("index",))
        return parse_index(found[0])
