"""Which steps an agent runs: all of them on the blade itself, and not those that change another machine."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bladeroot.agent import steps
from bladeroot.agent.agent import Agent, Assignment
from bladeroot.agent.arguments import AgentArguments
from bladeroot.agent.site import Site
from bladeroot.core.cluster import Cluster
from bladeroot.events import ignore

ASSIGNMENT = Assignment(blade="web01", disk=Path("/nowhere/web01.img"))
OF_THE_MACHINE = {"drivers", "network", "clock", "boot-entry"}


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the steps that were run, of which none does anything."""
    names: list[str] = []

    def note(one: steps.AgentStep) -> steps.AgentStep:
        return attrs.evolve(one, run=lambda _agent: names.append(one.name))

    for table in ("BEFORE", "AFTER"):
        monkeypatch.setattr(steps, table, tuple(note(one) for one in getattr(steps, table)))
    monkeypatch.setattr(steps, "install_it", lambda _agent: names.append("install"))
    return names


@pytest.mark.parametrize("assignment", [None, ASSIGNMENT])
def test_an_agent_that_is_assigned_a_disk_leaves_its_machine_alone(
    ran: list[str], assignment: Assignment | None
) -> None:
    site = Site(Cluster(name="lab", id="0" * 32), ())
    arguments = AgentArguments()
    steps.run_steps(Agent(arguments=arguments, site=site, console=ignore, assignment=assignment))
    all_names = [one.name for one in (*steps.BEFORE, *steps.AFTER)]
    assert set(all_names) > OF_THE_MACHINE
    left_out = set(all_names) - set(ran)
    assert left_out == (OF_THE_MACHINE if assignment else set())
    assert ran[-2 if assignment else -3] == "install"
