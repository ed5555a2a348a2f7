"""The daemon of an installed blade: it tells the root that it is up, and carries out orders.

To carry one out is to restart into the agent that the disk keeps: the daemon itself writes nothing but one
sector of grubenv. It goes by what is signed and by what the disk says of itself; a root can only offer.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import attrs
from attrs import frozen

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.cluster import Cluster
from bladeroot.core.hardware import Hardware
from bladeroot.core.orders import Order, SignedOrder, accept_order, choose_order, describe_restart
from bladeroot.core.signing import PublicKey
from bladeroot.errors import BladerootError, ConfigError, NetworkError, UsageError
from bladeroot.events import Booted, HardwareFound, Held, Note, Reporter, Warned, ignore
from bladeroot.host.bootdisk import find_booted_disk
from bladeroot.host.esp import read_boot_facts
from bladeroot.host.files import write_atomically
from bladeroot.host.hardware import read_hardware
from bladeroot.host.restart import RESTART_LIMIT_S, restart_in_order
from bladeroot.net.client import RootClient
from bladeroot.ops.findroot import find_root
from bladeroot.ops.ownboot import note_boot, start_agent_next
from bladeroot.ops.reporting import RootReporter

INSTALLED_NAME = "installed.json"
"""In the cluster folder of an installed blade; see `ops.identity`."""
RESTARTS_NAME = "restarts.json"
"""In the depot, which outlasts a restart."""
MAX_RESTARTS = 3
"""So often a blade restarts for one order that its agent then leaves undone."""

_LOOK_S = 5.0
_FIRST_PAUSES_S = (2.0, 5.0)
"""While the network comes up after a boot. Spans, of which chance takes a point: hundreds boot at once."""
_FIRST_TRIES = 6
_ROOT_PAUSES_S = (20.0, 40.0)
_POLL_PAUSES_S = (15.0, 30.0)
_FOLLOW_S = 600.0
"""After that the daemon looks whether there is a better root than the one it follows."""
_RESTART_SLACK_S = 30.0
_NO_ROOT = "no root"


class Machine(Protocol):
    """What the daemon looks at and changes of its machine. All of it raises BladerootError."""

    def note_boot(self) -> BootFacts:
        """Note on the disk that the installed system runs; what the disk says of itself then."""

    def read_hardware(self) -> Hardware:
        """What it is made of."""

    def start_agent_next(self) -> None:
        """Let the boot loader start the agent next time, and only then."""

    def restart(self) -> None:
        """Begin to restart."""


class OwnMachine:
    """The machine that this process runs on; its disk is the one that has the filesystem of `root`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def note_boot(self) -> BootFacts:
        """Raises DiskError where its disk is not one that bladeroot installed."""
        disk = find_booted_disk(self._root)
        note_boot(disk)
        return read_boot_facts(disk)

    def read_hardware(self) -> Hardware:
        """From /sys and /proc."""
        return read_hardware()

    def start_agent_next(self) -> None:
        """Raises DiskError where the disk keeps no agent."""
        start_agent_next(find_booted_disk(self._root))

    def restart(self) -> None:
        """Through systemd."""
        restart_in_order()


@frozen(kw_only=True)
class Installed:
    """What the install recorded on the disk."""

    blade: str
    cluster_id: str
    serial: int
    order: int = 0


def read_installed(folder: Path) -> Installed:
    """Of an installed blade's cluster folder. Raises ConfigError elsewhere."""
    path = folder / INSTALLED_NAME
    try:
        told = json.loads(path.read_bytes())
        return Installed(
            blade=str(told["blade"]),
            cluster_id=str(told["cluster_id"]),
            serial=int(told["serial"]),
            order=int(told.get("order") or 0),
        )
    except FileNotFoundError:
        raise ConfigError(
            f"this machine is no installed blade: there is no {path}", "the daemon is for those"
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged: {error!r}", "`bladeroot reimage` of this blade") from error


class RestartLog:
    """How often the machine was restarted for its latest order: what keeps it from doing so for ever."""

    def __init__(self, depot: Path) -> None:
        self._path = depot / RESTARTS_NAME

    def count(self, order: int) -> int:
        """For that order; 0 where nothing is noted."""
        try:
            told = json.loads(self._path.read_bytes())
            return int(told["restarts"]) if told["order"] == order else 0
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, KeyError, TypeError) as error:
            # it was written at once, so it is the disk that does not hold what it is told
            raise ConfigError(f"{self._path} is damaged: {error!r}", "remove it") from error

    def note(self, order: int) -> None:
        """One more restart for that order. Raises ConfigError where that cannot be written."""
        text = json.dumps({"order": order, "restarts": self.count(order) + 1}) + "\n"
        try:
            write_atomically(self._path, text)
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror}") from error


