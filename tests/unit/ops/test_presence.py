"""One control service whatever the role: what it answers comes and goes with it."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bladeroot.core.orders import Order, sign_order
from bladeroot.core.reports import Report, plan_reports
from bladeroot.core.roleorders import RoleOrder, sign_role_order
from bladeroot.core.takeover import Wish
from bladeroot.errors import NetworkError, PortTakenError
from bladeroot.events import Booted, Event, Warned
from bladeroot.host.depot import Depot
from bladeroot.net.client import RootClient
from bladeroot.ops.holdings import Holdings
from bladeroot.ops.presence import Limits, Presence, open_presence
from bladeroot.ops.promote import RootRole
from tests.unit.ops.test_holdings import CLUSTER_ID, KEY, add_generation

DEADLINE_S = 30.0


class NamingRole(RootRole):
    """A root of a generation that knows one blade."""

    def blade_names(self) -> list[str]:
        return ["web02"]

    def racks(self) -> dict[str, str | None]:
        return {}


@pytest.fixture
def heard() -> list[Event]:
    return []


@pytest.fixture
def holdings(tmp_path: Path, heard: list[Event]) -> Holdings:
    depot = Depot.create(tmp_path / "depot")
    add_generation(depot, 1)
    holdings = Holdings(depot, [KEY.public_key], CLUSTER_ID, heard.append)
    holdings.take_in()
    return holdings


@pytest.fixture
def presence(holdings: Holdings, heard: list[Event]) -> Iterator[Presence]:
    with open_presence(
        holdings, port=0, limits=Limits(otherwise=1 << 20), yields_ports=True, reporter=heard.append
    ) as presence:
        heard.clear()
        yield presence


@pytest.fixture
def client(presence: Presence) -> RootClient:
    return RootClient("127.0.0.1", presence.server.port)


def report(session: str, sequence: int = 1) -> Report:
    template = Report(cluster_id=CLUSTER_ID, blade="web02", session=session, sequence=sequence)
    return plan_reports(template, [Booted(serial=1, order=0)])[0]


def wait_until(is_so: Callable[[], object]) -> None:
    waited = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if is_so():
            return
        waited.wait(0.01)
    pytest.fail("it did not come to that")


def begin(presence: Presence) -> None:
    presence.begin_root(NamingRole(presence, blade="web01", epoch=5, successor="web03"))
    wait_until(lambda: "web02" in presence.server.room.blades)


def read_script(client: RootClient) -> str:
    return client.read_boot_script("52:54:00:00:00:01", "")


def test_who_is_no_root_gives_what_it_has_and_answers_for_nobody(
    presence: Presence, client: RootClient
) -> None:
    assert client.serials() == (1,)
    assert client.manifest(1).hash == presence.holdings.manifest_hash(1)
    info_hash = presence.holdings.newest.artefacts[0].info_hash
    assert client.torrent(info_hash) == presence.holdings.torrent(info_hash)
    assert presence.swarm.info_hashes() == (info_hash,)
    assert client.read_orders().orders == ()
    assert "this blade is not root" in read_script(client)
    for ask, why in (
        (client.claim, "404 this blade is not root"),
        (client.status, "404 this blade is not root"),
        (lambda: client.report(report("s")), "403 this blade is not root"),
        (
            lambda: client.give_order(
                sign_order(Order(cluster_id=CLUSTER_ID, number=3, blades=("web02",)), KEY)
            ),
            "403",
        ),
    ):
        with pytest.raises(NetworkError, match=why):
            ask()
    assert presence.server.room.blades.keys() <= {""}


def test_a_root_answers_and_takes_reports_and_forgets_them_with_the_role(
    presence: Presence, client: RootClient
) -> None:
    begin(presence)
    claim = client.claim()
    assert (claim.blade, claim.epoch, claim.serial, claim.successor) == ("web01", 5, 1, "web03")
    assert client.report(report("s")).is_known
    assert presence.server.room.blades["web02"].serial == 1
    order = sign_order(Order(cluster_id=CLUSTER_ID, number=3, blades=("web02",)), KEY)
    client.give_order(order)
    assert client.read_orders().orders == (order,)
    assert "this blade is not root" not in read_script(client)
    presence.end_root()
    wait_until(lambda: "web02" not in presence.server.room.blades)
    with pytest.raises(NetworkError, match="403 this blade is not root"):
        client.report(report("s", 2))
    assert client.read_orders().orders == ()
    begin(presence)  # to a room that is empty, and to a session that went on elsewhere
    assert presence.server.room.blades["web02"].serial == 0
    assert not client.report(report("s", 3)).is_known


def test_nobody_moves_the_role_where_no_daemon_runs(client: RootClient) -> None:
    order = RoleOrder(cluster_id=CLUSTER_ID, number=9, blade="web01", wish=Wish.PROMOTE)
    with pytest.raises(NetworkError, match="403 no daemon runs here"):
        client.give_role_order(sign_role_order(order, KEY))
    with closing(http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)) as connection:
        connection.request("POST", "/v1/role", body=b"\xc1nonsense")
        assert connection.getresponse().status == 400


def test_a_port_that_is_taken_is_an_error_or_another_is_used(
    presence: Presence, holdings: Holdings, heard: list[Event]
) -> None:
    port = presence.server.port
    with (
        pytest.raises(PortTakenError),
        open_presence(holdings, port=port, limits=Limits(), reporter=heard.append),
    ):
        pytest.fail("it began")
    with open_presence(
        holdings, port=port, limits=Limits(), yields_ports=True, reporter=heard.append
    ) as other:
        assert other.server.port != port
    assert any(isinstance(event, Warned) and "another one is used" in event.text for event in heard)
