"""Trees to frames and back, for what any user can make."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings

from bladeroot.core.framing import CutSizes, FrameIndex, frame_name
from bladeroot.errors import ArtefactError, SnapshotError
from bladeroot.host.archive import (
    Extraction,
    PackResult,
    open_index,
    pack_members,
    read_package_order,
    scan_tree,
)
from bladeroot.host.archive.tree import Tree, TreeWriter
from tests.treecompare import find_tree_differences
from tests.treemaker import Extra, Node, make_tree, trees

SMALL_CUTS = CutSizes(8 << 10, 32 << 10)


def pack(root: Path, **options: object) -> tuple[dict[str, bytes], PackResult]:
    files: dict[str, bytes] = {}
    arguments: dict[str, object] = {"level": 1, "package_of": {}, "cuts": SMALL_CUTS, **options}
    result = pack_members(root, scan_tree(root), files.__setitem__, **arguments)  # type: ignore[arg-type]
    return files, result


def extract(files: dict[str, bytes], target: Path, order: Sequence[int] | None = None) -> None:
    index = open_index(files["index"])
    with Extraction(index, target, threads=2) as extraction:
        for number in order if order is not None else range(len(index.frames)):
            extraction.submit(number, files[frame_name(number)])
        extraction.finish()


def shuffled(index: FrameIndex, seed: int) -> list[int]:
    order = list(range(len(index.frames)))
    random.Random(seed).shuffle(order)
    return order


EMPTY = Node("dir", 0o755, 0, {}, b"", 0, Extra())


@given(tree=trees(as_root=False))
@example(tree=EMPTY)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_packed_is_what_is_extracted(tree: Node) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        make_tree(source, tree, as_root=False)
        target.mkdir()
        files, result = pack(source)
        extract(files, target, shuffled(result.index, tree.mtime_ns))
        assert find_tree_differences(source, target) == []
        again, _ = pack(target, threads=1)
        assert again == files


def make_sample(top: Path) -> None:
    """About 200 frames' worth of small cuts, with files larger than a frame."""
    chance = random.Random(7)
    for number in range(120):
        folder = top / f"d{number % 11}" / "deep"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(chance.randbytes(chance.choice([0, 10, 4000, 20_000])))
    (top / "large").write_bytes(chance.randbytes(300_000))
    with (top / "large-sparse").open("wb") as stream:
        for _ in range(20):
            stream.seek(200 * 4096, os.SEEK_CUR)
            stream.write(chance.randbytes(10_000))
        stream.truncate(30 << 20)
    os.link(top / "large", top / "d1" / "also-large")
    os.link(top / "d2" / "deep" / "f2", top / "a-link-before-its-file")


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    root = tmp_path / "sample"
    root.mkdir()
    make_sample(root)
    return root


def test_frames_come_in_any_order(sample: Path, tmp_path: Path) -> None:
    files, result = pack(sample)
    count = len(result.index.frames)
    assert count > 40
    assert sum(frame.range_of is not None for frame in result.index.frames) > 10
    orders = [range(count), range(count - 1, -1, -1), shuffled(result.index, 1), shuffled(result.index, 2)]
    for number, order in enumerate(orders):
        target = tmp_path / f"target{number}"
        target.mkdir()
        extract(files, target, order)
        assert find_tree_differences(sample, target) == []


def test_sparse_files_stay_sparse(sample: Path, tmp_path: Path) -> None:
    files, result = pack(sample)
    target = tmp_path / "target"
    target.mkdir()
    extract(files, target)
    assert (target / "large-sparse").stat().st_blocks * 512 < 1 << 20
    assert result.raw_size_bytes < 8 << 20


def test_same_bytes_whatever_the_threads_and_the_order_of_members(sample: Path) -> None:
    files, result = pack(sample, threads=3)
    again: dict[str, bytes] = {}
    members = scan_tree(sample)
    random.Random(3).shuffle(members)
    pack_members(sample, members, again.__setitem__, level=1, package_of={}, threads=1, cuts=SMALL_CUTS)
    assert again == files
    assert [file.name for file in result.files] == sorted(files)
    assert all(len(files[file.name]) == file.size_bytes for file in result.files)


def test_changed_files_leave_most_frames_as_they_were(sample: Path) -> None:
    before, _ = pack(sample)
    (sample / "d3" / "deep" / "f3").write_bytes(b"changed" * 999)
    (sample / "d5" / "deep" / "new").write_bytes(b"new" * 2000)
    (sample / "d7" / "deep" / "f7").unlink()
    after, _ = pack(sample)
    same = set(before.values()) & set(after.values())
    assert len(same) > 0.8 * len(after)


