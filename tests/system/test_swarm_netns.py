"""A room of members, each in a network namespace: they serve each other, and go on without a root."""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bladeroot.errors import DepotFullError
from bladeroot.host.run import PIPE, Process, run, start_process
from bladeroot.lab.network import LabHost, LabNetwork, remove_stale, start_network
from bladeroot.net.swarm import Swarm
from tests.swarmdata import TestArtefact, make_artefact

pytestmark = pytest.mark.system

HERE = Path(__file__).resolve().parent
DEADLINE_S = 120.0
RATE_BITS = 80_000_000
ANNOUNCE_INTERVAL_S = 20.0
JOINING_S = 12.0
"""So long a member that has joined says so every few seconds; then once in an interval."""


class Member:
    """A `swarm_member.py` that runs in a host."""

    def __init__(self, stack: ExitStack, host: LabHost, *arguments: str) -> None:
        program: Sequence[str] = [sys.executable, str(HERE / "swarm_member.py"), *arguments]
        environment = {"PYTHONPATH": str(HERE.parents[1])}
        self.process: Process = stack.enter_context(
            start_process(host.command(program), stdin=PIPE, stdout=PIPE, environment=environment)
        )
        self._pending = b""
        assert self.hear()["ready"]

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        until = time.monotonic() + DEADLINE_S
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, until - time.monotonic()))
            assert ready, "the member says nothing"
            chunk = os.read(self.process.stdout.fileno(), 65536)
            assert chunk, "the member has ended"
            self._pending += chunk
        line, _, self._pending = self._pending.partition(b"\n")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"go\n")
        self.process.stdin.flush()

    def end(self) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.stdin = None
        ended: dict[str, Any] = self.hear()["end"]
        return ended


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("swarmtest") as network:
        yield network


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture(scope="module")
def artefact() -> TestArtefact:
    return make_artefact(60, 500_000)


@pytest.fixture
def root(artefact: TestArtefact, network: LabNetwork, stack: ExitStack, tmp_path: Path) -> Member:
    return start_giver("root", artefact, network, stack, tmp_path)


@pytest.fixture
def seeder(artefact: TestArtefact, network: LabNetwork, stack: ExitStack, tmp_path: Path) -> Member:
    """At the root's place, but a blade like others that has everything."""
    return start_giver("seed", artefact, network, stack, tmp_path)


def start_giver(
    kind: str, artefact: TestArtefact, network: LabNetwork, stack: ExitStack, tmp_path: Path
) -> Member:
    (tmp_path / "torrent").write_bytes(artefact.torrent)
    artefact.write(tmp_path / "root")
    host = network.add_host("root", rate_bits=RATE_BITS)
    return Member(stack, host, kind, str(tmp_path / "torrent"), str(tmp_path / "root"))


def start_blades(
    network: LabNetwork, stack: ExitStack, tmp_path: Path, count: int, *peers: str
) -> list[Member]:
    return [
        Member(
            stack,
            network.add_host(f"blade{number}", rate_bits=RATE_BITS),
            "fetch",
            str(tmp_path / "torrent"),
            str(tmp_path / f"blade{number}"),
            network.host("root").address,
            *peers,
        )
        for number in range(count)
    ]


def test_blades_fetch_from_each_other(
    artefact: TestArtefact, network: LabNetwork, stack: ExitStack, root: Member, tmp_path: Path
) -> None:
    """They know the root alone, and find each other by multicast and peer exchange."""
    blades = start_blades(network, stack, tmp_path, 4, f"{network.host('root').address}:7476")
    for blade in blades:
        blade.go()
    stats = [blade.hear()["stats"] for blade in blades]
    for number, one in enumerate(stats):
        assert one["have_bytes"] == artefact.size_bytes
        assert one["sources"] >= 2
        for name, data in artefact.files.items():
            assert (tmp_path / f"blade{number}" / "runtime" / name).read_bytes() == data
    copies = root.end()["up_bytes"] / artefact.size_bytes
    assert 1.0 <= copies < 2.75, "the root should not have sent every blade its own copy"


def test_a_room_goes_on_when_the_root_is_killed(
    artefact: TestArtefact, network: LabNetwork, stack: ExitStack, root: Member, tmp_path: Path
) -> None:
    """One blade has a copy; then the root is gone, and blades that know nobody come."""
    first, *rest = start_blades(network, stack, tmp_path, 1, f"{network.host('root').address}:7476")
    first.go()
    first.hear()
    root.process.send_signal(signal.SIGKILL)
    root.process.wait()
    rest = [
        Member(
            stack,
            network.add_host(f"late{number}", rate_bits=RATE_BITS),
            "fetch",
            str(tmp_path / "torrent"),
            str(tmp_path / f"late{number}"),
            network.host("root").address,
        )
        for number in range(3)
    ]
    for blade in rest:
        blade.go()
    for number, blade in enumerate(rest):
        stats = blade.hear()["stats"]
        assert stats["have_bytes"] == artefact.size_bytes
        assert stats["from_root_bytes"] == 0
        for name, data in artefact.files.items():
            assert (tmp_path / f"late{number}" / "runtime" / name).read_bytes() == data


def test_blades_that_know_nobody_but_a_dead_root_find_each_other_soon(
    artefact: TestArtefact, network: LabNetwork, stack: ExitStack, root: Member, tmp_path: Path
) -> None:
    """One has a copy, and has long announced itself; the others announce themselves when they come."""
    dead = f"{network.host('root').address}:7476"
    first, *rest = start_blades(network, stack, tmp_path, 4, dead)
    first.go()
    first.hear()
    root.process.send_signal(signal.SIGKILL)
    root.process.wait()
    for blade in rest:
        blade.go()
    for blade in rest:
        heard = blade.hear()
        assert heard["stats"]["have_bytes"] == artefact.size_bytes
        assert heard["stats"]["from_root_bytes"] == 0
        assert heard["seconds"] < ANNOUNCE_INTERVAL_S, "it heard only of what is said again"


