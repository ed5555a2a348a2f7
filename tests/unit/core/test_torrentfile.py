from __future__ import annotations

import hashlib
from pathlib import Path

import libtorrent as lt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core import torrentfile
from bladeroot.core.torrentfile import (
    BLOCK_BYTES,
    TorrentFile,
    bencode,
    build_torrent,
    choose_piece_length,
    hash_file_root,
    parse_torrent,
)
from bladeroot.errors import ArtefactError


def make_files(contents: dict[str, bytes]) -> list[TorrentFile]:
    return [TorrentFile(name, len(data), hash_file_root(data)) for name, data in contents.items()]


def test_libtorrent_makes_the_same_torrent_of_the_same_files(tmp_path: Path) -> None:
    sizes = [1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 5 * BLOCK_BYTES, 1 << 20]
    contents = {f"{n:05d}": bytes([n + 1]) * size for n, size in enumerate(sizes)} | {"index": b"x" * 77}
    directory = tmp_path / "runtime"
    directory.mkdir()
    for name, data in contents.items():
        (directory / name).write_bytes(data)
    ours = parse_torrent(build_torrent("runtime", make_files(contents)))
    creator = lt.create_torrent(lt.list_files(str(directory)), ours.piece_length, lt.create_torrent.v2_only)
    lt.set_piece_hashes(creator, str(tmp_path))
    theirs = lt.torrent_info(creator.generate())
    assert str(theirs.info_hashes().v2) == ours.info_hash
    assert [file.name for file in ours.files] == sorted(contents)


@given(st.binary(max_size=6 * BLOCK_BYTES))
def test_a_file_root_is_the_root_of_a_padded_tree(data: bytes) -> None:
    leaves = [hashlib.sha256(data[i : i + BLOCK_BYTES]).digest() for i in range(0, len(data), BLOCK_BYTES)]
    width = 1
    while width < len(leaves):
        width *= 2
    leaves += [bytes(32)] * (width - len(leaves))

    def fold(layer: list[bytes]) -> bytes:
        half = len(layer) // 2
        return layer[0] if half == 0 else hashlib.sha256(fold(layer[:half]) + fold(layer[half:])).digest()

    assert hash_file_root(data) == (fold(leaves) if data else bytes(32))


@given(
    st.dictionaries(
        st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), st.binary(min_size=1, max_size=99), min_size=2
    )
)
def test_what_is_built_is_read(contents: dict[str, bytes]) -> None:
    data = build_torrent("runtime", make_files(contents))
    torrent = parse_torrent(data)
    assert list(torrent.files) == sorted(make_files(contents), key=lambda file: file.name)
    assert parse_torrent(data, torrent.info_hash) == torrent
    assert build_torrent("runtime", reversed(make_files(contents))) == data


@given(st.binary(max_size=300))
def test_rubbish_is_an_artefact_error(data: bytes) -> None:
    with pytest.raises(ArtefactError):
        parse_torrent(data)


@given(st.data())
def test_a_changed_torrent_does_not_pass_for_the_signed_one(data: st.DataObject) -> None:
    good = build_torrent("runtime", make_files({"00000": b"one", "00001": b"two"}))
    at = data.draw(st.integers(0, len(good) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != good[at]))
    changed = good[:at] + bytes([byte]) + good[at + 1 :]
    signed = parse_torrent(good)
    try:
        assert parse_torrent(changed, signed.info_hash) == signed  # only what is outside of `info` changed
    except ArtefactError:
        return


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a/b", "", ".hidden", "x" * 129], ids=lambda name: name[:10] or "empty"
)
def test_file_names_that_could_leave_the_directory_are_refused(name: str) -> None:
    files = {name: {"": {"length": 1, "pieces root": bytes(32)}}}
    info = {"file tree": files, "meta version": 2, "name": "runtime", "piece length": BLOCK_BYTES}
    with pytest.raises(ArtefactError):
        parse_torrent(bencode({"info": info, "piece layers": {}}))


def test_depth_is_limited() -> None:
    with pytest.raises(ArtefactError, match="nested too deeply"):
        parse_torrent(b"d4:info" + b"l" * 5000 + b"12:piece layersdee")


def test_what_nobody_signed_is_not_taken_along() -> None:
    torrent = build_torrent("runtime", make_files({"a": b"1", "b": b"2"}))
    info_hash = parse_torrent(torrent).info_hash
    info = torrent.removeprefix(b"d4:info").removesuffix(b"12:piece layersdee")
    for more in (
        b"d8:announce12:http://10.9/4:info" + info + b"12:piece layersdee",
        b"d4:info" + info + b"12:piece layersde8:url-list12:http://10.9/e",
        b"d4:info" + info + info + b"12:piece layersdee",
        torrent + b"e",
    ):
        with pytest.raises(ArtefactError):
            parse_torrent(more, info_hash)


def test_a_key_given_twice_does_not_pass_for_what_was_signed() -> None:
    """Of two values we would take the last, libtorrent perhaps the first."""
    good = build_torrent("runtime", make_files({"a": b"1", "b": b"2"}))
    evil = build_torrent("runtime", make_files({"a": b"3", "b": b"4"}))
    tree_end = good.index(b"12:meta version")
    twice = evil[:tree_end] + good[good.index(b"9:file tree") :]
    with pytest.raises(ArtefactError):
        parse_torrent(twice, parse_torrent(good).info_hash)
    with pytest.raises(ArtefactError, match="one right way"):
        parse_torrent(twice)


def test_what_was_not_signed_is_not_even_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torrentfile, "_bdecode", None)
    with pytest.raises(ArtefactError, match="which was signed"):
        parse_torrent(b"d4:info" + b"l" + b"le" * 1000 + b"e" + b"12:piece layersdee", "0" * 64)


@pytest.mark.parametrize(
    ("largest", "expected"),
    [(1, 16 << 10), ((16 << 10) + 1, 32 << 10), (4 << 20, 4 << 20), ((4 << 20) + 1, 8 << 20)],
)
def test_the_piece_length_is_the_smallest_that_holds_a_file(largest: int, expected: int) -> None:
    assert choose_piece_length(largest) == expected


def test_a_file_beyond_the_largest_piece_is_refused() -> None:
    with pytest.raises(ArtefactError, match="does not fit"):
        choose_piece_length((128 << 20) + 1)
