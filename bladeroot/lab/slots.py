"""What is installed on blades' disks, compared bit by bit, from outside and while the blades are off."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from bladeroot.core.disklayout import LABELS
from bladeroot.core.manifest import ArtefactKind, Manifest
from bladeroot.errors import ClaimNotHeldError
from bladeroot.host.archive import list_plain
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.depot import Depot
from bladeroot.host.esp import read_boot_facts
from bladeroot.host.files import scratch_folder
from bladeroot.host.mounts import mounted
from bladeroot.host.run import run

IDENTITY = (
    "etc/bladeroot/installed.json",
    "etc/fstab",
    "etc/machine-id",
    "etc/ssh/ssh_host_*",
    "lost+found",
    "var/lib/dbus/machine-id",
    "var/lib/bladeroot/*",
)
"""What an install makes for each blade anew."""
WRITTEN_WHILE_UP = (
    "etc/.updated",
    "etc/resolv.conf",
    "var/.updated",
    "var/lib/nginx/*",
    "var/lib/systemd/*",
    "var/log/*",
    "var/tmp/systemd-private-*",
    "tmp/*",
)
"""What a running system writes, and nginx, which makes folders when it first starts."""
_COMPARE_TIMEOUT_S = 600.0
_ITEM = re.compile(r"(\*deleting|\S{11}) +(.+?)(?: -> .*| => .*)?")
_OTHER_TIME = ".d..t......"


@contextmanager
def looked_into(disk: Path) -> Iterator[Path]:
    """The slot that the disk of a blade that is off boots, mounted to be read. Raises ClaimNotHeldError."""
    with open_disk(disk) as opened, scratch_folder("bladeroot-slot-") as folder:
        slot, table = read_boot_facts(opened).slot, read_table(opened)
        parts = {part.name: part for part in table.partitions} if table else {}
        if slot is None or LABELS[slot] not in parts:
            raise ClaimNotHeldError(f"{disk} boots no slot")
        part = parts[LABELS[slot]]
        node = opened.partition(part.number)
        with mounted(node, folder / "slot", filesystem=part.filesystem, options=["ro"]) as tree:
            yield tree


def find_differences(a: Path, b: Path, own: Collection[str]) -> list[str]:
    """In what the trees differ, a line each as rsync(1) itemizes: contents, kinds, owners, modes, times to
    the nanosecond, hard links, ACLs and other extended attributes. `own` are patterns of paths that may
    differ, with all that is below them; the directories that those are in may have other times.
    """
    argv = ["rsync", "-aHAXn", "--numeric-ids", "--checksum", "--delete", "--modify-window=-1", "-i"]
    completed = run([*argv, f"{a}/", f"{b}/"], timeout_s=_COMPARE_TIMEOUT_S)
    return [line for line in completed.stdout.splitlines() if line and not may_differ(line, own)]


def may_differ(line: str, own: Collection[str]) -> bool:
    """Whether an item of rsync's is about what may differ."""
    match = _ITEM.fullmatch(line)
    if match is None:
        return False
    change, path = match[1], match[2].rstrip("/").removeprefix("./")
    if _is_any(path, own):
        return True
    return change == _OTHER_TIME and any(_holds(path, pattern) for pattern in own)


def list_overlay(depot: Depot, manifest: Manifest, blade: str) -> frozenset[str]:
    """The paths that the blade's overlay writes or deletes."""
    name = manifest.entry(blade).overlay
    return frozenset(list_plain(depot.read_file(manifest.artefact(ArtefactKind.OVERLAYS).info_hash, name)))


def count_compared(tree: Path, own: Collection[str]) -> int:
    """How many regular files of a tree may not differ."""
    literal = {pattern for pattern in own if "*" not in pattern}
    others = [pattern for pattern in own if "*" in pattern]
    count = 0
    for path in tree.rglob("*"):
        name = path.relative_to(tree)
        may = any(str(part) in literal for part in (name, *name.parents))
        count += not may and path.is_file() and not path.is_symlink() and not _is_any(str(name), others)
    return count


def _is_any(path: str, patterns: Collection[str]) -> bool:
    return any(_is_within(path, pattern) for pattern in patterns)


def _is_within(path: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(str(part), pattern) for part in (path, *PurePosixPath(path).parents))


def _holds(directory: str, pattern: str) -> bool:
    return directory == "." or PurePosixPath(directory) in PurePosixPath(pattern).parents
