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
_ON_SCREEN = "tty1"
"""What tty0, the console on the screen, shows: a shell needs a terminal of its own."""


def keep_shells(consoles: Sequence[Path]) -> None:
    """Have a shell on each of these consoles; one that ends is started again."""
    for console in consoles:
        path = console.with_name(_ON_SCREEN) if console.name == "tty0" else console
        if path.exists():
            threading.Thread(target=_keep_shell, args=(path,), name=f"shell-{path.name}", daemon=True).start()


def _keep_shell(terminal: Path) -> None:
    # setsid -c gives it the terminal, so that Ctrl-C ends what runs in it and not the shell.
    script = f"exec busybox setsid -c busybox sh -i <{terminal} >{terminal} 2>&1"
    while True:
        with contextlib.suppress(BladerootError):
            run(["busybox", "sh", "-c", script], check=False)
        time.sleep(_AGAIN_S)
