"""Disks: found, opened, cut and formatted.

A disk is a block device or a regular file; the file gets a loop device while it is open. Kernels without
EFI partition support do not see a GPT by themselves, so partition nodes are always made with partx.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
import uuid as uuid_module
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from bladeroot.core.cluster import MIB
from bladeroot.core.disklayout import (
    DiskPlan,
    ExistingPartition,
    ExistingTable,
    Partition,
    Use,
    make_partition_path,
    render_mkfs,
    render_sfdisk,
)
from bladeroot.errors import DiskBusyError, DiskError
from bladeroot.host.finddisks import find_disk_users, find_disks, is_swap
from bladeroot.host.interrupts import uninterrupted
from bladeroot.host.loopdev import attached_loop, find_loops
from bladeroot.host.run import require_root, run

__all__ = [
    "OpenDisk",
    "apply_partitions",
    "find_disks",
    "format_partition",
    "open_disk",
    "read_table",
]

_NODE_DEADLINE_S = 15.0
_NODE_PAUSE_S = 0.02
_EXTENDED_TYPES = ("0x5", "0xf", "0x85")
"""MBR partitions that only hold others."""
_BOOT_CODE_BYTES = 440
"""Of sector 0; behind it are the disk signature and the protective MBR's table, which stay."""
_NEXT_DEVICE = b"\xcd\x18\xf4\xeb\xfd"
"""int 18h, by which a boot sector gives the machine back (BIOS Boot Specification 1.01, 6.1); then halt."""


@frozen(kw_only=True)
class OpenDisk:
    """A disk that is ours while the `with` block of `open_disk` lasts. `source` is what was asked for."""

    source: Path
    device: Path
    size_bytes: int
    sector_bytes: int
    is_read_only: bool = False

    def partition(self, number: int) -> Path:
        """The device node of a partition."""
        return make_partition_path(self.device, number)


@contextmanager
def open_disk(path: Path, *, read_only: bool = False) -> Iterator[OpenDisk]:
    """Take a whole disk (or a file that is one) for the length of the block.

    Raises DiskBusyError where anything of it is in use, DiskError where it is not a disk.
    """
    require_root("opening a disk")
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}", "name a disk, or a file that is a disk") from error
    if not stat.S_ISBLK(mode) and not stat.S_ISREG(mode):
        raise DiskError(f"{path} is neither a block device nor a file", "name a disk, or a file that is one")
    with ExitStack() as stack:
        if stat.S_ISBLK(mode):
            _check_whole_and_idle(real)
        stack.enter_context(_locked(real, path))
        if stat.S_ISREG(mode):
            device = stack.enter_context(_attached(real, read_only=read_only))
        else:
            device = real
            _check_unclaimed(device)
        _sync_partitions(device)
        name = Path("/sys/class/block") / device.name
        yield OpenDisk(
            source=path,
            device=device,
            size_bytes=int((name / "size").read_text()) * 512,
            sector_bytes=int((name / "queue/logical_block_size").read_text()),
            is_read_only=(name / "ro").read_text().strip() == "1",
        )


def read_table(disk: OpenDisk) -> ExistingTable | None:
    """The partition table that is on the disk, with the filesystems in it; None for a disk without one."""
    completed = run(["sfdisk", "--json", disk.device], check=False)
    if completed.code != 0:
        return None
    table = json.loads(completed.stdout)["partitiontable"]
    prefix = make_partition_path(disk.device, 0).name[:-1]
    found = []
    for entry in table.get("partitions", ()):
        number = int(Path(entry["node"]).name.removeprefix(prefix))
        facts = _probe_filesystem(disk.partition(number))
        found.append(
            ExistingPartition(
                number=number,
                start_sector=int(entry["start"]),
                sectors=int(entry["size"]),
                type_guid=str(entry.get("type", "")),
                name=str(entry.get("name", "")),
                uuid=str(entry.get("uuid", "")),
                filesystem=facts.get("TYPE"),
                label=facts.get("LABEL"),
                filesystem_uuid=facts.get("UUID"),
            )
        )
    return ExistingTable(kind=str(table["label"]), partitions=tuple(found))


def apply_partitions(disk: OpenDisk, plan: DiskPlan) -> None:
    """Cut the disk as planned, and make the partitions' nodes. A table that matches already is left alone.

    What is not kept loses its old signatures, so that nothing finds a filesystem that is no longer meant.
    """
    if not plan.table_matches:
        has_new_esp = not plan.partition(Use.ESP).keep
        if has_new_esp:
            pass_boot_on(disk)
        # Wiping removes the old table first: a power cut then would lose what is to be kept.
        wipe = "never" if any(partition.keep for partition in plan.partitions) else "always"
        argv = ["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel"]
        argv += ["--wipe", wipe, "--wipe-partitions", "never"]
        run([*argv, disk.device], stdin=render_sfdisk(plan))
        if has_new_esp:
            pass_boot_on(disk)  # sfdisk has wiped that, too
    _sync_partitions(disk.device)
    for partition in plan.partitions:
        node = disk.partition(partition.number)
        if not plan.table_matches and not partition.keep:
            run(["wipefs", "--all", "--quiet", node])


def format_partition(disk: OpenDisk, plan: DiskPlan, partition: Partition) -> str:
    """Make the partition's filesystem, with a new UUID, which is returned. A kept one is only looked at."""
    if partition.keep and partition.filesystem_uuid:
        return partition.filesystem_uuid
    fresh = uuid_module.uuid4()
    is_fat = partition.filesystem == "vfat"
    short = fresh.hex[:8].upper()
    uuid = f"{short[:4]}-{short[4:]}" if is_fat else str(fresh)
    # FAT32 starts at 65,525 clusters, of at least a sector each (Microsoft's FAT specification, 3.5).
    small_esp = plan.size_bytes(partition) < 65_525 * plan.sector_bytes + 2 * MIB
    node = disk.partition(partition.number)
    run(render_mkfs(partition, node, uuid, small_esp=small_esp))
    sync_device(node)
    return uuid


