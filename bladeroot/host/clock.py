"""The clock of the machine. A blade that was long without power may live in any year."""

from __future__ import annotations

import time

from bladeroot.errors import BladerootError
from bladeroot.host.run import run

_HWCLOCK_TIMEOUT_S = 20.0


def set_clock(now_s: float) -> None:
    """Set the system's clock (seconds since the epoch), and the hardware's if there is a way to."""
    time.clock_settime(time.CLOCK_REALTIME, now_s)
    try:
        run(["hwclock", "--systohc", "--utc"], check=False, timeout_s=_HWCLOCK_TIMEOUT_S)
    except BladerootError:
        return  # no program for it, or a clock that does not answer: the system's is what counts
