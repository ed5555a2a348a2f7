"""A room's network in a box: a namespace for each blade, all on one bridge that has a namespace of its own.

Nothing of it is seen from, or reaches, the machine's own network. Needs root's rights.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from attrs import field, frozen

from bladeroot.errors import BladerootError, InventoryError
from bladeroot.host.run import Argument, require_root, require_tools, run

INTERFACE = "eth0"
"""What every host calls its only link."""
_BRIDGE = "br0"
_NAMESPACES = Path("/run/netns")
_PREFIX = re.compile(r"[a-z][a-z0-9]{0,15}")
_OURS = re.compile(r"bladeroot-[a-z0-9]+-(\d+)-\d+-.+")
_LOWEST_BURST_BYTES = 128 << 10
"""tbf(8): not less than a GSO packet (64 KiB), or nothing passes."""
_BURST_S = 0.005
_numbers = itertools.count()


@frozen
class LabHost:
    """A machine of the lab: a network namespace with `eth0` and the loopback."""

    name: str
    namespace: str
    address: str
    prefix_length: int

    def command(self, argv: Sequence[Argument]) -> list[Argument]:
        """What runs `argv` as this host. It becomes the program itself (no process in between), in a mount
        namespace of its own: what it mounts is seen by nobody else and vanishes with it.
        """
        return ["ip", "netns", "exec", self.namespace, *argv]


@frozen
class LabNetwork:
    """The hosts on one bridge. Make it with `start_network`."""

    name: str
    subnet: IPv4Network
    bridge_namespace: str
    hosts: dict[str, LabHost] = field(factory=dict)

    def add_host(self, name: str, address: str | None = None, *, rate_bits: int | None = None) -> LabHost:
        """A new host, at the subnet's next free address unless one is given; shaped as by `shape`."""
        if name in self.hosts:
            raise InventoryError(f"the lab has a host {name!r} already")
        taken = {host.address for host in self.hosts.values()}
        chosen = address or next(str(a) for a in self.subnet.hosts() if str(a) not in taken)
        host = LabHost(name, f"{self.name}-{name}", chosen, self.subnet.prefixlen)
        number = len(self.hosts)
        _add_namespace(host.namespace)
        self.hosts[name] = host
        _ip(
            self.bridge_namespace,
            f"link add v{number} type veth peer name {INTERFACE} netns {host.namespace}",
            f"link set v{number} master {_BRIDGE} up",
        )
        _ip(
            host.namespace,
            f"address add {host.address}/{host.prefix_length} dev {INTERFACE}",
            f"link set {INTERFACE} up",
            f"route add 224.0.0.0/4 dev {INTERFACE}",
        )
        if rate_bits is not None:
            self.shape(name, rate_bits)
        return host

    def host(self, name: str) -> LabHost:
        """The host of that name. Raises InventoryError."""
        try:
            return self.hosts[name]
        except KeyError:
            raise InventoryError(f"the lab has no host {name!r}") from None

    def shape(self, name: str, rate_bits: int) -> None:
        """Limit a host's link to so many bits per second, each way."""
        host, number = self.host(name), list(self.hosts).index(name)
        burst = max(_LOWEST_BURST_BYTES, int(rate_bits / 8 * _BURST_S))
        for namespace, device in ((host.namespace, INTERFACE), (self.bridge_namespace, f"v{number}")):
            limit = f"rate {rate_bits}bit burst {burst} latency 50ms"
            run(["tc", "-netns", namespace, *f"qdisc replace dev {device} root tbf {limit}".split()])

    def set_link(self, name: str, *, up: bool) -> None:
        """Pull a host's cable, or put it back."""
        number = list(self.hosts).index(self.host(name).name)
        _ip(self.bridge_namespace, f"link set v{number} {'up' if up else 'down'}")

    def remove(self) -> None:
        """Remove everything; processes that still run in a host keep a network without links."""
        for namespace in [host.namespace for host in self.hosts.values()] + [self.bridge_namespace]:
            with contextlib.suppress(BladerootError):
                run(["ip", "netns", "delete", namespace])
        self.hosts.clear()


@contextmanager
def start_network(prefix: str = "lab", subnet: str = "10.77.0.0/24") -> Iterator[LabNetwork]:
    """A bridge without hosts; everything is removed when the block ends. Names carry this process's number,
    so that runs beside each other do not meet. Raises PrivilegeError, MissingToolError.
    """
    require_root("a network in a box")
    require_tools(["ip", "tc"])
    if not _PREFIX.fullmatch(prefix):
        raise InventoryError(f"not a prefix for a lab: {prefix!r}", "up to 16 letters a-z and digits")
    remove_stale()
    name = f"bladeroot-{prefix}-{os.getpid()}-{next(_numbers)}"
    network = LabNetwork(name, IPv4Network(subnet), f"{name}-switch")
    try:
        _add_namespace(network.bridge_namespace)
        # Snooping without a querier would keep mDNS and local service discovery from most ports.
        _ip(
            network.bridge_namespace,
            f"link add {_BRIDGE} type bridge mcast_snooping 0 forward_delay 0",
            f"link set {_BRIDGE} up",
        )
        yield network
    finally:
        network.remove()


def remove_stale() -> list[str]:
    """Remove the namespaces of labs whose process is gone (it was killed); returns their names."""
    removed = []
    for path in sorted(_NAMESPACES.glob("bladeroot-*")):
        match = _OURS.fullmatch(path.name)
        if match and not Path("/proc", match[1]).exists():
            run(["ip", "netns", "delete", path.name], check=False)
            removed.append(path.name)
    return removed


def _add_namespace(name: str) -> None:
    run(["ip", "netns", "add", name])
    _ip(name, "link set lo up")


def _ip(namespace: str, *commands: str) -> None:
    run(["ip", "-netns", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")
