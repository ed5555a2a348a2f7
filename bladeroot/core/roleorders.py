"""Orders that move the root role: signed by the operator for one blade, each done once. No I/O.

They are not kept and passed on as other orders are (`core.orders`): who gives one reaches the blade itself.
"""

from __future__ import annotations

from collections.abc import Collection

import attrs
from attrs import frozen

from bladeroot.core import signing, wire
from bladeroot.core.cluster import NAME_PATTERN
from bladeroot.core.manifest import Signature
from bladeroot.core.orders import MAX_NUMBER, SignedOrder
from bladeroot.core.takeover import Wish
from bladeroot.errors import TrustError

ROLE_ORDER_LIMIT_BYTES = 4 << 10
_VERSION = 1


@frozen(kw_only=True)
class RoleOrder:
    """Said by the operator to one blade. `number` is when, in seconds since the epoch; it only grows."""

    cluster_id: str
    number: int = attrs.field()
    blade: str = attrs.field()
    wish: Wish = attrs.field()
    version: int = _VERSION

    @number.validator
    def _check_number(self, _attribute: object, value: int) -> None:
        if not 0 < value < MAX_NUMBER:
            raise ValueError(f"not an order's number: {value}")

    @blade.validator
    def _check_blade(self, _attribute: object, value: str) -> None:
        if not NAME_PATTERN.fullmatch(value):
            raise ValueError("not the name of a blade")

    @wish.validator
    def _check_wish(self, _attribute: object, value: Wish) -> None:
        if value is Wish.NONE:
            raise ValueError("an order to do nothing")


def sign_role_order(order: RoleOrder, secret_key: signing.SecretKey) -> SignedOrder:
    """Freeze the order into bytes and sign those."""
    body = wire.encode(order)
    signature = secret_key.sign(signing.Purpose.ROLE, body)
    return SignedOrder(
        body=body, signatures=(Signature(key_id=secret_key.public_key.key_id, signature=signature),)
    )


def accept_role_order(
    signed: SignedOrder,
    trusted_keys: Collection[signing.PublicKey],
    *,
    cluster_id: str,
    blade: str,
    last_number: int,
) -> RoleOrder:
    """The order, if that blade is to obey: signature, cluster, blade, and never one twice.

    Raises TrustError, NetworkError.
    """
    if not any(
        key.verify(signing.Purpose.ROLE, signed.body, signature.signature)
        for signature in signed.signatures
        for key in trusted_keys
    ):
        raise TrustError(
            f"the order is not signed by a key that {blade} trusts",
            "put the operator's public key into keys/trusted/ and publish, if it should be trusted",
        )
    order = wire.decode(RoleOrder, signed.body, ROLE_ORDER_LIMIT_BYTES)
    if order.version != _VERSION or order.cluster_id != cluster_id:
        raise TrustError(f"the order is for cluster {order.cluster_id}, format {order.version}")
    if order.blade != blade:
        raise TrustError(f"the order is for {order.blade}, and this is {blade}", "is the address right?")
    if order.number <= last_number:
        raise TrustError(
            f"{blade} had order {order.number} already, or a newer one", "is your clock right? Give it again"
        )
    return order
