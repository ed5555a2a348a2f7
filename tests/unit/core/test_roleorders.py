"""Orders that move the root role: who may give one, to whom, and how often."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from bladeroot.core import wire
from bladeroot.core.manifest import Signature
from bladeroot.core.orders import Order, SignedOrder, sign_order
from bladeroot.core.roleorders import ROLE_ORDER_LIMIT_BYTES, RoleOrder, accept_role_order, sign_role_order
from bladeroot.core.signing import Purpose, SecretKey
from bladeroot.core.takeover import Wish
from bladeroot.errors import NetworkError, TrustError

KEY, OTHER_KEY = SecretKey(bytes(32)), SecretKey(bytes([7]) * 32)
OURS, OTHERS = "ab" * 16, "cd" * 16
ORDER = RoleOrder(cluster_id=OURS, number=9, blade="web02", wish=Wish.PROMOTE)


def accept(signed: SignedOrder, last_number: int = 0) -> RoleOrder:
    return accept_role_order(
        signed,
        [OTHER_KEY.public_key, KEY.public_key],
        cluster_id=OURS,
        blade="web02",
        last_number=last_number,
    )


def sign_bytes(body: bytes, key: SecretKey = KEY, purpose: Purpose = Purpose.ROLE) -> SignedOrder:
    signature = Signature(key_id=key.public_key.key_id, signature=key.sign(purpose, body))
    return SignedOrder(body=body, signatures=(signature,))


@pytest.mark.parametrize("wish", [Wish.PROMOTE, Wish.DEMOTE])
def test_what_the_operator_signed_for_this_blade_is_accepted(wish: Wish) -> None:
    order = RoleOrder(cluster_id=OURS, number=9, blade="web02", wish=wish)
    assert accept(sign_role_order(order, KEY), 8) == order


@pytest.mark.parametrize("last_number", [9, 10, 2**52])
def test_an_order_is_done_once_and_an_older_one_never(last_number: int) -> None:
    with pytest.raises(TrustError, match="had order 9 already, or a newer one"):
        accept(sign_role_order(ORDER, KEY), last_number)


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({"cluster_id": OTHERS}, "for cluster cdcd"),
        ({"blade": "web03"}, "is for web03, and this is web02"),
        ({"version": 2}, "format 2"),
    ],
)
def test_anothers_order_is_refused(what: dict[str, Any], why: str) -> None:
    with pytest.raises(TrustError, match=why):
        accept(sign_role_order(attrs.evolve(ORDER, **what), KEY))


def test_who_is_not_trusted_gives_no_orders() -> None:
    stranger = SecretKey(bytes([9]) * 32)
    body = wire.encode(ORDER)
    claimed = Signature(key_id=KEY.public_key.key_id, signature=stranger.sign(Purpose.ROLE, body))
    for signed in (
        sign_role_order(ORDER, stranger),
        SignedOrder(body=body, signatures=(claimed,)),
        SignedOrder(body=body, signatures=()),
        SignedOrder(body=body + b"\0", signatures=sign_role_order(ORDER, KEY).signatures),
    ):
        with pytest.raises(TrustError, match="not signed by a key that web02 trusts"):
            accept(signed)


def test_a_signature_for_something_else_moves_no_role() -> None:
    other = sign_order(Order(cluster_id=OURS, number=9, blades=("web02",)), KEY)
    for signed in (other, *(sign_bytes(wire.encode(ORDER), purpose=one) for one in Purpose)):
        if signed.signatures == sign_role_order(ORDER, KEY).signatures:
            continue
        with pytest.raises(TrustError, match="not signed by a key"):
            accept(signed)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1 signed, and nothing",
        wire.encode(Order(cluster_id=OURS, number=9, blades=("web02",))),
        b"\0" * (ROLE_ORDER_LIMIT_BYTES + 1),
    ],
)
def test_signed_rubbish_is_one_error(body: bytes) -> None:
    with pytest.raises(NetworkError, match="RoleOrder"):
        accept(sign_bytes(body))


@pytest.mark.parametrize(
    "what", [{"number": 0}, {"number": 2**53}, {"blade": "../web02"}, {"wish": Wish.NONE}], ids=str
)
def test_what_is_out_of_bounds_is_no_order(what: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not|nothing"):
        attrs.evolve(ORDER, **what)
