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
    OrderKind,
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

_MOST_AHEAD_S = 30 * 86_400
"""So far a clock may be ahead that orders were numbered by."""


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
            "to_newest": not self.is_named,
            "wipe_data": self.wipe_data,
            "now": {
                blade.name: {"phase": str(state.phase), "serial": state.serial}
                for blade in self.blades
                if (state := self.room.blades.get(blade.name)) is not None
            },
        }


@frozen(kw_only=True)
class OrderState:
    """An order, and which blades have carried it out as far as the root has heard.

    `superseded` are those that have a newer order (or its cancelling), and will not do this one any more.
    """

    order: Order
    done: tuple[str, ...]
    open: tuple[str, ...]
    superseded: tuple[str, ...]


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
    _check_not_root(room, blades, client.host)
    newest = max(room.generations, default=0)
    if not newest:
        raise DepotError(f"root {room.claim.blade} holds no generation", "publish one there first")
    if serial is not None and serial not in room.generations:
        held = ", ".join(map(str, room.generations))
        raise DepotError(f"root {room.claim.blade} has no generation {serial}", f"it holds: {held}")
    now_s = int(time.time())
    # Anybody may say that he did an order: such a number must not use all numbers up.
    numbers = [state.order for state in room.blades.values() if state.order <= now_s + _MOST_AHEAD_S]
    numbers += [*_read_numbers(client, cluster_id), *known]
    return ReimagePlan(
        cluster_id=cluster_id,
        number=choose_number(now_s, numbers),
        blades=tuple(blades),
        serial=serial if serial is not None else newest,
        is_named=serial is not None,
        wipe_data=wipe_data,
        room=room,
    )


def _check_not_root(room: RoomStatus, blades: Sequence[Blade], host: str) -> None:
    """By its name, and by its address: it may have been promoted under another name."""
    addresses = {blade.address.partition("/")[0]: blade.name for blade in blades if blade.address}
    root = addresses.get(host, room.claim.blade)
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


def give_order(client: RootClient, plan: ReimagePlan | CancelPlan, secret_key: SecretKey) -> SignedOrder:
    """Sign the plan's order and hand it to the root. Raises NetworkError."""
    signed = sign_order(plan.order(), secret_key)
    client.give_order(signed)
    return signed


@frozen(kw_only=True)
class CancelPlan:
    """Whose orders are taken back. A blade that has begun to carry one out goes on."""

    cluster_id: str
    number: int
    blades: tuple[Blade, ...]
    superseded: tuple[int, ...]
    """Numbers of the orders that are not carried out any more, by one of the blades at least."""

    def order(self) -> Order:
        """The order that it comes to."""
        names = tuple(blade.name for blade in self.blades)
        return Order(cluster_id=self.cluster_id, number=self.number, blades=names, kind=OrderKind.CANCEL)

    def lines(self) -> list[str]:
        """The plan for people."""
        names = fold_names(blade.name for blade in self.blades)
        what = ", ".join(map(str, self.superseded)) or "nothing that this root knows of"
        return [f"cancel for {len(self.blades)}: {names}", f"  orders: {what}"]

    def facts(self) -> dict[str, Any]:
        """The plan for programs."""
        names = [blade.name for blade in self.blades]
        return {"number": self.number, "blades": names, "superseded": list(self.superseded)}


def plan_cancel(
    client: RootClient,
    trusted_keys: Collection[PublicKey],
    cluster_id: str,
    blades: Sequence[Blade],
    *,
    known: Iterable[int] = (),
) -> CancelPlan:
    """What cancelling these blades' orders would be; `known` as for `plan_reimage`. Raises NetworkError."""
    states = read_order_states(client, trusted_keys, cluster_id)
    names = {blade.name for blade in blades}
    numbers = [*_read_numbers(client, cluster_id), *known]
    return CancelPlan(
        cluster_id=cluster_id,
        number=choose_number(int(time.time()), numbers),
        blades=tuple(blades),
        superseded=tuple(state.order.number for state in states if names & set(state.open)),
    )


def read_order_states(
    client: RootClient, trusted_keys: Collection[PublicKey], cluster_id: str
) -> list[OrderState]:
    """The root's orders that blades would believe, newest first. Raises NetworkError."""
    blades = read_status(client).blades
    accepted = _accepted(client.read_orders().orders, trusted_keys, cluster_id)
    states = []
    newer: set[str] = set()
    for order in sorted(accepted, key=lambda order: -order.number):
        done = {name for name in order.blades if _has_done(blades.get(name), order)}
        groups: dict[str, list[str]] = {"done": [], "open": [], "superseded": []}
        for name in order.blades:
            is_over = name in newer or order.kind is OrderKind.CANCEL
            groups["done" if name in done else "superseded" if is_over else "open"].append(name)
        states.append(OrderState(order=order, **{key: tuple(names) for key, names in groups.items()}))
        newer |= set(order.blades)
    return states


def _has_done(state: BladeState | None, order: Order) -> bool:
    return state is not None and state.order >= order.number and order.kind is not OrderKind.CANCEL


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
