"""Where things are kept that cost time to make and can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_directory() -> Path:
    """$BLADEROOT_CACHE, or ~/.cache/bladeroot."""
    chosen = os.environ.get("BLADEROOT_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "bladeroot"
