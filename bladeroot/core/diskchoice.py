"""Which disk: one that a rule fits, by facts that do not change with the order of probing. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from attrs import frozen

from bladeroot.core.cluster import DiskRule
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskChoiceError


@frozen(kw_only=True)
class Disk:
    """A whole disk as it was found. What the machine does not tell is None or empty."""

    path: Path
    size_bytes: int
    sector_bytes: int = 512
    serial: str | None = None
    wwn: str | None = None
    by_id: tuple[str, ...] = ()
    """Names as in /dev/disk/by-id, without the directory."""
    model: str | None = None
    rotational: bool | None = None
    transport: str | None = None
    read_only: bool = False
    in_use_by: tuple[str, ...] = ()
    """Why it must not be written: mount points, swap, what holds it."""


def choose_disk(rule: DiskRule, disks: Sequence[Disk]) -> Disk:
    """The one disk that the rule fits. Raises DiskChoiceError for none or several, with what was seen.

    That a disk is in use does not count here: the choice depends on what does not change.
    """
    misfits = {disk.path: find_misfits(rule, disk) for disk in disks}
    fitting = [disk for disk in disks if not misfits[disk.path]]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        seen = "; ".join(describe_disk(disk) for disk in fitting)
        raise DiskChoiceError(
            f"disk rule {rule.name!r} fits {len(fitting)} disks: {seen}",
            "add a fact to the rule that only the right one has (serial, by_id, wwn, size)",
        )
    if not disks:
        raise DiskChoiceError(
            f"disk rule {rule.name!r}: this machine shows no disk at all",
            "is the controller's driver in the kernel, or its module in the initramfs?",
        )
    seen = "; ".join(f"{describe_disk(disk)}: {', '.join(misfits[disk.path])}" for disk in disks)
    raise DiskChoiceError(f"disk rule {rule.name!r} fits no disk: {seen}", "correct the rule in cluster.toml")


def find_misfits(rule: DiskRule, disk: Disk) -> list[str]:
    """Why the rule does not fit a disk, a reason a fact; empty if it fits."""
    reasons: list[str] = []
    if disk.read_only:
        reasons.append("read-only")
    for what, wanted, found in (
        ("serial", rule.serial, disk.serial),
        ("wwn", rule.wwn and _plain_wwn(rule.wwn), disk.wwn and _plain_wwn(disk.wwn)),
        ("rotational", rule.rotational, disk.rotational),
        ("transport", rule.transport, disk.transport),
    ):
        if wanted is not None and wanted != found:
            reasons.append(f"{what} is {_shown(found)}, not {_shown(wanted)}")
    if rule.model is not None and not fnmatchcase(disk.model or "", rule.model):
        reasons.append(f"model is {_shown(disk.model)}, not {rule.model}")
    if rule.by_id is not None:
        pattern = rule.by_id.removeprefix("/dev/disk/by-id/")
        if not any(fnmatchcase(name, pattern) for name in disk.by_id):
            reasons.append(f"by-id is {', '.join(disk.by_id) or 'unknown'}, not {pattern}")
    if rule.min_size_bytes is not None and disk.size_bytes < rule.min_size_bytes:
        reasons.append(f"smaller than {render_about(rule.min_size_bytes)}")
    if rule.max_size_bytes is not None and disk.size_bytes > rule.max_size_bytes:
        reasons.append(f"larger than {render_about(rule.max_size_bytes)}")
    return reasons


def describe_disk(disk: Disk) -> str:
    """What tells the disk from others, in a line."""
    facts = [render_about(disk.size_bytes), disk.model, disk.serial and f"serial {disk.serial}"]
    facts += [disk.wwn and f"wwn {disk.wwn}", disk.transport]
    if disk.in_use_by:
        facts.append(f"in use: {', '.join(disk.in_use_by)}")
    return f"{disk.path} ({', '.join(fact for fact in facts if fact)})"


def _plain_wwn(wwn: str) -> str:
    """The digits: tools write a WWN as `0x…`, `naa.…`, `eui.…`, or bare."""
    lowered = wwn.lower()
    for prefix in ("0x", "naa.", "eui.", "uuid.", "t10."):
        lowered = lowered.removeprefix(prefix)
    return lowered


def _shown(value: str | bool | None) -> str:
    if value is None:
        return "unknown"
    return ("yes" if value else "no") if isinstance(value, bool) else value
