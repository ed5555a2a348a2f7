from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bladeroot.core import wire
from bladeroot.core.orders import MAX_ORDERS, Order, SignedOrder, sign_order
from bladeroot.core.signing import SecretKey
from bladeroot.errors import DepotError
from bladeroot.events import Event, Warned
from bladeroot.host.orderbook import OrderBook

KEY = SecretKey.generate()


def make(number: int, *blades: str) -> tuple[SignedOrder, Order]:
    order = Order(cluster_id="ab" * 16, number=number, blades=blades or ("web01",))
    return sign_order(order, KEY), order


def test_orders_are_kept_in_ascending_order_and_the_oldest_give_way(tmp_path: Path) -> None:
    book = OrderBook(tmp_path)
    assert book.read() == ()
    numbers = [5, 200, *range(10, 10 + MAX_ORDERS)]
    for number in numbers:
        book.add(*make(number))
    kept = sorted(numbers)[-MAX_ORDERS:]
    assert book.numbers() == kept
    assert OrderBook(tmp_path).read() == tuple(make(number)[0] for number in kept)


def test_a_number_is_one_order_for_ever(tmp_path: Path) -> None:
    book = OrderBook(tmp_path)
    book.add(*make(7, "web01"))
    book.add(*make(7, "web01"))
    with pytest.raises(DepotError, match="another order 7"):
        book.add(*make(7, "web02"))
    assert book.read() == (make(7, "web01")[0],)


def test_an_order_older_than_all_that_are_kept_is_refused_and_not_lost_in_silence(tmp_path: Path) -> None:
    book = OrderBook(tmp_path)
    for number in range(10, 10 + MAX_ORDERS):
        book.add(*make(number))
    with pytest.raises(DepotError, match="older than the last"):
        book.add(*make(9))
    book.add(*make(10))


def test_files_that_are_no_orders_are_told_of_once_and_passed_over(tmp_path: Path) -> None:
    heard: list[Event] = []
    book = OrderBook(tmp_path, heard.append)
    signed, order = make(9)
    book.add(signed, order)
    folder = tmp_path / "orders"
    (folder / "8").write_bytes(wire.encode(signed)[:-3])
    (folder / "7").mkdir()
    (folder / ".9.123.new").write_bytes(b"")
    (folder / "README").write_text("hello")
    assert book.read() == book.read() == (signed,)
    texts = [event.text for event in heard if isinstance(event, Warned)]
    assert len(texts) == 2
    assert all("is no order" in text for text in texts)
    book.add(*make(8))
    assert len(book.read()) == 2


def test_a_signature_of_another_key_makes_no_other_order(tmp_path: Path) -> None:
    book = OrderBook(tmp_path)
    signed, order = make(7)
    book.add(signed, order)
    again = attrs.evolve(
        signed, signatures=(*signed.signatures, *sign_order(order, SecretKey.generate()).signatures)
    )
    book.add(again, order)
    assert book.read() == (again,)
