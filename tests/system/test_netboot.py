"""A root answers netboot on a segment: with a real dnsmasq, and real clients of it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import pytest

from bladeroot.core.cluster import Blade, Netboot
from bladeroot.host.run import PIPE, STDOUT, Process, run, start_process
from bladeroot.lab.network import INTERFACE, LabHost, LabNetwork, start_network
from tests.toycluster import BLADES, ToyCluster, make_toy_cluster

pytestmark = pytest.mark.system

SUBNET = "10.79.0.0/24"
ROOT, SITE, CLIENT = "10.79.0.1", "10.79.0.3", "10.79.0.30"
MAC = "52:54:00:79:00:01"
TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    made = make_toy_cluster(tmp_path_factory.mktemp("netboot"))
    blades = {name: Blade(name=name, role="web") for name in BLADES}
    blades["web01"] = Blade(
        name="web01", role="web", macs=(MAC,), address="10.79.0.11/24", rack="a3", location="row 2"
    )
    network = attrs.evolve(made.folder.cluster.network, dns=True, domain="toy.lan")
    folder = made.folder.save(attrs.evolve(made.folder.cluster, blades=blades, network=network))
    toy = attrs.evolve(made, folder=folder)
    return attrs.evolve(toy, manifest=toy.publish())


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("netboot", SUBNET) as network:
        network.add_host("root", ROOT)
        network.add_host("site", SITE)
        client = network.add_host("client", CLIENT)
        run(client.command(["ip", "link", "set", INTERFACE, "address", MAC]))
        yield network


class Root:
    """`bladeroot promote` in a namespace; its events as they come."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.events: list[dict[str, object]] = []
        self._news = threading.Condition()
        threading.Thread(target=self._read, daemon=True).start()

    def wait_for(self, wanted: Callable[[dict[str, object]], bool]) -> dict[str, object]:
        with self._news:
            heard = self._news.wait_for(lambda: any(map(wanted, self.events)), TIMEOUT_S)
            assert heard, [event.get("text") for event in self.events if "text" in event]
            return next(filter(wanted, self.events))

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self.events.append(json.loads(line))
                self._news.notify_all()


@contextlib.contextmanager
def start_root(toy: ToyCluster, host: LabHost, *options: str) -> Iterator[Root]:
    argv = [sys.executable, "-m", "bladeroot", "--json", "--cluster", str(toy.folder.path)]
    argv += ["--depot", str(toy.depot.path), "promote", "--blade", "web02", *options]
    with start_process(host.command(argv), stdout=PIPE, stderr=PIPE) as process:
        yield Root(process)


def says(text: str) -> Callable[[dict[str, object]], bool]:
    return lambda event: text in f"{event.get('text', '')}{event.get('error', '')}"


def is_root(event: dict[str, object]) -> bool:
    return event.get("event") == "RootStarted"


