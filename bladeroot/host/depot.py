"""A blade's own store of generations: what it can seed, install from and be root with.

```
frames/<2 hex>/<file root>            each file of any artefact, once; only verified bytes get here
artefacts/<info-hash>/torrent         its metadata
artefacts/<info-hash>/<name>/<file>   hard links to frames; the swarm reads and writes here
artefacts/<info-hash>/complete        empty: every file is there and verified
generations/<serial>/manifest         the signed manifest; written last
identity/                             what makes a blade itself and survives a reimage
packed, agent                         what frames and the agent were made of, for the next publish; caches
```

A frame's link count says who needs it, so pruning (`host.pruning`) needs no bookkeeping.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bladeroot.core import wire
from bladeroot.core.manifest import (
    MANIFEST_LIMIT_BYTES,
    Artefact,
    Manifest,
    SignedManifest,
    accept_manifest,
)
from bladeroot.core.signing import PublicKey
from bladeroot.core.torrentfile import Torrent, TorrentFile, hash_file_root, parse_torrent
from bladeroot.errors import ArtefactError, DepotError, DepotFullError, NetworkError
from bladeroot.events import Progress, Reporter, ignore
from bladeroot.host.artefactwriter import ArtefactWriter
from bladeroot.host.files import explain_full_disk, scratch_folder, sync_filesystem, write_atomically

DEFAULT_DEPOT = Path("/var/lib/bladeroot")
_ENVELOPE_LIMIT_BYTES = MANIFEST_LIMIT_BYTES + 4096
_DRAFT_PREFIX = ".new-"
"""Begins the name of an artefact in the making."""
_FULL_HINT = "make room there, or drop old generations with `bladeroot generations prune`"
_AGAIN_HINT = "fetch or publish it again"
_RESERVE_BYTES = 16 << 20
"""Left free on the depot's filesystem for manifests, metadata and the operator's own breathing."""


class Depot:
    """The store in a directory. Many may read it; who changes it holds its lock."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> Depot:
        """The depot at `path`, made if it is not there. Raises DepotError."""
        try:
            for name in ("frames", "artefacts", "generations", "identity"):
                (path / name).mkdir(parents=True, exist_ok=True)
            (path / "identity").chmod(0o700)
        except OSError as error:
            raise DepotError(f"cannot make a depot in {path}: {error.strerror}") from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Depot:
        """The depot at `path`, which must be one. Raises DepotError."""
        if not (path / "generations").is_dir():
            raise DepotError(
                f"no depot in {path}", "`bladeroot publish` makes one; --depot names another place"
            )
        return cls(path)

    @property
    def identity(self) -> Path:
        """Where the blade's machine-id and host keys outlive a reimage."""
        return self.path / "identity"

    @property
    def packed_record(self) -> Path:
        """Where publishing remembers what frames were made of."""
        return self.path / "packed"

    @property
    def agent_record(self) -> Path:
        """Where publishing remembers what the agent was made of."""
        return self.path / "agent"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one that changes the depot. Raises DepotError at once if another is."""
        with self.explain_full():
            descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DepotError(f"another bladeroot is changing {self.path}", "wait for it to end") from None
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def explain_full(self) -> Iterator[None]:
        """Turn "no space" inside the block into a DepotFullError."""
        with explain_full_disk(self.path, DepotFullError, _FULL_HINT):
            yield

    def check_room(self, size_bytes: int) -> None:
        """Raise DepotFullError now if that many bytes will not fit."""
        free = shutil.disk_usage(self.path).free
        if free < size_bytes + _RESERVE_BYTES:
            raise DepotFullError(
                f"{size_bytes >> 20} MiB do not fit into {self.path}: {free >> 20} MiB are free", _FULL_HINT
            )

    # Generations

    def serials(self) -> list[int]:
        """The serials of all generations, lowest first."""
        names = [entry.parent.name for entry in (self.path / "generations").glob("*/manifest")]
        return sorted(int(name) for name in names if name.isdecimal())

    def read_manifest(self, serial: int) -> SignedManifest:
        """A generation's signed manifest, unchecked. Raises DepotError."""
        try:
            data = self._manifest_path(serial).read_bytes()
        except FileNotFoundError:
            have = ", ".join(map(str, self.serials())) or "none"
            raise DepotError(f"no generation {serial} in {self.path}", f"there is: {have}") from None
        with self._explain_damaged_manifest(serial):
            return wire.decode(SignedManifest, data, _ENVELOPE_LIMIT_BYTES)

    def read_unchecked(self, serial: int) -> tuple[SignedManifest, Manifest]:
        """A generation's manifest, for looking at: its signature was not checked. Raises DepotError."""
        signed = self.read_manifest(serial)
        with self._explain_damaged_manifest(serial):
            manifest = wire.decode(Manifest, signed.body, MANIFEST_LIMIT_BYTES)
        self._check_serial(serial, manifest)
        return signed, manifest

    def load(self, serial: int, trusted_keys: Collection[PublicKey], cluster_id: str) -> Manifest:
        """A generation's manifest, checked. Raises DepotError, TrustError."""
        manifest = accept_manifest(self.read_manifest(serial), trusted_keys, cluster_id)
        self._check_serial(serial, manifest)
        return manifest

    @contextmanager
    def _explain_damaged_manifest(self, serial: int) -> Iterator[None]:
        path = self._manifest_path(serial)
        try:
            yield
        except NetworkError as error:
            hint = f"copy it from another blade's depot, or drop the generation: rm -r {path.parent}"
            raise DepotError(f"{path} is damaged: {error}", hint) from error

    def _check_serial(self, serial: int, manifest: Manifest) -> None:
        if manifest.serial != serial:
            path = self._manifest_path(serial)
            raise DepotError(
                f"{path} is the manifest of generation {manifest.serial}",
                f"move {path.parent} to where it belongs, or away",
            )

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether every artefact of the generation is here."""
        return all(self.has(artefact.info_hash) for artefact in manifest.artefacts)

    def add_generation(self, signed: SignedManifest, manifest: Manifest) -> None:
        """Make a generation part of the depot: the last step, when all its artefacts are here.

        Raises DepotError if they are not, or if the serial is another generation's already.
        """
        missing = [artefact.kind for artefact in manifest.artefacts if not self.has(artefact.info_hash)]
        if missing:
            raise DepotError(f"generation {manifest.serial} lacks its artefacts: {', '.join(missing)}")
        path = self._manifest_path(manifest.serial)
        if path.exists() and self.read_manifest(manifest.serial).hash != signed.hash:
            raise DepotError(
                f"{path} is another generation with the same serial", "neither was dropped: look into it"
            )
        with self.explain_full():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, wire.encode(signed))

    # Artefacts

    def has(self, info_hash: str) -> bool:
        """Whether the artefact is here, whole and verified."""
        return (self._artefact(info_hash) / "complete").exists()

    def save_path(self, info_hash: str) -> Path:
        """The directory that a swarm reads and writes the artefact's torrent in."""
        return self._artefact(info_hash)

    def torrent(self, info_hash: str) -> bytes:
        """The artefact's `.torrent`. Raises DepotError."""
        try:
            return (self._artefact(info_hash) / "torrent").read_bytes()
        except FileNotFoundError:
            raise DepotError(
                f"no artefact {info_hash} in {self.path}",
                "the generation is not whole: `bladeroot generations verify` says which; publish it again",
            ) from None

    def read_torrent(self, info_hash: str) -> Torrent:
        """The artefact's metadata, checked against its name. Raises DepotError, ArtefactError."""
        try:
            return parse_torrent(self.torrent(info_hash), info_hash)
        except ArtefactError as error:
            raise ArtefactError(f"{self._artefact(info_hash)}/torrent: {error}", _AGAIN_HINT) from error

    def artefact_files(self, info_hash: str) -> list[Path]:
        """The artefact's files in the torrent's order. Raises DepotError, ArtefactError."""
        torrent = self.read_torrent(info_hash)
        return [self._artefact(info_hash) / torrent.name / file.name for file in torrent.files]

    def read_file(self, info_hash: str, name: str) -> bytes:
        """One file of an artefact, checked. Raises DepotError, ArtefactError."""
        return next(data for _name, data in self.read_files(info_hash, (name,)))

    def read_files(self, info_hash: str, names: Iterable[str] | None = None) -> Iterator[tuple[str, bytes]]:
        """Files of an artefact (None: all), each checked when its turn comes. Raises as `read_file` does."""
        torrent = self.read_torrent(info_hash)
        files = {file.name: file for file in torrent.files}
        for name in files if names is None else names:
            if name not in files:
                raise DepotError(f"artefact {info_hash[:16]} has no file {name!r}")
            yield name, self.read_checked(self._artefact(info_hash) / torrent.name / name, files[name])

    def begin_artefact(self, torrent_bytes: bytes, info_hash: str) -> Torrent:
        """Prepare to fetch an artefact: frames that other generations have are linked in, not fetched.

        Raises ArtefactError for a torrent that is not what was signed, DepotFullError.
        """
        try:
            torrent = parse_torrent(torrent_bytes, info_hash)
        except ArtefactError as error:
            hint = "`bladeroot generations verify` where it came from; publish it again there"
            raise ArtefactError(f"the torrent of artefact {info_hash[:16]}: {error}", hint) from error
        directory = self._artefact(info_hash) / torrent.name
        if self.has(info_hash):
            return torrent
        missing_bytes = 0
        with self.explain_full():
            directory.mkdir(parents=True, exist_ok=True)
            for file in torrent.files:
                target, frame = directory / file.name, self.frame_path(file.root)
                if frame.exists():
                    _link(frame, target)
                elif not target.exists():
                    missing_bytes += file.size_bytes
            self.check_room(missing_bytes)
            write_atomically(self._artefact(info_hash) / "torrent", torrent_bytes)
        return torrent

    def distrust(self, info_hash: str) -> None:
        """Take back that the artefact is whole: damage was found, and it has to be fetched again."""
        (self._artefact(info_hash) / "complete").unlink(missing_ok=True)

    def drop_damaged(self, info_hash: str, torrent: Torrent, file: TorrentFile) -> bool:
        """Put the sound frame in the place of an artefact's damaged file, and say True. Where it is no
        better, neither stays, and the artefact has to be fetched again. Call it with `lock` held.
        """
        frame, path = self.frame_path(file.root), self._artefact(info_hash) / torrent.name / file.name
        try:
            self.read_checked(frame, file)
        except ArtefactError:
            self.distrust(info_hash)
            frame.unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            return False
        _link(frame, path)
        return True

    def finish_artefact(self, info_hash: str) -> None:
        """Say that every file of the artefact was written and verified by who fetched it.

        Raises ArtefactError if a file is not there in its full size.
        """
        torrent = self.read_torrent(info_hash)
        directory = self._artefact(info_hash) / torrent.name
        for file in torrent.files:
            path = directory / file.name
            if not path.is_file() or path.stat().st_size != file.size_bytes:
                raise ArtefactError(f"{path} is not whole", "start again: what is there is not fetched again")
            self.take_frame(path, file)
        with self.explain_full():
            sync_filesystem(self.path)
            (self._artefact(info_hash) / "complete").touch()

    def drop_drafts(self) -> None:
        """Remove what a process that was killed left half-made. Call it with the depot's lock held."""
        for draft in (self.path / "artefacts").glob(f"{_DRAFT_PREFIX}*"):
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def new_artefact(self) -> Iterator[ArtefactWriter]:
        """Write an artefact of one's own making, with `lock` held; it stays only if `finish` was reached."""
        with ExitStack() as stack:
            with self.explain_full():
                directory = stack.enter_context(scratch_folder(_DRAFT_PREFIX, self.path / "artefacts"))
            yield ArtefactWriter(self, directory)

    # Keeping it sound; `host.pruning` keeps it small

    def find_damage(self, artefact: Artefact, reporter: Reporter = ignore) -> list[str]:
        """Read an artefact through and say, a line each, which files do not have their hash."""
        torrent = self.read_torrent(artefact.info_hash)
        directory = self._artefact(artefact.info_hash) / torrent.name
        problems, done = [], 0
        for file in torrent.files:
            try:
                self.read_checked(directory / file.name, file)
            except ArtefactError as error:
                problems.append(str(error))
            done += file.size_bytes
            reporter(Progress(step=f"verify {artefact.kind}", done=done, total=torrent.size_bytes))
        return problems

    # Paths

    def _manifest_path(self, serial: int) -> Path:
        return self.path / "generations" / str(serial) / "manifest"

    def _artefact(self, info_hash: str) -> Path:
        return self.path / "artefacts" / info_hash

    def frame_path(self, root: bytes) -> Path:
        """Where the frame with that root is, if it is here."""
        name = root.hex()
        return self.path / "frames" / name[:2] / name

    def take_frame(self, path: Path, file: TorrentFile) -> None:
        """Keep a verified file as the frame that it is; a damaged frame of that name is mended in place,
        so that every artefact that has it is whole again.
        """
        frame = self.frame_path(file.root)
        with self.explain_full():
            if not frame.exists():
                frame.parent.mkdir(exist_ok=True)
                _link(path, frame)
            elif not frame.samefile(path) and hash_file_root(frame.read_bytes()) != file.root:
                frame.write_bytes(path.read_bytes())

    def link_frame(self, root: bytes, target: Path) -> None:
        """Give an artefact its frame."""
        _link(self.frame_path(root), target)

    @staticmethod
    def read_checked(path: Path, file: TorrentFile) -> bytes:
        """One file's bytes. Raises ArtefactError if they are not those that were signed."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ArtefactError(f"{path}: {error.strerror}", _AGAIN_HINT) from error
        if len(data) != file.size_bytes or hash_file_root(data) != file.root:
            raise ArtefactError(f"{path} does not have the bytes that were signed", _AGAIN_HINT)
        return data


def _link(source: Path, target: Path) -> None:
    if target.exists():
        if target.samefile(source):
            return
        target.unlink()
    os.link(source, target)
