"""What of the agent is remembered: what importing it loads, and which one a depot has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bladeroot.core.manifest import Artefact, ArtefactKind
from bladeroot.host.depot import Depot
from bladeroot.ops.initramfs import loaded
from bladeroot.ops.initramfs.made import keep_made_agent, read_made_agent


class Asked:
    """A Python that lists one module, and how often it was asked."""

    stdout = '[["attr", "/usr/lib/attr.py"]]'

    def __init__(self) -> None:
        self.times = 0

    def __call__(self, _argv: object) -> Asked:
        self.times += 1
        return self


def test_what_is_loaded_is_asked_again_when_a_source_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Asked()
    monkeypatch.setattr(loaded, "run", asked)
    monkeypatch.setenv("BLADEROOT_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "source.py"
    source.touch()
    for _ in range(2):
        assert loaded.list_loaded([source]) == [("attr", "/usr/lib/attr.py")]
    assert asked.times == 1
    os.utime(source, (5, 5))
    loaded.list_loaded([source])
    assert asked.times == 2
    (tmp_path / "cache/agent/loaded.json").write_text("[torn")
    assert loaded.list_loaded([source]) == [("attr", "/usr/lib/attr.py")]
    assert asked.times == 3


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot.create(tmp_path / "depot")


@pytest.fixture
def agent(depot: Depot) -> Artefact:
    with depot.new_artefact() as writer:
        files = [writer.add_file(name, name.encode() * 99) for name in ("info", "vmlinuz.00")]
        return writer.finish(ArtefactKind.AGENT, files, 1)


def test_an_agent_of_the_same_is_taken_as_it_is(depot: Depot, agent: Artefact) -> None:
    assert read_made_agent(depot, "of this") is None
    keep_made_agent(depot, "of this", agent)
    assert read_made_agent(depot, "of this") == agent
    assert read_made_agent(depot, "of something else") is None


def test_an_agent_that_is_damaged_or_gone_is_made_again(depot: Depot, agent: Artefact) -> None:
    keep_made_agent(depot, "of this", agent)
    victim = depot.artefact_files(agent.info_hash)[1]
    whole = victim.read_bytes()
    victim.write_bytes(b"damaged")
    assert read_made_agent(depot, "of this") is None
    victim.write_bytes(whole)
    assert read_made_agent(depot, "of this") == agent
    depot.distrust(agent.info_hash)
    assert read_made_agent(depot, "of this") is None


def test_a_damaged_record_of_the_agent_is_none(depot: Depot, agent: Artefact) -> None:
    keep_made_agent(depot, "of this", agent)
    for data in (b"", depot.agent_record.read_bytes()[:-3], b"x" * 9000):
        depot.agent_record.write_bytes(data)
        assert read_made_agent(depot, "of this") is None
