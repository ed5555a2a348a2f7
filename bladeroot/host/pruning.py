"""Dropping from a depot what is not needed: old generations, and what an interrupted change left behind."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from attrs import frozen

from bladeroot.core.manifest import Artefact
from bladeroot.host.depot import Depot


@frozen(kw_only=True)
class PrunedDepot:
    """What pruning dropped, or would drop."""

    serials: tuple[int, ...]
    artefacts: tuple[str, ...]
    frames: int
    freed_bytes: int


def prune_depot(
    depot: Depot, keep: int, *, spare: Collection[Artefact] = (), dry_run: bool = False
) -> PrunedDepot:
    """Drop all but the `keep` highest generations, then artefacts and frames that nothing needs.

    `spare` are artefacts that stay all the same. Call it with the depot's lock held. Raises DepotError
    where a manifest that is to be kept cannot be read: what it needs is not known.
    """
    serials = depot.serials()
    doomed = serials[: max(0, len(serials) - keep)]
    kept = [depot.read_unchecked(serial)[1] for serial in serials if serial not in doomed]
    needed = {artefact.info_hash for manifest in kept for artefact in manifest.artefacts}
    needed |= {artefact.info_hash for artefact in spare}
    unneeded = [path for path in (depot.path / "artefacts").iterdir() if path.name not in needed]
    links: dict[int, int] = {}
    sizes: dict[int, int] = {}
    for path in unneeded:
        for file in path.rglob("*"):
            if file.is_file():
                status = file.stat()
                links[status.st_ino] = links.get(status.st_ino, 0) + 1
                if links[status.st_ino] == status.st_nlink:
                    sizes[status.st_ino] = status.st_size
    garbage = []
    for frame in (depot.path / "frames").glob("*/*"):
        status = frame.stat()
        if status.st_nlink - links.get(status.st_ino, 0) <= 1:
            garbage.append(frame)
            sizes[status.st_ino] = status.st_size
    if not dry_run:
        # The manifests first: what is cut off here leaves artefacts that nobody needs, and never the reverse.
        for path in _find_generations(depot, doomed):
            shutil.rmtree(path)
        for path in unneeded:
            shutil.rmtree(path)
        for frame in garbage:
            frame.unlink()
    return PrunedDepot(
        serials=tuple(doomed),
        artefacts=tuple(path.name for path in unneeded if not path.name.startswith(".")),
        frames=len(garbage),
        freed_bytes=sum(sizes.values()),
    )


def _find_generations(depot: Depot, doomed: Collection[int]) -> list[Path]:
    """The directories of the doomed, and those that were made for a manifest that was never written."""
    found = [path for path in (depot.path / "generations").iterdir() if path.name.isdecimal()]
    return [path for path in found if int(path.name) in doomed or not (path / "manifest").exists()]
