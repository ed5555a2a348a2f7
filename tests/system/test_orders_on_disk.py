"""Orders on a disk: done once, remembered through everything, and the one way down."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from bladeroot.core.agentfiles import INITRAMFS, KERNEL, choose_parts
from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.bootplan import EFI_LOADERS
from bladeroot.core.disklayout import Use
from bladeroot.core.manifest import ArtefactKind, Manifest
from bladeroot.core.orders import Order
from bladeroot.errors import DiskTooSmallError, TrustError
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.depot import Depot
from bladeroot.host.esp import has_esp_file, is_on_esp, read_boot_facts
from bladeroot.host.espagent import find_agent
from bladeroot.host.mounts import mounted
from bladeroot.ops import install
from bladeroot.ops.install import STEPS, apply_install, choose_install_disk, plan_install
from bladeroot.ops.sources import DepotSource
from tests.toycluster import ToyCluster, make_toy_cluster

pytestmark = pytest.mark.system

BLADE = "web01"
NAMES = [name for name, _title, _run in STEPS]


@frozen
class Room:
    """A toy cluster with generations 1 and 2."""

    toy: ToyCluster
    newer: Manifest

    @property
    def cluster_id(self) -> str:
        return self.toy.folder.cluster.id

    def order(self, number: int, serial: int | None = None, *, wipe_data: bool = False) -> Order:
        return Order(
            cluster_id=self.cluster_id, number=number, blades=(BLADE,), serial=serial, wipe_data=wipe_data
        )

    def install(self, disk: Path, serial: int = 2, order: Order | None = None) -> dict[str, Any]:
        signed = self.toy.depot.read_manifest(serial)
        keys = self.toy.folder.trusted_keys()
        chosen = choose_install_disk(signed, keys, self.cluster_id, BLADE, disk)
        with open_disk(disk) as opened:
            plan = plan_install(signed, keys, self.cluster_id, BLADE, chosen, opened, order=order)
            return apply_install(plan, opened, DepotSource(self.toy.depot))


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    toy = make_toy_cluster(tmp_path_factory.mktemp("toy"))
    (toy.snapshot / "etc/added").write_text("in the second generation\n")
    return Room(toy, toy.publish())


def read_facts(disk: Path) -> BootFacts:
    with open_disk(disk) as opened:
        return read_boot_facts(opened)


@contextmanager
def look_into(disk: Path, work: Path, label: str, *, write: bool = False) -> Iterator[Path]:
    with open_disk(disk) as opened:
        table = read_table(opened)
        assert table is not None
        number = next(part.number for part in table.partitions if part.label == label)
        options = [] if write else ["ro"]
        with mounted(opened.partition(number), work / f"look-{label}", options=options) as directory:
            yield directory


def read_installed(disk: Path, work: Path) -> dict[str, Any]:
    with look_into(disk, work, "BR-A") as slot:
        told: dict[str, Any] = json.loads((slot / "etc/bladeroot/installed.json").read_text())
        return told


class PowerCutError(Exception):
    """As if the power went."""


def cut_power(_installation: install.Installation) -> None:
    raise PowerCutError


def cut_off(room: Room, disk: Path, order: Order, at: str, patch: pytest.MonkeyPatch) -> None:
    index = NAMES.index(at)
    with patch.context() as inner:
        steps = (*STEPS[:index], (at, "power cut", cut_power), *STEPS[index + 1 :])
        inner.setattr(install, "STEPS", steps)
        with pytest.raises(PowerCutError):
            room.install(disk, order=order)


def test_an_order_is_the_one_way_down_and_only_once(room: Room, tmp_path: Path) -> None:
    disk = room.toy.make_disk(tmp_path / "disk")
    room.install(disk)
    with pytest.raises(TrustError, match="older than 2"):
        room.install(disk, serial=1)
    with pytest.raises(TrustError, match="older than 2"):
        room.install(disk, serial=1, order=room.order(9))
    with pytest.raises(TrustError, match="order 9 is for generation 1, not for 2"):
        room.install(disk, serial=2, order=room.order(9, 1))
    assert read_facts(disk) == BootFacts(
        slot=Use.SLOT_A, serial=2, cluster_id=room.cluster_id, tries=0
    ).when_booted().with_try(0), "what is refused is not begun"

    down = room.order(9, 1)
    assert room.install(disk, serial=1, order=down)["order"] == 9
    facts = read_facts(disk)
    assert (facts.serial, facts.order, facts.count_tries(9)) == (1, 9, 0)
    assert read_installed(disk, tmp_path)["order"] == 9

    assert room.install(disk, serial=1, order=down)["standing"] == "complete"
    room.install(disk, order=room.order(10))
    with pytest.raises(TrustError, match="older than 2"):
        room.install(disk, serial=1, order=down)
    assert read_installed(disk, tmp_path)["order"] == 10


def test_an_order_that_was_cut_off_is_taken_up_by_the_disk_itself(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk, order = room.toy.make_disk(tmp_path / "disk"), room.order(9)
    room.install(disk)
    with look_into(disk, tmp_path, "BR-DATA", write=True) as data:
        (data / "precious").write_text("of the blade\n")
    for at, tries in (("runtime", 1), ("commit", 2)):
        cut_off(room, disk, order, at, monkeypatch)
        facts = read_facts(disk)
        assert (facts.slot, facts.serial, facts.order) == (None, 2, 0)
        assert facts.count_tries(9) == tries
        with open_disk(disk) as opened:
            assert find_agent(opened) is not None
            assert all(has_esp_file(opened, path) for path in EFI_LOADERS)
    room.install(disk, order=order)
    assert read_facts(disk).order == 9
    with look_into(disk, tmp_path, "BR-DATA") as data:
        assert (data / "precious").read_text() == "of the blade\n"


def test_the_agent_is_on_a_blank_disk_before_the_runtime_is(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = room.toy.make_disk(tmp_path / "disk")
    cut_off(room, disk, room.order(9), "runtime", monkeypatch)
    assert read_facts(disk) == BootFacts().with_try(9)
    artefact = room.newer.artefact(ArtefactKind.AGENT)
    files = {path.name: path for path in room.toy.depot.artefact_files(artefact.info_hash)}
    with open_disk(disk) as opened:
        found = find_agent(opened)
        assert found is not None
        for path, name in zip(found, (KERNEL, INITRAMFS), strict=True):
            assert is_on_esp(opened, path, [files[part] for part in choose_parts(name, files)])
        assert all(has_esp_file(opened, path) for path in EFI_LOADERS)
    room.install(disk)
    with look_into(disk, tmp_path, "BR-DATA") as data:
        assert Depot(data).has(artefact.info_hash)


def test_an_order_wipes_data_once(room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, order = room.toy.make_disk(tmp_path / "disk"), room.order(9, wipe_data=True)
    room.install(disk)
    with look_into(disk, tmp_path, "BR-DATA", write=True) as data:
        (data / "old").write_text("of the blade\n")
    cut_off(room, disk, order, "agent", monkeypatch)
    with look_into(disk, tmp_path, "BR-DATA", write=True) as data:
        assert not (data / "old").exists()
        (data / "new").write_text("fetched already\n")
    room.install(disk, order=order)
    with look_into(disk, tmp_path, "BR-DATA") as data:
        assert (data / "new").exists()
    assert read_facts(disk).wiped == 0


def test_an_esp_without_room_for_the_agent_is_refused_before_the_disk_is_touched(
    room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = room.toy.make_disk(tmp_path / "disk")
    monkeypatch.setattr("bladeroot.ops.installplan._ESP_SLACK_BYTES", 120 << 20)
    with pytest.raises(
        DiskTooSmallError, match=r"agent of generation 2 takes .* layout 'default' has"
    ) as caught:
        room.install(disk)
    assert "esp_size" in caught.value.hint
    with disk.open("rb") as stream:
        assert stream.read(1 << 20) == bytes(1 << 20)
