"""Small artefacts for the tests of swarms."""

from __future__ import annotations

import random
from pathlib import Path

from attrs import frozen

from bladeroot.core.manifest import Artefact, ArtefactKind
from bladeroot.core.torrentfile import TorrentFile, build_torrent, hash_file_root, parse_torrent


@frozen
class TestArtefact:
    """An artefact that exists: its torrent, and every file's bytes."""

    __test__ = False

    torrent: bytes
    files: dict[str, bytes]

    @property
    def artefact(self) -> Artefact:
        """As a manifest has it, but that the torrent has to be sent."""
        torrent = parse_torrent(self.torrent)
        return Artefact(
            kind=ArtefactKind.RUNTIME,
            info_hash=torrent.info_hash,
            size_bytes=torrent.size_bytes,
            raw_size_bytes=torrent.size_bytes,
            piece_length=torrent.piece_length,
            files=len(torrent.files),
        )

    @property
    def info_hash(self) -> str:
        return parse_torrent(self.torrent).info_hash

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.files.values()))

    def write(self, save_path: Path) -> None:
        folder = save_path / "runtime"
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)


def make_artefact(frames: int, frame_bytes: int, *, seed: int | None = None) -> TestArtefact:
    """Frames of different sizes up to `frame_bytes`, and an index, as a framed tarball has them.

    Without a seed no other run of the tests has the same: members find each other on the local network.
    """
    chance = random.Random(seed)
    files = {
        f"{number:05d}": chance.randbytes(chance.randint(frame_bytes // 2, frame_bytes))
        for number in range(frames)
    }
    files["index"] = chance.randbytes(1000)
    entries = [TorrentFile(name, len(data), hash_file_root(data)) for name, data in files.items()]
    return TestArtefact(build_torrent("runtime", entries), files)
