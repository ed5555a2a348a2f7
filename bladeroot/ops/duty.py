"""A blade's duty to its root, whichever that is: it tells that it is up, and carries out orders.

To carry one out is to restart into the agent that the disk keeps: nothing is written but one sector of
grubenv. It goes by what is signed and by what the disk says of itself; a root can only offer.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Collection
from contextlib import suppress

import attrs

from bladeroot.core.cluster import Cluster
from bladeroot.core.orders import Order, SignedOrder, accept_order, choose_order, describe_restart
from bladeroot.core.signing import PublicKey
from bladeroot.errors import BladerootError, ConfigError, NetworkError
from bladeroot.events import Booted, HardwareFound, Held, Note, Reporter, Warned
from bladeroot.host.orderbook import OrderBook
from bladeroot.host.restart import RESTART_LIMIT_S
from bladeroot.net.client import RootClient
from bladeroot.ops.installed import Installed, RestartLog
from bladeroot.ops.machine import Machine, OwnMachine
from bladeroot.ops.reporting import Gives, RootReporter
from bladeroot.ops.saidonce import SaidOnce

MAX_RESTARTS = 3
"""So often a blade restarts for one order that its agent then leaves undone."""

_NO_ROOT_PAUSES_S = (2.0, 5.0)
_POLL_PAUSES_S = (15.0, 30.0)
"""Spans, of which chance takes a point: hundreds boot at once."""
_RESTART_SLACK_S = 30.0
_NO_ROOT = "no root"


@attrs.define(kw_only=True)
class Duty:
    """See the module. `run` returns when `stop` is set."""

    installed: Installed
    cluster: Cluster
    trusted_keys: Collection[PublicKey]
    restarts: RestartLog
    find: Callable[[], RootClient | None]
    """The root to follow now."""
    on_silence: Callable[[RootClient], None] = lambda _client: None
    """Who hears that a root did not answer."""
    gives: Callable[[], Gives] = Gives
    """What to tell a root of what the blade has for others."""
    swarm_port: int = 0
    book: OrderBook | None = None
    """Where orders are kept, for when this blade is root."""
    machine: Machine = attrs.field(factory=OwnMachine)
    reporter: Reporter
    stop: threading.Event = attrs.field(factory=threading.Event)
    chance: Callable[[float, float], float] = random.uniform

    last_done: int = 0
    """Number of the last order that was carried out on the disk."""
    _session: tuple[RootClient, RootReporter] | None = None
    _news: threading.Event = attrs.field(factory=threading.Event)
    _said: SaidOnce = attrs.field(factory=SaidOnce)
    _given_up: dict[int, Held] = attrs.field(factory=dict)
    """Orders that cannot be carried out, and why not."""

    def run(self) -> None:
        """Note the boot, then ask one root after the other."""
        self.note_boot()
        while not self.stop.is_set():
            client = self.find()
            if client is None:
                self._session = None
                self._tell(Note(text="no root yet"), topic=_NO_ROOT)
                self._pause(_NO_ROOT_PAUSES_S)
                continue
            try:
                self.ask(client)
                self._said.forget(_NO_ROOT)
                self._pause(_POLL_PAUSES_S)
            except NetworkError as error:
                self._session = None
                self._tell(Note(text=f"no root: {error}"), topic=_NO_ROOT)
                self.on_silence(client)
                self._pause(_NO_ROOT_PAUSES_S)
            except Exception as error:  # a blade that asks no more is lost to its operator
                self._session = None
                self._tell(Warned(text=f"could not ask the root for orders: {error!r}"))
                self._pause(_POLL_PAUSES_S)

    def wake(self) -> None:
        """There is another root, or something to tell: ask now. From any thread."""
        self._news.set()

    def note_boot(self) -> None:
        """Let the disk know that its system runs, and learn which order it has done."""
        self.last_done = self.installed.order
        try:
            self.last_done = max(self.last_done, self.machine.note_boot().order)
        except BladerootError as error:
            self.reporter(Warned(text=f"this boot cannot be noted on the disk: {error}", hint=error.hint))

    def ask(self, client: RootClient) -> None:
        """Tell the root how the blade is, and do what is ordered. Raises NetworkError."""
        report = self._reporter_to(client)
        report.give(self.gives())
        report.send()
        order = self.choose_order(client.read_orders().orders, report)
        if order is not None:
            self.carry_out(order, report)

    def choose_order(self, orders: Collection[SignedOrder], report: Reporter) -> Order | None:
        """The order that is to be done now, of those that may be believed."""
        accepted = []
        for signed in orders:
            try:
                order = accept_order(signed, self.trusted_keys, self.cluster.id)
            except BladerootError as error:
                warning = Warned(text=f"an order is passed over: {error}", hint=error.hint)
                if self._tell(warning):
                    report(warning)
                continue
            accepted.append(order)
            self._keep(signed, order)
        return choose_order(accepted, self.installed.blade, self.last_done)

    def carry_out(self, order: Order, report: RootReporter) -> None:
        """Restart into the disk's agent. Where that cannot be done, say why, and leave the order alone."""
        if order.number in self._given_up:
            return
        name = f"order {order.number}"
        try:
            if self.restarts.count(order.number) >= MAX_RESTARTS:
                raise ConfigError(
                    f"it restarted {MAX_RESTARTS} times, and the agent left the disk as it is",
                    f"see its console, then `bladeroot reimage {self.installed.blade}` for another try",
                )
            self.restarts.note(order.number)
            self.machine.start_agent_next()
            self.reporter(Note(text=f"{name}: {order.kind}; restarting into the agent"))
            report(Note(text=describe_restart(order.number)))
            report.send()
            self.machine.restart()
            if self.stop.wait(RESTART_LIMIT_S + _RESTART_SLACK_S):
                return
            raise ConfigError("the machine does not restart", "restart it: the agent comes first then")
        except BladerootError as error:
            hint = error.hint or "`systemctl restart bladeroot` there for another try"
            held = Held(reason=f"{name} cannot be carried out: {error}", hint=hint)
            self._given_up = {order.number: held}
            self.reporter(Warned(text=held.reason, hint=held.hint))
            report(held)
            report.send()

    def _keep(self, signed: SignedOrder, order: Order) -> None:
        """The next root may be this blade: orders must not go with the one that had them."""
        with suppress(BladerootError, OSError):
            if self.book is not None and order.number not in self.book.numbers():
                self.book.add(signed, order)

    def _reporter_to(self, client: RootClient) -> RootReporter:
        """The one there is, if it reports to that root."""
        if self._session is not None and self._session[0] == client:
            return self._session[1]
        self.reporter(Note(text=f"following the root at {client.host}:{client.port}"))
        report = RootReporter(
            client, cluster_id=self.cluster.id, blade=self.installed.blade, swarm_port=self.swarm_port
        )
        with suppress(BladerootError):  # without it the blade is up just the same
            report(HardwareFound(hardware=attrs.asdict(self.machine.read_hardware())))
        report(Booted(serial=self.installed.serial, order=self.last_done))
        for held in self._given_up.values():
            report(held)
        self._session = client, report
        return report

    def _tell(self, event: Note | Warned, topic: str = "") -> bool:
        """Once: what is true for hours is not said every half minute. False if it was said before."""
        return self._said.say(event, self.reporter, topic)

    def _pause(self, span_s: tuple[float, float]) -> None:
        if self._news.wait(self.chance(*span_s)):
            self._news.clear()
