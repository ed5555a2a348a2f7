"""Giving orders: plan who is to do what, sign it, hand it to the root."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from attrs import frozen

from bladeroot.core import wire
from bladeroot.core.cluster import Blade
from bladeroot.core.nodesets import fold_names
from bladeroot.core.orders import (
    ORDER_LIMIT_BYTES,
    Order,
    SignedOrder,
    accept_order,
    choose_number,
    sign_order,
)
from bladeroot.core.roomstate import BladePhase, BladeState
from bladeroot.core.signing import PublicKey, SecretKey
from bladeroot.errors import BladerootError, DepotError, UsageError
from bladeroot.net.client import RootClient
from bladeroot.ops.status import RoomStatus, read_status


@frozen(kw_only=True)
class ReimagePlan:
    """Who installs what again, and what a root knows of them."""

    cluster_id: str
    number: int
    blades: tuple[Blade, ...]
    serial: int
    """The generation that they will have."""
    is_named: bool
    """The serial was asked for: it may be lower than what a blade has."""
    wipe_data: bool
    room: RoomStatus

    def order(self) -> Order:
        """The order that it comes to."""
        return Order(
            cluster_id=self.cluster_id,
            number=self.number,
            blades=tuple(blade.name for blade in self.blades),
            serial=self.serial if self.is_named else None,
            wipe_data=self.wipe_data,
        )

    def lines(self) -> list[str]:
        """The plan for people."""
        names = fold_names(blade.name for blade in self.blades)
        which = f"generation {self.serial}" + ("" if self.is_named else ", the newest")
        data = "their data is wiped too" if self.wipe_data else "their data is kept"
        lines = [f"reimage {len(self.blades)}: {names}", f"  to {which}; {data}"]
        lines += [f"  {fold_names(those)}: {how}" for how, those in self._group_by_state().items()]
        for blade in self.blades:
            state = self.room.blades.get(blade.name)
            if state is not None and state.phase is BladePhase.WORKING:
                lines.append(f"  {blade.name} is in the middle of {state.step or 'something'}")
            if state is not None and state.serial > self.serial:
                lines.append(f"  {blade.name} goes back from generation {state.serial}")
        return lines

    def _group_by_state(self) -> dict[str, list[str]]:
        """What the root knows of them: a line for all who are alike, there may be hundreds."""
        groups: dict[str, list[str]] = {}
        for blade in self.blades:
            state = self.room.blades.get(blade.name)
            if state is None or state.phase is BladePhase.WAITING:
                how = "not heard of"
            else:
                how = str(state.phase) + (f", generation {state.serial}" if state.serial else "")
            groups.setdefault(how, []).append(blade.name)
        return groups

    def facts(self) -> dict[str, Any]:
        """The plan for programs."""
        return {
            "number": self.number,
            "blades": [blade.name for blade in self.blades],
            "serial": self.serial,
            "wipe_data": self.wipe_data,
            "now": {
                blade.name: {"phase": str(state.phase), "serial": state.serial}
                for blade in self.blades
                if (state := self.room.blades.get(blade.name)) is not None
            },
        }


@frozen(kw_only=True)
class OrderState:
    """An order, and which blades have carried it out as far as the root has heard."""

    order: Order
    done: tuple[str, ...]
    open: tuple[str, ...]


def plan_reimage(
    client: RootClient,
    cluster_id: str,
    blades: Sequence[Blade],
    *,
    serial: int | None = None,
    wipe_data: bool = False,
    known: Iterable[int] = (),
) -> ReimagePlan:
    """What a reimage would be, as the root stands. `known` are numbers of orders that it may not have.

    Raises NetworkError, DepotError for an unknown serial, UsageError where the root itself is among them.
    """
    room = read_status(client)
    _check_not_root(room, blades)
    newest = max(room.generations, default=0)
    if not newest:
        raise DepotError(f"root {room.claim.blade} holds no generation", "publish one there first")
    if serial is not None and serial not in room.generations:
        held = ", ".join(map(str, room.generations))
        raise DepotError(f"root {room.claim.blade} has no generation {serial}", f"it holds: {held}")
    numbers = [state.order for state in room.blades.values()]
    numbers += [*_read_numbers(client, cluster_id), *known]
    return ReimagePlan(
        cluster_id=cluster_id,
        number=choose_number(int(time.time()), numbers),
        blades=tuple(blades),
        serial=serial if serial is not None else newest,
        is_named=serial is not None,
        wipe_data=wipe_data,
        room=room,
    )


def _check_not_root(room: RoomStatus, blades: Sequence[Blade]) -> None:
    root = room.claim.blade
    if root not in [blade.name for blade in blades]:
        return
    if len(blades) == 1:
        raise UsageError(
            f"{root} is the root: nobody would be left to install it",
            f"`bladeroot promote` on another blade, stop it on {root}, and reimage {root} then",
        )
    names = fold_names(blade.name for blade in blades)
    raise UsageError(
        f"{root} is the root that the others install from",
        f"leave it out: '{names}!{root}'; when they are up, promote one of them and reimage {root}",
    )


def give_order(client: RootClient, plan: ReimagePlan, secret_key: SecretKey) -> SignedOrder:
    """Sign the plan's order and hand it to the root. Raises NetworkError."""
    signed = sign_order(plan.order(), secret_key)
    client.give_order(signed)
    return signed


def read_order_states(
    client: RootClient, trusted_keys: Collection[PublicKey], cluster_id: str
) -> list[OrderState]:
    """The root's orders that blades would believe, newest first. Raises NetworkError."""
    blades = read_status(client).blades
    states = []
    for order in _accepted(client.read_orders().orders, trusted_keys, cluster_id):
        done = tuple(name for name in order.blades if _has_done(blades.get(name), order))
        still_open = tuple(name for name in order.blades if name not in done)
        states.append(OrderState(order=order, done=done, open=still_open))
    return sorted(states, key=lambda state: -state.order.number)


def _has_done(state: BladeState | None, order: Order) -> bool:
    return state is not None and state.order >= order.number


def _accepted(
    orders: Iterable[SignedOrder], trusted_keys: Collection[PublicKey], cluster_id: str
) -> list[Order]:
    accepted = []
    for signed in orders:
        try:
            accepted.append(accept_order(signed, trusted_keys, cluster_id))
        except BladerootError:
            continue
    return accepted


def _read_numbers(client: RootClient, cluster_id: str) -> list[int]:
    """Of all orders that the root has, whoever signed them: a number must not be taken twice."""
    found = (wire.decode(Order, signed.body, ORDER_LIMIT_BYTES) for signed in client.read_orders().orders)
    return [order.number for order in found if order.cluster_id == cluster_id]
