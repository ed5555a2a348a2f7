"""How a person moves the root role: real stations on the loopback, their sockets, and signed orders."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from bladeroot.core.cluster import Netboot, Network
from bladeroot.core.orders import SignedOrder
from bladeroot.core.roleorders import RoleOrder, sign_role_order
from bladeroot.core.signing import SecretKey
from bladeroot.core.takeover import Role, RoleState, Wish
from bladeroot.errors import ConfigError, DepotError, NetworkError, TrustError
from bladeroot.events import Event, Note, RoleChanged, Warned
from bladeroot.host import localsocket
from bladeroot.host.depot import Depot
from bladeroot.net import discovery
from bladeroot.net.client import RootClient
from bladeroot.ops.holdings import Holdings
from bladeroot.ops.presence import Limits, open_presence
from bladeroot.ops.promote import RootRole
from bladeroot.ops.rolecontrol import LAST_ORDER_NAME, SOCKET_NAME, RoleControl
from bladeroot.ops.roots import ask_daemon
from bladeroot.ops.station import Station, StationOptions, running
from tests.unit.ops.test_holdings import CLUSTER_ID, KEY, add_generation

DEADLINE_S = 60.0
LOOPBACK = discovery.Interface("lo", "127.0.0.1", 8)


@attrs.define
class Machine:
    station: Station
    control: RoleControl
    heard: list[Event]

    @property
    def depot(self) -> Path:
        return self.control.depot.path

    @property
    def role(self) -> Role:
        return self.station.state.role

    @property
    def port(self) -> int:
        return self.station.presence.server.port

    def ask(self, **request: Any) -> Mapping[str, Any]:
        return localsocket.ask(self.depot, SOCKET_NAME, DEADLINE_S, **request)

    def texts(self) -> list[str]:
        return [event.text for event in self.heard if isinstance(event, Note | Warned)]


MakeMachine = Callable[..., Machine]


@pytest.fixture
def make_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeMachine]:
    """Machines that hear each other, and take no role unless they are asked to."""
    monkeypatch.setattr(discovery, "find_interfaces", lambda: [LOOPBACK])
    with ExitStack() as stack:

        def make(blade: str, serial: int = 1) -> Machine:
            depot = Depot.create(tmp_path / blade)
            if serial:
                add_generation(depot, serial)
            heard: list[Event] = []
            holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
            holdings.take_in()
            opening = open_presence(
                holdings, port=0, limits=Limits(), yields_ports=True, reporter=lambda _event: None
            )
            presence = stack.enter_context(opening)
            state = RoleState(blade=blade, is_automatic=False)
            station = Station(presence, state, StationOptions(default_port=1), reporter=heard.append)
            stop = threading.Event()
            control = RoleControl(
                station=station,
                depot=depot,
                blade=blade,
                trusted_keys=[KEY.public_key],
                cluster_id=CLUSTER_ID,
                stop=stop,
                reporter=heard.append,
            )
            presence.take_role_order = control.take_role_order
            stack.enter_context(running(station))
            thread = threading.Thread(target=control.run)
            stack.callback(thread.join, DEADLINE_S)
            stack.callback(stop.set)
            thread.start()
            wait_until((depot.path / SOCKET_NAME).exists)
            return Machine(station, control, heard)

        yield make


@pytest.fixture
def machine(make_machine: MakeMachine) -> Machine:
    return make_machine("unit-test-1")


def wait_until(is_so: Callable[[], object]) -> None:
    waited = threading.Event()
    for _ in range(int(DEADLINE_S / 0.02)):
        if is_so():
            return
        waited.wait(0.02)
    pytest.fail("it did not come to that")


def sign(number: int = 9, key: SecretKey = KEY, **changes: Any) -> SignedOrder:
    order = RoleOrder(cluster_id=CLUSTER_ID, number=number, blade="unit-test-1", wish=Wish.PROMOTE)
    return sign_role_order(attrs.evolve(order, **changes), key)


def test_the_role_is_taken_and_given_up_at_the_socket(machine: Machine) -> None:
    at_first = {"blade": "unit-test-1", "role": "follower", "epoch": 0, "serial": 1, "follows": ""}
    assert machine.ask(do="status") == at_first
    taken = machine.ask(do="promote")
    assert taken == {**at_first, "role": "root", "epoch": 1, "follows": "unit-test-1", "netboot": ""}
    assert RootClient("127.0.0.1", machine.port).claim().blade == "unit-test-1"
    assert machine.ask(do="promote")["epoch"] == 1
    refused = machine.ask(do="demote")
    assert refused["error"] == "no blade that is up holds generation 1: nobody could be root"
    assert machine.role is Role.ROOT
    assert machine.ask(do="demote", force=True)["role"] == "retired"
    assert machine.ask(do="demote", force=True)["error"] == "this machine is not root"
    assert machine.ask(do="demote")["exit_code"] == 2
    with pytest.raises(NetworkError, match="this blade is not root"):
        RootClient("127.0.0.1", machine.port).claim()
    roles = [event.role for event in machine.heard if isinstance(event, RoleChanged)]
    assert roles == ["root", "retired"]


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        ({"do": "dance"}, "cannot 'dance'"),
        ({}, "does not understand"),
        ({"do": "demote", "to": "unit-test-1"}, "is root already"),
        ({"do": "demote", "to": "../x"}, "no blade has the name"),
        ({"do": "demote", "to": ["x"]}, "no blade has the name"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_said_and_moves_nothing(
    machine: Machine, request_: dict[str, Any], why: str
) -> None:
    machine.ask(do="promote")
    assert why in machine.ask(**request_)["error"]
    assert machine.ask(do="status")["role"] == "root"
    assert RootClient("127.0.0.1", machine.port).claim().successor == ""


def test_without_a_generation_nobody_is_root(make_machine: MakeMachine) -> None:
    machine = make_machine("unit-test-1", 0)
    assert "no whole generation" in machine.ask(do="promote")["error"]
    with pytest.raises(DepotError, match="no whole generation"):
        machine.control.take_role_order(sign())
    assert not (machine.depot / LAST_ORDER_NAME).exists()


def test_the_role_is_handed_to_a_successor_that_hears_of_it(make_machine: MakeMachine) -> None:
    one, other = make_machine("unit-test-1"), make_machine("unit-test-2")
    one.ask(do="promote")
    wait_until(lambda: other.ask(do="status")["follows"] == "unit-test-1")
    other.station.doubt(f"127.0.0.1:{one.port}")
    thread = threading.Thread(target=one.ask, kwargs={"do": "demote", "to": "unit-test-2"})
    thread.start()
    wait_until(lambda: RootClient("127.0.0.1", one.port).claim().successor == "unit-test-2")
    other.station.doubt(f"127.0.0.1:{one.port}")
    thread.join(DEADLINE_S)
    assert (one.role, other.role) == (Role.RETIRED, Role.ROOT)
    assert other.station.state.epoch > one.station.state.epoch
    wait_until(lambda: one.ask(do="status")["follows"] == "unit-test-2")


def test_who_does_not_take_it_leaves_it_where_it_is(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Station.hand_over, "__defaults__", (0.2,))
    machine.ask(do="promote")
    assert "has not taken the role over" in machine.ask(do="demote", to="unit-test-9")["error"]
    assert RootClient("127.0.0.1", machine.port).claim().successor == ""
    assert machine.role is Role.ROOT


def test_a_signed_order_moves_the_role_once(machine: Machine) -> None:
    client = RootClient("127.0.0.1", machine.port)
    client.give_role_order(sign(9))
    wait_until(lambda: machine.role is Role.ROOT)
    assert json.loads((machine.depot / LAST_ORDER_NAME).read_bytes()) == {"number": 9}
    machine.ask(do="demote", force=True)
    for replayed in (9, 8):
        with pytest.raises(NetworkError, match="403 unit-test-1 had order"):
            client.give_role_order(sign(replayed))
    client.give_role_order(sign(10))
    wait_until(lambda: machine.role is Role.ROOT)
    client.give_role_order(sign(11, wish=Wish.DEMOTE))
    wait_until(lambda: any("nobody could be root" in text for text in machine.texts()))
    assert machine.role is Role.ROOT


@pytest.mark.parametrize(
    ("signed", "why"),
    [
        (sign(key=SecretKey(bytes([7]) * 32)), "not signed by a key"),
        (sign(cluster_id="cd" * 16), "for cluster cdcd"),
        (sign(blade="unit-test-2"), "is for unit-test-2"),
        (SignedOrder(body=b"", signatures=()), "not signed by a key"),
    ],
    ids=["key", "cluster", "blade", "nothing"],
)
def test_nobody_elses_order_moves_anything(machine: Machine, signed: SignedOrder, why: str) -> None:
    with pytest.raises(TrustError, match=why):
        machine.control.take_role_order(signed)
    with pytest.raises(NetworkError, match=f"403 .*{why}"):
        RootClient("127.0.0.1", machine.port).give_role_order(signed)
    assert not (machine.depot / LAST_ORDER_NAME).exists()
    assert machine.role is Role.FOLLOWER


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"number": "x"}', "\0"])
def test_where_it_is_not_known_what_was_done_nothing_is(machine: Machine, damage: str) -> None:
    (machine.depot / LAST_ORDER_NAME).write_text(damage)
    with pytest.raises(ConfigError, match="damaged"):
        machine.control.take_role_order(sign())
    with pytest.raises(NetworkError, match="damaged"):
        RootClient("127.0.0.1", machine.port).give_role_order(sign())
    assert machine.role is Role.FOLLOWER


def test_the_socket_survives_a_moment_without_descriptors(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()

    def fail(*_arguments: object) -> bool:
        failed.set()
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(localsocket.LocalSocket, "serve_one", fail)
        assert failed.wait(DEADLINE_S)
    assert machine.ask(do="status")["role"] == "follower"


def test_the_command_line_hears_the_daemons_own_error(machine: Machine, tmp_path: Path) -> None:
    with pytest.raises(Exception, match="this machine is not root") as caught:
        ask_daemon(machine.depot, do="demote", to=None, force=False)
    assert getattr(caught.value, "exit_code", 0) == 2
    assert ask_daemon(tmp_path / "nowhere", do="status") is None


def test_a_root_that_loses_its_last_generation_retires(machine: Machine) -> None:
    class Netboot:
        def update(self, *_arguments: object) -> None:
            """Nothing to take in."""

    machine.ask(do="promote")
    root = machine.station.root
    assert root is not None
    root.netboot = Netboot()  # type: ignore[assignment]
    artefact = machine.station.presence.holdings.newest.artefacts[0]
    machine.control.depot.distrust(artefact.info_hash)
    machine.station.wake()
    wait_until(lambda: machine.role is Role.RETIRED)
    assert machine.ask(do="status")["serial"] == 0
    (machine.depot / "artefacts" / artefact.info_hash / "complete").touch()
    machine.station.wake()
    wait_until(lambda: machine.ask(do="status")["serial"] == 1)


def test_a_root_answers_netboot_as_the_newest_generation_says(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving: list[Netboot] = []

    @contextmanager
    def serve(root: RootRole, **_options: object) -> Iterator[None]:
        mode = root.newest.network.netboot
        serving.append(mode)
        try:
            yield None
        finally:
            serving.remove(mode)

    monkeypatch.setattr("bladeroot.ops.station.serve_netboot", serve)
    machine = make_machine("unit-test-1")
    machine.ask(do="promote")
    wait_until(lambda: serving == [Netboot.OFF])
    add_generation(machine.control.depot, 2, network=Network(netboot=Netboot.PROXY))
    machine.station.wake()
    wait_until(lambda: serving == [Netboot.PROXY])
    machine.ask(do="demote", force=True)
    wait_until(lambda: not serving)


def test_a_depot_that_cannot_be_read_for_a_while_is_said_once_and_ends_nothing(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.ask(do="promote")
    looked = threading.Semaphore(0)

    def fail(_depot: Depot) -> list[int]:
        looked.release()
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(Depot, "serials", fail)
        for _ in range(3):
            machine.station.wake()
            assert looked.acquire(timeout=DEADLINE_S)
    assert sum("Input/output error" in text for text in machine.texts()) == 1
    assert machine.ask(do="status")["role"] == "root"
