"""Artefacts of one's own making, on their way into the depot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bladeroot.core.framing import INDEX_NAME
from bladeroot.core.manifest import TARBALLS, Artefact, ArtefactKind
from bladeroot.core.torrentfile import Torrent, TorrentFile, build_torrent, hash_file_root, parse_torrent
from bladeroot.errors import ArtefactError
from bladeroot.host.files import write_atomically

if TYPE_CHECKING:
    from bladeroot.host.depot import Depot


class ArtefactWriter:
    """An artefact in the making, in a directory that is thrown away unless it is finished."""

    def __init__(self, depot: Depot, directory: Path) -> None:
        self._depot = depot
        self._directory = directory

    def write(self, name: str, data: bytes) -> None:
        """Add a file. Safe to call from several threads. Raises DepotFullError."""
        path = self._directory / name
        with self._depot.explain_full():
            path.write_bytes(data)

    def take(self, file: TorrentFile) -> bool:
        """Add a file that the depot has as a frame; False where it has not, or where that is damaged."""
        try:
            self._depot.read_checked(self._depot.frame_path(file.root), file)
        except ArtefactError:
            return False
        with self._depot.explain_full():
            self._depot.link_frame(file.root, self._directory / file.name)
        return True

    def add_file(self, name: str, data: bytes) -> TorrentFile:
        """Add a file and hash it."""
        self.write(name, data)
        return TorrentFile(name, len(data), hash_file_root(data))

    def finish(self, kind: ArtefactKind, files: Sequence[TorrentFile], raw_size_bytes: int) -> Artefact:
        """Put the artefact into the depot; whatever frames it has already are shared, not stored twice, and
        mended if they were damaged.
        """
        depot = self._depot
        torrent_bytes = build_torrent(kind, files)
        torrent = parse_torrent(torrent_bytes)
        directory = depot.save_path(torrent.info_hash) / torrent.name
        with depot.explain_full():
            directory.mkdir(parents=True, exist_ok=True)
            for file in torrent.files:
                depot.take_frame(self._directory / file.name, file)
                depot.link_frame(file.root, directory / file.name)
        if not depot.has(torrent.info_hash):
            with depot.explain_full():
                write_atomically(depot.save_path(torrent.info_hash) / "torrent", torrent_bytes)
            depot.finish_artefact(torrent.info_hash)
        return Artefact(
            kind=kind,
            info_hash=torrent.info_hash,
            size_bytes=torrent.size_bytes,
            raw_size_bytes=raw_size_bytes,
            piece_length=torrent.piece_length,
            files=len(torrent.files),
            index=_find_index(torrent) if kind in TARBALLS else None,
        )


def _find_index(torrent: Torrent) -> TorrentFile | None:
    return next((file for file in torrent.files if file.name == INDEX_NAME), None)
