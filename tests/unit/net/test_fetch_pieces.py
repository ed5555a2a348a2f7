"""What is between a swarm and whoever takes its pieces, without a swarm."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bladeroot.core.torrentfile import TorrentFile, build_torrent, parse_torrent
from bladeroot.net.swarm.fetching import Fetch

MIB = 1 << 20
BOUND = 32 * MIB


def fetch_all(tmp_path: Path, sizes: list[int]) -> tuple[int, list[str]]:
    """Fetch files of these sizes, all of which are there; the most bytes asked for at once, and what came."""
    files = [TorrentFile(f"{number:05d}", size, bytes([number] * 32)) for number, size in enumerate(sizes)]
    torrent = parse_torrent(build_torrent("runtime", files))
    folder = tmp_path / "runtime"
    folder.mkdir()
    for file in torrent.files:
        with (folder / file.name).open("wb") as stream:
            stream.truncate(file.size_bytes)
    asked: set[int] = set()
    most = 0
    given: list[str] = []

    def read(number: int) -> None:
        nonlocal most
        asked.add(number)
        most = max(most, sum(torrent.files[n].size_bytes for n in asked))
        fetch.take(number, b"")

    def take(name: str, _data: bytes) -> None:
        given.append(name)
        asked.discard(int(name))

    fetch = Fetch(
        torrent,
        tmp_path,
        frozenset(range(len(files))),
        take,
        read=read,
        flush=lambda: threading.Timer(0, lambda: fetch.flushed.set()).start(),
    )
    fetch.offer(range(len(files)))
    fetch.run(None, 60.0)
    return most, given


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        ([4 * MIB] * 40, BOUND),
        ([100 * MIB, 120 * MIB, 110 * MIB], 120 * MIB),  # one at a time
        ([1 * MIB, 120 * MIB] * 4, 120 * MIB),
        ([20 * MIB] * 5, 20 * MIB),
    ],
)
def test_pieces_that_wait_are_bounded_by_their_bytes(tmp_path: Path, sizes: list[int], most: int) -> None:
    found, given = fetch_all(tmp_path, sizes)
    assert given == [f"{number:05d}" for number in range(len(sizes))]
    assert found <= most
