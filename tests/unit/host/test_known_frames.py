"""Frames that are not made again: the same bytes as from nothing, and nothing taken for what it is not."""

from __future__ import annotations

import mmap
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bladeroot.core.framing import CutSizes
from bladeroot.core.manifest import Artefact, ArtefactKind
from bladeroot.host.archive import KnownFrames, PackResult, pack_members, scan_tree
from bladeroot.host.depot import Depot
from bladeroot.host.files import sync_filesystem
from bladeroot.host.pruning import prune_depot

CUTS = CutSizes(8 << 10, 32 << 10)
FILES = 40


def later() -> int:
    """A clock by which every file was left alone for long."""
    return time.time_ns() + 3600 * 10**9


class Packing:
    """A tree, a depot, and which frames the last `pack` made anew."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "tree"
        self.depot = Depot.create(folder / "depot")
        self.made: list[str] = []

    def fill(self) -> None:
        chance = random.Random(5)
        for number in range(FILES):
            path = self.path(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(chance.randbytes(chance.choice([10, 3000, 20_000])))
        (self.tree / "large").write_bytes(chance.randbytes(200_000))

    def path(self, number: int) -> Path:
        return self.tree / f"d{number % 3}" / f"f{number:03d}"

    def pack(
        self, depot: Depot | None = None, *, level: int = 1, now_ns: Callable[[], int] = later
    ) -> Artefact:
        depot = depot or self.depot
        known = KnownFrames(depot.packed_record, self.tree, now_ns=now_ns)
        self.made = []
        with depot.lock(), depot.new_artefact() as writer:

            def write(name: str, data: bytes) -> None:
                self.made.append(name)
                writer.write(name, data)

            packed = pack_members(
                self.tree,
                scan_tree(self.tree),
                write,
                level=level,
                package_of={},
                cuts=CUTS,
                known=known,
                take=writer.take,
            )
            artefact = writer.finish(ArtefactKind.RUNTIME, packed.files, packed.raw_size_bytes)
        known.save()
        assert depot.find_damage(artefact) == []
        self.count = count_frames(packed)
        return artefact

    @property
    def made_frames(self) -> int:
        return sum(name != "index" for name in self.made)

    def wait_for_tick(self) -> None:
        """Until a file that is changed now has another ctime than those before."""
        probe = self.depot.path / "probe"
        probe.touch()
        before = probe.stat().st_ctime_ns
        while probe.stat().st_ctime_ns == before:
            os.utime(probe)


def count_frames(packed: PackResult) -> int:
    return len(packed.index.frames)


@pytest.fixture
def packing(tmp_path: Path) -> Packing:
    made = Packing(tmp_path)
    made.fill()
    return made


def rewrite(path: Path) -> None:
    """Other content of the same size and mtime, in place: only the ctime tells."""
    status = path.stat()
    with path.open("r+b") as stream:
        stream.write(bytes(byte ^ 1 for byte in path.read_bytes()))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace(path: Path) -> None:
    """A new file with the size and mtime of the old one, as a package manager puts it there."""
    status = path.stat()
    new = path.with_name("new")
    new.write_bytes(os.urandom(status.st_size))
    os.utime(new, ns=(status.st_atime_ns, status.st_mtime_ns))
    new.rename(path)


EDITS: dict[str, Callable[[Path], object]] = {
    "rewrite": rewrite,
    "replace": replace,
    "append": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "empty": lambda path: path.write_bytes(b""),
    "remove": Path.unlink,
    "touch": lambda path: os.utime(path, ns=(1, 1)),
    "mode": lambda path: path.chmod(0o600),
    "rename": lambda path: path.rename(path.with_name(f"{path.name}-renamed")),
    "link": lambda path: os.link(path, path.with_name(f"{path.name}-linked")),
    "nothing": Path.exists,
}


@given(
    rounds=st.lists(
        st.lists(st.tuples(st.sampled_from(sorted(EDITS)), st.integers(0, FILES - 1)), max_size=4),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_is_edited_it_is_what_an_empty_depot_gets(
    tmp_path_factory: pytest.TempPathFactory, rounds: list[list[tuple[str, int]]]
) -> None:
    folder = tmp_path_factory.mktemp("packing")
    packing = Packing(folder)
    packing.fill()
    packing.pack()
    for number, edits in enumerate(rounds):
        packing.wait_for_tick()
        for what, which in edits:
            path = packing.path(which)
            if path.exists():
                EDITS[what](path)
        again = packing.pack()
        assert again == packing.pack(Depot.create(folder / f"fresh{number}"))


def test_nothing_is_made_again_where_nothing_has_changed(packing: Packing) -> None:
    first = packing.pack()
    assert packing.made_frames == packing.count > 10
    assert packing.pack() == first
    assert packing.made_frames == 0


def test_only_frames_of_changed_files_are_made_again(packing: Packing) -> None:
    packing.pack()
    packing.wait_for_tick()
    rewrite(packing.path(7))
    packing.pack()
    assert packing.made_frames == 1


def test_another_level_makes_everything_again(packing: Packing) -> None:
    packing.pack(level=1)
    packing.pack(level=2)
    assert packing.made_frames == packing.count
    packing.pack(level=1)
    assert packing.made_frames == 0, "both are remembered"


def test_files_that_were_changed_a_moment_ago_are_not_remembered(packing: Packing) -> None:
    def when_written() -> int:
        return max(path.lstat().st_ctime_ns for path in packing.tree.rglob("*"))

    packing.pack(now_ns=when_written)
    packing.pack(now_ns=when_written)
    # Only what holds no file's content: directories, the archive's end.
    assert packing.made_frames >= packing.count - 2


def test_a_clock_that_was_set_back_remembers_nothing(packing: Packing) -> None:
    packing.pack(now_ns=lambda: 0)
    packing.pack()
    assert packing.made_frames >= packing.count - 2


def test_what_was_pruned_is_made_again(packing: Packing) -> None:
    first = packing.pack()
    with packing.depot.lock():
        prune_depot(packing.depot, keep=1)
    assert not packing.depot.has(first.info_hash)
    assert packing.pack() == first
    assert packing.made_frames == packing.count


@pytest.mark.parametrize("damage", [b"", b"something else"])
def test_a_damaged_frame_is_made_again_and_mended(packing: Packing, damage: bytes) -> None:
    first = packing.pack()
    victim = packing.depot.artefact_files(first.info_hash)[3]
    victim.write_bytes(damage)
    assert packing.pack() == first
    assert packing.made == ["00003", "index"]
    assert packing.depot.find_damage(first) == []


def test_a_record_that_is_lost_or_damaged_costs_time_only(packing: Packing) -> None:
    first = packing.pack()
    record = packing.depot.packed_record
    whole = record.read_bytes()
    flipped = whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:]
    for data in (None, b"", whole[:-1], whole[:30], flipped, b"x" * 10_000):
        if data is None:
            record.unlink()
        else:
            record.write_bytes(data)
        assert packing.pack() == first
        assert packing.made_frames == packing.count


def test_a_record_that_cannot_be_written_is_done_without(packing: Packing) -> None:
    packing.depot.packed_record.mkdir()
    assert packing.pack() == packing.pack()


def test_the_record_does_not_grow_without_end(packing: Packing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bladeroot.host.archive.known._MOST", 50)
    sizes = []
    for level in (1, 2, 3, 4):
        packing.pack(level=level)
        sizes.append(packing.depot.packed_record.stat().st_size)
    assert packing.count < 50
    assert sizes[1] == sizes[2] == sizes[3] <= 50 * 68 + 100
    packing.pack(level=4)
    assert packing.made_frames == 0, "what was used last is what is kept"


def test_what_is_written_through_a_mapping_is_packed(packing: Packing, tmp_path: Path) -> None:
    """Twice to the same page, which is dirty already the second time."""
    path = packing.path(1)
    path.write_bytes(bytes(8192))
    sync_filesystem(packing.tree)
    before = path.stat().st_ctime_ns
    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as mapped:
        mapped[0:5] = b"first"
        if path.stat().st_ctime_ns == before:
            pytest.skip("this file system tells nobody of mapped writes")
        packing.pack()
        mapped[0:5] = b"other"
        assert packing.pack() == packing.pack(Depot.create(tmp_path / "fresh"))