@pytest.mark.usefixtures("seeder")
def test_a_blade_whose_announcements_were_lost_is_found_by_the_next(
    artefact: TestArtefact, network: LabNetwork, stack: ExitStack, tmp_path: Path
) -> None:
    """No multicast comes through while it joins and says so, and nobody tells it of anybody."""
    (blade,) = start_blades(network, stack, tmp_path, 1)
    pass_multicast(network, "root", "off")
    pass_multicast(network, "blade0", "off")
    blade.go()
    time.sleep(JOINING_S)
    pass_multicast(network, "root", "on")
    pass_multicast(network, "blade0", "on")
    heard = blade.hear()
    assert heard["stats"]["have_bytes"] == artefact.size_bytes
    assert JOINING_S < heard["seconds"] < JOINING_S + 1.5 * ANNOUNCE_INTERVAL_S


@pytest.mark.usefixtures("seeder")
def test_a_blade_whose_cable_was_out_is_a_member_again(
    artefact: TestArtefact, network: LabNetwork, stack: ExitStack, tmp_path: Path
) -> None:
    """Meanwhile its addresses change, so that its sockets are opened anew, and none where no link is. When it
    is back they do not: an IPv6 address that came with it would do what is to be done without.
    """
    (blade,) = start_blades(network, stack, tmp_path, 1)
    host = network.host("blade0")
    run(host.command(["sysctl", "--quiet", "--write", "net.ipv6.conf.all.disable_ipv6=1"]))
    network.set_link("blade0", up=False)
    wait_until(lambda: run(host.command(["cat", "/sys/class/net/eth0/operstate"])).stdout != "up\n")
    run(["ip", "-netns", host.namespace, "address", "add", "10.88.0.1/24", "dev", "eth0"])
    blade.go()
    wait_until(lambda: not listens(host))
    network.set_link("blade0", up=True)
    wait_until(lambda: listens(host))
    assert blade.hear()["stats"]["have_bytes"] == artefact.size_bytes


def listens(host: LabHost) -> bool:
    """Whether the host's member does so at its own address."""
    argv = ["ss", "--no-header", "--listening", "--tcp", "--numeric", "src", f"{host.address}:7475"]
    return bool(run(host.command(argv)).stdout.strip())


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.1)


def pass_multicast(network: LabNetwork, name: str, how: str) -> None:
    """Whether the switch gives that host what is for many."""
    number = list(network.hosts).index(name)
    run(["bridge", "-netns", network.bridge_namespace, *f"link set dev v{number} mcast_flood {how}".split()])


@pytest.mark.usefixtures("root")
def test_blades_finish_among_themselves_when_the_root_loses_power(
    artefact: TestArtefact, network: LabNetwork, stack: ExitStack, tmp_path: Path
) -> None:
    """The root's cable is pulled while all are fetching, as soon as one blade has everything."""
    blades = start_blades(network, stack, tmp_path, 4, f"{network.host('root').address}:7476")
    for blade in blades:
        blade.go()
    streams = {blade.process.stdout: blade for blade in blades if blade.process.stdout is not None}
    ready, _, _ = select.select(list(streams), [], [], DEADLINE_S)
    network.set_link("root", up=False)
    assert ready
    for blade in blades:
        assert blade.hear()["stats"]["have_bytes"] == artefact.size_bytes


def test_a_full_depot_is_an_error_of_its_own(
    artefact: TestArtefact, stack: ExitStack, tmp_path: Path
) -> None:
    artefact.write(tmp_path / "root")
    small = tmp_path / "small"
    small.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=4m", "bladeroot-test", small])
    stack.callback(run, ["umount", small])
    loopback = ("127.0.0.1",)
    with Swarm(port=0, addresses=loopback) as root, Swarm(port=0, addresses=loopback) as member:
        root.seed(artefact.torrent, tmp_path / "root")
        with pytest.raises(DepotFullError, match=str(small)):
            member.fetch(artefact.torrent, small, peers=[("127.0.0.1", root.port)], deadline_s=DEADLINE_S)


def test_nothing_is_left_of_a_network_whose_block_failed() -> None:
    names: list[str] = []

    def fail() -> None:
        with start_network("gone") as network:
            names.append(network.add_host("one").namespace)
            assert names[0] in run(["ip", "netns", "list"]).stdout
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert names[0] not in run(["ip", "netns", "list"]).stdout


def test_what_a_killed_lab_left_is_removed() -> None:
    program = (
        "import os\nfrom bladeroot.lab.network import start_network\n"
        "with start_network('stale') as network:\n"
        "    network.add_host('one')\n    print(network.name, flush=True)\n    os.kill(os.getpid(), 9)\n"
    )
    killed = run([sys.executable, "-c", program], check=False, cwd=HERE.parents[1])
    name = killed.stdout.strip()
    assert killed.code == -signal.SIGKILL
    assert name
    remove_stale()
    assert name not in run(["ip", "netns", "list"]).stdout


def test_mounts_of_a_host_are_nobody_elses(network: LabNetwork, tmp_path: Path) -> None:
    host = network.add_host("one")
    script = f"mount -t tmpfs lab {tmp_path} && grep -c ' {tmp_path} ' /proc/self/mountinfo"
    assert run(host.command(["sh", "-c", script])).stdout.strip() == "1"
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()
