"""What a depot holds: listed, verified, written out as ordinary files."""

from __future__ import annotations

from collections.abc import Callable, Collection

from attrs import frozen

from bladeroot.core.manifest import (
    Artefact,
    Manifest,
    SignedManifest,
    accept_manifest,
)
from bladeroot.core.signing import PublicKey
from bladeroot.core.torrentfile import hash_file_root
from bladeroot.errors import ArtefactError, DepotError, TrustError
from bladeroot.events import Reporter, ignore
from bladeroot.host.depot import Depot


@frozen(kw_only=True)
class Trust:
    """What a generation is checked against: a cluster's id, and the keys that it trusts."""

    cluster_id: str
    keys: tuple[PublicKey, ...]


@frozen(kw_only=True)
class HeldGeneration:
    """A generation of a depot. `distrusted` says why it would be refused; None where nobody checked."""

    manifest: Manifest
    signed: SignedManifest
    whole: bool
    checked: bool
    distrusted: str = ""

    @property
    def signers(self) -> tuple[str, ...]:
        """The key ids that the signatures name; a hint, not a proof."""
        return tuple(signature.key_id for signature in self.signed.signatures)

    @property
    def standing(self) -> str:
        """`trusted`, `unchecked`, or why it would be refused."""
        if not self.checked:
            return "unchecked"
        return self.distrusted or "trusted"


def read_generation(depot: Depot, serial: int, trust: Trust | None = None) -> HeldGeneration:
    """One generation, for looking at: one that would be refused is shown too. Raises DepotError."""
    signed, manifest = depot.read_unchecked(serial)
    distrusted = ""
    if trust is not None:
        try:
            accept_manifest(signed, trust.keys, trust.cluster_id)
        except TrustError as error:
            distrusted = str(error)
    return HeldGeneration(
        manifest=manifest,
        signed=signed,
        whole=depot.is_whole(manifest),
        checked=trust is not None,
        distrusted=distrusted,
    )


def read_generations(depot: Depot, trust: Trust | None = None) -> list[HeldGeneration]:
    """All generations, highest serial first. Raises DepotError."""
    return [read_generation(depot, serial, trust) for serial in reversed(depot.serials())]


def find_problems(
    depot: Depot,
    generation: HeldGeneration,
    reporter: Reporter = ignore,
    *,
    known: Collection[str] = (),
) -> dict[str, list[str]]:
    """What is wrong with a generation: by artefact's kind, and under `manifest`; empty when all is well.

    Reads every byte. Artefacts whose info-hash is in `known` were read already and are passed over.
    """
    problems: dict[str, list[str]] = {}
    if generation.distrusted:
        problems["manifest"] = [generation.distrusted]
    for artefact in generation.manifest.artefacts:
        if artefact.info_hash in known:
            continue
        try:
            found = depot.find_damage(artefact, reporter)
            if not found and not depot.has(artefact.info_hash):
                found = ["not all of it is here"]
        except (DepotError, ArtefactError) as error:
            found = [str(error)]
        if found:
            problems[artefact.kind] = found
    return problems


def write_artefact(depot: Depot, artefact: Artefact, write: Callable[[bytes], object]) -> int:
    """Write an artefact's files laid end to end: for runtime and extras an ordinary `.tar.zst`.

    Each file is checked before it is written. Returns the bytes written. Raises ArtefactError, DepotError.
    """
    torrent = depot.read_torrent(artefact.info_hash)
    done = 0
    for file, path in zip(torrent.files, depot.artefact_files(artefact.info_hash), strict=True):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtefactError(f"{path}: {error.strerror}") from error
        if hash_file_root(data) != file.root:
            raise ArtefactError(
                f"{path} does not have the bytes that were signed", "fetch or publish it again"
            )
        write(data)
        done += len(data)
    return done
