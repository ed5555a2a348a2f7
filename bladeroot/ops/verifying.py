"""A depot is read through in the background, slowly: what has rotted is found before a blade needs it.

What is damaged is taken out at once and passed off for whole no more; whoever has a source fetches it again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import define, field

from bladeroot.core.manifest import Artefact
from bladeroot.core.torrentfile import Torrent, TorrentFile
from bladeroot.errors import ArtefactError, BladerootError, DepotError, InterruptedByUserError
from bladeroot.events import Note, Reporter, Warned, ignore
from bladeroot.host.depot import Depot
from bladeroot.ops.sources import Source, fetch_artefact

RATE_BYTES_S = 8_000_000
"""The most that is read in a second, on average: less than a disk's work notices."""
REST_S = 24 * 3600.0
"""Between two passes."""
_LOCKED_PAUSE_S = 10.0
_LOCKED_TRIES = 60
_HINT = "if there is more and more of this, the disk is dying: see `dmesg`"

Pause = Callable[[float], bool]
"""Waits for so many seconds, and is True as soon as it is time to stop: `threading.Event.wait`."""
_Bytes = tuple[int, int, bytes]
"""Device, inode and root of a file."""


def find_lost(depot: Depot) -> list[Artefact]:
    """The artefacts of the depot's generations that are not whole, newest first: to be fetched again."""
    return [artefact for artefact in _list_artefacts(depot, ignore) if not depot.has(artefact.info_hash)]


def fetch_lost(depot: Depot, source: Source, reporter: Reporter = ignore) -> list[Artefact]:
    """Fetch again what is not whole. Returns what could not be had; that is told, and the rest goes on.

    A swarm that gives such an artefact has to leave it first: it would go on with the files that are gone.
    """
    left = []
    for artefact in find_lost(depot):
        try:
            fetch_artefact(source, depot, artefact)
        except InterruptedByUserError:
            raise
        except BladerootError as error:
            reporter(Warned(text=f"{_name(artefact)} is still not whole: {error}", hint=error.hint))
            left.append(artefact)
        else:
            reporter(Note(text=f"{_name(artefact)} is whole again"))
    return left


@define(kw_only=True)
class DepotVerifier:
    """Reads all that the depot holds, file after file, each frame once in a pass.

    `on_lost` is told of an artefact as soon as it is known not to be whole; afterwards `find_lost` says so.
    """

    depot: Depot
    pause: Pause
    reporter: Reporter = ignore
    on_lost: Callable[[Artefact], None] = lambda _artefact: None
    _sound: set[_Bytes] = field(factory=set, init=False)
    """What was read in this pass and is as it should be."""

    def run(self) -> None:
        """Pass after pass, until it is time to stop."""
        while self.verify() and not self.pause(REST_S):
            pass

    def verify(self) -> bool:
        """One pass; False if it was stopped."""
        self._sound.clear()
        return not any(self.pause(rest_s) for rest_s in self._read_all())

    def _read_all(self) -> Iterator[float]:
        """After each file, how long to rest."""
        for artefact in _list_artefacts(self.depot, self.reporter):
            if self.depot.has(artefact.info_hash):
                yield from self._read_artefact(artefact)

    def _read_artefact(self, artefact: Artefact) -> Iterator[float]:
        damage = _Damage(artefact)
        try:
            damage.torrent = torrent = self.depot.read_torrent(artefact.info_hash)
        except (ArtefactError, DepotError, OSError) as error:
            damage.problems.append(str(error))
            yield from self._take_out(damage)
            return
        for file in torrent.files:
            path = self.depot.save_path(artefact.info_hash) / torrent.name / file.name
            read = _identify(path, file)
            if read in self._sound:
                continue
            try:
                self.depot.read_checked(path, file)
                if read is not None:
                    self._sound.add(read)
            except ArtefactError as error:
                damage.files.append(file)
                damage.problems.append(str(error))
            yield file.size_bytes / RATE_BYTES_S
        if damage.problems:
            yield from self._take_out(damage)

    def _take_out(self, damage: _Damage) -> Iterator[float]:
        """Wait until nobody else changes the depot, and then take out of it what is damaged."""
        for _try in range(_LOCKED_TRIES):
            try:
                with self.depot.lock():
                    is_lost = self._take_out_now(damage)
            except DepotError:
                yield _LOCKED_PAUSE_S
                continue
            except OSError as error:
                self._warn(damage, f"it cannot be taken out of the depot: {error.strerror}")
                is_lost = not self.depot.has(damage.artefact.info_hash)
            if is_lost:
                self.on_lost(damage.artefact)
            return
        self._warn(damage, "it was left there, since something else keeps on changing the depot")

    def _take_out_now(self, damage: _Damage) -> bool:
        """Whether the artefact is not whole any more."""
        if damage.artefact not in _list_artefacts(self.depot, ignore):
            return False  # it was dropped while it was read
        is_whole = damage.take_out_of(self.depot)
        self._warn(damage, "mended with the depot's own frames" if is_whole else "it has to be fetched again")
        return not is_whole

    def _warn(self, damage: _Damage, what: str) -> None:
        self.reporter(Warned(text=f"{damage}: {what}", hint=_HINT))


@define
class _Damage:
    """What is wrong with an artefact."""

    artefact: Artefact
    torrent: Torrent | None = None
    """None where that itself is damaged."""
    files: list[TorrentFile] = field(factory=list)
    problems: list[str] = field(factory=list)

    def __str__(self) -> str:
        more = f" (and {len(self.problems) - 1} more files)" if len(self.problems) > 1 else ""
        return f"{_name(self.artefact)} is damaged: {self.problems[0]}{more}"

    def take_out_of(self, depot: Depot) -> bool:
        """True if the depot had all of it a second time, and the artefact is whole."""
        info_hash, torrent = self.artefact.info_hash, self.torrent
        if torrent is None:
            depot.distrust(info_hash)
            return False
        mended = [depot.drop_damaged(info_hash, torrent, file) for file in self.files]
        return all(mended)


def _list_artefacts(depot: Depot, reporter: Reporter) -> list[Artefact]:
    """Of all generations, the newest first, each once."""
    found: dict[Artefact, None] = {}
    for serial in reversed(depot.serials()):
        try:
            _signed, manifest = depot.read_unchecked(serial)
        except (DepotError, OSError) as error:
            if serial in depot.serials():  # or else it was dropped just now
                text = f"the manifest of generation {serial} cannot be read: {error}"
                reporter(Warned(text=text, hint=getattr(error, "hint", _HINT)))
            continue
        found |= dict.fromkeys(manifest.artefacts)
    return list(found)


def _identify(path: Path, file: TorrentFile) -> _Bytes | None:
    """What hard links share, and what it has to be; None where there is nothing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, file.root


def _name(artefact: Artefact) -> str:
    return f"{artefact.kind} {artefact.info_hash[:16]}"
