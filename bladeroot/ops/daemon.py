"""The daemon of an installed blade: it gives what the blade has, follows whichever root there is, carries out
orders, and takes the root role when it falls to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from bladeroot.core.bootanswer import find_boot_files
from bladeroot.core.cluster import Cluster, Netboot, Takeover
from bladeroot.core.signing import PublicKey
from bladeroot.core.takeover import RoleState, find_rank
from bladeroot.errors import ConfigError, DepotError
from bladeroot.events import Event, Reporter, SwarmStats
from bladeroot.host.depot import Depot
from bladeroot.host.orderbook import OrderBook
from bladeroot.net.client import RootClient
from bladeroot.ops.chores import Chores
from bladeroot.ops.duty import Duty
from bladeroot.ops.holdings import Holdings
from bladeroot.ops.installed import Installed, RestartLog, read_installed
from bladeroot.ops.machine import Machine, OwnMachine
from bladeroot.ops.presence import Limits, Presence, open_presence
from bladeroot.ops.reporting import Gives
from bladeroot.ops.rolecontrol import RoleControl
from bladeroot.ops.station import Station, StationOptions


class Daemon:
    """Made by `open_daemon`; `run` returns when `stop` is set."""

    def __init__(
        self, presence: Presence, station: Station, duty: Duty, chores: Chores, control: RoleControl
    ):
        self.presence = presence
        self.station = station
        self.duty = duty
        self.chores = chores
        self.control = control
        self.stop = duty.stop
        self._followed: tuple[str, int] | None = None

    def run(self) -> None:
        """Everything has a thread of its own but the station."""
        others: tuple[tuple[str, Callable[[], None]], ...] = (
            ("duty", self.duty.run),
            ("chores", self.chores.run),
            ("control-socket", self.control.run),
        )
        threads = [threading.Thread(target=run, name=name, daemon=True) for name, run in others]
        for thread in threads:
            thread.start()
        try:
            self.station.run(self.stop, until=self._look_whom_to_follow)
        finally:
            self.stop.set()
            self.duty.wake()
            self.chores.wake()
            for thread in threads:
                thread.join(_ENDING_S)

    def _look_whom_to_follow(self) -> bool:
        """After each step; never ends the station."""
        claim = self.station.followed
        followed = (claim.where, claim.serial) if claim else None
        if followed != self._followed:
            self._followed = followed
            self.duty.wake()
            self.chores.wake()
        return False


_ENDING_S = 5.0


@contextmanager
def open_daemon(
    folder: Path,
    cluster: Cluster,
    trusted_keys: Collection[PublicKey],
    depot: Path,
    *,
    root: str | None = None,
    netboot: Netboot | None = None,
    interface: str | None = None,
    machine: Machine | None = None,
    system: Path = Path("/"),
    reporter: Reporter,
) -> Iterator[Daemon]:
    """The daemon of the blade that this machine is. `root` is a root that multicast does not reach, beside
    those of the inventory. `system` is where the installed system's tree is.

    Raises ConfigError where this machine is no installed blade, DepotError.
    """
    installed = read_installed(folder)
    if installed.cluster_id != cluster.id:
        raise ConfigError(
            f"{folder} is of cluster {cluster.id}, this blade was installed for {installed.cluster_id}",
            "publish the cluster folder that it is meant to have, and reimage it",
        )
    store = Depot.create(depot)
    reporter = _without_traffic(reporter)
    holdings = Holdings(store, trusted_keys, cluster.id, reporter)
    holdings.take_in()
    limits = Limits(otherwise=cluster.daemon.seed_limit_bytes)
    with open_presence(
        holdings, port=cluster.network.port, limits=limits, yields_ports=True, reporter=reporter
    ) as presence:
        station = make_station(
            presence,
            cluster,
            installed.blade,
            root=root,
            netboot=netboot,
            interface=interface,
            reporter=reporter,
        )
        duty = make_duty(presence, station, cluster, installed, machine or OwnMachine(system), reporter)
        chores = Chores(
            presence=presence,
            station=station,
            system=system,
            reporter=reporter,
            stop=duty.stop,
            on_news=duty.wake,
        )
        control = RoleControl(
            station=station,
            depot=store,
            blade=installed.blade,
            trusted_keys=trusted_keys,
            cluster_id=cluster.id,
            stop=duty.stop,
            reporter=reporter,
        )
        presence.take_role_order = control.take_role_order
        yield Daemon(presence, station, duty, chores, control)


def make_station(
    presence: Presence,
    cluster: Cluster,
    blade: str,
    *,
    root: str | None = None,
    takes_over: bool = True,
    netboot: Netboot | None = None,
    interface: str | None = None,
    reporter: Reporter,
) -> Station:
    """That blade's station, as the inventory has it; without `takes_over` it is root only if promoted."""
    known = cluster.blades.get(blade)
    state = RoleState(
        blade=blade,
        rank=find_rank(cluster, blade),
        priority=known.priority if known else 0,
        is_automatic=takes_over and cluster.daemon.takeover is Takeover.AUTO,
    )
    options = StationOptions(
        roots=tuple(dict.fromkeys([*([root] if root else []), *cluster.network.roots])),
        default_port=cluster.network.port,
        netboot=netboot,
        interface=interface,
        is_foreground=not takes_over,
    )
    return Station(presence, state, options, reporter=reporter)


def make_duty(
    presence: Presence,
    station: Station,
    cluster: Cluster,
    installed: Installed,
    machine: Machine,
    reporter: Reporter,
) -> Duty:
    """What it owes to the root that the station follows."""

    def find() -> RootClient | None:
        claim = station.followed
        return RootClient(claim.host, claim.port) if claim else None

    def gives() -> Gives:
        if station.root is not None:
            # A root gives by itself; and others must not hear of it under its loopback address.
            return Gives(holds=presence.holdings.newest_serial)
        return Gives(
            has=presence.holdings.artefacts() | _find_agent(presence.holdings),
            http_port=presence.server.port,
            holds=presence.holdings.newest_serial,
            swarm_port=presence.swarm.port,
        )

    return Duty(
        installed=installed,
        cluster=cluster,
        trusted_keys=presence.holdings.trusted_keys,
        restarts=RestartLog(presence.holdings.depot.path),
        find=find,
        on_silence=lambda client: station.doubt(f"{client.host}:{client.port}"),
        gives=gives,
        book=OrderBook(presence.holdings.depot.path),
        machine=machine,
        reporter=reporter,
    )


def _find_agent(holdings: Holdings) -> frozenset[str]:
    try:
        agent = find_boot_files(holdings.newest)[1]
    except DepotError:
        return frozenset()
    return frozenset({agent} if agent else ())


def _without_traffic(reporter: Reporter) -> Reporter:
    """A journal is not for what happens every second."""

    def report(event: Event) -> None:
        if not isinstance(event, SwarmStats):
            reporter(event)

    return report