def test_extracting_over_a_tree_replaces_what_is_there(sample: Path, tmp_path: Path) -> None:
    files, _ = pack(sample)
    target, outside = tmp_path / "target", tmp_path / "outside"
    (target / "large" / "was a directory").mkdir(parents=True)
    outside.mkdir()
    (outside / "victim").write_text("untouched")
    (target / "d0" / "deep").mkdir(parents=True)
    (target / "d1").symlink_to(outside)
    (target / "d2").write_text("a file where a directory has to be")
    (target / "d0" / "deep" / "f0").symlink_to(outside / "victim")
    os.link(outside / "victim", target / "d0" / "deep" / "f11")
    extract(files, target)
    assert find_tree_differences(sample, target) == []
    assert os.listdir(outside) == ["victim"]
    assert (outside / "victim").read_text() == "untouched"
    extract(files, target)
    assert find_tree_differences(sample, target) == []


def test_two_threads_that_make_the_same_directory_out_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").write_text("a file where a directory has to be")
    tree = Tree(tmp_path, replace_in_the_way=True)
    plain_check = Tree.check_in_the_way

    def be_overtaken(tree: Tree, path: bytes) -> None:
        plain_check(tree, path)
        monkeypatch.setattr(Tree, "check_in_the_way", plain_check)
        with TreeWriter(tree) as other:
            os.close(other.create_file(b"d/others"))

    monkeypatch.setattr(Tree, "check_in_the_way", be_overtaken)
    with TreeWriter(tree) as writer:
        os.close(writer.create_file(b"d/own"))
    assert sorted(os.listdir(tmp_path / "d")) == ["others", "own"]


def test_extras_after_runtime_in_one_target(sample: Path, tmp_path: Path) -> None:
    members = scan_tree(sample)
    directories = [member for member in members if member.kind == "directory"]
    is_extra = [member for member in members if member.path.startswith((b"d3/", b"d4/deep"))]
    runtime = [member for member in members if member not in is_extra] + directories
    target = tmp_path / "target"
    target.mkdir()
    unique = list({member.path: member for member in runtime}.values())
    for part in (unique, is_extra):
        files: dict[str, bytes] = {}
        pack_members(sample, part, files.__setitem__, level=1, package_of={}, cuts=SMALL_CUTS)
        extract(files, target)
    assert find_tree_differences(sample, target) == []


def test_a_file_that_changes_while_it_is_packed(sample: Path) -> None:
    members = scan_tree(sample)
    (sample / "d1" / "deep" / "f1").write_bytes(b"longer than before" * 100)
    with pytest.raises(SnapshotError, match="d1/deep/f1 changed while it was packed"):
        pack_members(sample, members, lambda *_: None, level=1, package_of={})


def test_a_file_that_disappears_while_it_is_packed(sample: Path) -> None:
    members = scan_tree(sample)
    (sample / "d1" / "deep" / "f34").unlink()
    with pytest.raises(SnapshotError, match="d1/deep/f34 is not there"):
        pack_members(sample, members, lambda *_: None, level=1, package_of={})


def test_a_path_that_is_no_tree(tmp_path: Path) -> None:
    with pytest.raises(SnapshotError):
        scan_tree(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(SnapshotError):
        scan_tree(tmp_path / "file")


def test_what_is_excluded_is_not_there(sample: Path) -> None:
    members = scan_tree(sample, exclude=lambda path, is_directory: is_directory and path == b"d2")
    paths = {member.path for member in members}
    assert not any(path == b"d2" or path.startswith(b"d2/") for path in paths)
    # Its other name was left out: what is left is a file.
    kinds = {member.path: member.kind for member in members}
    assert kinds[b"a-link-before-its-file"] == "file"


def test_a_writer_that_fails_ends_packing(sample: Path) -> None:
    def write(name: str, _: bytes) -> None:
        if name == "00007":
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        pack_members(sample, scan_tree(sample), write, level=1, package_of={}, cuts=SMALL_CUTS)


def test_missing_frames_are_an_error(sample: Path, tmp_path: Path) -> None:
    files, result = pack(sample)
    with Extraction(result.index, tmp_path) as extraction:
        extraction.submit(0, files["00000"])
        with pytest.raises(ArtefactError, match="frames are missing"):
            extraction.finish()


def test_a_torn_or_changed_frame_is_found_before_it_is_used(sample: Path, tmp_path: Path) -> None:
    files, _ = pack(sample)
    data = files["00003"]
    flipped = bytes([data[0] ^ 1]) + data[1:]
    middle = data[:50] + bytes([data[50] ^ 0x10]) + data[51:]
    wrong = [b"", data[:-1], data + b"\0", flipped, middle, files["00004"]]
    for number, bad in enumerate(wrong):
        target = tmp_path / str(number)
        target.mkdir()
        with pytest.raises(ArtefactError, match="00003 is torn or tampered with"):
            extract({**files, "00003": bad}, target, [3])
        assert os.listdir(target) == []


def test_a_torn_index() -> None:
    for data in (b"", b"\x5b\x2a\x4d\x18", b"x" * 100, b"\x5b\x2a\x4d\x18\x01\0\0\0\xc0"):
        with pytest.raises(ArtefactError):
            open_index(data)


def test_leaving_with_an_error_stops_the_workers(sample: Path, tmp_path: Path) -> None:
    files, result = pack(sample)
    before = set(threading.enumerate())
    extraction = Extraction(result.index, tmp_path, threads=2)

    def fail_half_way() -> None:
        with extraction:
            extraction.submit(0, files["00000"])
            assert len(set(threading.enumerate()) - before) == 2
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail_half_way()
    assert set(threading.enumerate()) == before


def test_package_order_knows_merged_usr(tmp_path: Path) -> None:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "alias").symlink_to("/bin")
    (info / "tool:amd64.list").write_text("/.\n/bin\n/bin/tool\n/alias/other\n/usr/share/doc/tool\n")
    (info / "tool:amd64.md5sums").write_text("")
    order = read_package_order(tmp_path)
    assert order[b"usr/bin/tool"] == "tool:amd64"
    assert order[b"usr/bin/other"] == "tool:amd64"
    assert order[b"usr/share/doc/tool"] == "tool:amd64"
    assert order[b"var/lib/dpkg/info/tool:amd64.md5sums"] == "tool:amd64"
    assert b"bin/tool" not in order
    assert read_package_order(info) == {}


