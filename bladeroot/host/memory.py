"""Giving back to the machine what a big job has left behind in this process."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> None:
    """Collect garbage, and have glibc return what is free: malloc_trim(3). Nothing without glibc."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
