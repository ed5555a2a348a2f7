"""dnsmasq's configuration for a root: DHCP, or proxyDHCP beside a site's own server; TFTP; DNS. No I/O.

Option and architecture numbers are of RFC 4578 and of IANA's "Processor Architecture Types".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Interface, IPv4Network, ip_address, ip_interface
from pathlib import Path
from typing import Any

from attrs import frozen

from bladeroot.core.bootanswer import script_address
from bladeroot.core.cluster import Blade, Netboot
from bladeroot.core.manifest import Manifest
from bladeroot.core.sizes import render_about

BIOS_LOADER = "undionly.kpxe"
UEFI_LOADER = "snponly.efi"
_UEFI_ARCHITECTURES = (7, 9)
_UEFI_HTTP_ARCHITECTURE = 16
_LEASE = "1h"
_RA_INTERVAL_S = 600
_MOST_TXT_BYTES = 100
"""Of a part. RFC 1035, 3.3 allows 255, but dnsmasq reads no line of over 1,024 bytes with all parts."""


@frozen(kw_only=True)
class NetbootSetup:
    """What beside the manifest the configuration depends on."""

    mode: Netboot
    interface: str
    address: IPv4Interface
    """The root's own, on that interface."""
    port: int
    """Of the control service."""
    boot_hash: str
    """Info-hash of the generation's boot code."""
    tftp_folder: Path
    lease_file: Path
    hardware: Mapping[str, Mapping[str, Any]] = {}
    """By blade, as `core.hardware.Hardware` in plain values, where it is known."""

    @property
    def root(self) -> str:
        """`host:port` of the control service."""
        return f"{self.address.ip}:{self.port}"


def render_dnsmasq(manifest: Manifest, setup: NetbootSetup) -> str:
    """The whole configuration file."""
    network = manifest.network
    lines = [
        "# Written by bladeroot for as long as it is root here.",
        f"interface={setup.interface}",
        "bind-interfaces",
        "except-interface=lo",
        "no-hosts",
        "no-resolv",
        # Who has an address of the range without having it from here is found by a ping.
        *([] if network.dhcp_range else ["no-ping"]),
        f"port={53 if network.dns else 0}",
        "enable-tftp",
        f"tftp-root={setup.tftp_folder}",
        "dhcp-match=set:ipxe,175",
        "log-dhcp",
    ]
    lines += _render_proxy(setup) if setup.mode is Netboot.PROXY else _render_dhcp(manifest, setup)
    if network.dns:
        lines += _render_dns(manifest, setup)
    return "\n".join(lines) + "\n"


def find_unreachable(manifest: Manifest, setup: NetbootSetup) -> list[str]:
    """Blades that full DHCP would give no address: those without one, and those that it cannot know, for want
    of a MAC address.
    """
    if setup.mode is not Netboot.DHCP or manifest.network.dhcp_range:
        return []
    return [
        entry.blade.name
        for entry in manifest.blades
        if not (entry.blade.macs and _fixed_address(entry.blade, manifest, setup))
    ]


def find_far_networks(manifest: Manifest, setup: NetbootSetup) -> list[IPv4Network]:
    """The inventory's other networks: their blades are given addresses where a DHCP relay (RFC 2131, 4.3)
    hands their questions on.
    """
    if setup.mode is not Netboot.DHCP:
        return []
    addresses = [ip_interface(entry.blade.address) for entry in manifest.blades if entry.blade.address]
    networks = {address.network for address in addresses if isinstance(address, IPv4Interface)}
    return sorted(network for network in networks if not network.overlaps(setup.address.network))


