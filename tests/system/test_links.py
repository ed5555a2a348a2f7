"""A network card comes up in a namespace: by DHCP of a real dnsmasq, and without one by the inventory."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.host.run import run, start_process
from bladeroot.lab.network import LabHost, LabNetwork, start_network

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root's rights for namespaces"),
    pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is not installed"),
]

CLIENT = """
import sys
from pathlib import Path
from bladeroot.core.hardware import Nic
from bladeroot.host import links
mac = Path("/sys/class/net/eth0/address").read_text().strip()
links.find_nics = lambda: [Nic(name="eth0", mac=mac, has_link=True)]  # veth has no hardware behind it
links._STATE_FOLDER = Path(sys.argv[1])
static = links.StaticAddress(address="10.77.0.99/24", gateway="10.77.0.1", nameservers=("10.77.0.1",))
resolv = Path(sys.argv[1]) / "resolv"
with links.connected(static=static, dhcp_wait_s=float(sys.argv[2]), resolv=resolv) as found:
    print(found)
    print(resolv.read_text())
    print(links.run(["ip", "route"]).stdout)
"""


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("links") as network:
        yield network


def connect(host: LabHost, folder: Path, dhcp_wait_s: float) -> str:
    """The host loses its address first: it is a machine that has just been switched on."""
    run(["ip", "-netns", host.namespace, "address", "flush", "dev", "eth0"])
    argv = [sys.executable, "-c", CLIENT, str(folder), str(dhcp_wait_s)]
    return run(host.command(argv), timeout_s=60).stdout


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed")
def test_an_address_by_dhcp(network: LabNetwork, tmp_path: Path) -> None:
    server, blade = network.add_host("server", "10.77.0.1"), network.add_host("blade")
    argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--interface=eth0"]
    argv += ["--bind-interfaces", "--user=root", f"--dhcp-leasefile={tmp_path}/leases", "--pid-file="]
    argv += ["--dhcp-range=10.77.0.50,10.77.0.60,255.255.255.0,1h", "--dhcp-option=3,10.77.0.1"]
    with start_process(server.command([*argv, "--dhcp-option=6,10.77.0.1"])):
        said = connect(blade, tmp_path, 30)
    assert "eth0" in said
    assert re.search(r"has 10\.77\.0\.(5\d|60)/24 ", said.splitlines()[0])
    assert "from DHCP server 10.77.0.1" in said
    assert "nameserver 10.77.0.1" in said
    assert "default via 10.77.0.1 dev eth0" in said


def test_the_inventorys_address_where_nobody_answers(network: LabNetwork, tmp_path: Path) -> None:
    said = connect(network.add_host("blade"), tmp_path, 1)
    assert "has 10.77.0.99/24 from the inventory" in said
    assert "nameserver 10.77.0.1" in said
    assert "default via 10.77.0.1 dev eth0" in said
