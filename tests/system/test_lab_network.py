"""The lab's network: it can be split and joined, and has segments that only a router joins."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.errors import InventoryError
from bladeroot.host.run import PIPE, run, start_process
from bladeroot.lab.network import LabHost, LabNetwork, start_network

pytestmark = pytest.mark.system

_DEADLINE_S = 60.0
_NAMESPACES = Path("/run/netns")
# A port that nobody listens on is refused by whoever has the address: that is an answer.
_REACH = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), 1.5)
except ConnectionRefusedError:
    print("reached")
except OSError as error:
    print(error)
"""
_LISTEN = """
import socket, struct, sys
group, address = "239.255.77.77", sys.argv[1]
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.bind((group, 7777))
member = socket.inet_aton(group) + socket.inet_aton(address)
one.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
print("listening", flush=True)
while True:
    print(one.recv(100).decode(), flush=True)
"""
_CALL = """
import socket, sys
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
one.sendto(sys.argv[1].encode(), ("239.255.77.77", 7777))
"""
_LAB = """
import time
from bladeroot.lab.network import start_network
with start_network("killed", "10.79.0.0/24") as network:
    network.add_host("one")
    network.add_segment("far", "10.80.0.0/24")
    print(network.name, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("split") as network:
        yield network


def can_reach(one: LabHost, other: LabHost) -> bool:
    said = run(one.command([sys.executable, "-c", _REACH, other.address])).stdout
    return said.strip() == "reached"


def call(host: LabHost, text: str) -> None:
    run(host.command([sys.executable, "-c", _CALL, text]))


def test_a_split_keeps_the_sides_apart_until_they_are_joined(network: LabNetwork) -> None:
    a1, a2, b1, b2 = (network.add_host(name) for name in ("a1", "a2", "b1", "b2"))
    aside = network.add_host("aside")
    assert can_reach(a1, b1)
    listen = b1.command([sys.executable, "-c", _LISTEN, b1.address])
    with start_process(listen, stdout=PIPE) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == b"listening\n"
        call(a1, "before")
        assert listening.stdout.readline() == b"before\n"
        network.split(["a1", "a2"], ["b1", "b2"])
        assert not can_reach(a1, b1)
        assert not can_reach(b2, a2)
        assert not can_reach(b1, aside)
        assert can_reach(a1, a2)
        assert can_reach(b1, b2)
        assert can_reach(a1, aside)
        call(a1, "from the other side")
        call(b2, "from this side")
        assert listening.stdout.readline() == b"from this side\n"
        network.split(["b1", "a1"], ["a2"])
        assert can_reach(a1, b1)
        assert not can_reach(a1, a2)
        network.join()
        call(a2, "joined")
        assert listening.stdout.readline() == b"joined\n"
    assert can_reach(a1, b1)
    assert can_reach(b2, a2)


def test_hosts_that_were_introduced_need_not_ask_for_each_other(network: LabNetwork) -> None:
    one, other = (network.add_host(name) for name in ("one", "other"))
    network.add_segment("far", "10.80.0.0/24")
    network.introduce()
    told = run(["ip", "-netns", one.namespace, "neigh", "show"]).stdout.splitlines()
    assert {line.split()[0] for line in told} == {other.address, network.host("far-router").address}
    assert all(line.split()[-1] == "PERMANENT" for line in told)
    assert can_reach(one, other)
    assert can_reach(other, one)


def test_a_split_says_what_it_cannot_do(network: LabNetwork) -> None:
    network.add_host("near")
    network.add_segment("far", "10.80.0.0/24")
    network.add_host("beyond", segment="far")
    with pytest.raises(InventoryError, match="both sides of the split: near"):
        network.split(["near"], ["near"])
    with pytest.raises(InventoryError, match="beyond is behind a router"):
        network.split(["near"], ["beyond"])
    with pytest.raises(InventoryError, match="no host 'nobody'"):
        network.split(["near"], ["nobody"])
    with pytest.raises(InventoryError, match=r"a host at 10\.77\.0\.1 already"):
        network.add_host("other", "10.77.0.1")
    with pytest.raises(InventoryError, match=r"overlaps 10\.77\.0\.128/25"):
        network.add_segment("further", "10.77.0.128/25")


def test_only_unicast_passes_the_router_of_a_segment(network: LabNetwork) -> None:
    near = network.add_host("near")
    network.add_segment("far", "10.80.0.0/24")
    late = network.add_host("late")
    beyond, beside = (network.add_host(name, segment="far") for name in ("beyond", "beside"))
    assert beyond.address == "10.80.0.1"
    for host in (near, late):
        assert can_reach(host, beyond)
        assert can_reach(beyond, host)
    listen = beyond.command([sys.executable, "-c", _LISTEN, beyond.address])
    with start_process(listen, stdout=PIPE) as listening:
        assert listening.stdout is not None
        assert listening.stdout.readline() == b"listening\n"
        call(near, "from the first segment")
        call(beside, "from this segment")
        assert listening.stdout.readline() == b"from this segment\n"
    network.split(["far-router"], ["near"])
    assert not can_reach(near, beyond)
    assert can_reach(late, beyond)


def test_nothing_is_left_of_a_network_whose_process_was_killed() -> None:
    with start_process([sys.executable, "-c", _LAB], stdout=PIPE) as lab:
        assert lab.stdout is not None
        name = lab.stdout.readline().decode().strip()
        assert sorted(path.name for path in _NAMESPACES.glob(f"{name}-*")) == [
            f"{name}-far-router",
            f"{name}-one",
            f"{name}-switch",
        ]
        os.kill(lab.pid, signal.SIGKILL)
        deadline = time.monotonic() + _DEADLINE_S
        while list(_NAMESPACES.glob(f"{name}-*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