def pass_boot_on(disk: OpenDisk) -> None:
    """Have sector 0 tell the BIOS to go on to the next device: what is there now would start a loader that is
    about to go, and zeros would hang the machine.
    """
    descriptor = os.open(disk.device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, _NEXT_DEVICE.ljust(_BOOT_CODE_BYTES, b"\0"), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_device(node: Path) -> None:
    """Make what was written to a device by its node last."""
    descriptor = os.open(node, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(real: Path, shown: Path) -> Iterator[None]:
    """One installer a disk; udev too leaves a locked device alone (systemd: Locking Block Device Access)."""
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise DiskError(f"{shown}: {error.strerror}", _explain_open(error)) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DiskBusyError(
                f"{shown} is being installed on, or probed, by another process",
                f"see who: fuser -v {shown}",
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _attached(file: Path, *, read_only: bool) -> Iterator[Path]:
    """A loop device for the file, which must not be in use otherwise."""
    for device in find_loops(file):
        hint = f"unmount what is on it, then: losetup -d {device}"
        raise DiskBusyError(f"{file} is in use as {describe_loop(device)}", hint)
    if is_swap(file):
        raise DiskBusyError(f"{file} is swap", f"swapoff {file}")
    size_bytes = file.stat().st_size
    if size_bytes < MIB or size_bytes % 512:
        raise DiskError(f"{file} has {size_bytes} bytes: not a disk", f"make it: truncate -s 20G {file}")
    with attached_loop(file, read_only=read_only) as device:
        try:
            yield device
        finally:
            with uninterrupted():
                run(["partx", "--delete", device], check=False)


def describe_loop(device: Path) -> str:
    """A loop device, and what uses it."""
    users = find_disk_users(device.name)
    return f"{device} ({', '.join(users)})" if users else str(device)


def _check_whole_and_idle(device: Path) -> None:
    facts = Path("/sys/class/block") / device.name
    if (facts / "partition").exists():
        raise DiskError(
            f"{device} is a partition, not a disk", f"name the disk: {facts.resolve().parent.name}"
        )
    users = find_disk_users(device.name)
    if users:
        raise DiskBusyError(f"{device} is in use: {', '.join(users)}", "free it first, or name another disk")


def _check_unclaimed(device: Path) -> None:
    try:
        # The kernel refuses this while any of its partitions is claimed, in whatever mount namespace.
        os.close(os.open(device, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise DiskBusyError(
                f"{device} is in use by something that this process cannot see",
                "free it first, or name another disk",
            ) from error
        raise DiskError(f"{device}: {error.strerror}", _explain_open(error)) from error


def _explain_open(error: OSError) -> str:
    """What to do where a disk cannot be opened."""
    hints = {
        errno.ENOMEDIUM: "there is no medium in it: name a disk",
        errno.ENXIO: "nothing is attached there: name a disk",
        errno.EPERM: "a container's rules keep it from root: name another disk",
        errno.EACCES: "run it as root, or with sudo",
        errno.EROFS: "it is read-only",
    }
    return hints.get(error.errno or 0, "see `dmesg`")


def _sync_partitions(device: Path) -> None:
    """Make the kernel's partitions what the table says. A disk without a table has none.

    Not by `partx --update`: where partitions moved over each other it leaves some out, and says all is well.
    """
    wanted = _list_wanted(device)
    if _list_known(device, wanted) == wanted:
        return
    run(["partx", "--delete", device], check=False)
    if wanted:
        run(["partx", "--add", device], check=False)
    if _list_known(device, wanted) != wanted:
        raise DiskError(f"{device}: the kernel does not take its partition table", "see `dmesg`")
    for number in wanted:
        _wait_for_node(make_partition_path(device, number))


def _list_wanted(device: Path) -> dict[int, tuple[int, int]]:
    """Number -> start and size of each partition in the table, in units of 512 bytes."""
    argv = ["partx", "--raw", "--noheadings", "--output", "NR,START,SECTORS,TYPE", str(device)]
    rows = [line.split() for line in run(argv, check=False).stdout.splitlines()]
    return {
        int(number): (int(start), 0 if kind in _EXTENDED_TYPES else int(sectors))
        for number, start, sectors, kind in rows
    }


def _list_known(device: Path, wanted: dict[int, tuple[int, int]]) -> dict[int, tuple[int, int]]:
    """The same as the kernel knows it, which gives extended partitions a size of its own."""
    known = {}
    for facts in (Path("/sys/class/block") / device.name).glob(f"{device.name}*/partition"):
        number = int(facts.read_text())
        start, sectors = (int((facts.parent / name).read_text()) for name in ("start", "size"))
        known[number] = (start, 0 if wanted.get(number) == (start, 0) else sectors)
    return known


def _wait_for_node(node: Path) -> None:
    deadline = time.monotonic() + _NODE_DEADLINE_S
    while not node.is_block_device():
        if time.monotonic() > deadline:
            raise DiskError(f"the kernel made no device node {node}", "see `dmesg` and `partx --show`")
        time.sleep(_NODE_PAUSE_S)


def _probe_filesystem(node: Path) -> dict[str, str]:
    if not node.is_block_device():
        return {}
    completed = run(["blkid", "--probe", "--output", "export", node], check=False)
    pairs = (line.partition("=") for line in completed.stdout.splitlines())
    return {key: value.replace("\\ ", " ") for key, _, value in pairs}
