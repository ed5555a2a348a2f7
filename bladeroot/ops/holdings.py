"""What a machine holds and gives, whatever its role: its depot's generations, checked and seeded."""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bladeroot.core import wire
from bladeroot.core.manifest import Manifest
from bladeroot.core.signing import PublicKey
from bladeroot.errors import BladerootError, DepotError
from bladeroot.events import Reporter, Warned
from bladeroot.host.depot import Depot
from bladeroot.net.swarm import Swarm
from bladeroot.ops.saidonce import SaidOnce

_INFO_HASH = re.compile(r"[0-9a-f]{64}")


class Holdings:
    """The depot's whole generations that are signed for this cluster. With a swarm they are seeded, too.

    One thread takes in; any may ask.
    """

    def __init__(
        self, depot: Depot, trusted_keys: Collection[PublicKey], cluster_id: str, reporter: Reporter
    ) -> None:
        self.depot = depot
        self.trusted_keys = trusted_keys
        self.cluster_id = cluster_id
        self._reporter = reporter
        self._generations: Mapping[int, Manifest] = {}
        """Never changed, but replaced: other threads look at it at any time."""
        self._rejected: dict[int, Manifest | None] = {}
        """With what was rejected only because it cannot be given."""
        self._hashes: dict[int, str] = {}
        self._swarm: Swarm | None = None
        self._said = SaidOnce()
        self._lock = threading.Lock()

    @property
    def newest(self) -> Manifest:
        """The generation with the highest serial. Raises DepotError where there is none."""
        generations = self._generations
        if not generations:
            hint = "`bladeroot publish` makes one, or `bladeroot promote --publish PATH` does both"
            raise DepotError(f"no whole generation of this cluster in {self.depot.path}", hint)
        return generations[max(generations)]

    @property
    def newest_serial(self) -> int:
        """0 where there is none."""
        return max(self._generations, default=0)

    def manifest_hash(self, serial: int) -> str:
        """Of a generation that is held; empty for others."""
        return self._hashes.get(serial, "")

    def take_in(self) -> bool:
        """Whatever whole generation is new in the depot, and gone from it; True if there was a new one."""
        with self._lock:
            found = False
            held = self.depot.serials()
            self._reconsider(held)
            self._let_go_of_pruned(held)
            self._let_go_of_damaged(held)
            for serial in held:
                if serial not in self._generations and serial not in self._rejected:
                    found = self._take_in(serial) or found
            if found and self._swarm is not None:
                self._seed_all(self._swarm)
            return found and bool(self._generations)

    def seed(self, swarm: Swarm) -> None:
        """Give all of it in that swarm from now on."""
        with self._lock:
            self._swarm = swarm
            self._seed_all(swarm)

    def _take_in(self, serial: int) -> bool:
        try:
            manifest = self.depot.load(serial, self.trusted_keys, self.cluster_id)
            if not self.depot.is_whole(manifest):
                return False
            # First: the control service's thread may ask for the newest claim at any time.
            self._hashes[serial] = self.depot.read_manifest(serial).hash
        except OSError as error:
            text = f"generation {serial} cannot be read: {error.strerror or error}"
            self._said.say(
                Warned(text=text, hint="if that stays so, the disk is dying: see `dmesg`"), self._reporter
            )
            return False
        except BladerootError as error:
            self._reject(serial, error)
            return False
        self._generations = {**self._generations, serial: manifest}
        return True

    def _reconsider(self, held: Collection[int]) -> None:
        """What is gone, or not whole any more, has another try when it is there again."""
        self._rejected = {
            serial: manifest
            for serial, manifest in self._rejected.items()
            if serial in held and (manifest is None or self.depot.is_whole(manifest))
        }

    def _reject(self, serial: int, error: BladerootError, manifest: Manifest | None = None) -> None:
        self._rejected[serial] = manifest
        self._reporter(Warned(text=f"generation {serial} is not served: {error}", hint=error.hint))

    def _let_go_of_pruned(self, held: Collection[int]) -> None:
        """What was pruned is served no longer; but who holds something goes on with a newest generation."""
        for serial in [serial for serial in self._generations if serial not in held]:
            if len(self._generations) > 1:
                self._let_go(serial)

    def _let_go_of_damaged(self, held: Collection[int]) -> None:
        """What is not whole any more is not given until it is again, even if nothing is left."""
        for serial, manifest in list(self._generations.items()):
            if serial in held and not self.depot.is_whole(manifest):
                self._let_go(serial)

    def _let_go(self, serial: int) -> None:
        artefacts = self._generations[serial].artefacts
        self._generations = {one: manifest for one, manifest in self._generations.items() if one != serial}
        used = self.artefacts()
        if self._swarm is not None:
            for artefact in artefacts:
                if artefact.info_hash not in used:
                    self._swarm.remove(artefact.info_hash)

    def _seed_all(self, swarm: Swarm) -> None:
        """Seed what is new. A generation that cannot be seeded is not served."""
        for serial, manifest in sorted(self._generations.items()):
            try:
                for info_hash in [artefact.info_hash for artefact in manifest.artefacts]:
                    # Also what was fetched in this swarm: from now on it is known to be whole.
                    swarm.seed(self.depot.torrent(info_hash), self.depot.save_path(info_hash))
            except BladerootError as error:
                self._reject(serial, error, manifest)
                self._let_go(serial)
        self._seed_parts(swarm)

    def _seed_parts(self, swarm: Swarm) -> None:
        """Of a generation that is not whole yet: what an install has brought, others may want just now."""
        for path in sorted((self.depot.path / "artefacts").iterdir()):
            is_whole = _INFO_HASH.fullmatch(path.name) and self.depot.has(path.name)
            if is_whole and path.name not in swarm.info_hashes():
                with suppress(BladerootError):  # nothing here depends on it
                    swarm.seed(self.depot.torrent(path.name), self.depot.save_path(path.name))

    # What a control service asks for

    def serials(self) -> Sequence[int]:
        """The generations held, ascending."""
        return sorted(self._generations)

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        """A generation's manifest as blades read it."""
        if serial not in self._generations:
            return None
        return wire.encode(self.depot.read_manifest(serial))

    def torrent(self, info_hash: str) -> bytes | None:
        """An artefact's metadata, if all of it is here."""
        return self.depot.torrent(info_hash) if self.depot.has(info_hash) else None

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        """An artefact's files in order, if all of them are here."""
        return self.depot.artefact_files(info_hash) if self.depot.has(info_hash) else None

    def artefacts(self) -> frozenset[str]:
        """The info-hashes of all that is held."""
        return frozenset(a.info_hash for manifest in self._generations.values() for a in manifest.artefacts)
