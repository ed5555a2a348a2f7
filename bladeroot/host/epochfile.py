"""The highest epoch that a blade has known, in its depot: a root that died must not be outdone by less."""

from __future__ import annotations

import json
from pathlib import Path

from bladeroot.host.files import write_atomically

_NAME = "epoch.json"
_MOST = 2**53


def read_epoch(depot: Path) -> int:
    """0 where none was noted, or it cannot be read: then it is what is heard that counts."""
    try:
        epoch = json.loads((depot / _NAME).read_bytes())["epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    return epoch if type(epoch) is int and 0 <= epoch <= _MOST else 0


def write_epoch(depot: Path, epoch: int) -> None:
    """Note it. Raises OSError."""
    write_atomically(depot / _NAME, json.dumps({"epoch": epoch}) + "\n")
