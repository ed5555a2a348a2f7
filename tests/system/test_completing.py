"""What an install leaves to the daemon, and how the running blade gets it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest
from attrs import frozen

from bladeroot.core.agentdecision import BootLocally, DiskFacts, decide
from bladeroot.core.cluster import Blade
from bladeroot.core.manifest import ArtefactKind, SignedManifest
from bladeroot.core.signing import SecretKey
from bladeroot.core.torrentfile import Torrent
from bladeroot.errors import NetworkError, TrustError
from bladeroot.events import Event, StepStarted
from bladeroot.host.archive import Extraction
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.depot import Depot
from bladeroot.host.mounts import mounted
from bladeroot.host.run import run
from bladeroot.ops import completing, fetching
from bladeroot.ops.completing import complete_install, find_own_manifest, read_own_generation
from bladeroot.ops.diskfacts import read_disk_facts
from bladeroot.ops.install import STEPS, apply_install, choose_install_disk, plan_install
from bladeroot.ops.resume import Standing
from bladeroot.ops.sources import DepotSource, OnFile
from tests.blankdisks import needs_loop_devices
from tests.system.test_install import OWN, CountingSource
from tests.toycluster import LAYOUT, ToyCluster, make_cluster, make_toy_cluster
from tests.toyos import build_toy_os, put_daemon_into
from tests.treecompare import find_tree_differences

pytestmark = [pytest.mark.system, needs_loop_devices]

BLADE = "web01"
DOC = Path("usr/share/doc/toy")
COMMIT = [name for name, _title, _run in STEPS].index("commit")
_TIMES_OF_ITS_OWN = re.compile(r"(rsync: \.d\.\.t\S* |)(\./|\.|etc/?|var/?|var/lib/?)(: mtime.*)?")


@frozen
class Left:
    """A toy blade whose install has left the rest to its daemon."""

    toy: ToyCluster
    disk: Path
    facts: dict[str, Any]
    heard: list[Event]

    @property
    def signed(self) -> SignedManifest:
        return self.toy.depot.read_manifest(self.facts["serial"])

    def find_extras(self) -> str:
        """The extras' info-hash."""
        _signed, manifest = self.toy.depot.read_unchecked(self.facts["serial"])
        return manifest.artefact(ArtefactKind.EXTRAS).info_hash

    def copy_disk(self, path: Path) -> Path:
        run(["cp", "--sparse=always", self.disk, path])
        return path

    def complete(self, root: Path, source: DepotSource, signed: SignedManifest | None = None) -> bool:
        depot, keys = Depot(root / "var/lib/bladeroot"), self.toy.folder.trusted_keys()
        return complete_install(root, depot, source, signed or self.signed, keys)

    def check_complete(self, root: Path) -> None:
        own = frozenset({*OWN, bytes(DOC / "ours.gz")})
        differences = find_tree_differences(self.toy.snapshot, root, ignore=own)
        assert [line for line in differences if not _TIMES_OF_ITS_OWN.fullmatch(line)] == []
        assert (root / DOC / "README.gz").read_bytes() == b"of the extras\n"
        assert (root / DOC / "ours.gz").read_text() == "of the overlay\n"
        depot = Depot(root / "var/lib/bladeroot")
        assert depot.serials() == [self.facts["serial"]]
        _signed, manifest = depot.read_unchecked(self.facts["serial"])
        assert depot.is_whole(manifest)
        assert [line for one in manifest.artefacts for line in depot.find_damage(one)] == []


def install_leaving_the_rest(toy: ToyCluster, disk: Path, heard: list[Event]) -> dict[str, Any]:
    """As the agent does."""
    signed, keys = DepotSource(toy.depot).read_manifest(), toy.folder.trusted_keys()
    chosen = choose_install_disk(signed, keys, toy.folder.cluster.id, BLADE, disk)
    with open_disk(chosen.path) as opened:
        plan = plan_install(signed, keys, toy.folder.cluster.id, BLADE, chosen, opened)
        source = DepotSource(toy.depot)
        return apply_install(plan, opened, source, reporter=heard.append, leave_rest=True)


