"""What an install takes from its source into the blade's own depot, and from there to where it belongs."""

from __future__ import annotations

import threading
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from bladeroot.core.framing import INDEX_NAME, FrameIndex, frame_name, parse_index
from bladeroot.core.manifest import ArtefactKind, Manifest
from bladeroot.errors import ArtefactError, NetworkError
from bladeroot.events import Progress, Reporter
from bladeroot.host.archive import Extraction, extract_plain, list_plain
from bladeroot.host.depot import Depot
from bladeroot.ops.room import RoomMaker
from bladeroot.ops.sources import OnFile, Source, fetch_artefact


class _Tally:
    """How much of an artefact has been fetched, and extracted. Thread-safe."""

    def __init__(self, kind: ArtefactKind, size_bytes: int, index: FrameIndex, reporter: Reporter) -> None:
        self._kind = kind
        self._size_bytes = size_bytes
        self._frames = index.frames
        self._reporter = reporter
        self._lock = threading.Lock()
        self._fetched: set[int] = set()
        # The index has come, and there is nothing in it to extract.
        self._fetched_bytes = self._extracted_bytes = size_bytes - sum(
            frame.size_bytes for frame in index.frames
        )

    def note_fetched(self, number: int) -> None:
        with self._lock:
            self._count_fetched(number)
            self._report()

    def note_extracted(self, number: int) -> None:
        with self._lock:
            self._count_fetched(number)
            self._extracted_bytes += self._frames[number].size_bytes
            self._report()

    def _count_fetched(self, number: int) -> None:
        if number not in self._fetched:
            self._fetched.add(number)
            self._fetched_bytes += self._frames[number].size_bytes

    def _report(self) -> None:
        progress = Progress(
            step=self._kind,
            done=self._fetched_bytes,
            total=self._size_bytes,
            extracted=self._extracted_bytes,
        )
        self._reporter(progress)


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
        """Extract each frame as it comes; those that the depot has are read from there meanwhile."""
        artefact = self.manifest.artefact(kind)
        index = self._fetch_index(kind)
        tally = _Tally(kind, artefact.size_bytes, index, self.reporter)

        def take(name: str, data: bytes) -> None:
            if name != INDEX_NAME:
                tally.note_fetched(int(name))
                extraction.submit(int(name), data)

        with Extraction(index, target, are_verified=True, on_extracted=tally.note_extracted) as extraction:
            folder = self.depot.save_path(artefact.info_hash) / kind
            for number in range(len(index.frames)):
                path = folder / frame_name(number)
                if path.exists():
                    extraction.submit_file(number, path)
            if not self.depot.has(artefact.info_hash):
                self.fetch(kind, take)
            elif extraction.wait():
                self.depot.distrust(artefact.info_hash)
                self.fetch(kind, take)
            extraction.finish()

    def fetch_overlay(self, name: str) -> bytes:
        """The archive of that overlay."""
        found: list[bytes] = []

        def take(file_name: str, data: bytes) -> None:
            if file_name == name:
                found.append(data)

        is_here = self.depot.has(self.manifest.artefact(ArtefactKind.OVERLAYS).info_hash)
        self.fetch(ArtefactKind.OVERLAYS, take, wanted=(name,) if is_here else None)
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
        """From the root itself, if it is there: nothing can be extracted before that."""
        artefact = self.manifest.artefact(kind)
        if not self.depot.has(artefact.info_hash):
            with suppress(NetworkError, ArtefactError):
                return parse_index(self.source.read_file(artefact, INDEX_NAME))
        found: list[bytes] = []
        self.fetch(kind, lambda _name, data: found.append(data), wanted=(INDEX_NAME,))
        return parse_index(found[0])


def _identify(path: Path) -> tuple[int, int] | None:
    """What is replaced is another file, or has another time of change; None where nothing is."""
    try:
        facts = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_ino, facts.st_ctime_ns
