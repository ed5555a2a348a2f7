"""The lowest layer, which bladeroot makes for a blade: its name, its network, what it takes to be root.

Any layer of the cluster folder may replace any of it. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import ip_interface
from uuid import UUID, uuid5

from bladeroot.core.cluster import Blade, Cluster
from bladeroot.core.overlay import Layer, LayerFile
from bladeroot.core.overlaysettings import LayerSettings, ModeSetting, ServiceSwitch, SwitchAction
from bladeroot.core.overlaytree import EntryKind
from bladeroot.core.templates import split_address

OWN_LAYER = "bladeroot"
FOLDER = "etc/bladeroot"
NETWORKD = "systemd-networkd.service"
NETWORK_MANAGER = "NetworkManager.service"
RESOLVED = "systemd-resolved.service"

_KEYFILE = "etc/NetworkManager/system-connections/bladeroot.nmconnection"
_WHERE = "bladeroot's own layer"


def make_own_layer(
    cluster: Cluster,
    blade: Blade,
    trusted_keys: Mapping[str, bytes],
    cluster_toml: str,
    has_unit: Callable[[str], bool],
    rules: Mapping[str, bytes] | None = None,
) -> tuple[Layer, tuple[str, ...]]:
    """The layer, and notes about what could not be done. `trusted_keys`: public key files by name; `rules`:
    the cluster folder's files of rules by name, for a blade that a new generation is published on.

    An address of the inventory is given to the interface with the blade's first MAC address: by
    NetworkManager where the snapshot has it, or else by systemd-networkd.
    """
    files = [
        _file("etc/hostname", f"{blade.name}\n"),
        _file("etc/hosts", "".join(_hosts_lines(cluster, blade))),
        _file(f"{FOLDER}/cluster.toml", cluster_toml),
    ]
    for name, text in sorted((rules or {}).items()):
        files.append(LayerFile(f"{FOLDER}/{name}", EntryKind.FILE, _WHERE, content=text))
    for name, key in sorted(trusted_keys.items()):
        files.append(LayerFile(f"{FOLDER}/keys/trusted/{name}", EntryKind.FILE, _WHERE, content=key))
    modes: list[ModeSetting] = []
    switches: list[ServiceSwitch] = []
    notes: list[str] = []
    if blade.address and not blade.macs:
        notes.append(f"blade {blade.name} has an address but no MAC address: its network is not configured")
    elif blade.address and has_unit(NETWORK_MANAGER):
        files.append(_file(_KEYFILE, _render_keyfile(cluster, blade)))
        # NetworkManager passes over a keyfile that others can read.
        modes.append(ModeSetting(_KEYFILE, 0o600, where=_WHERE))
        switches.append(ServiceSwitch(NETWORK_MANAGER, SwitchAction.ENABLE, where=_WHERE))
    elif blade.address and has_unit(NETWORKD):
        files.append(_file("etc/systemd/network/10-bladeroot.network", _render_networkd(cluster, blade)))
        if cluster.network.nameservers and not has_unit(RESOLVED):
            files.append(_file("etc/resolv.conf", "".join(_resolver_lines(cluster))))
        switches += _networkd_switches()
    elif blade.address:
        notes.append(
            f"the snapshot has neither systemd-networkd nor NetworkManager: {blade.address} is not set"
        )
    settings = LayerSettings(modes=tuple(modes), switches=tuple(switches))
    return Layer(OWN_LAYER, tuple(files), settings, _WHERE), tuple(notes)


def _networkd_switches() -> Iterator[ServiceSwitch]:
    yield ServiceSwitch(NETWORKD, SwitchAction.ENABLE, where=_WHERE)
    # With every switch and other blade off, a blade still has to boot without delay: the address is there
    # without a carrier, and waiting for one would hold network-online.target up for two minutes.
    wait_online = "systemd-networkd-wait-online.service"
    yield ServiceSwitch(wait_online, SwitchAction.DISABLE, optional=True, where=_WHERE)


def _file(path: str, text: str) -> LayerFile:
    return LayerFile(path, EntryKind.FILE, _WHERE, content=text.encode())


def _hosts_lines(cluster: Cluster, blade: Blade) -> Iterator[str]:
    yield "127.0.0.1\tlocalhost\n"
    yield "::1\tlocalhost ip6-localhost ip6-loopback\n"
    if not blade.address:
        yield f"127.0.1.1\t{_names(cluster, blade.name)}\n"
    for _name, one in sorted(cluster.blades.items()):
        if one.address:
            yield f"{split_address(one.address)[0]}\t{_names(cluster, one.name)}\n"


def _names(cluster: Cluster, name: str) -> str:
    return f"{name}.{cluster.network.domain} {name}" if cluster.network.domain else name


def _resolver_lines(cluster: Cluster) -> Iterator[str]:
    if cluster.network.domain:
        yield f"search {cluster.network.domain}\n"
    for server in cluster.network.nameservers:
        yield f"nameserver {server}\n"


def _render_networkd(cluster: Cluster, blade: Blade) -> str:
    """systemd.network(5). Told by MAC address, so that it fits whatever the interface is called."""
    lines = [
        "[Match]",
        f"MACAddress={blade.macs[0]}",
        "",
        "[Network]",
        f"Address={blade.address}",
        *_prefixed("Gateway=", filter(None, [cluster.network.gateway])),
        *_prefixed("DNS=", cluster.network.nameservers),
        *_prefixed("Domains=", filter(None, [cluster.network.domain])),
        "ConfigureWithoutCarrier=yes",
    ]
    return "\n".join(lines) + "\n"


def _prefixed(prefix: str, values: Iterable[str | None]) -> Iterator[str]:
    for value in values:
        yield f"{prefix}{value}"


def _render_keyfile(cluster: Cluster, blade: Blade) -> str:
    """nm-settings-keyfile(5)."""
    assert blade.address is not None  # noqa: S101 - the caller looked
    own, other = ("ipv4", "ipv6") if ip_interface(blade.address).version == 4 else ("ipv6", "ipv4")
    lines = [
        "[connection]",
        "id=bladeroot",
        f"uuid={uuid5(UUID(cluster.id), blade.name)}",
        "type=ethernet",
        "autoconnect-priority=100",
        "",
        "[ethernet]",
        f"mac-address={blade.macs[0].upper()}",
        "",
        f"[{own}]",
        "method=manual",
        f"address1={blade.address}",
        *_prefixed("gateway=", filter(None, [cluster.network.gateway])),
    ]
    if cluster.network.nameservers:
        lines.append("dns=" + "".join(f"{server};" for server in cluster.network.nameservers))
    if cluster.network.domain:
        lines.append(f"dns-search={cluster.network.domain};")
    automatic = "auto" if other == "ipv6" else "disabled"
    return "\n".join([*lines, "", f"[{other}]", f"method={automatic}"]) + "\n"
