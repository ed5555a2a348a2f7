"""What the agent has with a root goes on with the next one, without another attempt."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

import pytest

from bladeroot.agent import agent as agent_module
from bladeroot.agent.agent import Agent
from bladeroot.agent.arguments import AgentArguments
from bladeroot.agent.site import Site
from bladeroot.core.cluster import Cluster
from bladeroot.core.roomstate import BladePhase
from bladeroot.errors import NetworkError
from bladeroot.events import Event, Finished, Note, Reporter, StepStarted
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from tests.unit.ui.cli.test_status import CLAIM, View

TIMEOUT_S = 60.0


def serve() -> ControlServer:
    return ControlServer(View(), cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=0)


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_install_is_told_to_the_next_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bladeroot.ops.reporting._INTERVAL_S", 0.01)
    said: list[Event] = []
    looked_for: list[tuple[str, ...]] = []
    with ExitStack() as stack:
        first, second = stack.enter_context(serve()), stack.enter_context(serve())

        def find(cluster: Cluster, *, named: Iterable[str], reporter: Reporter) -> RootClient:
            del reporter
            assert cluster.id == CLAIM.cluster_id
            looked_for.append(tuple(named))
            if len(looked_for) == 1:
                raise NetworkError("none yet")
            return RootClient("127.0.0.1", second.port)

        monkeypatch.setattr(agent_module, "find_root_again", find)
        agent = Agent(
            arguments=AgentArguments(root="10.0.0.1:7474"),
            site=Site(Cluster(name="toy", id=CLAIM.cluster_id), ()),
            console=said.append,
            chance=lambda low, _high: low / 100,
            blade="web02",
        )
        session = agent.follow(RootClient("127.0.0.1", first.port))
        stack.callback(agent.leave_root)
        agent.report(StepStarted(step="runtime", title="Fetch"))
        wait_until(lambda: first.room.blades["web02"].step == "runtime")
        first.close()
        wait_until(lambda: second.room.blades["web02"].step == "runtime")
        assert agent.session is session
        assert (session.client.host, session.client.claim().port) == ("127.0.0.1", second.port)
        agent.report(Finished(facts={"serial": 7}))
        wait_until(lambda: second.room.blades["web02"].phase is BladePhase.FINISHED)
    assert looked_for == [("10.0.0.1:7474",)] * 2
    assert len([event for event in said if isinstance(event, Note)]) == 2
