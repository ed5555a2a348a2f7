"""Switch this machine off, or start it again, at once: there is no init to ask."""

from __future__ import annotations

import ctypes
import os
from typing import NoReturn

from bladeroot.errors import PrivilegeError

_libc = ctypes.CDLL(None, use_errno=True)
# linux/reboot.h
_RESTART = 0x01234567
_POWER_OFF = 0x4321FEDC


def restart() -> NoReturn:
    """Put everything onto the disks, and start the machine again. Raises PrivilegeError."""
    _leave(_RESTART)


def switch_off() -> NoReturn:
    """Put everything onto the disks, and switch the machine off. Raises PrivilegeError."""
    _leave(_POWER_OFF)


def _leave(how: int) -> NoReturn:
    os.sync()
    _libc.reboot(ctypes.c_int(how))
    raise PrivilegeError(f"the kernel does not switch off: {os.strerror(ctypes.get_errno())}")
