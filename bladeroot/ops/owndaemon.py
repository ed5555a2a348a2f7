"""bladeroot's own service in an OS tree: what it is called there, and whether it will run."""

from __future__ import annotations

import os
from pathlib import Path

from bladeroot.core.systemdunits import SEARCH_PATH
from bladeroot.errors import SnapshotError
from bladeroot.host.kernels import resolve_inside

LAUNCHER = "usr/bin/bladeroot"
SERVICE = "bladeroot.service"
WANTED_BY = "multi-user.target"
_CLUSTER_FILE = "etc/bladeroot/cluster.toml"


def runs_daemon(tree: Path) -> bool:
    """Whether an installed tree, once it is booted, will run bladeroot's daemon.

    Its unit is there and is not masked, the machine's usual target wants it, and it has its program and its
    cluster's file. What cannot be looked at is not there.
    """
    try:
        return (
            _is_unit(tree, SERVICE)
            and _is_unit(tree, f"{WANTED_BY}.wants/{SERVICE}")
            and os.access(resolve_inside(tree, LAUNCHER), os.X_OK)
            and resolve_inside(tree, _CLUSTER_FILE).is_file()
        )
    except (OSError, SnapshotError):
        return False


def _is_unit(tree: Path, name: str) -> bool:
    """Whether the strongest of that name is a unit; an empty file and /dev/null mask it (systemd.unit(5))."""
    for directory in SEARCH_PATH:
        if os.path.lexists(resolve_inside(tree, directory) / name):
            unit = resolve_inside(tree, f"{directory}/{name}")
            return unit.is_file() and unit.stat().st_size > 0
    return False
