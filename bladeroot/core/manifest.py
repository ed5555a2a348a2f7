"""Generations: what a manifest says, and when a blade accepts one. No I/O."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection
from enum import StrEnum

import attrs
from attrs import frozen

from bladeroot.core import signing, wire
from bladeroot.core.cluster import Blade, Cluster, DiskRule, Layout, Network, Strangers
from bladeroot.core.torrentfile import TorrentFile
from bladeroot.errors import DepotError, InventoryError, TrustError

MANIFEST_VERSION = 1
MANIFEST_LIMIT_BYTES = 8 << 20
MAX_SIGNATURES = 8
MAX_SIGNED_CONTAINERS = 32
"""Lists and maps in an encoded `SignedManifest` (its body is bytes)."""
_KEY_ID = re.compile(r"[0-9a-f]{2,64}")


class ArtefactKind(StrEnum):
    """What an artefact is for. Each is one v2 torrent whose files are whole pieces."""

    RUNTIME = "runtime"
    EXTRAS = "extras"
    OVERLAYS = "overlays"
    """One file for each blade, named `<blade>.tar.zst`."""
    BOOT = "boot"
    """Boot code made once for all blades: `boot.img`, `core.img`, `grubx64.efi`, …"""
    AGENT = "agent"
    """The kernel and initramfs that install, cut into files (`core.agentfiles`)."""


TARBALLS = (ArtefactKind.RUNTIME, ArtefactKind.EXTRAS)
"""Artefacts whose files laid end to end are one file that other programs read."""


@frozen(kw_only=True)
class Artefact:
    """One content-addressed part of a generation. `info_hash` (64 hexadecimal digits) names all its bytes."""

    kind: ArtefactKind
    info_hash: str
    size_bytes: int
    raw_size_bytes: int
    """Uncompressed; for the room that it takes on a disk."""
    piece_length: int
    files: int
    index: TorrentFile | None = None
    """A tarball's frame index: with that file the torrent need not be sent (`framing.rebuild_torrent`)."""


@frozen(kw_only=True)
class BladeEntry:
    """What a blade needs to know of itself to install: its inventory entry, with the rules that it names."""

    blade: Blade
    disk: DiskRule
    layout: Layout
    overlay: str
    """Its file in the overlays artefact."""


@frozen(kw_only=True)
class Manifest:
    """An immutable, numbered release. `created` (seconds since the epoch) is for people only."""

    cluster_id: str
    cluster_name: str
    serial: int = attrs.field(validator=attrs.validators.ge(1))
    previous: str | None
    """SHA-256 of the manifest before this one, in hexadecimal."""
    arch: str
    created: int
    kernel_command_line: str
    artefacts: tuple[Artefact, ...]
    blades: tuple[BladeEntry, ...]
    network: Network = attrs.field(factory=Network)
    strangers: Strangers = attrs.field(factory=Strangers)
    min_agent_version: str = "0.1.0"
    version: int = MANIFEST_VERSION

    def artefact(self, kind: ArtefactKind) -> Artefact:
        """The artefact of that kind. Raises DepotError where the generation has none."""
        for artefact in self.artefacts:
            if artefact.kind is kind:
                return artefact
        raise DepotError(f"generation {self.serial} has no {kind} artefact")

    def entry(self, blade_name: str) -> BladeEntry:
        """What the manifest says of a blade. Raises InventoryError."""
        for entry in self.blades:
            if entry.blade.name == blade_name:
                return entry
        hint = "add it with `bladeroot blades add` and publish again"
        raise InventoryError(f"generation {self.serial} does not know a blade {blade_name!r}", hint)


@frozen(kw_only=True)
class OverlayIndex:
    """The file `index` of an overlays artefact: whose overlays it has."""

    blades: tuple[str, ...]


@frozen(kw_only=True)
class Signature:
    """`key_id` is the public key's first 8 bytes in hexadecimal: a hint which key to try, never trusted."""

    key_id: str = attrs.field()
    signature: bytes

    @key_id.validator
    def _check_key_id(self, _attribute: object, value: str) -> None:
        # It is shown to people before anything is trusted.
        if not _KEY_ID.fullmatch(value):
            raise ValueError(f"not a key's id: {value[:40]!a}")


@frozen(kw_only=True)
class SignedManifest:
    """The exact bytes that were signed, and by whom. Several signatures are for rotating keys."""

    body: bytes
    signatures: tuple[Signature, ...] = attrs.field()

    @signatures.validator
    def _check_signatures(self, _attribute: object, value: tuple[Signature, ...]) -> None:
        # Each is tried with each key over all of the body.
        if len(value) > MAX_SIGNATURES:
            raise ValueError(f"{len(value)} signatures, more than {MAX_SIGNATURES}")

    @property
    def hash(self) -> str:
        """SHA-256 of the body in hexadecimal: the generation's identity."""
        return hashlib.sha256(self.body).hexdigest()


def make_blade_entries(cluster: Cluster) -> tuple[BladeEntry, ...]:
    """The manifest's view of the inventory, in the order of names."""
    return tuple(
        BladeEntry(
            blade=blade,
            disk=cluster.disk_rule(blade),
            layout=cluster.layout(blade),
            overlay=f"{blade.name}.tar.zst",
        )
        for _name, blade in sorted(cluster.blades.items())
    )


def sign_manifest(manifest: Manifest, secret_key: signing.SecretKey) -> SignedManifest:
    """Freeze the manifest into bytes and sign those."""
    body = wire.encode(manifest)
    signature = Signature(
        key_id=secret_key.public_key.key_id,
        signature=secret_key.sign(signing.Purpose.MANIFEST, body),
    )
    return SignedManifest(body=body, signatures=(signature,))


def accept_manifest(
    signed: SignedManifest,
    trusted_keys: Collection[signing.PublicKey],
    cluster_id: str,
    *,
    lowest_serial: int = 1,
) -> Manifest:
    """The manifest, if a blade may believe it: signature, then cluster, then serial. Raises TrustError.

    Nothing of the body is looked at before its signature is known to be good.
    """
    if not any(
        key.verify(signing.Purpose.MANIFEST, signed.body, signature.signature)
        for signature in signed.signatures
        for key in trusted_keys
    ):
        known = {key.key_id for key in trusted_keys}
        if any(signature.key_id in known for signature in signed.signatures):
            raise TrustError(
                f"manifest {signed.hash[:16]} is not what its signature is for: damaged or tampered with",
                "get the generation from another blade, or publish again",
            )
        by_whom = ", ".join(signature.key_id for signature in signed.signatures) or "nobody"
        ours = ", ".join(sorted(key.key_id for key in trusted_keys)) or "none"
        hint = f"trusted here: {ours}; put the operator's public key into keys/trusted/ if it should be"
        raise TrustError(
            f"manifest {signed.hash[:16]} is signed by {by_whom}, whom this blade does not trust", hint
        )
    manifest = wire.decode(Manifest, signed.body, MANIFEST_LIMIT_BYTES)
    if manifest.version != MANIFEST_VERSION:
        raise TrustError(f"manifest {signed.hash[:16]} has format {manifest.version}, not {MANIFEST_VERSION}")
    if manifest.cluster_id != cluster_id:
        raise TrustError(
            f"generation {manifest.serial} is of cluster {manifest.cluster_id}, not of {cluster_id}"
        )
    if manifest.serial < lowest_serial:
        raise TrustError(
            f"generation {manifest.serial} is older than {lowest_serial}, which this blade already has",
            "only a signed rollback order goes down",
        )
    return manifest
