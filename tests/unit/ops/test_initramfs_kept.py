"""What of the agent is remembered: what importing it loads, and which one a depot has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zstandard

from bladeroot.core.manifest import Artefact, ArtefactKind
from bladeroot.host.depot import Depot
from bladeroot.ops.initramfs import loaded
from bladeroot.ops.initramfs.keptmodules import KeptModules
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


def test_a_module_is_compressed_again_only_if_it_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLADEROOT_CACHE", str(tmp_path))
    first = KeptModules("6.1").compress("nvme.ko.zst", b"a module" * 99)
    (kept,) = tmp_path.rglob("nvme.ko.zst")
    # Another frame of the same bytes: it is taken as it is.
    other = zstandard.ZstdCompressor(level=1, write_checksum=True).compress(b"a module" * 99)
    assert other != first
    kept.write_bytes(other)
    assert KeptModules("6.1").compress("nvme.ko.zst", b"a module" * 99) == other
    for damage in (b"", b"torn", first[:-2], zstandard.ZstdCompressor().compress(b"b module" * 99)):
        kept.write_bytes(damage)
        assert KeptModules("6.1").compress("nvme.ko.zst", b"a module" * 99) == first
    assert KeptModules("6.1").compress("nvme.ko.zst", b"") == zstandard.ZstdCompressor(level=10).compress(b"")


def test_modules_of_a_few_kernels_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLADEROOT_CACHE", str(tmp_path))
    for number in range(7):
        KeptModules(f"6.{number}").compress("nvme.ko.zst", b"a module")
    assert len(list(tmp_path.glob("*/*"))) == 4
    tmp_path.joinpath("file").touch()
    monkeypatch.setenv("BLADEROOT_CACHE", str(tmp_path / "file"))
    assert KeptModules("6.1").compress("nvme.ko.zst", b"a module")


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
