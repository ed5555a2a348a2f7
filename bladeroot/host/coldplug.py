"""Drivers: load the modules of the hardware that the kernel has found, until no more hardware appears."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from bladeroot.host.run import run

_DEVICES = Path("/sys/devices")
_QUIET_S = 0.5
_DEADLINE_S = 20.0
_PAUSE_S = 0.1
_BATCH = 100
_BESIDES = ("af_packet", "efivarfs")
"""What no hardware asks for: DHCP's packets, the filesystems of slots, UEFI's boot entries."""


def load_drivers() -> int:
    """Load what the hardware asks for, and what that brings to light; how many kinds of devices there are.

    Buses find their devices some time after their driver is there, so it only ends when nothing new has
    been seen for a moment. What comes later still (a slow disk) needs another call.
    """
    run(["modprobe", "-a", "-q", *_BESIDES], check=False)
    seen: set[str] = set()
    deadline = time.monotonic() + _DEADLINE_S
    quiet_until = time.monotonic() + _QUIET_S
    while time.monotonic() < min(deadline, quiet_until):
        news = find_aliases() - seen
        if not news:
            time.sleep(_PAUSE_S)
            continue
        seen |= news
        for batch in _batches(sorted(news)):
            # Most devices need no module, or have one that is not here: that is no failure.
            run(["modprobe", "-a", "-q", *batch], check=False)
        quiet_until = time.monotonic() + _QUIET_S
    return len(seen)


def find_aliases(devices: Path = _DEVICES) -> set[str]:
    """The `modalias` of every device that has one (Documentation/ABI: sysfs-bus-*)."""
    found = set()
    for path in devices.rglob("modalias"):
        try:
            alias = path.read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue  # the device has gone meanwhile
        if alias:
            found.add(alias)
    return found


def _batches(aliases: list[str]) -> Iterable[list[str]]:
    return (aliases[start : start + _BATCH] for start in range(0, len(aliases), _BATCH))
