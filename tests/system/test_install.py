"""The install pipeline on real disks (files behind loop devices) with a toy OS."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from bladeroot.core.cluster import MIB
from bladeroot.core.disklayout import Use
from bladeroot.core.manifest import Artefact, ArtefactKind, SignedManifest
from bladeroot.core.signing import PublicKey, SecretKey
from bladeroot.core.torrentfile import Torrent
from bladeroot.errors import (
    ArtefactError,
    DiskBusyError,
    DiskTooSmallError,
    InventoryError,
    TrustError,
)
from bladeroot.events import Event, Finished, StepFinished, StepStarted
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.bootloader import read_committed
from bladeroot.host.depot import Depot
from bladeroot.host.mounts import mounted
from bladeroot.ops import install
from bladeroot.ops.install import STEPS, apply_install, choose_install_disk, plan_install
from bladeroot.ops.sources import DepotSource, OnFile
from tests.toycluster import DISK_SIZE_BYTES, LAYOUT, ToyCluster, make_toy_cluster
from tests.treecompare import find_tree_differences

pytestmark = pytest.mark.system

OWN = frozenset(
    {
        b"etc/bladeroot",
        b"etc/fstab",
        b"etc/hostname",
        b"etc/hosts",
        b"etc/machine-id",
        b"etc/toyos-says",
        b"lost+found",
        b"var/lib/bladeroot",
    }
)
"""What is a blade's own, and not the snapshot's."""
_TIMES_OF_ITS_OWN = re.compile(r"(rsync: \.d\.\.t\S* |)(\./|\.|etc/?|var/?|var/lib/?)(: mtime.*)?")


def find_differences(toy: ToyCluster, slot: Path) -> list[str]:
    """Where the installed tree is not the published one, but for what a blade has of its own (and the times
    of the directories that it made that in)."""
    lines = find_tree_differences(toy.snapshot, slot, ignore=OWN)
    return [line for line in lines if not _TIMES_OF_ITS_OWN.fullmatch(line)]


class CountingSource(DepotSource):
    """Counts what is asked of it."""

    def __init__(self, depot: Depot) -> None:
        super().__init__(depot)
        self.fetched: list[str] = []

    def fetch(
        self,
        torrent_bytes: bytes,
        torrent: Torrent,
        save_path: Path,
        wanted: Collection[str] | None,
        on_file: OnFile,
    ) -> None:
        for name in wanted or [file.name for file in torrent.files]:
            if not (save_path / torrent.name / name).exists():
                self.fetched.append(f"{torrent.name}/{name}")
        super().fetch(torrent_bytes, torrent, save_path, wanted, on_file)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    return make_toy_cluster(tmp_path_factory.mktemp("toy"))


def install_blade(
    toy: ToyCluster,
    disk: Path,
    blade: str = "web01",
    *,
    source: DepotSource | None = None,
    reporter: Any = lambda _event: None,
    trusted: tuple[PublicKey, ...] | None = None,
    cluster_id: str | None = None,
    signed: SignedManifest | None = None,
    again: bool = True,
    wipe_data: bool = False,
) -> dict[str, Any]:
    source = source or DepotSource(toy.depot)
    keys = toy.folder.trusted_keys() if trusted is None else trusted
    cluster = cluster_id or toy.folder.cluster.id
    manifest = signed or source.read_manifest()
    chosen = choose_install_disk(manifest, keys, cluster, blade, disk)
    with open_disk(chosen.path) as opened:
        plan = plan_install(manifest, keys, cluster, blade, chosen, opened, again=again, wipe_data=wipe_data)
        return apply_install(plan, opened, source, reporter=reporter)


@contextmanager
def look_into(disk: Path, work: Path, use: Use = Use.SLOT_A) -> Iterator[Path]:
    """One of the disk's filesystems, read-only."""
    labels = {Use.SLOT_A: "BR-A", Use.SLOT_B: "BR-B", Use.DATA: "BR-DATA"}
    with open_disk(disk) as opened:
        table = read_table(opened)
        assert table is not None
        number = next(part.number for part in table.partitions if part.label == labels[use])
        with mounted(opened.partition(number), work / f"look-{use}", options=["ro"]) as directory:
            yield directory


def read_slot(disk: Path) -> Use | None:
    with open_disk(disk) as opened:
        return read_committed(opened) if read_table(opened) else None


