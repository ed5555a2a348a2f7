"""A blade that runs becomes complete: it gets its extras, and a depot that it can be root with.

This is what an install leaves to the daemon (`ops.install`, `leave_rest`). Cut off at any moment it begins
again, and fetches nothing again that the depot has.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from attrs import frozen

from bladeroot.core.manifest import Manifest, SignedManifest, accept_manifest
from bladeroot.core.signing import PublicKey
from bladeroot.errors import ConfigError, DepotError, TrustError
from bladeroot.events import Note, Reporter, ignore
from bladeroot.host.depot import Depot
from bladeroot.host.files import explain_full_disk, sync_filesystem
from bladeroot.ops.fetching import Fetcher
from bladeroot.ops.identity import INSTALLED_FILE, write_installed
from bladeroot.ops.sources import Source


@frozen(kw_only=True)
class OwnGeneration:
    """What a blade's disk runs, as its install has recorded it."""

    blade: str
    cluster_id: str
    serial: int
    manifest: str
    """The manifest's hash."""
    is_complete: bool
    """False as long as its extras, or its own depot, are still to come."""


def read_own_generation(root: Path) -> OwnGeneration:
    """Of the installed tree at `root`. Raises ConfigError where it is none."""
    told = _read_record(root)
    try:
        return OwnGeneration(
            blade=str(told["blade"]),
            cluster_id=str(told["cluster_id"]),
            serial=int(told["serial"]),
            manifest=str(told["manifest"]),
            is_complete=told.get("extras") is not False,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _explain_damage(root, error) from error


def find_own_manifest(depot: Depot, own: OwnGeneration) -> SignedManifest | None:
    """The manifest of the generation that the blade runs; None where the depot does not have it (yet)."""
    try:
        signed = depot.read_manifest(own.serial)
    except DepotError:
        return None
    return signed if signed.hash == own.manifest else None


def complete_install(
    root: Path,
    depot: Depot,
    source: Source,
    signed: SignedManifest,
    trusted_keys: Collection[PublicKey],
    *,
    reporter: Reporter = ignore,
) -> bool:
    """Fetch what the blade at `root` lacks of its generation; False where it lacks nothing.

    The tree is touched only when all is in the depot. `signed` is the generation's manifest, from the depot
    (`find_own_manifest`) or from a root. `reporter` is for the blade's own log: in a report to a root,
    `Progress` is that of a blade which is being installed.

    Raises TrustError for another manifest than the one that was installed, ConfigError, ArtefactError,
    DepotError, DepotFullError, NoRoomError, DiskTooSmallError, NetworkError.
    """
    own = read_own_generation(root)
    if own.is_complete:
        return False
    manifest = _accept_own(own, signed, trusted_keys)
    reporter(Note(text=f"fetching what {own.blade} lacks of generation {own.serial}"))
    fetcher = Fetcher(source, depot, manifest, reporter)
    fetcher.fetch_rest()
    depot.add_generation(signed, manifest)
    sync_filesystem(depot.path)
    with explain_full_disk(root):
        fetcher.fetch_extras(manifest.entry(own.blade).overlay, root)
        sync_filesystem(root)
        write_installed(root, {**_read_record(root), "extras": True})
    reporter(Note(text=f"{own.blade} has all of generation {own.serial}"))
    return True


def _accept_own(own: OwnGeneration, signed: SignedManifest, trusted_keys: Collection[PublicKey]) -> Manifest:
    if signed.hash != own.manifest:
        raise TrustError(
            f"{own.blade} runs generation {own.serial} with manifest {own.manifest[:16]}, and is offered"
            f" {signed.hash[:16]}: what it lacks of its own cannot be had",
            f"`bladeroot reimage {own.blade}` brings it to what the room has now",
        )
    return accept_manifest(signed, trusted_keys, own.cluster_id)


def _read_record(root: Path) -> dict[str, Any]:
    path = root / INSTALLED_FILE
    try:
        told = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise ConfigError(
            f"this machine is no installed blade: there is no {path}", "only those are completed"
        ) from None
    except (OSError, ValueError) as error:
        raise _explain_damage(root, error) from error
    if not isinstance(told, dict):
        raise _explain_damage(root, ValueError("not a table"))
    return told


def _explain_damage(root: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{root / INSTALLED_FILE} is damaged: {error!r}", "`bladeroot reimage` of this blade")
