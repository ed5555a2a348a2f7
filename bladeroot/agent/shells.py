"""Shells on the consoles, beside the agent, for whoever started it with `bladeroot.debug`."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from bladeroot.errors import BladerootError
from bladeroot.host.run import run

_AGAIN_S = 1.0
_TERMINALS = ("tty1", "ttyS0")


def keep_shells(names: Sequence[str] = _TERMINALS, devices: Path = Path("/dev")) -> None:
    """Have a shell on each of these terminals that is there; one that ends is started again."""
    for name in names:
        path = devices / name
        if path.exists():
            threading.Thread(target=_keep_shell, args=(path,), name=f"shell-{name}", daemon=True).start()


def _keep_shell(terminal: Path) -> None:
    # setsid -c gives it the terminal, so that Ctrl-C ends what runs in it and not the shell.
    script = f"exec busybox setsid -c busybox sh -i <{terminal} >{terminal} 2>&1"
    while True:
        with contextlib.suppress(BladerootError):
            run(["busybox", "sh", "-c", script], check=False)
        time.sleep(_AGAIN_S)
