"""A room's network in a box: a namespace for each blade, all on one bridge that has a namespace of its own.

It can be split in two and joined again, and have further segments behind routers. Nothing of it is seen from,
or reaches, the machine's own network. Needs root's rights.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from attrs import field, frozen

from bladeroot.errors import BladerootError, InventoryError
from bladeroot.host.run import DEVNULL, PIPE, Argument, require_root, require_tools, run, start_process

INTERFACE = "eth0"
"""What every host calls its only link."""
_BRIDGE = "br0"
_AWAY_BRIDGE = "away"
"""Where the ports of the second side are while the network is split."""
_BRIDGE_OPTIONS = "type bridge mcast_snooping 0 forward_delay 0"
"""Snooping without a querier would keep mDNS and local service discovery from most ports."""
_FAR_INTERFACE = "eth1"
_FORWARD = "echo 1 > /proc/sys/net/ipv4/ip_forward"
_GUARD = 'cat > /dev/null; for path in "$0"-*; do ip netns delete "${path##*/}"; done'
"""What removes the namespaces when the process that made them is gone, and its end of the pipe with it."""
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
    segment: str = ""
    """The segment that it is in; empty for the first."""

    def command(self, argv: Sequence[Argument]) -> list[Argument]:
        """What runs `argv` as this host. It becomes the program itself (no process in between), in a mount
        namespace of its own: what it mounts is seen by nobody else and vanishes with it.
        """
        return ["ip", "netns", "exec", self.namespace, *argv]


@frozen
class LabSegment:
    """A subnet behind a router, which forwards no multicast. Make it with `LabNetwork.add_segment`."""

    subnet: IPv4Network
    bridge: str
    router: LabHost
    """Its host in the first segment."""
    gateway: str
    """The router's address in this one."""


@frozen
class LabNetwork:
    """The hosts on one bridge, and those behind routers. Make it with `start_network`."""

    name: str
    subnet: IPv4Network
    bridge_namespace: str
    hosts: dict[str, LabHost] = field(factory=dict)
    segments: dict[str, LabSegment] = field(factory=dict)

    def add_host(
        self, name: str, address: str | None = None, *, rate_bits: int | None = None, segment: str = ""
    ) -> LabHost:
        """A new host, at the subnet's next free address unless one is given; shaped as by `shape`.

        `segment` is one that `add_segment` made. Raises InventoryError for a name or address that is taken.
        """
        if name in self.hosts:
            raise InventoryError(f"the lab has a host {name!r} already")
        place = self._segment(segment) if segment else None
        subnet = place.subnet if place else self.subnet
        host = LabHost(
            name, f"{self.name}-{name}", self._choose_address(subnet, address), subnet.prefixlen, segment
        )
        routes = [f"default via {place.gateway}"] if place else [_route_to(s) for s in self.segments.values()]
        number = len(self.hosts)
        _add_namespace(host.namespace)
        self.hosts[name] = host
        _ip(
            self.bridge_namespace,
            f"link add v{number} type veth peer name {INTERFACE} netns {host.namespace}",
            f"link set v{number} master {place.bridge if place else _BRIDGE} up",
        )
        _ip(
            host.namespace,
            f"address add {host.address}/{host.prefix_length} dev {INTERFACE}",
            f"link set {INTERFACE} up",
            f"route add 224.0.0.0/4 dev {INTERFACE}",
            *(f"route add {route}" for route in routes),
        )
        if rate_bits is not None:
            self.shape(name, rate_bits)
        return host

    def add_segment(self, name: str, subnet: str) -> LabSegment:
        """A second subnet, behind a router that is the host `<name>-router` of the first one.

        Hosts reach each other across it by unicast only: what is sent to all stays in its segment.
        """
        if name in self.segments:
            raise InventoryError(f"the lab has a segment {name!r} already")
        far = IPv4Network(subnet)
        if any(far.overlaps(other) for other in (self.subnet, *(s.subnet for s in self.segments.values()))):
            raise InventoryError(f"the lab has a segment that overlaps {far} already")
        router = self.add_host(f"{name}-router", str(self.subnet[-2 - len(self.segments)]))
        number = len(self.segments) + 1
        segment = LabSegment(far, f"br{number}", router, str(far[-2]))
        _ip(
            self.bridge_namespace,
            f"link add {segment.bridge} {_BRIDGE_OPTIONS}",
            f"link set {segment.bridge} up",
            f"link add r{number} type veth peer name {_FAR_INTERFACE} netns {router.namespace}",
            f"link set r{number} master {segment.bridge} up",
        )
        _ip(
            router.namespace,
            f"address add {segment.gateway}/{far.prefixlen} dev {_FAR_INTERFACE}",
            f"link set {_FAR_INTERFACE} up",
        )
        run(router.command(["sh", "-c", _FORWARD]))
        for host in self._list_near():
            if host is not router:
                _ip(host.namespace, f"route add {_route_to(segment)}")
        self.segments[name] = segment
        return segment

    def split(self, names_a: Collection[str], names_b: Collection[str]) -> None:
        """Let the hosts of one side not reach those of the other, by whatever kind of packet.

        Who is named in neither (a router, for one) stays with the first side. A split before is forgotten.
        Raises InventoryError for a host on both sides, and for one behind a router: its segment is where
        the router is.
        """
        if both := sorted(set(names_a) & set(names_b)):
            raise InventoryError(f"on both sides of the split: {', '.join(both)}")
        for name in (*names_a, *names_b):
            if self.host(name).segment:
                raise InventoryError(f"{name} is behind a router", "split the hosts of the first segment")
        for host in self._list_near():
            bridge = _AWAY_BRIDGE if host.name in names_b else _BRIDGE
            _ip(self.bridge_namespace, f"link set {self._port(host.name)} master {bridge}")

    def join(self) -> None:
        """Let all reach each other again."""
        self.split((), ())

    def host(self, name: str) -> LabHost:
        """The host of that name. Raises InventoryError."""
        try:
            return self.hosts[name]
        except KeyError:
            raise InventoryError(f"the lab has no host {name!r}") from None

    def introduce(self) -> None:
        """Tell the hosts of the first segment each other's hardware addresses.

        All network namespaces share one table of 1,024 of them (`gc_thresh3` in arp(7)): about 50 hosts that
        talk to 20 others each fill it, and then nobody finds anybody. What was told does not count there.
        """
        near = self._list_near()
        known = {host.address: _read_hardware_address(host) for host in near}
        for host in near:
            others = [(address, mac) for address, mac in known.items() if address != host.address]
            _ip(
                host.namespace,
                *(f"neigh replace {to} lladdr {mac} dev {INTERFACE} nud permanent" for to, mac in others),
            )

    def shape(self, name: str, rate_bits: int) -> None:
        """Limit a host's link to so many bits per second, each way."""
        host, port = self.host(name), self._port(name)
        burst = max(_LOWEST_BURST_BYTES, int(rate_bits / 8 * _BURST_S))
        for namespace, device in ((host.namespace, INTERFACE), (self.bridge_namespace, port)):
            limit = f"rate {rate_bits}bit burst {burst} latency 50ms"
            run(["tc", "-netns", namespace, *f"qdisc replace dev {device} root tbf {limit}".split()])

    def set_link(self, name: str, *, up: bool) -> None:
        """Pull a host's cable, or put it back."""
        _ip(self.bridge_namespace, f"link set {self._port(name)} {'up' if up else 'down'}")

    def remove(self) -> None:
        """Remove everything; processes that still run in a host keep a network without links."""
        for namespace in [host.namespace for host in self.hosts.values()] + [self.bridge_namespace]:
            with contextlib.suppress(BladerootError):
                run(["ip", "netns", "delete", namespace])
        self.hosts.clear()
        self.segments.clear()

    def _segment(self, name: str) -> LabSegment:
        try:
            return self.segments[name]
        except KeyError:
            raise InventoryError(f"the lab has no segment {name!r}") from None

    def _choose_address(self, subnet: IPv4Network, address: str | None) -> str:
        taken = {host.address for host in self.hosts.values()}
        taken |= {segment.gateway for segment in self.segments.values()}
        if address is None:
            return next(str(free) for free in subnet.hosts() if str(free) not in taken)
        if address in taken:
            raise InventoryError(f"the lab has a host at {address} already")
        return address

    def _list_near(self) -> list[LabHost]:
        return [host for host in self.hosts.values() if not host.segment]

    def _port(self, name: str) -> str:
        """The host's socket of the switch. Raises InventoryError."""
        return f"v{list(self.hosts).index(self.host(name).name)}"


