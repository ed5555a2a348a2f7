"""The agent's kernel and initramfs on a disk's ESP, for GRUB to start without any network.

There are two sets of names. A new agent is written under the one that is not in use, and `agent.cfg` then
changes over to it: a power cut leaves the old agent or the new one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bladeroot.core.bootplan import (
    AGENT_CFG,
    GRUB_FOLDER,
    NEW_SUFFIX,
    parse_agent_cfg,
    render_agent_cfg,
)
from bladeroot.core.sizes import render_about
from bladeroot.errors import DiskTooSmallError
from bladeroot.host.blockdev import OpenDisk
from bladeroot.host.efiloaders import park_loaders
from bladeroot.host.esp import (
    copy_to_esp,
    is_on_esp,
    read_boot_facts,
    read_esp_file,
    read_esp_room,
    remove_esp_file,
    write_esp_file,
)

_SETS = (("agent-vmlinuz", "agent-initramfs"), ("agent2-vmlinuz", "agent2-initramfs"))
_SLACK_BYTES = 1 << 20
"""Directories, FAT clusters that files do not fill, and the small files beside."""


def find_agent(disk: OpenDisk) -> tuple[str, str] | None:
    """Where on the ESP the agent's kernel and initramfs are that GRUB starts; None where it has none."""
    names = _read_names(disk)
    return (f"{GRUB_FOLDER}/{names[0]}", f"{GRUB_FOLDER}/{names[1]}") if names else None


def write_agent(
    disk: OpenDisk, kernel: Sequence[Path], initramfs: Sequence[Path], kernel_command_line: str
) -> None:
    """Let this be the agent on the ESP; both files are given as parts, to be laid one behind the other.

    Nothing is copied that is there. Where there is no room for two agents the old one goes first. Raises
    DiskTooSmallError where there is no room for one, ConfigError for a kernel command line with open quotes.
    """
    current = _read_names(disk)
    if current is None or not _holds(disk, current, kernel, initramfs):
        other = next(names for names in _SETS if names != current)
        current = _write_beside(disk, other, kernel, initramfs)
    write_esp_file(disk, AGENT_CFG, render_agent_cfg(*current, kernel_command_line))
    remove_esp_file(disk, AGENT_CFG + NEW_SUFFIX)
    for names in _SETS:
        if names != current:
            _remove(disk, names)


def remove_agent(disk: OpenDisk) -> None:
    """Let there be no agent on the ESP."""
    for path in (AGENT_CFG, AGENT_CFG + NEW_SUFFIX):
        remove_esp_file(disk, path)
    for names in _SETS:
        _remove(disk, names)


def _read_names(disk: OpenDisk) -> tuple[str, str] | None:
    for path in (AGENT_CFG, AGENT_CFG + NEW_SUFFIX):  # as GRUB looks for it
        text = read_esp_file(disk, path)
        if text:
            return parse_agent_cfg(text.decode(errors="replace"))
    return None


def _holds(disk: OpenDisk, names: tuple[str, str], kernel: Sequence[Path], initramfs: Sequence[Path]) -> bool:
    return all(
        is_on_esp(disk, f"{GRUB_FOLDER}/{name}", parts)
        for name, parts in zip(names, (kernel, initramfs), strict=True)
    )


def _write_beside(
    disk: OpenDisk, names: tuple[str, str], kernel: Sequence[Path], initramfs: Sequence[Path]
) -> tuple[str, str]:
    needed = sum(part.stat().st_size for part in (*kernel, *initramfs)) + _SLACK_BYTES
    _remove(disk, names)
    if read_esp_room(disk) < needed:
        if read_boot_facts(disk).slot is None:
            park_loaders(disk)
        remove_agent(disk)
    room = read_esp_room(disk)
    if room < needed:
        raise DiskTooSmallError(
            f"the ESP of {disk.source} has {render_about(room)} free, the agent takes {render_about(needed)}",
            "make esp_size larger in cluster.toml",
        )
    for name, parts in zip(names, (kernel, initramfs), strict=True):
        copy_to_esp(disk, f"{GRUB_FOLDER}/{name}", parts)
    return names


def _remove(disk: OpenDisk, names: tuple[str, str]) -> None:
    for name in names:
        remove_esp_file(disk, f"{GRUB_FOLDER}/{name}")
