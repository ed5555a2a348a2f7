"""Hooks: programs of a blade's overlay that run before, in, and after its install. No I/O.

A layer has them in `hooks/<when>/NAME`; in the blade's tree they are in `/etc/bladeroot/hooks/<when>/`.
They are the overlay's files like all others: a later layer's of the same name wins. They run in the order of
names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum

from attrs import frozen

from bladeroot.core.cluster import Blade
from bladeroot.core.overlaytree import EntryKind, OverlayEntry
from bladeroot.errors import OverlayError

HOOKS_FOLDER = "hooks"
"""Of a layer."""
HOOKS_DIRECTORY = "etc/bladeroot/hooks"
"""Of a blade's tree. No snapshot has anything there that is published (`core.splitdefaults`)."""
FIRST_BOOT_RECORD = "etc/bladeroot/first-boot.json"
"""On the blade: which first-boot hooks are done. It is in the slot, so each install begins anew."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_BEGINNINGS = (b"#!", b"\x7fELF")
"""What the kernel starts (execve(2))."""


class When(StrEnum):
    """When a hook runs, in the order of time; each is a folder's name."""

    PRE_INSTALL = "pre-install"
    """In the agent, before the disk is touched."""
    POST_INSTALL = "post-install"
    """In the installed tree (chroot), before it is committed: what fails here never boots."""
    FIRST_BOOT = "first-boot"
    """On the blade, when it is up for the first time."""


@frozen(kw_only=True)
class Hook:
    """One hook of a blade, and the layer that has it."""

    when: When
    name: str
    layer: str
    source: str
    overrides: tuple[str, ...] = ()


@frozen(kw_only=True)
class HookFacts:
    """What hooks are told of their blade and machine. What is not known is empty."""

    blade: Blade
    cluster: str
    serial: int
    macs: tuple[str, ...] = ()
    uuid: str = ""
    disk: str = ""
    firmware: str = ""
    """`bios` or `uefi`."""
    root_address: str = ""
    """The host that the generation comes from."""


def parse_when(name: str, where: str) -> When:
    """The folder's meaning; `where` is its path, for messages. Raises OverlayError."""
    try:
        return When(name)
    except ValueError:
        raise OverlayError(f"{where}: no such kind of hook", f"there is {', '.join(When)}") from None


def check_hook_name(name: str, where: str) -> None:
    """Raise OverlayError for a name that is an editor's backup, or whose order nobody would guess."""
    if not _NAME.fullmatch(name):
        hint = "letters, digits, `.`, `_` and `-`, such as 20-raid"
        raise OverlayError(f"{where}: not a hook's name", hint)


def find_hooks(entries: Iterable[OverlayEntry]) -> tuple[Hook, ...]:
    """The hooks among a blade's entries, in the order in which they run. Raises OverlayError."""
    found = []
    for entry in entries:
        folder, _, inner = entry.path.partition(f"{HOOKS_DIRECTORY}/")
        if folder or not inner or entry.kind is EntryKind.DELETION:
            continue
        kind, _, name = inner.partition("/")
        where = entry.source or f"/{entry.path}"
        when = parse_when(kind, where)
        if entry.kind is EntryKind.DIRECTORY and not name:
            continue
        check_hook_name(name, where)
        _check_starts(entry, where)
        found.append(
            Hook(when=when, name=name, layer=entry.layer, source=entry.source, overrides=entry.overrides)
        )
    order = list(When)
    return tuple(sorted(found, key=lambda hook: (order.index(hook.when), hook.name)))


def _check_starts(entry: OverlayEntry, where: str) -> None:
    if entry.kind is not EntryKind.FILE:
        raise OverlayError(f"{where}: a hook is a file, not a {entry.kind}", "copy what it should be")
    if not entry.mode & 0o111:
        hint = f"chmod +x {where}; an empty file takes an earlier layer's hook of that name away"
        raise OverlayError(f"{where}: a hook that is not executable", hint)
    if not entry.content.startswith(_BEGINNINGS):
        raise OverlayError(f"{where}: a hook that does not begin with #!", "begin it with a line #!/bin/sh")


def render_environment(facts: HookFacts, when: When, name: str) -> dict[str, str]:
    """What a hook finds in its environment, all of it beginning with BLADEROOT_."""
    blade = facts.blade
    values = {
        "BLADE": blade.name,
        "ROLE": blade.role,
        "CLUSTER": facts.cluster,
        "SERIAL": str(facts.serial),
        "ADDRESS": blade.address or "",
        "MACS": " ".join(facts.macs or blade.macs),
        "UUID": facts.uuid or blade.uuid or "",
        "DISK": facts.disk,
        "FIRMWARE": facts.firmware,
        "ROOT_ADDRESS": facts.root_address,
        "RACK": blade.rack or "",
        "LOCATION": blade.location,
        "HOOK": f"{when}/{name}",
    }
    for fact, value in sorted(blade.facts.items()):
        values[f"FACT_{re.sub('[^A-Z0-9]', '_', fact.upper())}"] = value
    # An environment cannot carry a zero byte (environ(7)).
    return {f"BLADEROOT_{key}": value.replace("\0", "") for key, value in values.items()}
