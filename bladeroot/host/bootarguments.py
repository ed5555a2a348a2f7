"""What the kernel's command line says to bladeroot."""

from __future__ import annotations

from pathlib import Path

_COMMAND_LINE = Path("/proc/cmdline")
_ROOT = "bladeroot.root="


def find_named_root(command_line: Path = _COMMAND_LINE) -> str | None:
    """The root that `bladeroot.root=HOST:PORT` names; the last one counts, as with the kernel's own."""
    try:
        words = command_line.read_text(encoding="utf-8", errors="replace").split()
    except OSError:
        return None
    named = [word.removeprefix(_ROOT) for word in words if word.startswith(_ROOT)]
    return named[-1] if named and named[-1] else None