@attrs.define(kw_only=True)
class Daemon:
    """See the module. `run` returns when `stop` is set."""

    installed: Installed
    cluster: Cluster
    trusted_keys: Collection[PublicKey]
    restarts: RestartLog
    root: str | None = None
    """The one root to follow, `host:port`, instead of any that is found."""
    machine: Machine = attrs.field(factory=OwnMachine)
    reporter: Reporter
    stop: threading.Event = attrs.field(factory=threading.Event)
    chance: Callable[[float, float], float] = random.uniform

    last_done: int = 0
    """Number of the last order that was carried out on the disk."""
    _session: tuple[RootClient, RootReporter] | None = None
    _in_vain: int = 0
    """How often a root was looked for since one answered."""
    _told: set[str] = attrs.field(factory=set)
    _given_up: dict[int, Held] = attrs.field(factory=dict)
    """Orders that cannot be carried out, and why not."""

    def run(self) -> None:
        """Note the boot, then follow one root after the other."""
        self.note_boot()
        while not self.stop.is_set():
            try:
                self.follow(find_root(self.cluster, root=self.root, wait_s=_LOOK_S, reporter=ignore)[0])
            except (NetworkError, UsageError) as error:
                self._session = None
                self._tell(Note(text=f"no root: {error}"), topic=_NO_ROOT)
                self._in_vain += 1
                self._pause(_FIRST_PAUSES_S if self._in_vain < _FIRST_TRIES else _ROOT_PAUSES_S)

    def note_boot(self) -> None:
        """Let the disk know that its system runs, and learn which order it has done."""
        self.last_done = self.installed.order
        try:
            self.last_done = max(self.last_done, self.machine.note_boot().order)
        except BladerootError as error:
            self.reporter(Warned(text=f"this boot cannot be noted on the disk: {error}", hint=error.hint))

    def follow(self, client: RootClient) -> None:
        """Ask the root again and again, for some time: then there may be a better one.

        Raises NetworkError when it does not answer any more.
        """
        until = time.monotonic() + _FOLLOW_S
        while not self.stop.is_set() and time.monotonic() < until:
            self.ask(client)
            self._in_vain = 0
            self._told.discard(_NO_ROOT)
            self._pause(_POLL_PAUSES_S)

    def ask(self, client: RootClient) -> None:
        """Tell the root how the blade is, and do what is ordered. Raises NetworkError."""
        report = self._reporter_to(client)
        report.send()
        order = self.choose_order(client.read_orders().orders, report)
        if order is not None:
            self.carry_out(order, report)

    def choose_order(self, orders: Collection[SignedOrder], report: Reporter) -> Order | None:
        """The order that is to be done now, of those that may be believed."""
        accepted = []
        for signed in orders:
            try:
                accepted.append(accept_order(signed, self.trusted_keys, self.cluster.id))
            except BladerootError as error:
                warning = Warned(text=f"an order is passed over: {error}", hint=error.hint)
                if self._tell(warning):
                    report(warning)
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

    def _reporter_to(self, client: RootClient) -> RootReporter:
        """The one there is, if it reports to that root."""
        if self._session is not None and self._session[0] == client:
            return self._session[1]
        self.reporter(Note(text=f"following the root at {client.host}:{client.port}"))
        report = RootReporter(client, cluster_id=self.cluster.id, blade=self.installed.blade)
        with suppress(BladerootError):  # without it the blade is up just the same
            report(HardwareFound(hardware=attrs.asdict(self.machine.read_hardware())))
        report(Booted(serial=self.installed.serial, order=self.last_done))
        for held in self._given_up.values():
            report(held)
        self._session = client, report
        return report

    def _tell(self, event: Note | Warned, topic: str = "") -> bool:
        """Once: what is true for hours is not said every half minute. False if it was said before."""
        topic = topic or event.text
        if topic in self._told:
            return False
        self._told.add(topic)
        self.reporter(event)
        return True

    def _pause(self, span_s: tuple[float, float]) -> None:
        self.stop.wait(self.chance(*span_s))


def open_daemon(
    folder: Path,
    cluster: Cluster,
    trusted_keys: Collection[PublicKey],
    depot: Path,
    *,
    root: str | None = None,
    reporter: Reporter,
) -> Daemon:
    """The daemon of the blade that this machine is. Raises ConfigError where it is none."""
    installed = read_installed(folder)
    if installed.cluster_id != cluster.id:
        raise ConfigError(
            f"{folder} is of cluster {cluster.id}, this blade was installed for {installed.cluster_id}",
            "publish the cluster folder that it is meant to have, and reimage it",
        )
    return Daemon(
        installed=installed,
        cluster=cluster,
        trusted_keys=trusted_keys,
        restarts=RestartLog(depot),
        root=root,
        reporter=reporter,
    )
