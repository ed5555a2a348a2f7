"""A swarm goes on without its root."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import attrs
import pytest

from bladeroot.core.framing import Frame, FrameIndex, render_index
from bladeroot.core.manifest import Artefact
from bladeroot.core.reports import PeerList
from bladeroot.core.torrentfile import TorrentFile, build_torrent, hash_file_root, parse_torrent
from bladeroot.errors import ArtefactError, NetworkError, RefusedError
from bladeroot.net.client import RootClient
from bladeroot.net.swarm import Address, Swarm
from bladeroot.ops import sources
from bladeroot.ops.sources import SwarmSource
from tests.swarmdata import TestArtefact, make_artefact

LOOPBACK = ("127.0.0.1",)
TIMEOUT_S = 60.0


@attrs.define(eq=False)
class MortalRoot:
    """A root's control service, until it dies."""

    torrents: dict[str, bytes]
    members: list[Address]
    files: dict[tuple[str, str, str], bytes] = attrs.Factory(dict)
    lives: bool = True
    asked: int = 0

    def torrent(self, info_hash: str) -> bytes:
        self.ask()
        return self.torrents[info_hash]

    def artefact_file(self, info_hash: str, name: str, file: str, size_bytes: int) -> bytes:
        self.ask()
        try:
            return self.files[info_hash, name, file][:size_bytes]
        except KeyError as error:
            raise RefusedError(f"no {error}") from None

    def peers(self, _info_hash: str) -> PeerList:
        self.ask()
        return PeerList(peers=tuple(self.members))

    def ask(self) -> None:
        self.asked += 1
        if not self.lives:
            raise NetworkError("no answer")


@pytest.fixture
def swarm() -> Iterator[Swarm]:
    with Swarm(port=0, addresses=LOOPBACK) as swarm:
        yield swarm


def fetch(source: SwarmSource, artefact: TestArtefact, save_path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    torrent = source.read_torrent(artefact.artefact)
    source.fetch(torrent, parse_torrent(torrent), save_path, None, files.__setitem__)
    return files


def test_once_it_has_the_metadata_and_a_peer_no_root_is_needed(
    swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_PEER_REFRESH_S", 0.01)
    first, second = make_artefact(3, 50_000), make_artefact(3, 50_000, seed=2)
    with Swarm(port=0, addresses=LOOPBACK) as other:
        for artefact in (first, second):
            path = tmp_path / "other" / artefact.info_hash
            artefact.write(path)
            other.seed(artefact.torrent, path)
        root = MortalRoot(
            {artefact.info_hash: artefact.torrent for artefact in (first, second)},
            [("127.0.0.1", other.port)],
        )
        source = SwarmSource(cast(RootClient, root), swarm, 1, set())
        for artefact in (first, second):
            source.read_torrent(artefact.artefact)
        assert fetch(source, first, tmp_path / "1") == first.files
        root.lives = False
        assert fetch(source, second, tmp_path / "2") == second.files


def test_a_torrent_that_was_not_signed_is_not_kept(swarm: Swarm) -> None:
    artefact, other = make_artefact(2, 1000), make_artefact(2, 1000, seed=2)
    root = MortalRoot({artefact.info_hash: other.torrent}, [])
    source = SwarmSource(cast(RootClient, root), swarm, 1, set())
    for _ in range(2):
        with pytest.raises(ArtefactError, match="which was signed"):
            source.read_torrent(artefact.artefact)
    assert root.asked == 2


def test_a_torrent_is_made_of_the_frame_index_and_not_sent(swarm: Swarm) -> None:
    artefact, torrent, index = make_framed_artefact()
    root = MortalRoot({}, [], {(artefact.info_hash, "runtime", "index"): index})
    source = SwarmSource(cast(RootClient, root), swarm, 1, set())
    assert source.read_torrent(artefact) == torrent
    assert source.read_file(artefact, "index") == index
    assert root.asked == 1


@pytest.mark.parametrize("index", [None, b"not what was signed"])
def test_where_the_index_cannot_be_had_the_torrent_is_sent(swarm: Swarm, index: bytes | None) -> None:
    artefact, torrent, _index = make_framed_artefact()
    files = {} if index is None else {(artefact.info_hash, "runtime", "index"): index}
    root = MortalRoot({artefact.info_hash: torrent}, [], files)
    source = SwarmSource(cast(RootClient, root), swarm, 1, set())
    assert source.read_torrent(artefact) == torrent
    with pytest.raises((ArtefactError, NetworkError)):
        source.read_file(artefact, "index")


def make_framed_artefact() -> tuple[Artefact, bytes, bytes]:
    """An artefact as a manifest has it, its torrent, and its index."""
    frames = tuple(
        Frame(size_bytes=size, raw_size_bytes=size, root=bytes([size]) * 32, members=1) for size in (7, 9)
    )
    index = render_index(FrameIndex(version=2, frames=frames, members=2, content_bytes=16))
    index_file = TorrentFile("index", len(index), hash_file_root(index))
    torrent = build_torrent(
        "runtime",
        [TorrentFile("00000", 7, frames[0].root), TorrentFile("00001", 9, frames[1].root), index_file],
    )
    made = TestArtefact(torrent, {}).artefact
    return attrs.evolve(made, index=index_file), torrent, index


def test_a_root_that_does_not_answer_holds_nothing_up(swarm: Swarm, tmp_path: Path) -> None:
    class SilentRoot(MortalRoot):
        def peers(self, info_hash: str) -> PeerList:
            if self.asked:
                time.sleep(30)
            return super().peers(info_hash)

    artefact = make_artefact(2, 1000)
    with Swarm(port=0, addresses=LOOPBACK) as other, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_PEER_REFRESH_S", 0.0)
        artefact.write(tmp_path / "other")
        other.seed(artefact.torrent, tmp_path / "other")
        root = SilentRoot({artefact.info_hash: artefact.torrent}, [("127.0.0.1", other.port)])
        source = SwarmSource(cast(RootClient, root), swarm, 1, set())
        source._torrents[artefact.info_hash] = artefact.torrent
        began = time.monotonic()
        assert fetch(source, artefact, tmp_path / "blade") == artefact.files
        assert time.monotonic() - began < 25
