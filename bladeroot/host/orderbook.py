"""Orders in a depot: a file each, named by its number."""

from __future__ import annotations

from pathlib import Path

from bladeroot.core import wire
from bladeroot.core.orders import MAX_ORDERS, ORDER_LIMIT_BYTES, Order, SignedOrder
from bladeroot.errors import DepotError, NetworkError
from bladeroot.events import Reporter, Warned, ignore
from bladeroot.host.files import write_atomically


class OrderBook:
    """The orders that a root hands out. Whoever reads them checks them: a file proves nothing."""

    def __init__(self, depot: Path, reporter: Reporter = ignore) -> None:
        self._directory = depot / "orders"
        self._reporter = reporter
        self._warned: set[int] = set()

    def numbers(self) -> list[int]:
        """The orders that there are, ascending."""
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if path.name.isdecimal())

    def read(self) -> tuple[SignedOrder, ...]:
        """The newest orders, ascending by number; of a file that is none there is a warning, once."""
        found = []
        for number in self.numbers()[-MAX_ORDERS:]:
            try:
                found.append(self._read(number))
            except (OSError, NetworkError) as error:
                self._warn(number, error)
        return tuple(found)

    def add(self, signed: SignedOrder, order: Order) -> None:
        """Keep an order that was accepted; the oldest give way.

        Raises DepotError where another one has its number, or where it would be the oldest.
        """
        numbers = self.numbers()
        if order.number in numbers and self._is_other(order.number, signed):
            raise DepotError(f"there is another order {order.number} already", "give it again")
        if len(numbers) >= MAX_ORDERS and order.number < numbers[-MAX_ORDERS]:
            raise DepotError(f"order {order.number} is older than the last {MAX_ORDERS}", "give it again")
        self._directory.mkdir(exist_ok=True)
        write_atomically(self._directory / str(order.number), wire.encode(signed))
        for number in self.numbers()[:-MAX_ORDERS]:
            (self._directory / str(number)).unlink(missing_ok=True)

    def _read(self, number: int) -> SignedOrder:
        data = (self._directory / str(number)).read_bytes()
        return wire.decode(SignedOrder, data, ORDER_LIMIT_BYTES * 2)

    def _is_other(self, number: int, signed: SignedOrder) -> bool:
        try:
            return self._read(number).body != signed.body
        except (OSError, NetworkError):
            return False

    def _warn(self, number: int, error: Exception) -> None:
        if number not in self._warned:
            self._warned.add(number)
            text = f"{self._directory / str(number)} is no order: {error}"
            self._reporter(Warned(text=text, hint="remove it"))
