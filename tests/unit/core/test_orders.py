"""Orders: who may give one, and which one a blade does."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.orders import (
    MAX_NUMBER,
    Order,
    SignedOrder,
    accept_order,
    choose_number,
    choose_order,
    sign_order,
)
from bladeroot.core.signing import Purpose, SecretKey
from bladeroot.errors import NetworkError, TrustError

CLUSTER = "0" * 32
KEY, OTHER = SecretKey(bytes(32)), SecretKey(bytes([1]) * 32)
ORDER = Order(cluster_id=CLUSTER, number=7, blades=("web01", "web02"), serial=3, wipe_data=True)


def test_an_order_of_the_operator_is_accepted() -> None:
    assert accept_order(sign_order(ORDER, KEY), [OTHER.public_key, KEY.public_key], CLUSTER) == ORDER


def test_of_anybody_else_it_is_not() -> None:
    with pytest.raises(TrustError, match="does not trust"):
        accept_order(sign_order(ORDER, OTHER), [KEY.public_key], CLUSTER)


def test_a_changed_one_is_not() -> None:
    signed = sign_order(ORDER, KEY)
    changed = attrs.evolve(signed, body=signed.body.replace(b"web01", b"web03"))
    with pytest.raises(TrustError):
        accept_order(changed, [KEY.public_key], CLUSTER)


def test_one_for_another_cluster_is_not() -> None:
    with pytest.raises(TrustError, match="cluster"):
        accept_order(sign_order(ORDER, KEY), [KEY.public_key], "1" * 32)


def test_a_manifests_signature_is_none_for_an_order() -> None:
    signed = sign_order(ORDER, KEY)
    passed_off = attrs.evolve(
        signed,
        signatures=(attrs.evolve(signed.signatures[0], signature=KEY.sign(Purpose.MANIFEST, signed.body)),),
    )
    with pytest.raises(TrustError):
        accept_order(passed_off, [KEY.public_key], CLUSTER)


def test_a_signed_body_that_is_no_order_is_an_error() -> None:
    body = b"\x80"
    signed = SignedOrder(
        body=body,
        signatures=(
            attrs.evolve(sign_order(ORDER, KEY).signatures[0], signature=KEY.sign(Purpose.ORDER, body)),
        ),
    )
    with pytest.raises(NetworkError):
        accept_order(signed, [KEY.public_key], CLUSTER)


@given(
    numbers=st.lists(st.integers(1, 50), max_size=8),
    last_done=st.integers(0, 50),
    mine=st.sets(st.integers(1, 50)),
)
def test_a_blade_does_only_what_is_newer_and_only_the_newest(
    numbers: list[int], last_done: int, mine: set[int]
) -> None:
    orders = [
        Order(cluster_id=CLUSTER, number=number, blades=("web01" if number in mine else "db1",))
        for number in numbers
    ]
    chosen = choose_order(orders, "web01", last_done)
    fitting = [number for number in numbers if number in mine and number > last_done]
    assert (chosen.number if chosen else None) == max(fitting, default=None)
    if chosen is not None:
        assert choose_order(orders, "web01", chosen.number) is None


@given(now=st.integers(1, MAX_NUMBER // 2), known=st.lists(st.integers(1, MAX_NUMBER // 2)))
def test_numbers_grow_whatever_the_clock_says(now: int, known: list[int]) -> None:
    number = choose_number(now, known)
    assert number >= now
    assert all(number > other for other in known)