def _render_dhcp(manifest: Manifest, setup: NetbootSetup) -> Iterator[str]:
    network, own = manifest.network, setup.address
    yield "dhcp-authoritative"
    yield f"dhcp-leasefile={setup.lease_file}"
    first_last = (
        ",".join(network.dhcp_range) if network.dhcp_range else f"{own.network.network_address},static"
    )
    yield f"dhcp-range=set:near,{first_last},{own.network.netmask},{_LEASE}"
    # Reached by a relay, which dnsmasq names as the router there, since no other is said.
    for far in find_far_networks(manifest, setup):
        yield f"dhcp-range={far.network_address},static,{far.netmask},{_LEASE}"
    # Without a router advertisement iPXE waits for IPv6, 13 s longer. With a lifetime of 0 s it makes nobody
    # route by this machine (RFC 4861, 6.2.3).
    yield f"dhcp-range=::,constructor:{setup.interface},ra-only"
    yield "enable-ra"
    yield f"ra-param={setup.interface},{_RA_INTERVAL_S},0"
    yield ",".join(["dhcp-option=tag:near,option:router", *_of_ipv4([network.gateway or ""])])
    servers = (str(own.ip), *network.nameservers) if network.dns else network.nameservers
    yield ",".join(["dhcp-option=option:dns-server", *_of_ipv4(servers)])
    if network.domain:
        yield f"domain={network.domain}"
    for entry in manifest.blades:
        blade = entry.blade
        address = _fixed_address(blade, manifest, setup)
        if blade.macs:
            yield ",".join(["dhcp-host=" + ",".join(blade.macs), *([address] if address else []), blade.name])
    yield "dhcp-match=set:bios,option:client-arch,0"
    for number in _UEFI_ARCHITECTURES:
        yield f"dhcp-match=set:uefi,option:client-arch,{number}"
    yield f"dhcp-match=set:uefihttp,option:client-arch,{_UEFI_HTTP_ARCHITECTURE}"
    yield f"dhcp-boot=tag:bios,tag:!ipxe,{BIOS_LOADER}"
    yield f"dhcp-boot=tag:uefi,tag:!ipxe,{UEFI_LOADER}"
    yield f"dhcp-boot=tag:uefihttp,tag:!ipxe,http://{setup.root}/boot/{setup.boot_hash}/{UEFI_LOADER}"
    yield "dhcp-option-force=tag:uefihttp,tag:!ipxe,60,HTTPClient"
    yield f"dhcp-boot=tag:ipxe,{script_address(setup.root)}"


def _render_proxy(setup: NetbootSetup) -> Iterator[str]:
    """Exactly one service for each architecture and tag: OVMF stalls at two of them."""
    yield f"dhcp-range={setup.address.network.network_address},proxy,{setup.address.network.netmask}"
    for tag, bios, uefi in (
        ("!ipxe", BIOS_LOADER, UEFI_LOADER),
        ("ipxe", *(2 * [script_address(setup.root)])),
    ):
        yield f'pxe-service=tag:{tag},x86PC,"bladeroot",{bios}'
        yield f'pxe-service=tag:{tag},X86-64_EFI,"bladeroot",{uefi}'
        if tag == "!ipxe":
            yield f'pxe-service=tag:{tag},BC_EFI,"bladeroot",{uefi}'


def _render_dns(manifest: Manifest, setup: NetbootSetup) -> Iterator[str]:
    network = manifest.network
    for server in network.nameservers:
        if server != str(setup.address.ip):
            yield f"server={server}"
    if network.domain:
        yield f"local=/{network.domain}/"
    for entry in manifest.blades:
        blade = entry.blade
        names = [f"{blade.name}.{network.domain}", blade.name] if network.domain else [blade.name]
        if blade.address:
            yield f"host-record={','.join(names)},{ip_interface(blade.address).ip}"
        text = ",".join(f'"{part}"' for part in describe_blade(blade, setup.hardware.get(blade.name)))
        for name in names:
            yield f"txt-record={name},{text}"


def describe_blade(blade: Blade, hardware: Mapping[str, Any] | None) -> list[str]:
    """Where a blade is and what it is, as the parts of a TXT record."""
    facts = [("role", blade.role), ("rack", blade.rack), ("location", blade.location)]
    if hardware:
        memory = hardware.get("memory_bytes")
        facts += [
            ("machine", f"{hardware.get('vendor') or ''} {hardware.get('product') or ''}".strip()),
            ("serial", str(hardware.get("serial") or "")),
            ("cpu", f"{hardware.get('cpus') or '?'} x {hardware.get('cpu_model') or '?'}"),
            ("memory", render_about(memory) if isinstance(memory, int) and 0 < memory < 1 << 63 else ""),
        ]
    return [_clean(f"{name}={value}") for name, value in facts if value]


def _clean(text: str) -> str:
    """Safe between quotes in a configuration line."""
    printable = "".join(char for char in text if char.isprintable() and char.isascii() and char not in '"\\')
    return printable[:_MOST_TXT_BYTES]


def _of_ipv4(addresses: Iterable[str]) -> list[str]:
    """The options are for nothing else (RFC 2132, 3.5 and 3.8)."""
    return [address for address in addresses if address and ip_address(address).version == 4]


def _fixed_address(blade: Blade, manifest: Manifest, setup: NetbootSetup) -> str | None:
    if not blade.address:
        return None
    address = ip_interface(blade.address).ip
    networks = (setup.address.network, *find_far_networks(manifest, setup))
    return str(address) if any(address in network for network in networks) else None
