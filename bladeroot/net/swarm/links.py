"""Which interfaces have a link, and how fast it is."""

from __future__ import annotations

from pathlib import Path

_NET = Path("/sys/class/net")
_WITH_LINK = ("up", "unknown")
"""`operstate` (RFC 2863); `unknown` is for drivers that do not tell, and the loopback."""


def find_links(net: Path = _NET) -> frozenset[tuple[str, str]]:
    """The names of those that are up and have one now, each with how often it came up: one that was lost
    and is back is another one, however short that was.
    """
    return frozenset(
        (path.name, _read(path / "carrier_up_count"))
        for path in net.glob("*")
        if _read(path / "operstate") in _WITH_LINK
    )


def find_fastest_mbits(net: Path = _NET) -> int:
    """The speed of the fastest network card that has a link; 0 where none tells."""
    speeds = [_read(path / "speed") for path in net.glob("*") if (path / "device").exists()]
    return max((int(speed) for speed in speeds if speed.isdecimal()), default=0)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:  # no interface, or gone in the meantime
        return ""