def test_package_order_passes_over_what_is_damaged(tmp_path: Path) -> None:
    info = tmp_path / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    endless, torn = b"/a" * 5000, b"/usr/b\0in/tool"
    (info / "tool.list").write_bytes(
        b"\n".join((torn, endless, b"/x" + b"y" * 5000 + b"/tool", b"/etc/tool"))
    )
    order = read_package_order(tmp_path)
    assert order[b"etc/tool"] == "tool"
    assert torn.lstrip(b"/") not in order
    assert endless.lstrip(b"/") not in order


def save(files: dict[str, bytes], folder: Path) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def test_frames_are_read_from_files_and_those_that_are_damaged_come_otherwise(
    sample: Path, tmp_path: Path
) -> None:
    files, result = pack(sample)
    target = tmp_path / "target"
    target.mkdir()
    data = files["00003"]
    torn = {"00003": data[:-1], "00004": bytes(len(files["00004"])), "00005": b""}
    folder = save({**files, **torn}, tmp_path / "frames")
    (folder / "00006").unlink()
    extracted: list[int] = []
    with Extraction(result.index, target, threads=2, on_extracted=extracted.append) as extraction:
        for number in range(len(result.index.frames)):
            extraction.submit_file(number, folder / frame_name(number))
        assert extraction.wait() == [3, 4, 5, 6]
        for number in (3, 4, 5, 6, 7):
            extraction.submit(number, files[frame_name(number)])
        extraction.finish()
    assert sorted(extracted) == list(range(len(result.index.frames)))
    assert find_tree_differences(sample, target) == []


def test_a_frame_that_comes_both_ways_is_extracted_once(sample: Path, tmp_path: Path) -> None:
    files, result = pack(sample)
    target = tmp_path / "target"
    target.mkdir()
    folder = save(files, tmp_path / "frames")
    numbers = range(len(result.index.frames))
    extracted: list[int] = []
    with Extraction(result.index, target, threads=3, on_extracted=extracted.append) as extraction:
        for number in numbers:
            extraction.submit_file(number, folder / frame_name(number))
            extraction.submit(number, files[frame_name(number)])
        extraction.finish()
    assert sorted(extracted) == list(numbers)
    assert find_tree_differences(sample, target) == []


def test_frames_larger_than_the_bound_are_extracted_one_by_one(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bladeroot.host.archive.extract._BOUND_BYTES", 10_000)
    files, result = pack(sample)
    costs = [frame.size_bytes + frame.raw_size_bytes for frame in result.index.frames]
    assert min(costs) < 10_000 < max(costs)
    target = tmp_path / "target"
    target.mkdir()
    extract(files, target, shuffled(result.index, 3))
    assert find_tree_differences(sample, target) == []


def test_no_worker_keeps_a_frame_that_is_done(sample: Path, tmp_path: Path) -> None:
    files, result = pack(sample)
    target = tmp_path / "target"
    target.mkdir()
    frames = [files[frame_name(number)] for number in range(len(result.index.frames))]
    before = [sys.getrefcount(frame) for frame in frames]
    with Extraction(result.index, target, threads=2) as extraction:
        for number, frame in enumerate(frames):
            extraction.submit(number, frame)
        extraction.wait()
        del frame
        assert [sys.getrefcount(frame) for frame in frames] == before
        extraction.finish()


def test_a_failure_ends_the_wait_of_whoever_brings_frames(sample: Path, tmp_path: Path) -> None:
    files, result = pack(sample)
    folder = save(files, tmp_path / "frames")
    target = tmp_path / "target"
    target.mkdir()

    def bring() -> None:
        with Extraction(result.index, target) as extraction:
            extraction.submit(0, b"not a frame")
            for number in range(1, len(result.index.frames)):
                extraction.submit_file(number, folder / frame_name(number))
            extraction.wait()

    with pytest.raises(ArtefactError, match="torn or tampered"):
        bring()
