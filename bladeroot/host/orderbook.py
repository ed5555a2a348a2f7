"""Orders in a depot: a file each, named by its number."""

from __future__ import annotations

from pathlib import Path

from bladeroot.core import wire
from bladeroot.core.orders import MAX_ORDERS, ORDER_LIMIT_BYTES, Order, SignedOrder
from bladeroot.errors import NetworkError
from bladeroot.host.files import write_atomically


class OrderBook:
    """The orders that a root hands out. Whoever reads them checks them: a file proves nothing."""

    def __init__(self, depot: Path) -> None:
        self._directory = depot / "orders"

    def numbers(self) -> list[int]:
        """The orders that there are, ascending."""
        if not self._directory.is_dir():
            return []
        return sorted(int(path.name) for path in self._directory.iterdir() if path.name.isdecimal())

    def read(self) -> tuple[SignedOrder, ...]:
        """The newest orders, ascending by number; a file that is none is passed over."""
        found = []
        for number in self.numbers()[-MAX_ORDERS:]:
            try:
                data = (self._directory / str(number)).read_bytes()
                found.append(wire.decode(SignedOrder, data, ORDER_LIMIT_BYTES * 2))
            except (OSError, NetworkError):
                continue
        return tuple(found)

    def add(self, signed: SignedOrder, order: Order) -> None:
        """Keep an order that was accepted; the oldest give way."""
        self._directory.mkdir(exist_ok=True)
        write_atomically(self._directory / str(order.number), wire.encode(signed))
        for number in self.numbers()[:-MAX_ORDERS]:
            (self._directory / str(number)).unlink(missing_ok=True)
