"""What answers netboot takes in, and when."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Interface
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import attrs
import pytest

from bladeroot.core.cluster import Blade, DiskRule, Layout, Netboot, Network
from bladeroot.core.dnsmasqplan import NetbootSetup, render_dnsmasq
from bladeroot.core.manifest import Artefact, ArtefactKind, BladeEntry, Manifest
from bladeroot.core.roomstate import BladeState, RoomState
from bladeroot.errors import NetworkError
from bladeroot.events import Event, Warned
from bladeroot.host.depot import Depot
from bladeroot.host.dnsmasq import Dnsmasq
from bladeroot.net.dhcpprobe import DhcpServer
from bladeroot.ops import netboot
from bladeroot.ops.netboot import NetbootService

BLADE = Blade(name="web01", macs=("52:54:00:00:00:01",), address="10.77.0.11/24")


class FakeDnsmasq:
    def __init__(self) -> None:
        self.quiet_s = 60.0
        self.configs: list[str] = []
        self.refuses = False

    def reconfigure(self, config: str) -> None:
        if self.refuses:
            raise NetworkError("it does not like that")
        if not self.configs or self.configs[-1] != config:
            self.configs.append(config)


class Service:
    """A service, a depot with two generations' boot code, and what was told."""

    def __init__(self, folder: Path) -> None:
        self.depot = Depot.create(folder / "depot")
        self.tftp = folder / "tftp"
        self.tftp.mkdir()
        self.first = self.make_manifest(1, {"undionly.kpxe": b"bios 1", "snponly.efi": b"uefi 1"})
        self.dnsmasq = FakeDnsmasq()
        self.events: list[Event] = []
        setup = NetbootSetup(
            mode=Netboot.DHCP,
            interface="br0",
            address=IPv4Interface("10.77.0.1/24"),
            port=7474,
            boot_hash=self.first.artefacts[0].info_hash,
            tftp_folder=self.tftp,
            lease_file=folder / "leases",
        )
        self.dnsmasq.reconfigure(render_dnsmasq(self.first, setup))
        self.service = NetbootService(
            self.depot, self.first, setup, cast(Dnsmasq, self.dnsmasq), self.events.append
        )

    def make_manifest(self, serial: int, files: Mapping[str, bytes]) -> Manifest:
        return Manifest(
            cluster_id="0" * 32,
            cluster_name="room",
            serial=serial,
            previous=None,
            arch="x86_64",
            created=0,
            kernel_command_line="",
            artefacts=(self._add_boot(files),),
            blades=(BladeEntry(blade=BLADE, disk=DiskRule(), layout=Layout(), overlay="x"),),
            network=Network(dns=True),
        )

    def _add_boot(self, files: Mapping[str, bytes]) -> Artefact:
        with self.depot.new_artefact() as writer:
            added = [writer.add_file(name, data) for name, data in files.items()]
            return writer.finish(ArtefactKind.BOOT, added, 1)

    @property
    def warnings(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Warned)]


class Clock:
    now_s = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(netboot, "time", SimpleNamespace(monotonic=lambda: clock.now_s))
    return clock


def room_of(memory_bytes: int) -> RoomState:
    state = BladeState(blade="web01", hardware={"vendor": "ACME", "memory_bytes": memory_bytes})
    return RoomState(blades={"web01": state})


@pytest.fixture
def service(tmp_path: Path) -> Service:
    return Service(tmp_path)


def test_a_dhcp_server_that_appears_later_is_named_once(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[str] = []
    rogue = DhcpServer(address="10.77.0.66", mac="52:54:00:00:00:66")
    own = DhcpServer(address="10.77.0.1", mac="52:54:00:00:00:fe")

    def look(interface: str) -> list[DhcpServer]:
        looks.append(interface)
        if len(looks) == 2:
            raise NetworkError("the link is down")
        if len(looks) == 5:
            service.service.stop()
        return [own] if len(looks) == 1 else [own, rogue]

    monkeypatch.setattr(netboot, "_WATCH_S", 0.0)
    monkeypatch.setattr(netboot, "find_dhcp_servers", look)
    service.service.watch()
    assert looks == ["br0"] * 5
    (warning,) = service.warnings
    assert warning == "another DHCP server has appeared: 10.77.0.66 (52:54:00:00:00:66)"


def test_nothing_new_disturbs_nobody(service: Service) -> None:
    for _ in range(3):
        service.service.update(service.first, RoomState())
    assert len(service.dnsmasq.configs) == 1


def test_news_of_hardware_gather_until_nobody_boots(service: Service, clock: Clock) -> None:
    service.dnsmasq.quiet_s = 1.0
    for memory_bytes in range(1, 5):
        service.service.update(service.first, room_of(memory_bytes << 30))
        clock.now_s += 11.0
    assert len(service.dnsmasq.configs) == 1, "a transfer would break off"
    service.dnsmasq.quiet_s = 60.0
    service.service.update(service.first, room_of(8 << 30))
    assert len(service.dnsmasq.configs) == 2
    assert '"memory=8.0 GiB"' in service.dnsmasq.configs[-1]


def test_news_of_hardware_do_not_wait_for_ever(service: Service, clock: Clock) -> None:
    service.dnsmasq.quiet_s = 1.0
    service.service.update(service.first, room_of(1 << 30))
    clock.now_s += 301.0
    service.service.update(service.first, room_of(1 << 30))
    assert len(service.dnsmasq.configs) == 2


def test_a_newer_generation_is_taken_in_at_once(service: Service) -> None:
    second = service.make_manifest(2, {"undionly.kpxe": b"bios 2", "snponly.efi": b"uefi 2"})
    service.service.update(second, RoomState())
    assert second.artefacts[0].info_hash in service.dnsmasq.configs[-1]
    assert (service.tftp / "undionly.kpxe").read_bytes() == b"bios 2"


def test_a_generation_without_loaders_leaves_netboot_as_it_was(service: Service, clock: Clock) -> None:
    second = service.make_manifest(2, {"core.img": b"no iPXE", "boot.img": b"either"})
    for _ in range(3):
        service.service.update(second, RoomState())
        clock.now_s += 60.0
    assert len(service.dnsmasq.configs) == 1
    assert len(service.warnings) == 1
    assert "no undionly.kpxe" in service.warnings[0]


def test_what_dnsmasq_refuses_is_told_and_tried_again(service: Service, clock: Clock) -> None:
    second = attrs.evolve(service.first, serial=2, network=Network(dns=True, domain="room.lan"))
    service.dnsmasq.refuses = True
    service.service.update(second, RoomState())
    assert "it does not like that" in service.warnings[0]
    service.dnsmasq.refuses = False
    for _ in range(2):
        service.service.update(second, RoomState())
        clock.now_s += 11.0
    assert "domain=room.lan" in service.dnsmasq.configs[-1]
