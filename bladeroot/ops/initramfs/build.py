"""Put the initramfs together from its archives, each out of the cache where nothing has changed."""

from __future__ import annotations

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
from bladeroot.core.cpio import Entry, render_cpio
from bladeroot.events import Note, Reporter, Warned, ignore
from bladeroot.host.cache import default_cache_directory
from bladeroot.host.files import write_atomically
from bladeroot.host.kernelmodules import find_modules, read_firmware_names
from bladeroot.host.kernels import find_kernel_images
from bladeroot.ops.initramfs.modules import make_module_entries
from bladeroot.ops.initramfs.site import make_site_entries
from bladeroot.ops.initramfs.userland import find_userland, make_userland_entries

_LEVEL = 10
"""Of zstd: 3 is a fifth larger, 19 takes a minute more for a tenth less."""
_CACHE_FORMAT = 1


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
    initramfs: bytes
    raw_size_bytes: int
    info: AgentInfo


@frozen
class _Archive:
    compressed: bytes
    raw_size_bytes: int


def build_agent(
    snapshot: Path, cluster_toml: str, trusted_keys: dict[str, bytes], reporter: Reporter = ignore
) -> AgentFiles | None:
    """The agent for machines that run this snapshot; None for a snapshot without a kernel.

    Raises MissingToolError for a program that is not on this machine, SnapshotError.
    """
    images = find_kernel_images(snapshot)
    if not images:
        reporter(Warned(text=f"{snapshot} has no kernel: machines cannot be installed over the network"))
        return None
    release, image = images[0]
    modules = find_modules(snapshot, release)
    if not modules.paths:
        reporter(Note(text=f"the agent has no modules: there are none of kernel {release} in {snapshot}"))
    userland = find_userland(reporter)
    archives = (
        _take_from_cache("userland", userland.fingerprint(), lambda: make_userland_entries(userland)),
        _take_from_cache(
            "modules",
            [release, [_stamp(path) for path in modules.paths]],
            lambda: make_module_entries(snapshot, modules, read_firmware_names(modules.paths)),
        ),
    )
    site = b"".join(render_cpio(make_site_entries(cluster_toml, trusted_keys)))
    return AgentFiles(
        kernel=image.read_bytes(),
        initramfs=b"".join(archive.compressed for archive in archives) + site,
        raw_size_bytes=sum(archive.raw_size_bytes for archive in archives) + len(site),
        info=AgentInfo(
            kernel_release=release, bladeroot_version=bladeroot.__version__, modules=len(modules.paths)
        ),
    )


def _stamp(path: Path) -> tuple[str, int, int]:
    status = path.stat()
    return path.name, status.st_size, status.st_mtime_ns


def _take_from_cache(name: str, key: Any, make: Callable[[], Iterable[Entry]]) -> _Archive:
    """The archive, compressed; made only where none of the same `key` is in the cache."""
    told = json.dumps([_CACHE_FORMAT, _LEVEL, platform.machine(), key], default=str).encode()
    path = default_cache_directory() / "agent" / f"{name}-{hashlib.sha256(told).hexdigest()[:24]}.cpio.zst"
    if path.is_file():
        compressed = path.read_bytes()
        raw_size_bytes = zstandard.get_frame_parameters(compressed).content_size
        path.touch()
        return _Archive(compressed, raw_size_bytes)
    raw = b"".join(render_cpio(make()))
    # The kernel takes frames with a window of up to 8 MiB (lib/decompress_unzstd.c), which level 10 keeps to.
    compressed = zstandard.ZstdCompressor(level=_LEVEL, threads=-1).compress(raw)
    # Padded, so that what comes behind it begins where the kernel looks for it: at a multiple of four.
    compressed += bytes(-len(compressed) % 4)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, compressed)
    _drop_old(path)
    return _Archive(compressed, len(raw))


def _drop_old(newest: Path, most: int = 8) -> None:
    """A cache of a few: the archives of one kind that were used last."""
    kind = newest.name.partition("-")[0]
    found = sorted(newest.parent.glob(f"{kind}-*.cpio.zst"), key=os.path.getmtime, reverse=True)
    for path in found[most:]:
        path.unlink(missing_ok=True)
