"""A published toy OS for tests: a cluster folder, an operator's key and a depot, all small."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import attrs
from attrs import frozen

from bladeroot.core.cluster import MIB, Blade, Layout, Network
from bladeroot.core.manifest import Manifest
from bladeroot.core.orders import Order, sign_order
from bladeroot.core.signing import SecretKey
from bladeroot.host.depot import Depot
from bladeroot.host.orderbook import OrderBook
from bladeroot.ops.folder import ClusterFolder, init_cluster
from bladeroot.ops.publish import plan_publish, publish_snapshot
from tests.blankdisks import make_disk
from tests.toyos import TOY_KERNEL_COMMAND_LINE, build_toy_os

DISK_SIZE_BYTES = 896 * MIB
LAYOUT = Layout(esp_size_bytes=128 * MIB, slot_size_bytes=256 * MIB, data_min_size_bytes=256 * MIB)
BLADES = ("web01", "web02", "web03")


@frozen
class ToyCluster:
    """What `make_toy_cluster` made; `manifest` is generation 1."""

    folder: ClusterFolder
    key_path: Path
    secret_key: SecretKey
    snapshot: Path
    depot: Depot
    manifest: Manifest

    def publish(self) -> Manifest:
        """Publish the snapshot as it is now."""
        plan = plan_publish(self.folder, self.snapshot)
        return publish_snapshot(plan, self.depot, self.secret_key).manifest

    def give_order(self, number: int, *blades: str) -> None:
        """Sign an order for these to be reimaged, and put it where a root with this depot finds it."""
        order = Order(cluster_id=self.folder.cluster.id, number=number, blades=blades)
        OrderBook(self.depot.path).add(sign_order(order, self.secret_key), order)

    def make_disk(self, path: Path, size_bytes: int = DISK_SIZE_BYTES) -> Path:
        """An empty disk."""
        return make_disk(path, size_bytes)


def make_toy_cluster(directory: Path, layout: Layout = LAYOUT) -> ToyCluster:
    """A cluster of toy blades, with generation 1 in its depot."""
    snapshot = directory / "snapshot"
    build_toy_os(snapshot)
    (snapshot / "usr/share/doc/toy").mkdir(parents=True)
    (snapshot / "usr/share/doc/toy/README.gz").write_bytes(b"of the extras\n")
    blades = [Blade(name=name, role="web") for name in BLADES]
    return make_cluster(directory, snapshot, blades, layout=layout)


def make_cluster(
    directory: Path,
    snapshot: Path,
    blades: Sequence[Blade],
    *,
    layout: Layout,
    zstd_level: int = 6,
    network: Network | None = None,
) -> ToyCluster:
    """A cluster with that snapshot as generation 1, and with one overlay for the role web."""
    key_path = directory / "operator.key"
    made = init_cluster(
        directory / "cluster",
        name="toy",
        blades=blades,
        kernel_command_line=TOY_KERNEL_COMMAND_LINE,
        secret_key_path=key_path,
    )
    shutil.rmtree(made.folder.overlays)  # what ships is about a real distribution
    files = made.folder.overlays / "role/web/files/etc"
    files.mkdir(parents=True)
    (files / "toyos-says.j2").write_text("{{ blade.name }} of {{ cluster.name }}\n")
    cluster = attrs.evolve(
        made.folder.cluster,
        layouts={"default": layout},
        zstd_level=zstd_level,
        network=network or made.folder.cluster.network,
    )
    folder = made.folder.save(cluster)
    secret_key = folder.secret_key(lambda _prompt: "", key_path)
    depot = Depot.create(directory / "depot")
    published = publish_snapshot(plan_publish(folder, snapshot), depot, secret_key)
    return ToyCluster(folder, key_path, secret_key, snapshot, depot, published.manifest)
