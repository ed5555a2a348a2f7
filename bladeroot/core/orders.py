"""Orders: signed, single-use instructions to named blades, and what a blade makes of one. No I/O.

An order has a number. A blade keeps the number of the last order that it carried out on its disk, and does
none whose number is not higher: told the same order again, or an older one, it does nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from enum import StrEnum

import attrs
from attrs import frozen

from bladeroot.core import signing, wire
from bladeroot.core.cluster import NAME_PATTERN
from bladeroot.core.manifest import MAX_SIGNATURES, Signature
from bladeroot.errors import TrustError

ORDER_VERSION = 1
ORDER_LIMIT_BYTES = 64 << 10
ORDERS_LIMIT_BYTES = 4 << 20
MAX_ORDERS = 64
MAX_NUMBER = 2**53


class OrderKind(StrEnum):
    """What is to be done."""

    REIMAGE = "reimage"
    CANCEL = "cancel"
    """Nothing, and nothing of what was ordered before."""


@frozen(kw_only=True)
class Order:
    """Said by the operator to some blades. Numbers grow: see `choose_number`."""

    cluster_id: str
    number: int = attrs.field()
    blades: tuple[str, ...] = attrs.field()
    kind: OrderKind = OrderKind.REIMAGE
    serial: int | None = None
    """The generation to install, even if it is a lower one than a blade has; by default the newest."""
    wipe_data: bool = False
    version: int = ORDER_VERSION

    @number.validator
    def _check_number(self, _attribute: object, value: int) -> None:
        if not 0 < value < MAX_NUMBER:
            raise ValueError(f"not an order's number: {value}")

    @blades.validator
    def _check_blades(self, _attribute: object, value: tuple[str, ...]) -> None:
        if not value or not all(NAME_PATTERN.fullmatch(name) for name in value):
            raise ValueError("not names of blades")


@frozen(kw_only=True)
class SignedOrder:
    """The exact bytes that were signed, and by whom."""

    body: bytes
    signatures: tuple[Signature, ...] = attrs.field()

    @signatures.validator
    def _check_signatures(self, _attribute: object, value: tuple[Signature, ...]) -> None:
        if len(value) > MAX_SIGNATURES:
            raise ValueError(f"{len(value)} signatures, more than {MAX_SIGNATURES}")


@frozen(kw_only=True)
class OrderList:
    """What a root has to say to its blades, ascending by number."""

    orders: tuple[SignedOrder, ...] = attrs.field()

    @orders.validator
    def _check_orders(self, _attribute: object, value: tuple[SignedOrder, ...]) -> None:
        if len(value) > MAX_ORDERS:
            raise ValueError(f"{len(value)} orders, more than {MAX_ORDERS}")


def choose_number(now_s: int, known: Iterable[int]) -> int:
    """The next order's number: the time, or one more than the highest known, whatever is higher."""
    return max([now_s, *(number + 1 for number in known)])


def sign_order(order: Order, secret_key: signing.SecretKey) -> SignedOrder:
    """Freeze the order into bytes and sign those."""
    body = wire.encode(order)
    signature = Signature(
        key_id=secret_key.public_key.key_id, signature=secret_key.sign(signing.Purpose.ORDER, body)
    )
    return SignedOrder(body=body, signatures=(signature,))


def accept_order(signed: SignedOrder, trusted_keys: Collection[signing.PublicKey], cluster_id: str) -> Order:
    """The order, if a blade may believe it: signature, then cluster. Raises TrustError, NetworkError."""
    if not any(
        key.verify(signing.Purpose.ORDER, signed.body, signature.signature)
        for signature in signed.signatures
        for key in trusted_keys
    ):
        by_whom = ", ".join(signature.key_id for signature in signed.signatures) or "nobody"
        raise TrustError(
            f"an order is signed by {by_whom}, whom this blade does not trust, or was tampered with",
            "put the operator's public key into keys/trusted/ and publish, if it should be trusted",
        )
    order = wire.decode(Order, signed.body, ORDER_LIMIT_BYTES)
    if order.version != ORDER_VERSION:
        raise TrustError(f"order {order.number} has format {order.version}, not {ORDER_VERSION}")
    if order.cluster_id != cluster_id:
        raise TrustError(f"order {order.number} is for cluster {order.cluster_id}, not for {cluster_id}")
    return order


def describe_restart(number: int) -> str:
    """What a blade's daemon tells the root when it restarts into the agent of its own disk for an order."""
    return f"restarts for order {number}"


def choose_order(orders: Iterable[Order], blade: str, last_done: int) -> Order | None:
    """The newest order that the blade has not done; older ones are passed over for good.

    None, too, where the newest says that nothing is to be done.
    """
    open_orders = [order for order in orders if blade in order.blades and order.number > last_done]
    newest = max(open_orders, key=lambda order: order.number, default=None)
    return None if newest is not None and newest.kind is OrderKind.CANCEL else newest
