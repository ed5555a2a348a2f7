"""Switching a room on, and seeing it through until it is whole: each blade up, with all of one generation,
and one root.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from attrs import frozen

from bladeroot.core.roomstate import BladePhase
from bladeroot.errors import ClaimNotHeldError
from bladeroot.lab.bladeroom import BladeRoom, ProcessBladeRoom
from bladeroot.lab.witness import RoomView, Witness

_DISKS_AT_ONCE = 2
_BAD = (BladePhase.FAILED, BladePhase.HELD)


@frozen(kw_only=True)
class Recovery:
    """What was seen of a room that was switched on. Times are seconds since then."""

    kept: tuple[str, ...]
    """The blades whose disks were there."""
    wiped: tuple[str, ...]
    """The blades with empty disks."""
    booted_s: Mapping[str, float]
    """When each blade's own system was up."""
    root: str
    """The first root."""
    root_s: float
    """When that was seen to be root."""
    root_at_end: str
    whole_s: float
    """When the room was whole."""

    @property
    def root_after_s(self) -> float:
        """How long after the last of the blades with disks was up there was a root; negative: before."""
        return self.root_s - max(self.booted_s[name] for name in self.kept)

    def lines(self) -> list[str]:
        """For people."""
        up = ", ".join(f"{name} {self.booted_s[name]:.0f} s" for name in self.kept)
        back = ", ".join(f"{name} {self.booted_s[name]:.0f} s" for name in self.wiped)
        lines = [f"  up from their own disks: {up}"]
        lines.append(f"  root: {self.root}, at {self.root_s:.0f} s ({self.root_after_s:+.1f} s)")
        lines.append(f"  from empty disks: {back}; all whole after {self.whole_s:.0f} s")
        return lines


def switch_on(room: BladeRoom, names: Sequence[str], *, wiped: Collection[str]) -> Recovery:
    """Switch these blades on at once, and wait until the room of them is whole. Raises ClaimNotHeldError."""
    booted_s: dict[str, float] = {}
    first: list[tuple[str, float]] = []
    with room.watch() as witness:
        began_s = time.monotonic()
        for name in names:
            room.power_on(name)

        def is_whole() -> bool:
            now_s = time.monotonic() - began_s
            for name in names:
                if name not in booted_s and room.has_booted(name):
                    booted_s[name] = now_s
            view = look(witness)
            if view.root and not first:
                first.append((view.root, now_s))
            return len(booted_s) == len(names) and is_room_whole(room, view, names)

        whole_s = room.wait_until(is_whole, lambda: describe(room, witness.view), len(names))
        return Recovery(
            kept=tuple(name for name in names if name not in wiped),
            wiped=tuple(name for name in names if name in wiped),
            booted_s=booted_s,
            root=first[0][0],
            root_s=first[0][1],
            root_at_end=witness.view.root,
            whole_s=whole_s,
        )


def install_all(room: BladeRoom, names: Sequence[str]) -> None:
    """Let these blades have disks that are installed; they are off afterwards. Raises ClaimNotHeldError.

    Processes do it themselves, from the operator's root, and are up before all power is cut. Emulated
    machines would take minutes: the operator does it for them.
    """
    if not isinstance(room, ProcessBladeRoom):
        with ThreadPoolExecutor(_DISKS_AT_ONCE) as pool:
            list(pool.map(room.install_disk, names))
        return
    root = room.start_root()
    switch_on(room, names, wiped=names)
    for name in names:
        room.cut_power(name)
    root.stop()


def look(witness: Witness) -> RoomView:
    """What there is to see. Raises ClaimNotHeldError where a blade goes no further by itself."""
    view = witness.look()
    for name, seen in view.blades.items():
        if seen.phase in _BAD:
            raise ClaimNotHeldError(f"{name} is {seen.phase}: {seen.failure}")
    return view


def is_room_whole(room: BladeRoom, view: RoomView, names: Sequence[str] = ()) -> bool:
    """Whether there is one root, and by what it says each of the blades (all, if none is named) is up, and
    could be root.
    """
    serial = room.cluster.manifest.serial
    blades = view.blades
    return all(name in blades and blades[name].is_whole(serial) for name in names or room.names)


def describe(room: BladeRoom, view: RoomView) -> str:
    """What there is instead of a whole room."""
    roots = ", ".join(view.roots) or "none"
    missing = [
        f"{name} {seen.phase}, runs {seen.serial}, holds {seen.holds}" if seen else f"{name} not heard of"
        for name in room.names
        for seen in [view.blades.get(name)]
    ]
    return f"roots: {roots}; {'; '.join(missing)}"
