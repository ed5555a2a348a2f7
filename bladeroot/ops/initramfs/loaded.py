"""What importing the agent loads. To ask takes a second, so the answer is kept."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from bladeroot.errors import NoRoomError
from bladeroot.host.cache import default_cache_directory
from bladeroot.host.files import write_atomically
from bladeroot.host.run import run

_AGENT = "bladeroot.agent.__main__"
_PROGRAM = (
    f"import {_AGENT}, sys, json\n"
    "print(json.dumps(sorted({(n.split('.')[0], getattr(m, '__file__', None) or '')"
    " for n, m in sys.modules.items() if n != '__main__'})))"
)


def list_loaded(depends_on: Iterable[Path]) -> list[tuple[str, str]]:
    """Each module's top-level name, and its file. Kept until one of these files or folders changes."""
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in depends_on]
    key = hashlib.sha256(json.dumps([sys.version, sys.executable, _PROGRAM, stamps]).encode()).hexdigest()
    path = default_cache_directory() / "agent" / "loaded.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(path.read_bytes())
        if kept["key"] == key:
            return [(str(name), str(file)) for name, file in kept["listed"]]
    said = run([sys.executable, "-c", _PROGRAM]).stdout
    with contextlib.suppress(OSError, NoRoomError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"key": key, "listed": json.loads(said)}))
    return [(str(name), str(file)) for name, file in json.loads(said)]
