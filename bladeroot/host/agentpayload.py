"""The agent's kernel and initramfs out of a depot, their parts put together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bladeroot.core.agentfiles import choose_parts
from bladeroot.errors import ArtefactError
from bladeroot.host.depot import Depot


def find_agent_parts(depot: Depot, info_hash: str, name: str) -> list[Path]:
    """The files that make up `name` (`agentfiles.KERNEL` or `INITRAMFS`), in order. Raises ArtefactError."""
    paths = {path.name: path for path in depot.artefact_files(info_hash)}
    parts = [paths[part] for part in choose_parts(name, paths)]
    if not parts:
        raise ArtefactError(f"artefact {info_hash[:16]} has no {name}", "publish again")
    return parts


def read_agent_file(depot: Depot, info_hash: str, name: str) -> Iterator[bytes]:
    """The kernel or the initramfs, a part at a time, each checked against its hash. Raises ArtefactError."""
    names = [path.name for path in find_agent_parts(depot, info_hash, name)]
    for _name, data in depot.read_files(info_hash, names):
        yield data
