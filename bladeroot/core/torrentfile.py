"""BitTorrent v2 metadata (BEP 52), made and read without hashing anything twice. No I/O.

Every artefact is a v2-only torrent in which no file is longer than a piece. So each file is one piece,
its *file root* names its bytes for ever (whatever torrent it is in), and there are no piece layers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from attrs import frozen

from bladeroot.errors import ArtefactError

BLOCK_BYTES = 16 << 10
"""BEP 52: the leaves of the hash tree."""
MAX_PIECE_BYTES = 128 << 20
MAX_TORRENT_BYTES = 16 << 20
_MAX_DEPTH = 16
# `bencode` of what `build_torrent` makes, around the info dictionary.
_BEFORE_INFO, _AFTER_INFO = b"d4:info", b"12:piece layersdee"
_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@frozen
class TorrentFile:
    """One file of a torrent; `root` is its 32-byte file root."""

    name: str
    size_bytes: int
    root: bytes


@frozen
class Torrent:
    """What a torrent says. Files are in the order of their names, which is the order of pieces."""

    name: str
    piece_length: int
    files: tuple[TorrentFile, ...]
    info_hash: str

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)


def hash_file_root(data: bytes | memoryview) -> bytes:
    """The BEP 52 `pieces root` of a file's bytes: a SHA-256 tree over blocks of 16 KiB, padded with zeros."""
    view = memoryview(data)
    layer = [
        hashlib.sha256(view[start : start + BLOCK_BYTES]).digest()
        for start in range(0, len(view), BLOCK_BYTES)
    ]
    if not layer:
        return bytes(32)
    padding = bytes(32)
    while len(layer) > 1:
        if len(layer) % 2:
            layer.append(padding)
        layer = [hashlib.sha256(layer[i] + layer[i + 1]).digest() for i in range(0, len(layer), 2)]
        padding = hashlib.sha256(padding + padding).digest()
    return layer[0]


def choose_piece_length(largest_file_bytes: int) -> int:
    """The smallest piece length that BEP 52 allows and that holds the largest file. Raises ArtefactError."""
    if largest_file_bytes > MAX_PIECE_BYTES:
        raise ArtefactError(f"a file of {largest_file_bytes} bytes does not fit a piece of {MAX_PIECE_BYTES}")
    return max(BLOCK_BYTES, 1 << (max(largest_file_bytes, 1) - 1).bit_length())


def build_torrent(name: str, files: Iterable[TorrentFile]) -> bytes:
    """The `.torrent` of files whose roots are known: bencoded, deterministic.

    Needs at least two files, none of them empty: libtorrent takes a torrent of one file for that file.
    """
    ordered = sorted(files, key=lambda file: file.name)
    if len(ordered) < 2 or any(file.size_bytes == 0 for file in ordered):
        raise ValueError("a torrent here has two or more files, none of them empty")
    tree = {file.name: {"": {"length": file.size_bytes, "pieces root": file.root}} for file in ordered}
    info = {
        "file tree": tree,
        "meta version": 2,
        "name": name,
        "piece length": choose_piece_length(max(file.size_bytes for file in ordered)),
    }
    return bencode({"info": info, "piece layers": {}})


@lru_cache(maxsize=8)
def parse_torrent(data: bytes, expected_info_hash: str | None = None) -> Torrent:
    """Read a `.torrent` from anybody. Raises ArtefactError unless it is of the kind that this module makes
    and, if given, has the expected info-hash (which is all that a signed manifest needs to say).

    What the info-hash does not cover is not taken: no trackers, web seeds or nodes that nobody signed.
    And bytes that were not signed are not decoded.
    """
    if len(data) > MAX_TORRENT_BYTES:
        raise ArtefactError(f"a torrent file of {len(data)} bytes is larger than {MAX_TORRENT_BYTES}")
    if not data.startswith(_BEFORE_INFO) or not data.endswith(_AFTER_INFO):
        raise ArtefactError("not a torrent file of bladeroot's kind: more than files and their roots in it")
    raw_info = data[len(_BEFORE_INFO) : -len(_AFTER_INFO)]
    info_hash = hashlib.sha256(raw_info).hexdigest()
    if expected_info_hash is not None and info_hash != expected_info_hash:
        raise ArtefactError(f"torrent {info_hash[:16]} is not {expected_info_hash[:16]}, which was signed")
    try:
        info, end = _bdecode(raw_info, 0, 0)
        if end != len(raw_info) or bencode(info) != raw_info:
            raise ValueError("not bencoded in the one right way")
        return _read_info(info, info_hash)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ArtefactError(f"not a torrent file of bladeroot's kind: {error}") from error


def _read_info(info: Mapping[bytes, Any], info_hash: str) -> Torrent:
    piece_length = info[b"piece length"]
    files = []
    for raw_name, entry in info[b"file tree"].items():
        name, size = raw_name.decode("ascii"), entry[b""][b"length"]
        root = entry[b""][b"pieces root"]
        if not _SAFE_NAME.fullmatch(name) or not 0 < size <= piece_length or len(root) != 32:
            raise ValueError(f"bad file entry {raw_name!r}")
        files.append(TorrentFile(name, size, root))
    name = info[b"name"].decode("ascii")
    if (
        info[b"meta version"] != 2
        or not 0 < piece_length <= MAX_PIECE_BYTES
        or not _SAFE_NAME.fullmatch(name)
    ):
        raise ValueError("bad info dictionary")
    return Torrent(name, piece_length, tuple(files), info_hash)


def bencode(value: Any) -> bytes:
    """BEP 3 encoding of ints, bytes, ASCII strings, lists and dictionaries (keys sorted)."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, str):
        value = value.encode("ascii")
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list | tuple):
        return b"l" + b"".join(bencode(item) for item in value) + b"e"
    if isinstance(value, Mapping):
        pairs = sorted(
            (key.encode("ascii") if isinstance(key, str) else key, item) for key, item in value.items()
        )
        return b"d" + b"".join(bencode(key) + bencode(item) for key, item in pairs) + b"e"
    raise TypeError(f"cannot bencode {type(value).__name__}")


def _bdecode(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > _MAX_DEPTH:
        raise ValueError("nested too deeply")
    lead = data[at : at + 1]
    if lead == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1 : end]), end + 1
    if lead.isdigit():
        colon = data.index(b":", at, at + 12)
        end = colon + 1 + int(data[at:colon])
        if end > len(data):
            raise ValueError("a string runs past the end")
        return data[colon + 1 : end], end
    if lead == b"l":
        items, at = [], at + 1
        while data[at : at + 1] != b"e":
            item, at = _bdecode(data, at, depth + 1)
            items.append(item)
        return items, at + 1
    if lead == b"d":
        pairs, at = {}, at + 1
        while data[at : at + 1] != b"e":
            key, at = _bdecode(data, at, depth + 1)
            pairs[key], at = _bdecode(data, at, depth + 1)
        return pairs, at + 1
    raise ValueError(f"unexpected byte at {at}")
