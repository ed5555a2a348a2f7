"""Who a machine is: by the signed manifest; strangers by their policy, whatever a root says."""

from __future__ import annotations

from typing import cast

import pytest

from bladeroot.agent import identify
from bladeroot.agent.agent import Agent, HeldError
from bladeroot.agent.arguments import AgentArguments
from bladeroot.agent.identify import find_identity
from bladeroot.agent.session import Session
from bladeroot.agent.site import Site
from bladeroot.core.agentdecision import DiskFacts, DiskState
from bladeroot.core.cluster import Blade, Cluster, Role, StrangerPolicy, Strangers
from bladeroot.core.hardware import Hardware, Nic
from bladeroot.core.manifest import Manifest, make_blade_entries
from bladeroot.errors import NetworkError

MAC = "52:54:00:00:00:99"
BLADES = [
    Blade(name="web01", macs=("52:54:00:00:00:01",)),
    *(Blade(name=f"spare{number}") for number in (1, 2, 3)),
]
ASSIGN = Strangers(policy=StrangerPolicy.ASSIGN, pool="spare[1-3],web01")


class FakeClient:
    def __init__(self, script: str | None) -> None:
        self.script = script

    def read_boot_script(self, mac: str, uuid: str) -> str:
        assert (mac, uuid) == (MAC, "")
        if self.script is None:
            raise NetworkError("silence")
        return self.script


class FakeSession:
    def __init__(self, script: str | None) -> None:
        self.client = FakeClient(script)

    def report(self, event: object) -> None:
        del event


def make_agent(
    *, mac: str = MAC, strangers: Strangers | None = None, script: str | None = None, blade: str | None = None
) -> Agent:
    cluster = Cluster(
        name="toy", id="0" * 32, roles={"blade": Role(name="blade")}, blades={one.name: one for one in BLADES}
    )
    manifest = Manifest(
        cluster_id=cluster.id,
        cluster_name="toy",
        serial=4,
        previous=None,
        arch="x86_64",
        created=0,
        kernel_command_line="",
        artefacts=(),
        blades=make_blade_entries(cluster),
        strangers=strangers or Strangers(),
    )
    return Agent(
        arguments=AgentArguments(blade=blade, mac=mac),
        site=Site(cluster, ()),
        console=lambda _event: None,
        hardware=Hardware(nics=(Nic(name="eth0", mac=mac),)),
        manifest=manifest,
        session=cast("Session", FakeSession(script)),
    )


@pytest.fixture(autouse=True)
def disks(monkeypatch: pytest.MonkeyPatch) -> list[DiskFacts]:
    found: list[DiskFacts] = []
    monkeypatch.setattr(identify, "find_installed", lambda _agent: iter(found))
    return found


def test_a_known_machine_is_its_blade_whatever_it_was_started_as() -> None:
    assert find_identity(make_agent(mac="52:54:00:00:00:01", strangers=ASSIGN, blade="spare1")) == "web01"


def test_a_stranger_is_held_with_what_to_do() -> None:
    with pytest.raises(HeldError, match=f"generation 4 of cluster toy does not know .*{MAC}") as held:
        find_identity(make_agent(blade="spare1", script="bladeroot.blade=spare1"))
    assert f"bladeroot blades adopt {MAC}" in held.value.hint


def test_a_stranger_becomes_what_it_was_started_as_if_the_pool_has_it() -> None:
    assert find_identity(make_agent(strangers=ASSIGN, blade="spare2")) == "spare2"


def test_the_root_is_asked_where_nothing_else_tells() -> None:
    script = "#!ipxe\nkernel vmlinuz console=ttyS0 bladeroot.blade=spare3\nboot\n"
    assert find_identity(make_agent(strangers=ASSIGN, script=script)) == "spare3"


def test_what_the_disk_is_counts_before_what_a_root_says(disks: list[DiskFacts]) -> None:
    disks.append(DiskFacts(state=DiskState.COMMITTED, blade="spare1"))
    agent = make_agent(strangers=ASSIGN, blade="spare2", script="bladeroot.blade=spare3 x")
    assert find_identity(agent) == "spare1"


@pytest.mark.parametrize("name", ["web01", "nobody"])
def test_no_root_makes_a_stranger_another_machine(name: str) -> None:
    agent = make_agent(strangers=ASSIGN, blade=name, script=f"bladeroot.blade={name}\n")
    with pytest.raises(HeldError, match=name):
        find_identity(agent)


def test_a_root_that_is_silent_assigns_nobody() -> None:
    with pytest.raises(HeldError, match="the root names none"):
        find_identity(make_agent(strangers=ASSIGN))
