"""A blade that is not root gives artefacts and the agent's files, and takes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from bladeroot.core.agentfiles import INITRAMFS, KERNEL, cut_into_parts
from bladeroot.core.manifest import ArtefactKind
from bladeroot.core.orders import OrderList
from bladeroot.core.reports import Report
from bladeroot.errors import NetworkError
from bladeroot.host.depot import Depot
from bladeroot.net.client import RootClient
from bladeroot.ops.serving import serve_depot

CLUSTER = "0" * 32


@pytest.fixture
def depot(tmp_path: Path) -> Depot:
    return Depot.create(tmp_path / "depot")


@pytest.fixture
def agent_hash(depot: Depot) -> str:
    with depot.lock(), depot.new_artefact() as writer:
        parts = [*cut_into_parts(KERNEL, b"kernel"), *cut_into_parts(INITRAMFS, b"x" * (5 << 20))]
        files = [writer.add_file(name, data) for name, data in parts]
        return writer.finish(ArtefactKind.AGENT, files, 1).info_hash


@pytest.fixture
def client(depot: Depot, agent_hash: str) -> Iterator[RootClient]:
    with serve_depot(depot, agent_hash=agent_hash, cluster_id=CLUSTER, port=0) as port:
        yield RootClient("127.0.0.1", port)


def fetch(client: RootClient, path: str) -> bytes:
    with urlopen(f"http://{client.host}:{client.port}{path}", timeout=10) as response:
        return bytes(response.read())


def test_the_agents_files_come_put_together(client: RootClient, agent_hash: str) -> None:
    assert fetch(client, f"/boot/{agent_hash}/vmlinuz") == b"kernel"
    assert fetch(client, f"/boot/{agent_hash}/initramfs") == b"x" * (5 << 20)
    assert client.torrent(agent_hash)


@pytest.mark.parametrize("name", ["info", "vmlinuz.00", "..", "other"])
def test_nothing_else_is_a_boot_file(client: RootClient, agent_hash: str, name: str) -> None:
    with pytest.raises(OSError, match="404"):
        fetch(client, f"/boot/{agent_hash}/{name}")


def test_it_is_no_root(client: RootClient) -> None:
    with pytest.raises(NetworkError, match="not root"):
        client.claim()
    assert client.read_orders() == OrderList(orders=())
    with pytest.raises(NetworkError, match="403"):
        client.report(Report(cluster_id=CLUSTER, blade="web01", session="s", sequence=1))
    assert "bladeroot.blade=" not in client.read_boot_script("52:54:00:00:00:01", "")


def test_a_port_that_is_taken_is_another_one(depot: Depot, agent_hash: str, client: RootClient) -> None:
    with serve_depot(depot, agent_hash=agent_hash, cluster_id=CLUSTER, port=client.port) as port:
        assert port != client.port
