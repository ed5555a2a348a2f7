"""An artefact that is fetched and extracted at once, from a depot."""

from __future__ import annotations

import random
from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bladeroot.core.framing import CutSizes
from bladeroot.core.manifest import Artefact, ArtefactKind, Manifest
from bladeroot.core.torrentfile import Torrent
from bladeroot.events import Event, Progress
from bladeroot.host.archive import pack_members, scan_tree
from bladeroot.host.depot import Depot
from bladeroot.ops.fetching import Fetcher
from bladeroot.ops.sources import DepotSource, OnFile
from tests.treecompare import find_tree_differences

KIND = ArtefactKind.RUNTIME


class CountingSource(DepotSource):
    """A depot that knows what was fetched from it, and that, like a swarm, hands over what is there."""

    def __init__(self, depot: Depot) -> None:
        super().__init__(depot)
        self.fetched: list[str] = []

    def fetch(
        self,
        torrent_bytes: bytes,
        torrent: Torrent,
        save_path: Path,
        wanted: Collection[str] | None,
        on_file: OnFile,
    ) -> None:
        def note(name: str, data: bytes) -> None:
            self.fetched.append(name)
            on_file(name, data)

        super().fetch(torrent_bytes, torrent, save_path, wanted, note)


@attrs.frozen
class Bench:
    tree: Path
    source: CountingSource
    artefact: Artefact
    own: Depot
    events: list[Event]

    def fetcher(self) -> Fetcher:
        manifest = cast(Manifest, SimpleNamespace(artefact=lambda _kind: self.artefact, artefacts=()))
        return Fetcher(self.source, self.own, manifest, self.events.append)

    def frame(self, name: str) -> Path:
        return self.own.save_path(self.artefact.info_hash) / KIND / name


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    chance = random.Random(3)
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(60):
        (tree / f"f{number}").write_bytes(chance.randbytes(chance.choice([10, 3000, 20_000])))
    depot = Depot.create(tmp_path / "depot")
    with depot.lock(), depot.new_artefact() as writer:
        cuts = CutSizes(8 << 10, 32 << 10)
        files = []
        packed = pack_members(
            tree,
            scan_tree(tree),
            lambda name, data: files.append(writer.add_file(name, data)),
            level=1,
            package_of={},
            cuts=cuts,
        )
        artefact = writer.finish(KIND, files, packed.raw_size_bytes)
    return Bench(tree, CountingSource(depot), artefact, Depot.create(tmp_path / "own"), [])


def extract_to(bench: Bench, target: Path) -> None:
    target.mkdir()
    bench.fetcher().fetch_and_extract(KIND, target)
    assert find_tree_differences(bench.tree, target) == []
    assert bench.own.has(bench.artefact.info_hash)


def test_progress_says_what_is_fetched_and_what_is_extracted(bench: Bench, tmp_path: Path) -> None:
    extract_to(bench, tmp_path / "target")
    told = [event for event in bench.events if isinstance(event, Progress)]
    assert {event.total for event in told} == {bench.artefact.size_bytes}
    fetched = [event.done for event in told]
    extracted = [event.extracted or 0 for event in told]
    assert fetched == sorted(fetched)
    assert extracted == sorted(extracted)
    assert all(own <= done for own, done in zip(extracted, fetched, strict=True))
    assert extracted[0] < extracted[-1] == fetched[-1] == bench.artefact.size_bytes


def test_what_the_depot_has_is_extracted_from_there(bench: Bench, tmp_path: Path) -> None:
    extract_to(bench, tmp_path / "first")
    bench.source.fetched.clear()
    bench.events.clear()
    extract_to(bench, tmp_path / "second")
    assert bench.source.fetched == []
    last = bench.events[-1]
    assert isinstance(last, Progress)
    assert last.done == last.extracted == last.total == bench.artefact.size_bytes


def test_a_frame_that_is_damaged_in_the_depot_is_fetched_again(bench: Bench, tmp_path: Path) -> None:
    extract_to(bench, tmp_path / "first")
    frame = bench.frame("00002")
    sound = frame.read_bytes()
    frame.write_bytes(bytes(len(sound)))
    bench.source.fetched.clear()
    extract_to(bench, tmp_path / "second")
    assert "00002" in bench.source.fetched
    assert frame.read_bytes() == sound


def test_an_install_that_was_cut_off_goes_on_with_the_frames_that_it_has(
    bench: Bench, tmp_path: Path
) -> None:
    extract_to(bench, tmp_path / "first")
    bench.own.distrust(bench.artefact.info_hash)
    for name in ("00001", "00004"):
        for path in (bench.frame(name), *bench.own.path.glob("frames/*/*")):
            if path.exists() and path.samefile(bench.frame(name)) and path != bench.frame(name):
                path.unlink()
        bench.frame(name).unlink()
    extract_to(bench, tmp_path / "second")