def test_what_was_published_is_what_is_installed(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    heard: list[Event] = []
    facts = install_blade(toy, disk, reporter=heard.append)
    with look_into(disk, tmp_path) as slot:
        assert find_differences(toy, slot) == []
        assert (slot / "etc/toyos-says").read_text() == "web01 of toy\n"
        assert (slot / "etc/hostname").read_text() == "web01\n"
        assert (slot / "usr/share/doc/toy/README.gz").read_bytes() == b"of the extras\n"
        told = json.loads((slot / "etc/bladeroot/installed.json").read_text())
        fstab = (slot / "etc/fstab").read_text()
    assert (told["blade"], told["serial"], told["extras"]) == ("web01", 1, True)
    assert facts["filesystems"]["a"] in fstab
    assert facts["filesystems"]["data"] in fstab
    assert read_slot(disk) is Use.SLOT_A
    started = [event.step for event in heard if isinstance(event, StepStarted)]
    finished = [event.step for event in heard if isinstance(event, StepFinished)]
    assert started == finished == [name for name, _title, _run in STEPS]
    assert heard[-1] == Finished(facts=facts)


def test_an_installed_blade_holds_the_generation_and_can_give_it(toy: ToyCluster, tmp_path: Path) -> None:
    first, second = toy.make_disk(tmp_path / "first"), toy.make_disk(tmp_path / "second")
    install_blade(toy, first)
    with look_into(first, tmp_path, Use.DATA) as data:
        depot = Depot(data)
        assert depot.serials() == [1]
        assert [line for artefact in toy.manifest.artefacts for line in depot.find_damage(artefact)] == []
        install_blade(toy, second, "web02", source=DepotSource(depot))
    with look_into(second, tmp_path) as slot:
        assert (slot / "etc/hostname").read_text() == "web02\n"


def test_blades_are_different_machines_and_stay_themselves_when_reimaged(
    toy: ToyCluster, tmp_path: Path
) -> None:
    def read_machine_id(disk: Path) -> str:
        with look_into(disk, tmp_path) as slot:
            return (slot / "etc/machine-id").read_text()

    one, two = toy.make_disk(tmp_path / "one"), toy.make_disk(tmp_path / "two")
    before = install_blade(toy, one)
    other = install_blade(toy, two, "web02")
    first_id = read_machine_id(one)
    assert first_id != read_machine_id(two)
    source = CountingSource(toy.depot)
    again = install_blade(toy, one, source=source)
    assert read_machine_id(one) == first_id
    assert source.fetched == []
    assert before["filesystems"]["data"] == again["filesystems"]["data"]
    assert len({facts["filesystems"]["a"] for facts in (before, other, again)}) == 3


@pytest.mark.parametrize("cut", range(len(STEPS)), ids=[name for name, _title, _run in STEPS])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_install_that_was_cut_off_boots_nothing_half_done_and_is_taken_up_again(
    toy: ToyCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int, when: str
) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    source = CountingSource(toy.depot)
    cut_off_install(toy, disk, source, monkeypatch, cut, when)
    names = [step[0] for step in STEPS]
    is_committed = (
        (cut, when) >= (names.index("commit"), "after") if when == "after" else cut > names.index("commit")
    )
    assert read_slot(disk) is (Use.SLOT_A if is_committed else None)
    fetched_before = set(source.fetched)
    install_blade(toy, disk, source=source)
    assert len(source.fetched) == len(set(source.fetched)), "something was fetched twice"
    assert fetched_before <= set(source.fetched)
    assert read_slot(disk) is Use.SLOT_A
    with look_into(disk, tmp_path) as slot:
        assert find_differences(toy, slot) == []


@pytest.fixture(scope="module")
def two_slots(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    layout = attrs.evolve(LAYOUT, slots=2)
    return make_toy_cluster(tmp_path_factory.mktemp("two-slots"), layout)


COMMIT = [name for name, _title, _run in STEPS].index("commit")


@pytest.mark.parametrize("cut", range(COMMIT + 1), ids=[name for name, _title, _run in STEPS[: COMMIT + 1]])
def test_a_reimage_that_was_cut_off_never_leaves_half_a_system_to_boot(
    toy: ToyCluster, two_slots: ToyCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    one, two = toy.make_disk(tmp_path / "one"), toy.make_disk(tmp_path / "two", 2 * DISK_SIZE_BYTES)
    for cluster, disk in ((toy, one), (two_slots, two)):
        install_blade(cluster, disk)
        cut_off_install(cluster, disk, CountingSource(cluster.depot), monkeypatch, cut, "before")
    assert read_slot(one) is (Use.SLOT_A if cut == 0 else None)
    assert read_slot(two) is Use.SLOT_A
    with look_into(two, tmp_path) as slot:
        assert find_differences(two_slots, slot) == []
    install_blade(two_slots, two)
    assert read_slot(two) is Use.SLOT_B
    with look_into(two, tmp_path, Use.SLOT_B) as slot:
        assert find_differences(two_slots, slot) == []


def cut_off_install(
    toy: ToyCluster, disk: Path, source: CountingSource, monkeypatch: pytest.MonkeyPatch, cut: int, when: str
) -> None:
    """Install, but stop before or after a step, as if the power went."""

    class PowerCutError(Exception):
        pass

    def cut_power(installation: install.Installation) -> None:
        if when == "after":
            STEPS[cut][2](installation)
        raise PowerCutError

    name, title, _run = STEPS[cut]
    with monkeypatch.context() as patch:
        patch.setattr(install, "STEPS", (*STEPS[:cut], (name, title, cut_power), *STEPS[cut + 1 :]))
        with pytest.raises(PowerCutError):
            install_blade(toy, disk, source=source)


def corrupt(depot: Depot, artefact: Artefact, number: int) -> Path:
    path = depot.artefact_files(artefact.info_hash)[number]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def test_a_tampered_artefact_is_found_before_anything_can_boot(tmp_path: Path) -> None:
    toy = make_toy_cluster(tmp_path / "toy")
    corrupt(toy.depot, toy.manifest.artefact(ArtefactKind.RUNTIME), 1)
    disk = toy.make_disk(tmp_path / "disk")
    with pytest.raises(ArtefactError, match="bytes that were signed"):
        install_blade(toy, disk)
    assert read_slot(disk) is None


def test_a_torn_frame_in_the_blades_own_depot_is_fetched_again(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    install_blade(toy, disk)
    with open_disk(disk) as opened:
        table = read_table(opened)
        assert table is not None
        number = next(part.number for part in table.partitions if part.label == "BR-DATA")
        with mounted(opened.partition(number), tmp_path / "data") as data:
            corrupt(Depot(data), toy.manifest.artefact(ArtefactKind.RUNTIME), 1)
    install_blade(toy, disk)
    with look_into(disk, tmp_path) as slot:
        assert find_differences(toy, slot) == []
    with look_into(disk, tmp_path, Use.DATA) as data:
        assert Depot(data).find_damage(toy.manifest.artefact(ArtefactKind.RUNTIME)) == []


def test_what_is_not_signed_for_this_cluster_does_not_get_near_the_disk(
    toy: ToyCluster, tmp_path: Path
) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    before = disk.read_bytes()
    with pytest.raises(TrustError, match="does not trust"):
        install_blade(toy, disk, trusted=(SecretKey.generate().public_key,))
    with pytest.raises(TrustError, match="not of"):
        install_blade(toy, disk, cluster_id="cd" * 16)
    with pytest.raises(InventoryError, match="does not know a blade 'web99'"):
        install_blade(toy, disk, "web99")
    assert disk.read_bytes() == before


def test_a_disk_that_is_too_small(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk", 128 * MIB)
    with pytest.raises(DiskTooSmallError):
        install_blade(toy, disk)
    assert disk.read_bytes() == bytes(128 * MIB)


def test_a_disk_that_is_mounted(toy: ToyCluster, tmp_path: Path) -> None:
    disk = toy.make_disk(tmp_path / "disk")
    install_blade(toy, disk)
    with look_into(disk, tmp_path), pytest.raises(DiskBusyError):
        install_blade(toy, disk)


def test_a_blade_does_not_go_down_to_a_lower_serial(tmp_path: Path) -> None:
    toy = make_toy_cluster(tmp_path / "toy")
    (toy.snapshot / "etc/added").write_text("in the second generation\n")
    newer = toy.publish()
    older = toy.depot.read_manifest(newer.serial - 1)
    disk = toy.make_disk(tmp_path / "disk")
    install_blade(toy, disk)
    with pytest.raises(TrustError, match=f"older than {newer.serial}"):
        install_blade(toy, disk, signed=older)
    with look_into(disk, tmp_path) as slot:
        assert find_differences(toy, slot) == []
    assert install_blade(toy, disk, signed=older, wipe_data=True)["serial"] == newer.serial - 1
