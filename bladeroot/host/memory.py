"""Giving back to the machine what a big job, or the start, has left behind in this process."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from pathlib import Path

_MADV_PAGEOUT = 21
"""linux/mman.h, since Linux 5.4; older ones refuse it."""
_libc = ctypes.CDLL(None)


def give_back_memory() -> None:
    """Collect garbage, have glibc return what is free (malloc_trim(3)), and let go of programs' pages: most
    were needed by the start only, and those that are not are read again from their files (madvise(2)).
    """
    gc.collect()
    trim = getattr(_libc, "malloc_trim", None)
    if trim is not None:
        trim(0)
    for start, length in parse_programs(Path("/proc/self/maps").read_text(errors="surrogateescape")):
        _libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_PAGEOUT)


def parse_programs(maps: str) -> Iterator[tuple[int, int]]:
    """Where files are mapped that are only read, privately: addresses and lengths, from proc_pid_maps(5)."""
    for line in maps.splitlines():
        addresses, modes, _offset, _device, _inode, *path = line.split(maxsplit=5)
        if modes[1] == "-" and modes[3] == "p" and path and path[0].startswith("/"):
            start, end = (int(address, 16) for address in addresses.split("-"))
            yield start, end - start
