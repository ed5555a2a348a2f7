"""The disk that a running system is on: in use, but its grubenv can be read and written."""

from __future__ import annotations

from pathlib import Path

from bladeroot.core.bootplan import GRUBENV
from bladeroot.errors import DiskError
from bladeroot.host.blockdev import OpenDisk
from bladeroot.host.esp import has_sound_grubenv
from bladeroot.host.loopdev import find_loops
from bladeroot.host.mounts import find_mounts

_SYS = Path("/sys")


def find_booted_disk(root: Path = Path("/")) -> OpenDisk:
    """The disk that has the filesystem mounted on `root`, not taken for this process: nothing of it may be
    written but grubenv. Raises DiskError where it is not one that bladeroot installed.
    """
    hint = "only a blade that bladeroot installed has it"
    sources = [mount for mount in find_mounts() if mount.target == root]
    if not sources:
        raise DiskError(f"nothing is mounted on {root}", hint)
    partition = _find_device(sources[-1].device, sources[-1].source)
    if partition is None or not (partition / "partition").exists():
        raise DiskError(f"{root} is on {sources[-1].source}, which is no partition of a disk", hint)
    disk = look_at_disk(Path("/dev") / partition.parent.name)
    if not has_sound_grubenv(disk):
        raise DiskError(f"{disk.device} has no {GRUBENV}", hint)
    return disk


def look_at_disk(path: Path) -> OpenDisk:
    """A whole disk, or a file that a loop device shows, whoever uses it; it is not taken for this process.

    Raises DiskError for anything else.
    """
    device = path.resolve()
    if device.is_file():
        device = next(iter(find_loops(device)), device)
    facts = _SYS / "class/block" / device.name
    if not device.is_block_device() or (facts / "partition").exists():
        raise DiskError(
            f"{path} is no disk that is in use", "name a disk, or a file that a loop device shows"
        )
    return OpenDisk(
        source=path,
        device=device,
        size_bytes=int((facts / "size").read_text()) * 512,
        sector_bytes=int((facts / "queue/logical_block_size").read_text()),
        is_read_only=(facts / "ro").read_text().strip() == "1",
    )


def _find_device(number: str, source: str) -> Path | None:
    """The device in sysfs; btrfs shows a number that no block device has, but the right source."""
    for path in (_SYS / "dev/block" / number, _SYS / "class/block" / Path(source).resolve().name):
        if path.exists():
            return path.resolve()
    return None
