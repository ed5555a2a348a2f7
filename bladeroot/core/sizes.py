"""Sizes as people write them: `512M`, `16G`, in powers of 1024 as sfdisk and mkfs take them. Pure."""

from __future__ import annotations

import re

from bladeroot.errors import ConfigError

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_RATE_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_PATTERN = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_HINT = 'write it as "512M", "16G" or "2T" (powers of 1024), or as a number of bytes'


def parse_size(text: str | int) -> int:
    """Bytes of `"500G"`, `"1.5T"`, `"4 KiB"` or a plain number. Raises ConfigError."""
    if isinstance(text, int):
        if text < 0:
            raise ConfigError(f"not a size: {text!r}", _HINT)
        return text
    match = _PATTERN.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"not a size: {text!r}", _HINT)
    number, unit = match.groups()
    size_bytes = float(number) * _UNITS[unit.upper()] if "." in number else int(number) * _UNITS[unit.upper()]
    return int(size_bytes)


def parse_bit_rate(text: str) -> int:
    """Bits per second of `1G`, `100M` or a plain number, in powers of 1000. Raises ConfigError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGkmg]?)(?:bit/s|b/s|bit)?", text.strip())
    if match is None or float(match[1]) == 0:
        raise ConfigError(f"not a rate: {text!r}", 'write it in bits a second, as "100M" or "1G"')
    return int(float(match[1]) * _RATE_UNITS[match[2].upper()])


def render_size(size_bytes: int) -> str:
    """The shortest exact spelling that `parse_size` reads back: `16G`, `1536M`, `1000`."""
    for unit, factor in sorted(_UNITS.items(), key=lambda item: -item[1]):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def render_about(size_bytes: float) -> str:
    """For reading, not for parsing: `1.4 GiB`, three digits at most."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size_bytes) < 1000 or unit == "TiB":
            break
        size_bytes /= 1024
    return f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 99.95 else f"{size_bytes:.1f} {unit}"
