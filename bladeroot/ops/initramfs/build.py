"""Put the initramfs together from its archives, each out of the cache where nothing has changed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import zstandard
from attrs import frozen

import bladeroot
from bladeroot.core import cpio
from bladeroot.core.cpio import Entry, render_cpio
from bladeroot.errors import NoRoomError
from bladeroot.events import Reporter, Warned, ignore
from bladeroot.host import kernelmodules
from bladeroot.host.cache import default_cache_directory
from bladeroot.host.files import write_atomically
from bladeroot.host.kernelmodules import FoundModules, find_modules, read_firmware_names
from bladeroot.host.kernels import find_kernel_images, resolve_inside
from bladeroot.ops.initramfs.modules import make_module_entries
from bladeroot.ops.initramfs.site import make_site_entries
from bladeroot.ops.initramfs.userland import Userland, find_userland, make_userland_entries

_LEVEL = 10
"""Of zstd: 3 is a fifth larger, 19 takes a minute more for a tenth less."""
_Stamp = tuple[str, int, int, int, int]
"""A file's path, inode, size, and times of modification and of change."""


@frozen(kw_only=True)
class AgentInfo:
    """What an agent is made of: the file `info` of its artefact."""

    kernel_release: str
    bladeroot_version: str
    modules: int


@frozen(kw_only=True)
class AgentFiles:
    """The agent: a kernel, and the initramfs that goes with it."""

    kernel: bytes
    archives: tuple[bytes, ...]
    """The initramfs, when laid end to end; what is the cluster's comes last."""
    raw_size_bytes: int
    info: AgentInfo


@frozen
class _Archive:
    compressed: bytes
    raw_size_bytes: int


@frozen(kw_only=True)
class AgentPlan:
    """What an agent would be made of."""

    snapshot: Path
    release: str
    image: Path
    modules: FoundModules
    userland: Userland
    site: bytes

    @property
    def fingerprint(self) -> str:
        """What changes whenever the agent would: of files their names, sizes and times."""
        told = [_stamp_builder(), *self.userland.fingerprint(), *self._modules_key(), _stamp(self.image)]
        told += [bladeroot.__version__, hashlib.sha256(self.site).hexdigest()]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def build(self) -> AgentFiles:
        """The agent; its archives come out of the cache where nothing has changed."""
        modules = self.modules
        archives = (
            _take_from_cache(
                "userland", self.userland.fingerprint(), lambda: make_userland_entries(self.userland)
            ),
            _take_from_cache(
                "modules",
                self._modules_key(),
                lambda: make_module_entries(self.snapshot, modules, read_firmware_names(modules.paths)),
            ),
        )
        return AgentFiles(
            kernel=self.image.read_bytes(),
            archives=(*(archive.compressed for archive in archives), self.site),
            raw_size_bytes=sum(archive.raw_size_bytes for archive in archives) + len(self.site),
            info=AgentInfo(
                kernel_release=self.release,
                bladeroot_version=bladeroot.__version__,
                modules=len(modules.paths),
            ),
        )

    def _modules_key(self) -> list[Any]:
        indexes = [self.modules.folder / name for name in kernelmodules.INDEX_FILES]
        paths = [*self.modules.paths, *(path for path in indexes if path.exists())]
        return [self.release, [_stamp(path) for path in paths], _stamp_firmware(self.snapshot)]


def plan_agent(
    snapshot: Path, cluster_toml: str, trusted_keys: dict[str, bytes], reporter: Reporter = ignore
) -> AgentPlan | None:
    """The agent for machines that run this snapshot; None for a snapshot without a kernel.

    Raises MissingToolError for a program that is not on this machine, SnapshotError.
    """
    images = find_kernel_images(snapshot)
    if not images:
        reporter(Warned(text=f"{snapshot} has no kernel: machines cannot be installed over the network"))
        return None
    (release, image), modules = _choose_kernel(snapshot, images)
    if not modules.paths:
        told = f"{snapshot} has no modules of its kernel {image.name}"
        reporter(Warned(text=f"{told}: the agent has only the drivers that are built in"))
    return AgentPlan(
        snapshot=snapshot,
        release=release,
        image=image,
        modules=modules,
        userland=find_userland(reporter),
        site=b"".join(render_cpio(make_site_entries(cluster_toml, trusted_keys))),
    )


def _choose_kernel(snapshot: Path, images: list[tuple[str, Path]]) -> tuple[tuple[str, Path], FoundModules]:
    """The newest kernel that has its modules, else the newest."""
    found = [(image, find_modules(snapshot, image[0])) for image in images]
    return next((one for one in found if one[1].paths), found[0])


def _stamp(path: Path) -> _Stamp:
    """By the time of change too, which nobody can set: a file may be replaced by one as old and as long."""
    status = path.lstat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _stamp_firmware(snapshot: Path) -> list[_Stamp]:
    """Of all, chosen or not: to know what the modules name they would have to be read."""
    return [_stamp(path) for path in sorted(resolve_inside(snapshot, "lib/firmware").rglob("*"))]


def _stamp_builder() -> list[_Stamp]:
    """Of the code that decides what is in an archive."""
    sources = [*Path(__file__).parent.glob("*.py"), Path(cpio.__file__), Path(kernelmodules.__file__)]
    return [_stamp(path) for path in sorted(sources)]


def _take_from_cache(name: str, key: Any, make: Callable[[], Iterable[Entry]]) -> _Archive:
    """The archive, compressed; made only where none of the same `key` is in the cache."""
    told = json.dumps([_stamp_builder(), platform.machine(), key]).encode()
    path = default_cache_directory() / "agent" / f"{name}-{hashlib.sha256(told).hexdigest()[:24]}.cpio.zst"
    kept = _read_kept(path)
    if kept is not None:
        return kept
    raw = b"".join(render_cpio(make()))
    # The kernel takes frames with a window of up to 8 MiB (lib/decompress_unzstd.c), which level 10 keeps to.
    compressed = zstandard.ZstdCompressor(level=_LEVEL, threads=-1, write_checksum=True).compress(raw)
    # Padded, so that what comes behind it begins where the kernel looks for it: at a multiple of four.
    compressed += bytes(-len(compressed) % 4)
    _keep(path, compressed)
    return _Archive(compressed, len(raw))


def _read_kept(path: Path) -> _Archive | None:
    """What is in the cache, if it is whole."""
    try:
        compressed = path.read_bytes()
        os.utime(path)
        reader = zstandard.ZstdDecompressor().decompressobj()
        raw_size_bytes = len(reader.decompress(compressed))
    except (OSError, zstandard.ZstdError):
        return None
    return _Archive(compressed, raw_size_bytes) if reader.eof else None


def _keep(path: Path, compressed: bytes) -> None:
    """Put it into the cache; where that cannot be written to, the next time takes as long as this."""
    with contextlib.suppress(OSError, NoRoomError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, compressed)
        _drop_old(path)


def _drop_old(newest: Path, most: int = 8) -> None:
    """A cache of a few: the archives of one kind that were used last."""
    kind = newest.name.partition("-")[0]
    found = sorted(
        newest.parent.glob(f"{kind}-*.cpio.zst"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    for path in found[most:]:
        path.unlink(missing_ok=True)
