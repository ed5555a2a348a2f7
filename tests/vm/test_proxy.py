"""Netboot beside a site's own DHCP server, which goes on giving the addresses."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from bladeroot.events import Note
from bladeroot.host.run import PIPE, STDOUT, Argument, run, start_process
from bladeroot.lab.qemu import wait_for_all
from bladeroot.lab.segment import BRIDGE, Segment
from bladeroot.lab.vmroom import open_vm_room
from tests.toycluster import DISK_SIZE_BYTES, ToyCluster
from tests.vm.harness import BLADES, TIMEOUT_S, Heard, needs_room, with_own_depot

pytestmark = needs_room

SITE = "10.77.0.3"
_HOLD = "echo ready && exec sleep infinity"


@contextlib.contextmanager
def site_server(segment: Segment, work: Path) -> Iterator[None]:
    """A machine on the segment with a dnsmasq that only knows of addresses."""
    with start_process(["unshare", "--net", "sh", "-c", _HOLD], stdout=PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"

        def inside(argv: Sequence[Argument]) -> list[Argument]:
            return ["nsenter", "--target", str(holder.pid), "--net", "--", *argv]

        for words in (
            f"link add site type veth peer name eth0 netns {holder.pid}",
            f"link set site master {BRIDGE} up",
        ):
            run(segment.command(["ip", *words.split()]))
        for words in ("link set lo up", f"address add {SITE}/24 dev eth0", "link set eth0 up"):
            run(inside(["ip", *words.split()]))
        argv = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--log-facility=-"]
        argv += ["--user=root", "--pid-file=", "--interface=eth0", "--bind-interfaces", "--no-ping"]
        argv += ["--dhcp-range=10.77.0.100,10.77.0.120,255.255.255.0,1h", f"--dhcp-leasefile={work}/leases"]
        with start_process(inside(argv), stdout=PIPE, stderr=STDOUT) as server:
            assert server.stdout is not None
            assert any(b"DHCP, sockets bound" in line for line in server.stdout)
            yield


def test_bios_and_uefi_netboot_by_proxy_with_the_sites_addresses(toys: ToyCluster, tmp_path: Path) -> None:
    toy = with_own_depot(toys, tmp_path / "depot")
    heard = Heard()
    with open_vm_room(tmp_path / "room", heard) as room, site_server(room.segment, tmp_path):
        room.wait_for_root(room.start_root(toy.folder.path, toy.depot.path, ["--netboot", "proxy"]))
        blades = [
            room.add_blade(BLADES[0], disk_size_bytes=DISK_SIZE_BYTES),
            room.add_blade(BLADES[1], firmware="uefi", disk_size_bytes=DISK_SIZE_BYTES),
        ]
        machines = [blade.power_on() for blade in blades]
        wait_for_all(machines, r"has 10\.77\.0\.1\d\d/24 from DHCP server 10\.77\.0\.3", TIMEOUT_S)
        wait_for_all(machines, "bladeroot: step decide:", TIMEOUT_S)
        for blade in blades:
            blade.cut_power()
    netboots = [note.text for note in heard.of(Note) if "the agent looks at it" in note.text]
    assert len(netboots) == len(blades)
