"""Restart this machine through its init, which ends what runs in order, but does not wait for ever."""

from __future__ import annotations

from pathlib import Path

from bladeroot.host.run import run

RESTART_LIMIT_S = 120
_DROP_IN = Path("run/systemd/system/reboot.target.d/50-bladeroot.conf")
_TIMEOUT_S = 60.0
_TEXT = f"""\
# Until the next boot: a service that does not end holds a restart up for so long, and no longer.
[Unit]
JobTimeoutSec={RESTART_LIMIT_S}s
JobTimeoutAction=reboot-force
"""
"""systemd.unit(5): distributions set 30 minutes, in which nobody can reach the machine."""


def restart_in_order(root: Path = Path("/")) -> None:
    """Ask systemd to restart the machine; returns when it has begun. Raises ToolError."""
    drop_in = root / _DROP_IN
    drop_in.parent.mkdir(parents=True, exist_ok=True)
    drop_in.write_text(_TEXT, encoding="utf-8")
    run(["systemctl", "daemon-reload"], timeout_s=_TIMEOUT_S)
    run(["systemctl", "--no-block", "reboot"], timeout_s=_TIMEOUT_S)
