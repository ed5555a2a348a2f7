"""What the agent does with the machine it runs on: install, boot its own disk, or wait for a person. No I/O.

It goes by what the disk says of itself and by what is signed; what a root said when it started the agent
only counts where it can do no harm. So whatever roots forget or repeat, nothing is installed in a loop.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum

import attrs
from attrs import frozen

from bladeroot.core.orders import Order, choose_order

FRESH_S = 24 * 3600
"""How old an order may be that lets a disk be written over that is not bladeroot's (its number is a time): an
older one was not about the disk that is in the blade now.
"""
MAX_TRIES = 5
"""Installs of one order (or of none) that may begin without one of them ending well."""
FRUITLESS_VISITS = 2
"""How often the agent sends a blade to its own disk, without a boot in between, before it installs again."""


class Why(StrEnum):
    """Why the agent was started, as whoever started it says."""

    ORDER = "order"
    """The root thinks that an order is open. That tells nothing of whether the disk boots."""
    NO_BOOT = "no-boot"
    """The disk was tried, and came back."""
    STRANGER = "stranger"
    DISK = "disk"
    """The disk's own boot loader started it."""
    UNKNOWN = ""


class DiskState(StrEnum):
    """What a disk is to the agent."""

    BLANK = "blank"
    """Nothing that anybody could miss."""
    OURS = "ours"
    """bladeroot's, and nothing is committed: an install that was cut off."""
    COMMITTED = "committed"
    """It boots a slot of this cluster's."""
    FOREIGN = "foreign"


@frozen(kw_only=True)
class DiskFacts:
    """What the disk says of itself. `order`, `visits` and `tries` come from its grubenv."""

    state: DiskState
    path: str = "the disk"
    holds: str = ""
    """In words, what on it is not bladeroot's, or another cluster's."""
    blade: str = ""
    """Whose slot it is, where that is known."""
    serial: int = 0
    is_complete: bool = True
    """False where the committed slot still lacks its extras, or the blade its depot."""
    completes_itself: bool = False
    """What it lacks its own daemon fetches, once it is up."""
    order: int = 0
    """Number of the last order that was carried out."""
    visits: int = 0
    tries_order: int = 0
    tries: int = 0
    """How many installs of `tries_order` (0: without an order) began since one ended well."""


@frozen(kw_only=True)
class Install:
    """Install that generation. Not `anew`: fetch what the committed slot lacks, and write over nothing."""

    serial: int
    reason: str
    order: int = 0
    """The order that is carried out; 0 for none."""
    wipe_data: bool = False
    anew: bool = True


@frozen(kw_only=True)
class BootLocally:
    """Leave the disk as it is and restart. `counts`: one more visit is noted on it first."""

    reason: str
    counts: bool


@frozen(kw_only=True)
class Hold:
    """Wait for a person, writing nothing."""

    reason: str
    hint: str


Decision = Install | BootLocally | Hold


def decide(
    blade: str,
    disk: DiskFacts,
    *,
    newest: int,
    orders: Collection[Order] = (),
    why: Why = Why.UNKNOWN,
    now_s: int,
    max_tries: int = MAX_TRIES,
) -> Decision:
    """What to do. `newest` is the serial of the newest accepted manifest; `orders` are accepted ones; `now_s`
    is the time, in seconds since the epoch.

    An order is only ever done by a disk that has not done it, or a newer one.
    """
    order = choose_order(orders, blade, disk.order)
    if order is not None:
        is_fresh = abs(order.number - now_s) <= FRESH_S
        if is_fresh or _is_of(blade, disk):
            return _follow_order(blade, disk, order, newest, max_tries)
        if disk.state is DiskState.BLANK:
            # Given to the disk that was here before: done with it, and not with what it asked for.
            stale = attrs.evolve(order, serial=None, wipe_data=False)
            return _follow_order(blade, disk, stale, newest, max_tries)
    if disk.state is DiskState.FOREIGN:
        return Hold(
            reason=f"{disk.path} holds {disk.holds or 'something that is not bladeroot'}",
            hint=f"`bladeroot reimage {blade}` orders the install: all of it will be lost",
        )
    if disk.state is DiskState.COMMITTED:
        return _leave_or_mend(blade, disk, newest, why, max_tries)
    what = "is blank" if disk.state is DiskState.BLANK else "holds an install that was cut off"
    return _cap(
        blade, disk, Install(serial=newest, reason=f"{disk.path} {what}"), max_tries, "installing it failed"
    )


def take_over(order: Order, install: Install) -> Order:
    """What is left of the order that the install carries out."""
    is_named = order.serial == install.serial
    return attrs.evolve(order, serial=order.serial if is_named else None, wipe_data=install.wipe_data)


def _is_of(blade: str, disk: DiskFacts) -> bool:
    """Whether what is on the disk is that blade's, as far as the disk says whose it is."""
    return disk.state in (DiskState.COMMITTED, DiskState.OURS) and disk.blade in ("", blade)


def count_tries(disk: DiskFacts, order: int) -> int:
    """How many installs for that order (0: for none) began on the disk without one that ended well."""
    return disk.tries if disk.tries_order == order else 0


def with_tries(disk: DiskFacts, order: int, at_least: int) -> DiskFacts:
    """The same disk after so many installs for that order: they count also where it could not note them."""
    return attrs.evolve(disk, tries_order=order, tries=max(at_least, count_tries(disk, order)))


def _follow_order(blade: str, disk: DiskFacts, order: Order, newest: int, max_tries: int) -> Decision:
    wanted = Install(
        serial=order.serial or newest,
        reason=f"order {order.number} says so",
        order=order.number,
        wipe_data=order.wipe_data,
    )
    return _cap(blade, disk, wanted, max_tries, f"order {order.number} could not be carried out")


def _leave_or_mend(blade: str, disk: DiskFacts, newest: int, why: Why, max_tries: int) -> Decision:
    if disk.blade and disk.blade != blade:
        return Hold(
            reason=f"{disk.path} is installed as {disk.blade}, and this machine is {blade}",
            hint=f"put the disk back into {disk.blade}, or `bladeroot reimage {blade}` to install it anew",
        )
    # A root that thinks that an order is open, or the disk's own boot loader, does not say that it fails.
    may_be_dead = why not in (Why.ORDER, Why.DISK)
    if may_be_dead and disk.visits >= FRUITLESS_VISITS:
        if disk.holds:
            return Hold(
                reason=f"{disk.path} does not boot; beside bladeroot's it holds {disk.holds}",
                hint=f"`bladeroot reimage {blade}` orders the install: all of it will be lost",
            )
        reason = f"{disk.path} did not boot after {disk.visits} visits"
        return _cap(blade, disk, Install(serial=newest, reason=reason), max_tries, "it was installed again")
    unfinished = not disk.is_complete and disk.serial == newest
    if unfinished and not disk.completes_itself and count_tries(disk, 0) < max_tries:
        return Install(serial=newest, reason=f"{disk.path} still lacks a part of its generation", anew=False)
    return BootLocally(reason=f"{disk.path} has generation {disk.serial}", counts=may_be_dead)


def _cap(blade: str, disk: DiskFacts, wanted: Install, max_tries: int, what: str) -> Decision:
    tries = count_tries(disk, wanted.order)
    if tries < max_tries:
        return wanted
    return Hold(
        reason=f"{what}: {tries} tries, the last for {disk.path}",
        hint=f"see why in `bladeroot status`, then `bladeroot reimage {blade}` for another {max_tries}",
    )
