"""The machine's interfaces and their IPv4 addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, ip_interface

import ifaddr

from bladeroot.core.manifest import Manifest
from bladeroot.errors import ConfigError


def find_interfaces() -> dict[str, tuple[IPv4Interface, ...]]:
    """Each interface but loopback, with its IPv4 addresses."""
    found: dict[str, tuple[IPv4Interface, ...]] = {}
    for adapter in ifaddr.get_adapters():
        addresses = tuple(
            IPv4Interface(f"{ip.ip}/{ip.network_prefix}") for ip in adapter.ips if isinstance(ip.ip, str)
        )
        usable = tuple(address for address in addresses if not address.ip.is_loopback)
        if usable:
            found[adapter.name] = usable
    return found


def choose_interface(
    manifest: Manifest, interfaces: dict[str, tuple[IPv4Interface, ...]], wanted: str | None = None
) -> tuple[str, IPv4Interface]:
    """Where blades are, and this machine's address there. Raises ConfigError where that is not clear."""
    blades = [ip_interface(entry.blade.address).ip for entry in manifest.blades if entry.blade.address]
    fitting = {
        name: address
        for name, addresses in interfaces.items()
        for address in reversed(addresses)
        if any(isinstance(blade, IPv4Address) and blade in address.network for blade in blades)
    }
    named = wanted or manifest.network.interface
    if named is not None:
        if named not in interfaces:
            raise ConfigError(f"interface {named} has no IPv4 address here", _describe(interfaces))
        return named, fitting.get(named, interfaces[named][0])
    if not blades and len(interfaces) == 1:
        fitting = {name: addresses[0] for name, addresses in interfaces.items()}
    if len(fitting) == 1:
        return next(iter(fitting.items()))
    what = (
        "several interfaces have blades"
        if fitting
        else "no interface is in a network that blades have addresses in"
    )
    raise ConfigError(
        f"cannot tell where to answer netboot: {what}",
        f'set interface = "…" under [network], or promote --interface; {_describe(interfaces)}',
    )


def _describe(interfaces: dict[str, tuple[IPv4Interface, ...]]) -> str:
    seen = [f"{name} {', '.join(map(str, addresses))}" for name, addresses in sorted(interfaces.items())]
    return f"there is: {'; '.join(seen) or 'none'}"