@pytest.fixture(scope="module")
def left(tmp_path_factory: pytest.TempPathFactory) -> Left:
    work = tmp_path_factory.mktemp("left")
    snapshot = work / "snapshot"
    build_toy_os(snapshot)
    put_daemon_into(snapshot)
    (snapshot / DOC).mkdir(parents=True)
    (snapshot / DOC / "README.gz").write_bytes(b"of the extras\n")
    (snapshot / DOC / "ours.gz").write_bytes(b"of the extras too\n")
    overlay = work / "cluster/overlays/role/web/files" / DOC
    toy = make_cluster(work, snapshot, [Blade(name=BLADE, role="web")], layout=LAYOUT)
    overlay.mkdir(parents=True)
    (overlay / "ours.gz").write_text("of the overlay\n")
    toy.publish()
    disk, heard = toy.make_disk(work / "disk"), list[Event]()
    return Left(toy, disk, install_leaving_the_rest(toy, disk, heard), heard)


@contextmanager
def running(disk: Path, work: Path) -> Iterator[Path]:
    """The blade's tree as it is when it is up: with its depot, and to be written to."""
    with open_disk(disk) as opened:
        table = read_table(opened)
        assert table is not None
        numbers = {part.label: part.number for part in table.partitions}
        with (
            mounted(opened.partition(numbers["BR-A"]), work / "running") as root,
            mounted(opened.partition(numbers["BR-DATA"]), root / "var/lib/bladeroot"),
        ):
            yield root


@pytest.fixture
def root(left: Left, tmp_path: Path) -> Iterator[Path]:
    with running(left.copy_disk(tmp_path / "disk"), tmp_path) as root:
        yield root


def read_record(root: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((root / "etc/bladeroot/installed.json").read_text())
    return told


def look(left: Left, disk: Path) -> tuple[DiskFacts, Standing]:
    keys, cluster_id = left.toy.folder.trusted_keys(), left.toy.folder.cluster.id
    with open_disk(disk) as opened:
        chosen = choose_install_disk(left.signed, keys, cluster_id, BLADE, disk)
        plan = plan_install(left.signed, keys, cluster_id, BLADE, chosen, opened)
        return read_disk_facts(opened, cluster_id), plan.standing


class NoSource(DepotSource):
    """One that nothing may be asked of."""

    def refuse(self, *_asked: object, **_more: object) -> NoReturn:
        raise AssertionError("nothing is missing")

    read_manifest = read_torrent = read_file = fetch = refuse


class LostSource(DepotSource):
    """Gives so many files, and then is gone."""

    def __init__(self, depot: Depot, files: int) -> None:
        super().__init__(depot)
        self._left = files

    def fetch(
        self,
        torrent_bytes: bytes,
        torrent: Torrent,
        save_path: Path,
        wanted: Collection[str] | None,
        on_file: OnFile,
    ) -> None:
        def give(name: str, data: bytes) -> None:
            on_file(name, data)
            self._left -= 1
            if not self._left:
                raise NetworkError("the source is gone")

        super().fetch(torrent_bytes, torrent, save_path, wanted, give)


def test_the_install_ends_with_its_commit_and_says_so(left: Left, tmp_path: Path) -> None:
    started = [event.step for event in left.heard if isinstance(event, StepStarted)]
    assert started == [name for name, _title, _run in STEPS[: COMMIT + 1]]
    assert (left.facts["complete"], left.facts["standing"]) == (False, "new")
    facts, standing = look(left, left.disk)
    assert standing is Standing.COMMITTED
    assert (facts.is_complete, facts.completes_itself) == (False, True)
    decision = decide(BLADE, facts, newest=facts.serial, now_s=0)
    assert isinstance(decision, BootLocally), "an agent that is started there leaves it to the daemon"
    with running(left.copy_disk(tmp_path / "disk"), tmp_path) as root:
        assert read_own_generation(root).is_complete is False
        assert not (root / DOC / "README.gz").exists()
        depot = Depot(root / "var/lib/bladeroot")
        assert depot.serials() == []
        assert find_own_manifest(depot, read_own_generation(root)) is None


def test_without_a_daemon_the_install_does_all_of_it(tmp_path: Path) -> None:
    toy = make_toy_cluster(tmp_path / "toy")
    heard: list[Event] = []
    facts = install_leaving_the_rest(toy, disk := toy.make_disk(tmp_path / "disk"), heard)
    started = [event.step for event in heard if isinstance(event, StepStarted)]
    assert started == [name for name, _title, _run in STEPS]
    assert facts["complete"] is True
    with open_disk(disk) as opened:
        told = read_disk_facts(opened, toy.folder.cluster.id)
    assert (told.is_complete, told.completes_itself) == (True, False)


def test_a_running_blade_becomes_complete_and_then_there_is_nothing_to_do(left: Left, tmp_path: Path) -> None:
    disk = left.copy_disk(tmp_path / "disk")
    source = CountingSource(left.toy.depot)
    with running(disk, tmp_path) as root:
        before = read_record(root)
        (root / "etc/toyos-says").write_text("changed by whoever is there\n")
        (root / "etc/bladeroot/notes").write_text("kept\n")
        assert left.complete(root, source) is True
        left.check_complete(root)
        assert {name.partition("/")[0] for name in source.fetched} == {"extras"}
        assert read_record(root) == {**before, "extras": True}
        assert (root / "etc/toyos-says").read_text() == "changed by whoever is there\n"
        assert find_own_manifest(Depot(root / "var/lib/bladeroot"), read_own_generation(root)) == left.signed
        assert left.complete(root, NoSource(left.toy.depot)) is False
    facts, standing = look(left, disk)
    assert (facts.is_complete, standing) == (True, Standing.COMPLETE)


class PowerCutError(Exception):
    """As if the power went."""


def cut_power(*_args: object, **_options: object) -> NoReturn:
    raise PowerCutError


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (completing, "sync_filesystem"),
        (Extraction, "submit_file"),
        (Extraction, "finish"),
        (fetching, "extract_plain"),
        (completing, "write_installed"),
    ],
)
def test_what_is_cut_off_while_it_is_written_begins_again_and_fetches_nothing_again(
    left: Left, root: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, cut_power)
        with pytest.raises(PowerCutError):
            left.complete(root, DepotSource(left.toy.depot))
    assert read_record(root)["extras"] is False
    assert Depot(root / "var/lib/bladeroot").serials() == [left.facts["serial"]]
    assert left.complete(root, NoSource(left.toy.depot)) is True
    left.check_complete(root)


