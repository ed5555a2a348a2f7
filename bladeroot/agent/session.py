"""What the agent has with the root that it follows: its client, its swarms, and the reports to it."""

from __future__ import annotations

from contextlib import ExitStack

from attrs import frozen

from bladeroot.core.claims import Claim
from bladeroot.core.orders import Order, SignedOrder, accept_order
from bladeroot.core.signing import PublicKey
from bladeroot.errors import BladerootError
from bladeroot.events import Event, Warned
from bladeroot.ops.currentroot import CurrentRoot
from bladeroot.ops.follow import join_swarms
from bladeroot.ops.reporting import Gives, RootReporter
from bladeroot.ops.sources import SwarmSource


@frozen
class Offer:
    """What a root had when it was asked. There is news when this changes."""

    claim: Claim
    orders: tuple[SignedOrder, ...]

    def is_same(self, other: Offer) -> bool:
        """Whether a decision that went by the other one would be the same."""
        return (self.claim.serial, self.claim.manifest_hash, self.orders) == (
            other.claim.serial,
            other.claim.manifest_hash,
            other.orders,
        )

    def accept_orders(
        self, trusted_keys: tuple[PublicKey, ...], cluster_id: str
    ) -> tuple[list[Order], list[BladerootError]]:
        """The orders that may be believed, and why the others may not."""
        accepted, errors = [], []
        for signed in self.orders:
            try:
                accepted.append(accept_order(signed, trusted_keys, cluster_id))
            except BladerootError as error:
                errors.append(error)
        return accepted, errors


class Session:
    """With one root after the other, until `close`: an install goes on when the root is replaced."""

    def __init__(self, root: CurrentRoot, cluster_id: str, blade: str) -> None:
        self.client = root
        self._cluster_id = cluster_id
        self._wants: set[str] = set()
        self._gives = Gives()
        self._stack = ExitStack()
        self._stack.callback(root.close)
        self._reporting = self._stack.enter_context(ExitStack())
        self._reporter: RootReporter | None = None
        self.blade = ""
        self._swarms = self._stack.enter_context(ExitStack())
        self._swarm = self._swarms.enter_context(join_swarms(root, self.report))
        root.on_change(lambda found: self._swarm.count_as_root(found.host))
        self.report_as(blade)

    def report(self, event: Event) -> None:
        """Tell the root."""
        if self._reporter is not None:
            self._reporter(event)

    def report_as(self, blade: str) -> bool:
        """From now on report under this name; True if it is another than before."""
        if blade == self.blade:
            return False
        self._reporting.close()
        self.blade = blade
        reporter = RootReporter(
            self.client,
            cluster_id=self._cluster_id,
            blade=blade,
            swarm_port=self._swarm.port,
            wants=lambda: self._wants,
        )
        reporter.give(self._gives)
        self._reporter = self._reporting.enter_context(reporter)
        return True

    def leave_swarms(self) -> None:
        """Let go of all files that are given or fetched: their filesystem is about to go, or has gone."""
        port = self._swarm.port
        self._swarms.close()
        self._wants.clear()
        self._swarm = self._swarms.enter_context(join_swarms(self.client, self.report))
        if self._swarm.port != port:
            blade, self.blade = self.blade, ""
            self.report_as(blade)

    def give(self, gives: Gives) -> None:
        """Say what this machine has for others."""
        self._gives = gives
        if self._reporter is not None:
            self._reporter.give(gives)

    def read_offer(self) -> Offer:
        """What the root has now. Raises NetworkError."""
        return Offer(claim=self.client.claim(), orders=self.client.read_orders().orders)

    def source(self, serial: int) -> SwarmSource:
        """That generation, from this root and whoever is in its swarms."""
        return SwarmSource(self.client, self._swarm, serial, self._wants)

    def close(self) -> None:
        """Send what is left to be reported, and leave the swarms."""
        self._stack.close()


def warn_of_orders(errors: list[BladerootError]) -> list[Warned]:
    """What a person should know of orders that were passed over."""
    return [Warned(text=f"an order is passed over: {error}", hint=error.hint) for error in errors]
