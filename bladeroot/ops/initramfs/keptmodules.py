"""Modules as they were compressed before: where one of hundreds changes, the others are not done again."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

import zstandard

from bladeroot.host.cache import default_cache_directory

_LEVEL = 10
_MOST_KERNELS = 4


class KeptModules:
    """A kernel's compressed modules in the cache. Thread-safe for modules of different names."""

    def __init__(self, release: str) -> None:
        version = ".".join(map(str, zstandard.ZSTD_VERSION))
        self._folder = default_cache_directory() / "agent-modules" / f"{release}-{version}-{_LEVEL}"
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            os.utime(self._folder)
            _drop_old(self._folder.parent)

    def compress(self, name: str, data: bytes) -> bytes:
        """The module compressed: what was kept, if that is what it unpacks to."""
        path = self._folder / name
        with contextlib.suppress(OSError, zstandard.ZstdError):
            kept = path.read_bytes()
            is_as_long = zstandard.frame_content_size(kept) == len(data)
            if is_as_long and zstandard.ZstdDecompressor().decompress(kept) == data:
                return kept
        compressed = zstandard.ZstdCompressor(level=_LEVEL).compress(data)
        with contextlib.suppress(OSError):
            path.write_bytes(compressed)
        return compressed


def _drop_old(folder: Path) -> None:
    """A cache of a few kernels: those that were used last."""
    found = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[_MOST_KERNELS:]:
        shutil.rmtree(path, ignore_errors=True)
