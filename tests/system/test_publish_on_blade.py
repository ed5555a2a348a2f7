"""A new generation is published on an installed blade: it has the rules, and of the overlays only its own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs
import pytest

from bladeroot.core.cluster import Blade
from bladeroot.core.manifest import ArtefactKind
from bladeroot.errors import ConfigError
from bladeroot.host.depot import Depot
from bladeroot.ops.folder import ClusterFolder
from bladeroot.ops.publish import plan_publish, publish_snapshot
from tests.blankdisks import needs_loop_devices
from tests.system.test_install import look_into
from tests.toycluster import BLADES, ToyCluster, make_toy_cluster

pytestmark = [pytest.mark.system, needs_loop_devices]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    toy = make_toy_cluster(tmp_path_factory.mktemp("toy"))
    rules = toy.folder.split_rules_path
    rules.write_text(rules.read_text() + "extras /opt/**\n")
    toy.publish()
    return toy


@pytest.fixture
def on_blade(toy: ToyCluster, tmp_path: Path) -> ToyCluster:
    """The cluster folder and the depot as an installed blade has them."""
    from bladeroot.host.blockdev import open_disk
    from bladeroot.ops.install import apply_install, choose_install_disk, plan_install
    from bladeroot.ops.sources import DepotSource

    source = DepotSource(toy.depot)
    keys, cluster_id = toy.folder.trusted_keys(), toy.folder.cluster.id
    image = toy.make_disk(tmp_path / "disk.img")
    signed = source.read_manifest()
    disk = choose_install_disk(signed, keys, cluster_id, BLADES[0], image)
    with open_disk(disk.path) as opened:
        plan = plan_install(signed, keys, cluster_id, BLADES[0], disk, opened)
        apply_install(plan, opened, source)
    with look_into(image, tmp_path) as slot:
        shutil.copytree(slot / "etc/bladeroot", tmp_path / "bladeroot")
    shutil.copytree(toy.depot.path, tmp_path / "depot")
    folder = ClusterFolder.open(tmp_path / "bladeroot")
    assert json.loads((folder.path / "installed.json").read_text())["blade"] == BLADES[0]
    return attrs.evolve(toy, folder=folder, depot=Depot.open(tmp_path / "depot"))


def test_a_blade_publishes_with_the_overlays_of_the_newest_generation(
    toy: ToyCluster, on_blade: ToyCluster
) -> None:
    assert on_blade.folder.is_of_blade
    assert not toy.folder.is_of_blade
    before = toy.depot.load(toy.depot.serials()[-1], toy.folder.trusted_keys(), toy.folder.cluster.id)
    opt = toy.snapshot / "opt"
    opt.mkdir()
    (opt / "new").write_text("of the extras, as the rules say\n")
    plan = plan_publish(on_blade.folder, on_blade.snapshot)
    published = publish_snapshot(plan, on_blade.depot, on_blade.secret_key)
    shutil.rmtree(opt)
    assert published.manifest.serial == before.serial + 1
    assert published.manifest.blades == before.blades
    kinds = {kind: published.manifest.artefact(kind) == before.artefact(kind) for kind in ArtefactKind}
    assert kinds[ArtefactKind.OVERLAYS]
    assert not kinds[ArtefactKind.EXTRAS]


def test_a_blade_cannot_publish_another_inventory(on_blade: ToyCluster) -> None:
    cluster = on_blade.folder.cluster
    blades = {**cluster.blades, "web09": Blade(name="web09", role="web")}
    folder = on_blade.folder.save(attrs.evolve(cluster, blades=blades))
    with pytest.raises(ConfigError, match="has no overlays"):
        publish_snapshot(plan_publish(folder, on_blade.snapshot), on_blade.depot, on_blade.secret_key)
