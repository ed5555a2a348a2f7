"""Small artefacts for the tests of swarms."""

from __future__ import annotations

import random
from pathlib import Path

from attrs import frozen

from bladeroot.core.torrentfile import TorrentFile, build_torrent, hash_file_root, parse_torrent


@frozen
class TestArtefact:
    """An artefact that exists: its torrent, and every file's bytes."""

    __test__ = False

    torrent: bytes
    files: dict[str, bytes]

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
