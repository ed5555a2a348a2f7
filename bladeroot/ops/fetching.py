"""What an install takes from its source into the blade's own depot, and from there to where it belongs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from attrs import frozen

from bladeroot.core.framing import FrameIndex, parse_index
from bladeroot.core.manifest import ArtefactKind, Manifest
from bladeroot.events import Progress, Reporter
from bladeroot.host.archive import Extraction, extract_plain, list_plain
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

    def fetch_extras(self, overlay: str, target: Path) -> None:
        """The extras over the tree, and then that overlay on what they have brought, since it has the last
        word on them too. The rest of it stays as hooks and people have left it.
        """
        archive = self.fetch_overlay(overlay)
        before = {path: _identify(target / path) for path in list_plain(archive)}
        self.fetch_and_extract(ArtefactKind.EXTRAS, target)
        extract_plain(archive, target, lambda path: _identify(target / path) != before[path])

    def fetch_rest(self) -> None:
        """Whatever the depot lacks of the generation."""
        for artefact in self.manifest.artefacts:
            if not self.depot.has(artefact.info_hash):
                self.fetch(artefact.kind)

    def _fetch_index(self, kind: ArtefactKind) -> FrameIndex:
        found: list[bytes] = []
        self.fetch(kind, lambda _name, data: found.append(data), wanted=("index",))
        return parse_index(found[0])


def _identify(path: Path) -> tuple[int, int] | None:
    """What is replaced is another file, or has another time of change; None where nothing is."""
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_ino, facts.st_ctime_ns
