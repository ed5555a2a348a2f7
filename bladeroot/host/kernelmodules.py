"""A kernel's modules in an OS tree: those that an installing machine may need, with all that they need."""

from __future__ import annotations

import gzip
import lzma
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import zstandard
from attrs import frozen

from bladeroot.host.kernels import resolve_inside
from bladeroot.host.run import run

_WANTED = re.compile(
    r"kernel/(?:"
    r"drivers/(?:ata|block|scsi|nvme|virtio|message|mmc|hv|xen|target/loopback|usb/(?:host|storage|core|common|dwc3)"
    r"|net|pci/controller|char/hw_random|rtc|ptp|pps|hid/(?:usbhid/|hid(?:-generic)?\.)|input/(?:keyboard|serio))"
    r"|net/packet/|fs/(?:ext4|jbd2|xfs|btrfs|fat|nls|efivarfs|mbcache)"
    r"|crypto/crc|arch/x86/crypto/(?:crc|sha|aesni)|lib/"
    r")"
)
"""What drives networks and disks, the filesystems of slots, and a keyboard for a person at the rack."""
_UNWANTED = re.compile(
    r"kernel/(?:drivers/(?:net/(?:wireless|wan|can|ieee802154|hamradio|arcnet|appletalk|plip|slip|wwan|fddi|ppp"
    r"|dsa|ipa|netdevsim|vxlan|wireguard|bonding|team|thunderbolt)|block/(?:drbd|rbd|rnbd|zram|null_blk|nbd)"
    r"|scsi/scsi_debug|nvme/target|mtd|target)|lib/(?:test|kunit)|.*test)"
)
_SUFFIXES = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")
_FIRMWARE = re.compile(rb"\0firmware=([^\0]+)\0")
_SOFT = re.compile(r"softdep\s+(\S+)\s+(.*)")
INDEX_FILES = ("modules.builtin", "modules.builtin.modinfo", "modules.order")
"""What depmod reads beside the modules."""


@frozen(kw_only=True)
class FoundModules:
    """The modules of one kernel: `folder` is its lib/modules/<release>, `paths` are inside of it."""

    release: str
    folder: Path
    paths: tuple[Path, ...]


def find_modules(snapshot: Path, release: str) -> FoundModules:
    """The modules that an installing machine may need; none where the snapshot has none of that kernel."""
    folder = resolve_inside(snapshot, f"lib/modules/{release}")
    if not (folder / "kernel").is_dir():
        return FoundModules(release=release, folder=folder, paths=())
    known = {_name(path): path for path in sorted(_list_modules(folder))}
    needs = _read_needs(folder, known)
    chosen: set[str] = set()
    pending = [name for name, path in known.items() if _is_wanted(path)]
    while pending:
        name = pending.pop()
        if name in known and name not in chosen:
            chosen.add(name)
            pending += needs.get(name, ())
    paths = tuple(sorted(folder / known[name] for name in chosen))
    return FoundModules(release=release, folder=folder, paths=paths)


def read_module(path: Path) -> bytes:
    """A module's bytes, uncompressed."""
    data = path.read_bytes()
    if path.suffix == ".xz":
        return lzma.decompress(data)
    if path.suffix == ".gz":
        return gzip.decompress(data)
    if path.suffix == ".zst":
        return zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data


def read_firmware_names(paths: Iterable[Path]) -> frozenset[str]:
    """The firmware files that modules say they may load, relative to lib/firmware."""
    return frozenset(
        found.decode(errors="replace") for path in paths for found in _FIRMWARE.findall(read_module(path))
    )


def name_of(path: Path) -> str:
    """A module's file without a suffix for its compression: `nvme.ko`."""
    return path.name.partition(".ko")[0] + ".ko"


def loads_compressed_modules() -> bool:
    """Whether this machine's kmod reads modules that zstd has compressed."""
    return "+ZSTD" in run(["modprobe", "--version"]).stdout


def _list_modules(folder: Path) -> Iterator[str]:
    """Thousands, so as text: where they are below the folder."""
    top = len(str(folder)) + 1
    for parent, _folders, names in os.walk(folder):
        yield from (f"{parent}/{name}"[top:] for name in names if name.endswith(_SUFFIXES))


def _is_wanted(path: str) -> bool:
    return bool(_WANTED.match(path)) and not _UNWANTED.match(path)


def _read_needs(folder: Path, known: Mapping[str, str]) -> dict[str, list[str]]:
    """What each module needs, hard and soft."""
    needs: dict[str, list[str]] = {}
    listed = folder / "modules.dep"
    if listed.is_file():
        for line in listed.read_text().splitlines():
            listed_path, _, needed = line.partition(":")
            needs[_name(listed_path)] = [_name(item) for item in needed.split()]
    else:  # a kernel package that was only unpacked
        for name, path in known.items():
            match = _DEPENDS.search(read_module(folder / path))
            needs[name] = [_plain(item) for item in match.group(1).decode().split(",")] if match else []
    soft = folder / "modules.softdep"
    for line in soft.read_text().splitlines() if soft.is_file() else ():
        match_soft = _SOFT.match(line)
        if match_soft:
            wanted = [word for word in match_soft[2].split() if not word.endswith(":")]
            needs.setdefault(_plain(match_soft[1]), []).extend(_plain(word) for word in wanted)
    return needs


def _name(path: str) -> str:
    return _plain(path.rpartition("/")[2].partition(".ko")[0])


def _plain(name: str) -> str:
    return name.replace("-", "_")


def index_modules(root: Path, release: str) -> None:
    """Make the indices that modprobe reads (modules.dep, modules.alias, …) for lib/modules/<release>."""
    run(["depmod", "-b", root, release])
