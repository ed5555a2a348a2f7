"""A terminal on the serial line of a machine."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from pathlib import Path

from bladeroot.host.localsocket import connected_socket

LEAVE = b"\x1d"
"""Ctrl-], as telnet and `virsh console` have it."""
_BEFORE_BYTES = 2000
_CHUNK = 4096


def attach(console: Path, log: Path) -> None:
    """Show the end of the log, then connect terminal and console until Ctrl-] or the machine's end."""
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    os.write(screen, log.read_bytes()[-_BEFORE_BYTES:])
    with connected_socket(console.parent, console.name) as line:
        before = termios.tcgetattr(keyboard)
        tty.setraw(keyboard)
        try:
            copy_both_ways(line, keyboard, screen)
        finally:
            termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
            os.write(screen, b"\r\n")


def copy_both_ways(line: socket.socket, keyboard: int, screen: int) -> None:
    """Until `LEAVE` is typed, or either side ends."""
    while True:
        ready, _, _ = select.select([line.fileno(), keyboard], [], [])
        if line.fileno() in ready:
            data = line.recv(_CHUNK)
            if not data:
                return
            os.write(screen, data)
        if keyboard in ready:
            typed = os.read(keyboard, _CHUNK)
            before, leave, _after = typed.partition(LEAVE)
            line.sendall(before)
            if leave or not typed:
                return
