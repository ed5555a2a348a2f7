"""dnsmasq's configuration."""

from __future__ import annotations

from ipaddress import IPv4Interface
from pathlib import Path

import attrs

from bladeroot.core.cluster import Blade, DiskRule, Layout, Netboot, Network
from bladeroot.core.dnsmasqplan import (
    NetbootSetup,
    describe_blade,
    find_far_networks,
    find_unreachable,
    render_dnsmasq,
)
from bladeroot.core.manifest import BladeEntry, Manifest
from bladeroot.host.run import run

WEB = Blade(
    name="web01",
    macs=("52:54:00:00:00:01", "52:54:00:00:00:02"),
    address="10.77.0.11/24",
    rack="a3",
    location='row 2, "left"',
)
DB = Blade(name="db1", macs=("52:54:00:00:00:03",))
MANIFEST = Manifest(
    cluster_id="0" * 32,
    cluster_name="room",
    serial=1,
    previous=None,
    arch="x86_64",
    created=0,
    kernel_command_line="",
    artefacts=(),
    blades=tuple(
        BladeEntry(blade=blade, disk=DiskRule(), layout=Layout(), overlay="x") for blade in (WEB, DB)
    ),
    network=Network(gateway="10.77.0.254", nameservers=("10.77.0.253",), domain="room.lan", dns=True),
)
SETUP = NetbootSetup(
    mode=Netboot.DHCP,
    interface="br0",
    address=IPv4Interface("10.77.0.1/24"),
    port=7474,
    boot_hash="ab" * 32,
    tftp_folder=Path("/tmp/tftp"),
    lease_file=Path("/tmp/leases"),
)


def lines(setup: NetbootSetup = SETUP, manifest: Manifest = MANIFEST) -> list[str]:
    return render_dnsmasq(manifest, setup).splitlines()


def accepts(tmp_path: Path, text: str) -> bool:
    file = tmp_path / "dnsmasq.conf"
    file.write_text(text)
    return run(["dnsmasq", "--test", f"--conf-file={file}"], check=False).code == 0


def test_dnsmasq_takes_it_in_each_mode(tmp_path: Path) -> None:
    for mode in (Netboot.DHCP, Netboot.PROXY):
        assert accepts(tmp_path, render_dnsmasq(MANIFEST, attrs.evolve(SETUP, mode=mode)))
    assert not accepts(tmp_path, "no-such-option\n")


def test_blades_have_fixed_addresses_for_all_their_cards() -> None:
    assert "dhcp-host=52:54:00:00:00:01,52:54:00:00:00:02,10.77.0.11,web01" in lines()
    assert "dhcp-host=52:54:00:00:00:03,db1" in lines()


def test_without_a_range_nobody_else_gets_an_address() -> None:
    assert "dhcp-range=set:near,10.77.0.0,static,255.255.255.0,1h" in lines()
    ranged = attrs.evolve(
        MANIFEST, network=attrs.evolve(MANIFEST.network, dhcp_range=("10.77.0.200", "10.77.0.250"))
    )
    assert "dhcp-range=set:near,10.77.0.200,10.77.0.250,255.255.255.0,1h" in lines(manifest=ranged)
    assert find_unreachable(MANIFEST, SETUP) == ["db1"]
    assert find_unreachable(ranged, SETUP) == []


def test_blades_of_another_network_have_addresses_for_a_relay(tmp_path: Path) -> None:
    far = Blade(name="far01", macs=("52:54:00:00:00:09",), address="10.78.0.11/24")
    entry = BladeEntry(blade=far, disk=DiskRule(), layout=Layout(), overlay="x")
    manifest = attrs.evolve(MANIFEST, blades=(*MANIFEST.blades, entry))
    text = lines(manifest=manifest)
    assert "dhcp-range=10.78.0.0,static,255.255.255.0,1h" in text
    assert "dhcp-host=52:54:00:00:00:09,10.78.0.11,far01" in text
    routers = [line for line in text if "option:router" in line]
    assert routers == ["dhcp-option=tag:near,option:router,10.77.0.254"], "the relay is the other one's"
    assert find_unreachable(manifest, SETUP) == ["db1"]
    assert find_far_networks(manifest, attrs.evolve(SETUP, mode=Netboot.PROXY)) == []
    assert accepts(tmp_path, render_dnsmasq(manifest, SETUP))


def test_a_root_is_nobodys_ipv6_router() -> None:
    assert "ra-param=br0,600,0" in lines()


def test_a_proxy_gives_no_addresses_and_is_one_service_for_each_kind() -> None:
    text = lines(attrs.evolve(SETUP, mode=Netboot.PROXY))
    assert "dhcp-range=10.77.0.0,proxy,255.255.255.0" in text
    assert not any(line.startswith(("dhcp-host", "dhcp-option", "dhcp-boot")) for line in text)
    services = [line.split(",")[:2] for line in text if line.startswith("pxe-service")]
    assert len(services) == len({tuple(service) for service in services}) == 5


def test_dns_knows_where_and_what_a_blade_is() -> None:
    hardware = {"vendor": "QEMU", "product": "PC", "cpus": 4, "cpu_model": "Fast", "memory_bytes": 8 << 30}
    text = lines(attrs.evolve(SETUP, hardware={"web01": hardware}))
    assert "port=53" in text
    assert "host-record=web01.room.lan,web01,10.77.0.11" in text
    record = next(line for line in text if line.startswith("txt-record=web01.room.lan,"))
    for part in (
        '"role=blade"',
        '"rack=a3"',
        '"location=row 2, left"',
        '"machine=QEMU PC"',
        '"memory=8.0 GiB"',
    ):
        assert part in record
    silent = attrs.evolve(MANIFEST, network=attrs.evolve(MANIFEST.network, dns=False))
    assert "port=0" in lines(manifest=silent)
    assert not any(line.startswith("host-record") for line in lines(manifest=silent))


def test_a_machine_cannot_write_lines_of_its_own() -> None:
    evil = {"vendor": 'x"\ndhcp-boot=evil', "product": "\\", "memory_bytes": 1}
    parts = describe_blade(WEB, evil)
    assert not any(char in part for part in parts for char in '"\n\\')