@pytest.mark.parametrize("files", [1, 2])
def test_a_source_that_goes_away_leaves_the_tree_alone_and_what_came_is_kept(
    left: Left, root: Path, files: int
) -> None:
    with pytest.raises(NetworkError, match="is gone"):
        left.complete(root, LostSource(left.toy.depot, files))
    assert [path.name for path in (root / DOC).iterdir()] == ["ours.gz"], "that of the overlay"
    assert Depot(root / "var/lib/bladeroot").serials() == []
    counting = CountingSource(left.toy.depot)
    assert left.complete(root, counting) is True
    torrent = left.toy.depot.read_torrent(left.find_extras())
    assert len(counting.fetched) == len(torrent.files) - files
    left.check_complete(root)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_frame_that_has_rotted_since_is_fetched_again(
    left: Left, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Extraction, "finish", cut_power)
        with pytest.raises(PowerCutError):
            left.complete(root, DepotSource(left.toy.depot))
    depot = Depot(root / "var/lib/bladeroot")
    flip(depot.artefact_files(left.find_extras())[0])
    assert left.complete(root, DepotSource(left.toy.depot)) is True
    left.check_complete(root)


def offer_another_generation(left: Left) -> tuple[SignedManifest, Any]:
    return left.toy.depot.read_manifest(1), left.toy.folder.trusted_keys()


def offer_to_a_stranger(left: Left) -> tuple[SignedManifest, Any]:
    return left.signed, (SecretKey.generate().public_key,)


@pytest.mark.parametrize(
    ("offer", "said"),
    [
        (offer_another_generation, "what it lacks of its own cannot be had"),
        (offer_to_a_stranger, "does not trust"),
    ],
)
def test_only_its_own_signed_generation_will_do(
    left: Left, root: Path, offer: Callable[[Left], tuple[SignedManifest, Any]], said: str
) -> None:
    signed, keys = offer(left)
    depot = Depot(root / "var/lib/bladeroot")
    with pytest.raises(TrustError, match=said):
        complete_install(root, depot, NoSource(left.toy.depot), signed, keys)
    assert read_record(root)["extras"] is False
    assert depot.serials() == []
