"""A blade's duty to its root, against a real control service; its machine is a fake one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.cluster import Cluster
from bladeroot.core.hardware import Hardware
from bladeroot.core.orders import Order, sign_order
from bladeroot.core.roomstate import BladePhase, BladeState
from bladeroot.core.signing import SecretKey
from bladeroot.errors import BladerootError, ConfigError, DiskError
from bladeroot.events import Event, Note, Warned
from bladeroot.host.orderbook import OrderBook
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from bladeroot.ops.daemon import open_daemon
from bladeroot.ops.duty import MAX_RESTARTS, Duty
from bladeroot.ops.installed import Installed, RestartLog, read_installed
from tests.unit.ui.cli.test_orders_and_machines import Boot
from tests.unit.ui.cli.test_status import CLAIM, View

CLUSTER = Cluster(name="lab", id=CLAIM.cluster_id)
INSTALLED = Installed(blade="web02", cluster_id=CLUSTER.id, serial=7, order=3)
KEY = SecretKey.generate()
DEADLINE_S = 60.0


@attrs.define(kw_only=True)
class FakeMachine:
    """Says what it was told; `on_restart` is what happens to the process then."""

    on_restart: Callable[[], None]
    order: int = 4
    keeps_agent: bool = True
    disk_error: str = ""
    did: list[str] = attrs.field(factory=list)

    def note_boot(self) -> BootFacts:
        if self.disk_error:
            raise DiskError(self.disk_error)
        self.did.append("booted")
        return BootFacts(order=self.order)

    def read_hardware(self) -> Hardware:
        return Hardware(cpus=8)

    def start_agent_next(self) -> None:
        if not self.keeps_agent:
            raise DiskError("/dev/vda keeps no agent", "boot it over the network to reimage it")
        self.did.append("agent")

    def restart(self) -> None:
        self.did.append("restart")
        self.on_restart()


@attrs.define(kw_only=True)
class Blade:
    """Its duty, and what it said."""

    duty: Duty
    machine: FakeMachine
    said: list[Event]
    silences: list[RootClient]

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.said if isinstance(event, Note | Warned)]


@pytest.fixture
def depot(tmp_path: Path) -> Path:
    path = tmp_path / "depot"
    path.mkdir()
    return path


@pytest.fixture
def boot() -> Boot:
    return Boot()


@contextmanager
def serving(boot: Boot | None, port: int = 0) -> Iterator[ControlServer]:
    with ControlServer(View(), cluster_id=CLUSTER.id, address="127.0.0.1", port=port, boot=boot) as server:
        yield server


@pytest.fixture
def root(boot: Boot) -> Iterator[ControlServer]:
    with serving(boot) as server:
        yield server


def make_blade(depot: Path, port: int) -> Blade:
    """It does not pause; `stop` ends it, and so does a restart."""
    stop = threading.Event()
    machine = FakeMachine(on_restart=stop.set)
    said: list[Event] = []
    client = RootClient("127.0.0.1", port)
    silences: list[RootClient] = []
    duty = Duty(
        installed=INSTALLED,
        cluster=CLUSTER,
        trusted_keys=(KEY.public_key,),
        restarts=RestartLog(depot),
        find=lambda: client,
        on_silence=silences.append,
        book=OrderBook(depot),
        machine=machine,
        reporter=said.append,
        stop=stop,
        chance=lambda _least, _most: 0.01,
    )
    return Blade(duty=duty, machine=machine, said=said, silences=silences)


@contextmanager
def running(blade: Blade) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=blade.duty.run)
    thread.start()
    try:
        yield thread
    finally:
        blade.duty.stop.set()
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def wait_until(is_so: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(int(DEADLINE_S / 0.02)):
        if is_so():
            return
        waited.wait(0.02)
    pytest.fail("it did not come to that")


def order(boot: Boot, number: int, *blades: str, key: SecretKey = KEY, cluster_id: str = CLUSTER.id) -> None:
    boot.take_order(sign_order(Order(cluster_id=cluster_id, number=number, blades=blades), key))


def state(root: ControlServer) -> BladeState:
    return root.room.blades["web02"]


def test_it_notes_the_boot_and_tells_the_root_that_the_blade_is_up(root: ControlServer, depot: Path) -> None:
    blade = make_blade(depot, root.port)
    with running(blade):
        wait_until(lambda: state(root).phase is BladePhase.UP)
    assert (state(root).serial, state(root).order) == (7, 4)
    assert state(root).hardware["cpus"] == 8
    assert blade.machine.did == ["booted"]


def test_an_order_restarts_the_blade_into_its_agent(root: ControlServer, boot: Boot, depot: Path) -> None:
    order(boot, 9, "web01", "web02")
    blade = make_blade(depot, root.port)
    with running(blade) as thread:
        thread.join(DEADLINE_S)
    assert blade.machine.did == ["booted", "agent", "restart"]
    assert state(root).note == "restarts for order 9"
    assert RestartLog(depot).count(9) == 1


def test_an_order_that_comes_later_is_heard(root: ControlServer, boot: Boot, depot: Path) -> None:
    blade = make_blade(depot, root.port)
    with running(blade) as thread:
        wait_until(lambda: state(root).phase is BladePhase.UP)
        order(boot, 9, "web02")
        thread.join(DEADLINE_S)
    assert blade.machine.did[-1] == "restart"


@pytest.mark.parametrize(
    ("number", "blades", "what"),
    [
        (4, ("web02",), {}),
        (3, ("web02",), {}),
        (9, ("web01",), {}),
        (9, ("web02",), {"cluster_id": "cd" * 16}),
    ],
    ids=["done", "older", "another blade's", "another cluster's"],
)
def test_what_is_no_order_for_it_moves_nothing(
    root: ControlServer, boot: Boot, depot: Path, number: int, blades: tuple[str, ...], what: dict[str, str]
) -> None:
    order(boot, number, *blades, **what)  # type: ignore[arg-type]
    blade = make_blade(depot, root.port)
    with running(blade):
        wait_until(lambda: state(root).sequence > 3)
    assert blade.machine.did == ["booted"]


def test_orders_are_kept_for_when_this_blade_is_root(root: ControlServer, boot: Boot, depot: Path) -> None:
    order(boot, 3, "web02")
    order(boot, 9, "web01")
    order(boot, 11, "web01", key=SecretKey.generate())
    blade = make_blade(depot, root.port)
    with running(blade):
        wait_until(lambda: state(root).sequence > 3)
    assert OrderBook(depot).numbers() == [3, 9]
    assert [signed.body for signed in OrderBook(depot).read()] == [one.body for one in boot.orders()[:2]]


def test_an_order_of_a_stranger_is_told_once_and_not_done(
    root: ControlServer, boot: Boot, depot: Path
) -> None:
    order(boot, 9, "web02", key=SecretKey.generate())
    blade = make_blade(depot, root.port)
    with running(blade):
        wait_until(lambda: state(root).sequence > 3)
    assert blade.machine.did == ["booted"]
    assert sum("does not trust" in text for text in blade.texts) == 1
    assert state(root).warnings == 1


def test_a_blade_without_an_agent_waits_for_a_person(root: ControlServer, boot: Boot, depot: Path) -> None:
    order(boot, 9, "web02")
    blade = make_blade(depot, root.port)
    blade.machine.keeps_agent = False
    with running(blade):
        wait_until(lambda: state(root).phase is BladePhase.HELD)
        sequence = state(root).sequence
        wait_until(lambda: state(root).sequence > sequence + 3)
        assert state(root).failure == "order 9 cannot be carried out: /dev/vda keeps no agent"
        assert state(root).hint == "boot it over the network to reimage it"
        assert blade.machine.did == ["booted"]
        assert sum("keeps no agent" in text for text in blade.texts) == 1
        blade.machine.keeps_agent = True
        order(boot, 10, "web02")  # the next one is another try
        wait_until(lambda: "restart" in blade.machine.did)


def test_an_agent_that_leaves_the_disk_as_it_is_is_not_started_for_ever(
    root: ControlServer, boot: Boot, depot: Path
) -> None:
    order(boot, 9, "web02")
    for _ in range(MAX_RESTARTS):
        blade = make_blade(depot, root.port)
        with running(blade) as thread:
            thread.join(DEADLINE_S)
        assert blade.machine.did == ["booted", "agent", "restart"]
    blade = make_blade(depot, root.port)
    with running(blade):
        wait_until(lambda: state(root).phase is BladePhase.HELD)
    assert blade.machine.did == ["booted"]
    assert "restarted 3 times, and the agent left the disk as it is" in state(root).failure


@pytest.mark.parametrize("damage", ["gone", "garbage"])
def test_a_restart_that_cannot_be_counted_is_not_done(
    root: ControlServer, boot: Boot, depot: Path, damage: str
) -> None:
    if damage == "gone":
        depot.rmdir()
    else:
        (depot / "restarts.json").write_text("\0\0")
    order(boot, 9, "web02")
    blade = make_blade(depot, root.port)
    with running(blade):
        wait_until(lambda: state(root).phase is BladePhase.HELD)
    assert "restart" not in blade.machine.did
    assert "restarts.json" in state(root).failure


def test_a_disk_that_is_not_bladeroots_is_said_and_the_blade_is_up(root: ControlServer, depot: Path) -> None:
    blade = make_blade(depot, root.port)
    blade.machine.disk_error = "/ is on overlay, which is no partition of a disk"
    with running(blade):
        wait_until(lambda: state(root).phase is BladePhase.UP)
    assert state(root).order == INSTALLED.order
    assert blade.texts[0] == f"this boot cannot be noted on the disk: {blade.machine.disk_error}"


def test_no_root_is_said_once_and_one_that_comes_is_found(boot: Boot, depot: Path) -> None:
    with serving(boot) as server:
        port = server.port
    blade = make_blade(depot, port)
    with running(blade):
        wait_until(lambda: len(blade.silences) > 5)
        with serving(boot, port) as server:
            wait_until(lambda: state(server).phase is BladePhase.UP)
        with serving(boot, port) as server:
            wait_until(lambda: state(server).phase is BladePhase.UP)
            assert state(server).hardware["cpus"] == 8
    assert sum(text.startswith("no root:") for text in blade.texts) <= 3


def test_a_root_that_knows_of_no_orders_is_not_asked_in_a_rush(depot: Path) -> None:
    with serving(None) as server:
        blade = make_blade(depot, server.port)
        with running(blade):
            wait_until(lambda: len(blade.silences) > 5)
        assert sum(text.startswith("no root:") for text in blade.texts) == 1


def test_what_was_installed_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no installed blade"):
        read_installed(tmp_path)
    file = tmp_path / "installed.json"
    file.write_text(json.dumps({"blade": "web02", "cluster_id": "ab" * 16, "serial": 7, "order": None}))
    assert read_installed(tmp_path) == attrs.evolve(INSTALLED, order=0)
    for damage in ("", "[]", "{}", "7", '{"blade": 1, "cluster_id": 2, "serial": "x"}', "\udcff"):
        file.write_bytes(damage.encode(errors="surrogateescape"))
        with pytest.raises(ConfigError, match="damaged"):
            read_installed(tmp_path)


def test_a_folder_of_another_cluster_is_refused(tmp_path: Path) -> None:
    facts = {"blade": "web02", "cluster_id": "cd" * 16, "serial": 7}
    (tmp_path / "installed.json").write_text(json.dumps(facts))
    opening = open_daemon(tmp_path, CLUSTER, (), tmp_path, reporter=print)
    with pytest.raises(BladerootError, match="installed for cdcd"), opening:
        pytest.fail("it began")