@contextmanager
def start_network(prefix: str = "lab", subnet: str = "10.77.0.0/24") -> Iterator[LabNetwork]:
    """A bridge without hosts; everything is removed when the block ends, or this process, however it does.

    Names carry this process's number, so that runs beside each other do not meet. Raises PrivilegeError,
    MissingToolError.
    """
    require_root("a network in a box")
    require_tools(["ip", "tc"])
    if not _PREFIX.fullmatch(prefix):
        raise InventoryError(f"not a prefix for a lab: {prefix!r}", "up to 16 letters a-z and digits")
    remove_stale()
    name = f"bladeroot-{prefix}-{os.getpid()}-{next(_numbers)}"
    network = LabNetwork(name, IPv4Network(subnet), f"{name}-switch")
    guard = ["sh", "-c", _GUARD, str(_NAMESPACES / name)]
    with start_process(guard, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL, new_group=True):
        try:
            _add_namespace(network.bridge_namespace)
            for bridge in (_BRIDGE, _AWAY_BRIDGE):
                _ip(
                    network.bridge_namespace,
                    f"link add {bridge} {_BRIDGE_OPTIONS}",
                    f"link set {bridge} up",
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


def _route_to(segment: LabSegment) -> str:
    return f"{segment.subnet} via {segment.router.address}"


def _add_namespace(name: str) -> None:
    run(["ip", "netns", "add", name])
    _ip(name, "link set lo up")


def _read_hardware_address(host: LabHost) -> str:
    told = run(["ip", "-netns", host.namespace, "-j", "link", "show", "dev", INTERFACE]).stdout
    return str(json.loads(told)[0]["address"])


def _ip(namespace: str, *commands: str) -> None:
    run(["ip", "-netns", namespace, "-batch", "-"], stdin="\n".join(commands) + "\n")
