"""Which interfaces have a link."""

from __future__ import annotations

from pathlib import Path

_NET = Path("/sys/class/net")
_WITH_LINK = ("up", "unknown")
"""`operstate` (RFC 2863); `unknown` is for drivers that do not tell, and the loopback."""


def find_links(net: Path = _NET) -> frozenset[str]:
    """The names of those that are up and have one now."""
    return frozenset(path.parent.name for path in net.glob("*/operstate") if _read(path) in _WITH_LINK)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # gone in the meantime
        return ""