@contextlib.contextmanager
def site_server(host: LabHost, folder: Path) -> Iterator[None]:
    """A DHCP server that was there before."""
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-facility=-"]
    argv += ["--user=root", "--pid-file=", f"--interface={INTERFACE}", "--bind-interfaces", "--log-dhcp"]
    argv += ["--dhcp-range=10.79.0.100,10.79.0.120,255.255.255.0,1h", f"--dhcp-leasefile={folder}/leases"]
    with start_process(host.command(argv), stdout=PIPE, stderr=STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"sockets bound" in line or b"DHCP, sockets" in line:
                break
        yield


def ask_for_address(client: LabHost, folder: Path, extra: Sequence[str] = ()) -> dict[str, str]:
    """What busybox's udhcpc gets; nothing is configured."""
    script = folder / "script"
    script.write_text('#!/bin/sh\n[ "$1" = bound ] && env\nexit 0\n')
    script.chmod(0o755)
    argv = ["busybox", "udhcpc", "-i", INTERFACE, "-f", "-q", "-n", "-t", "20", "-s", str(script), *extra]
    said = run(client.command(argv), timeout_s=TIMEOUT_S).stdout
    return dict(re.findall(r"^(\w+)=(.*)$", said, re.MULTILINE))


def fetch_script(client: LabHost, query: str) -> str:
    argv = ["busybox", "wget", "-q", "-O", "-", f"http://{ROOT}:7474/boot.ipxe?{query}"]
    return run(client.command(argv), timeout_s=TIMEOUT_S).stdout


def test_a_blade_gets_its_address_its_loader_and_its_name(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    client = network.host("client")
    with start_root(toy, network.host("root"), "--netboot", "dhcp") as root:
        root.wait_for(is_root)
        told = ask_for_address(client, tmp_path, ["-O", "bootfile", "-x", "0x5d:0000"])
        assert told["ip"] == "10.79.0.11"
        assert told["bootfile"] == "undionly.kpxe"
        assert told["siaddr"] == ROOT
        loader = tmp_path / "loader"
        run(client.command(["busybox", "tftp", "-g", "-r", "undionly.kpxe", "-l", str(loader), ROOT]))
        assert loader.read_bytes() == toy.depot.read_file(_boot_hash(toy), "undionly.kpxe")
        named = run(client.command(["busybox", "nslookup", "-type=txt", "web01.toy.lan", ROOT])).stdout
        assert '"role=web"' in named  # busybox shows the first part of a record
        found = run(client.command(["busybox", "nslookup", "web01.toy.lan", ROOT])).stdout
        assert "10.79.0.11" in found
        backwards = run(client.command(["busybox", "nslookup", "10.79.0.11", ROOT])).stdout
        assert "web01.toy.lan" in backwards
        root.wait_for(says("DHCPACK"))
        script = fetch_script(client, "mac=52-54-00-79-00-01&local=failed")
        assert f"bladeroot.root={ROOT}:7474 bladeroot.mac={MAC} bladeroot.why=no-boot" in script
        refused = fetch_script(client, "mac=nonsense||shell").splitlines()[1]
        assert refused.startswith("echo bladeroot: this machine: not a MAC address")
        assert "||" not in refused


def test_a_blade_behind_a_router_gets_its_address_by_a_relay(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    mac = "52:54:00:80:00:01"
    blades = dict(toy.folder.cluster.blades)
    blades["web03"] = Blade(name="web03", role="web", macs=(mac,), address="10.80.0.13/24")
    folder = toy.folder.save(attrs.evolve(toy.folder.cluster, blades=blades))
    far_toy = attrs.evolve(toy, folder=folder)
    far_toy.publish()
    segment = network.add_segment("far", "10.80.0.0/24")
    client = network.add_host("far-client", segment="far")
    run(client.command(["ip", "link", "set", INTERFACE, "address", mac]))
    relay = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-facility=-"]
    relay += ["--user=root", "--pid-file=", f"--dhcp-relay={segment.gateway},{ROOT}"]
    with (
        start_root(far_toy, network.host("root"), "--netboot", "dhcp") as root,
        start_process(network.host("far-router").command(relay), stdout=PIPE, stderr=STDOUT),
    ):
        root.wait_for(says("10.80.0.0/24 get addresses where a DHCP relay"))
        root.wait_for(is_root)
        told = ask_for_address(client, tmp_path, ["-O", "bootfile", "-x", "0x5d:0000"])
    assert (told["ip"], told["router"], told["bootfile"]) == (
        "10.80.0.13",
        segment.gateway,
        "undionly.kpxe",
    )
    assert told["siaddr"] == ROOT


def test_dnsmasq_is_started_again_when_it_ends(toy: ToyCluster, network: LabNetwork, tmp_path: Path) -> None:
    host = network.host("root")
    with start_root(toy, host, "--netboot", "dhcp") as root:
        root.wait_for(is_root)
        for pid in _find_dnsmasq(root.process.pid):
            os.kill(pid, 9)
        root.wait_for(says("dnsmasq ended, and starts again"))
        assert ask_for_address(network.host("client"), tmp_path)["ip"] == "10.79.0.11"
        left = _find_dnsmasq(root.process.pid)
        assert left
        root.process.terminate()
        assert root.process.wait(TIMEOUT_S) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in left)


def test_a_second_dhcp_server_is_refused_and_named(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    with (
        site_server(network.host("site"), tmp_path),
        start_root(toy, network.host("root"), "--netboot", "dhcp") as root,
    ):
        error = root.wait_for(says("another DHCP server answers"))
        assert SITE in str(error["error"])
        assert "proxy" in str(error["hint"])
        assert root.process.wait(TIMEOUT_S) == 30


def test_a_proxy_leaves_the_addresses_to_the_sites_server(
    toy: ToyCluster, network: LabNetwork, tmp_path: Path
) -> None:
    with (
        site_server(network.host("site"), tmp_path),
        start_root(toy, network.host("root"), "--netboot", "proxy") as root,
    ):
        root.wait_for(is_root)
        told = ask_for_address(network.host("client"), tmp_path)
        assert told["ip"].startswith("10.79.0.1")
        assert told["serverid"] == SITE


def test_a_proxy_that_stands_alone_says_so(toy: ToyCluster, network: LabNetwork) -> None:
    with start_root(toy, network.host("root"), "--netboot", "proxy") as root:
        warning = root.wait_for(says("no DHCP server answers"))
        assert 'netboot = "dhcp"' in str(warning["hint"])


def _boot_hash(toy: ToyCluster) -> str:
    return next(artefact.info_hash for artefact in toy.manifest.artefacts if artefact.kind == "boot")


def _find_dnsmasq(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            told = dict(re.findall(r"^(\w+):\t(.*)$", status.read_text(), re.MULTILINE))
            if told["Name"] == "dnsmasq" and int(told["PPid"]) == parent:
                found.append(int(told["Pid"]))
    return found


def test_off_is_off(toy: ToyCluster, network: LabNetwork) -> None:
    with start_root(toy, network.host("root")) as root:
        root.wait_for(is_root)
        assert not _find_dnsmasq(root.process.pid)
        assert Netboot(toy.manifest.network.netboot) is Netboot.OFF
