"""Finding roots, and being found: mDNS on every interface that can. The one door to zeroconf.

Only roots and candidates announce (DESIGN, 5): a room that powers up at once must not storm. Who looks for a
root keeps looking, so a root that is started later is found too.
"""

from __future__ import annotations

import contextlib
import fcntl
import queue
import socket
import struct
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

import attrs
import ifaddr
import zeroconf
from attrs import frozen
from zeroconf import ServiceStateChange

from bladeroot.core.claims import Claim, choose_root, parse_txt, render_txt
from bladeroot.errors import BladerootError, NetworkError, NoRootFoundError

SERVICE_TYPE = "_bladeroot._tcp.local."
_TTL_S = 60
"""How long others may remember a claim: a root that lost power is forgotten soon."""
_RESOLVE_TIMEOUT_MS = 3000
_SETTLE_S = 0.25
"""After the first root is heard: time for a better one, whose answer may be 0.12 s later (RFC 6762, 6)."""
_INTERFACE_CHECK_S = 2.0
_MAX_HEARD = 256
_MOST_CHANGED = 1024
"""So many names may wait to be looked up: whoever likes can announce thousands."""
_UP, _LOOPBACK, _MULTICAST = 0x1, 0x8, 0x1000
_SIOCGIFFLAGS = 0x8913
"""netdevice(7)."""


@frozen
class Interface:
    """A network interface to look and announce on; addresses with their prefix lengths."""

    name: str
    address: str
    prefix_length: int

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"

    @property
    def is_loopback(self) -> bool:
        """Whether nobody else is to be reached by it."""
        return ip_address(self.address).is_loopback

    def reaches(self, address: str) -> bool:
        """Whether the address is on this interface's own subnet."""
        network = ip_network(f"{self.address}/{self.prefix_length}", strict=False)
        return ip_address(address) in network


@frozen(kw_only=True)
class Heard:
    """What there was to hear. `malformed` are lines that say who and what."""

    claims: tuple[Claim, ...] = ()
    """Of the cluster that was asked for (all, if none was)."""
    strangers: tuple[Claim, ...] = ()
    """Of other clusters."""
    malformed: tuple[str, ...] = ()
    interfaces: tuple[Interface, ...] = ()
    looked_s: float = 0.0
    ages_s: Mapping[Claim, float] = attrs.field(factory=dict)
    """For how long each claim has been heard exactly as it is."""

    @property
    def root(self) -> Claim | None:
        """The claim that wins."""
        return choose_root(self.claims)


def find_interfaces() -> list[Interface]:
    """The IPv4 interfaces that are up and can multicast; the loopback only if there is no other."""
    found: list[Interface] = []
    loopback: list[Interface] = []
    for adapter in ifaddr.get_adapters():
        flags = _read_flags(adapter.name)
        for address in adapter.ips:
            if not flags & _UP or not isinstance(address.ip, str):
                continue
            interface = Interface(adapter.name, address.ip, address.network_prefix)
            if flags & _LOOPBACK:
                loopback.append(interface)
            elif flags & _MULTICAST:
                found.append(interface)
    return found or loopback[:1]


def _read_flags(name: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        request = struct.pack("16sh14x", name.encode()[:15], 0)
        try:
            answer = fcntl.ioctl(probe, _SIOCGIFFLAGS, request)
        except OSError:  # gone in the meantime
            return 0
    return int(struct.unpack("16sh14x", answer)[1]) & 0xFFFF


class Announcement:
    """A claim that is being announced; see `announce`."""

    def __init__(self, daemon: zeroconf.Zeroconf, interfaces: Sequence[Interface], claim: Claim) -> None:
        self._daemon = daemon
        self._interfaces = tuple(interfaces)
        self._claim = claim
        try:
            daemon.register_service(self._render(claim), ttl=None)
        except zeroconf.NonUniqueNameException as error:
            hint = "two machines have one name: see `bladeroot blades list`"
            raise NetworkError(f"another machine announces itself as blade {claim.blade}", hint) from error
        except (zeroconf.Error, OSError) as error:
            raise NetworkError(f"cannot announce {claim.blade} over mDNS: {error}") from error

    @property
    def claim(self) -> Claim:
        """What is being announced now."""
        return self._claim

    def update(self, claim: Claim) -> None:
        """Announce this from now on (a new serial, candidate become root). Same blade and port."""
        try:
            self._daemon.update_service(self._render(claim))
        except (zeroconf.Error, OSError) as error:
            raise NetworkError(f"cannot announce {claim.blade} anew over mDNS: {error}") from error
        self._claim = claim

    def _render(self, claim: Claim) -> zeroconf.ServiceInfo:
        return zeroconf.ServiceInfo(
            SERVICE_TYPE,
            f"{claim.blade}.{SERVICE_TYPE}",
            port=claim.port,
            properties=render_txt(claim),
            server=f"{claim.blade}.local.",
            addresses=[socket.inet_aton(interface.address) for interface in self._interfaces],
            host_ttl=_TTL_S,
            other_ttl=_TTL_S,
        )


@contextmanager
def announce(claim: Claim, interfaces: Sequence[Interface] | None = None) -> Iterator[Announcement]:
    """Announce the claim while the block runs, and say goodbye at its end.

    `claim.host` is not announced: the addresses of the interfaces are. Raises NetworkError.
    """
    used = list(interfaces) if interfaces is not None else find_interfaces()
    with _start_daemon(used) as daemon:
        announcement = Announcement(daemon, used, claim)
        try:
            yield announcement
        finally:
            with contextlib.suppress(zeroconf.Error, OSError):
                daemon.unregister_all_services()


def find_claims(
    cluster_id: str | None = None, *, timeout_s: float = 3.0, interfaces: Sequence[Interface] | None = None
) -> Heard:
    """Everybody that announces something, after listening for so long. None for claims of any cluster."""
    with Ear(cluster_id, interfaces) as ear:
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            ear.listen(until - time.monotonic())
        return ear.heard()


def wait_for_root(
    cluster_id: str,
    *,
    timeout_s: float,
    interfaces: Sequence[Interface] | None = None,
    avoid: Collection[str] = (),
) -> Claim:
    """The claim of the cluster's root, as soon as one is heard (and a moment has been left for a better one).

    `avoid` are `Claim.where` of roots that were tried in vain. Interfaces that come up meanwhile are used
    too. Raises NoRootFoundError, which tells what was heard instead.
    """
    with Ear(cluster_id, interfaces) as ear:
        until = time.monotonic() + timeout_s
        settled: float | None = None
        while time.monotonic() < until:
            ear.listen(min(until - time.monotonic(), 0.1 if settled else 1.0))
            heard = ear.heard()
            root = choose_root(claim for claim in heard.claims if claim.where not in avoid)
            if root is None:
                settled = None
            elif settled is None:
                settled = time.monotonic() + _SETTLE_S
            elif time.monotonic() > settled:
                return root
        raise make_no_root_error(cluster_id, ear.heard(), avoid)


def make_no_root_error(cluster_id: str, heard: Heard, avoid: Collection[str] = ()) -> NoRootFoundError:
    """One line: how long, where, and what there was instead of a root."""
    where = ", ".join(str(interface) for interface in heard.interfaces) or "no interface (none is up)"
    instead = [
        f"{claim}{', which does not answer' if claim.where in avoid else ''}" for claim in heard.claims
    ]
    instead += [f"{claim} of another cluster, {claim.cluster_id[:8]}…" for claim in heard.strangers]
    instead += heard.malformed
    said = f"heard: {'; '.join(instead)}" if instead else "heard nobody"
    text = f"no root of cluster {cluster_id[:8]}… found in {heard.looked_s:.0f} s on {where}; {said}"
    return NoRootFoundError(
        text, "run `bladeroot promote` on a blade of this network, or name one with `roots` in cluster.toml"
    )


class Ear:
    """Browsing for claims; follows interfaces that come and go unless they were given.

    A context manager, to be used from one thread but for `wake`.
    """

    def __init__(self, cluster_id: str | None, interfaces: Sequence[Interface] | None = None) -> None:
        self._cluster_id = cluster_id
        self._given = interfaces
        self._began = time.monotonic()
        self._checked = 0.0
        self._interfaces: list[Interface] = []
        self._changed: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
        """Names, and whether they are there; one that is gone is always let in."""
        self._claims: dict[str, Claim] = {}
        self._since: dict[str, float] = {}
        self._malformed: dict[str, str] = {}
        self._stack = contextlib.ExitStack()
        self._daemon: zeroconf.Zeroconf | None = None

    def __enter__(self) -> Ear:
        self._follow_interfaces()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stack.close()

    def heard(self) -> Heard:
        """What there is to hear at the moment."""
        now = time.monotonic()
        claims = tuple(self._claims.values())
        ours = tuple(claim for claim in claims if self._cluster_id in (None, claim.cluster_id))
        return Heard(
            claims=ours,
            strangers=tuple(claim for claim in claims if claim not in ours),
            malformed=tuple(self._malformed.values()),
            interfaces=tuple(self._interfaces),
            looked_s=now - self._began,
            ages_s={claim: now - self._since[name] for name, claim in self._claims.items()},
        )

    @property
    def interfaces(self) -> tuple[Interface, ...]:
        """Where it listens at the moment."""
        return tuple(self._interfaces)

    def listen(self, timeout_s: float) -> None:
        """Take in what has changed; if nothing has, wait for a change or for `wake`, up to the timeout.

        What takes long to look up (a name without an address) is not waited for with all that is behind it.
        """
        self._follow_interfaces()
        wait_s = max(0.01, min(timeout_s, _INTERFACE_CHECK_S))
        until = time.monotonic() + wait_s
        with contextlib.suppress(queue.Empty):
            while wait_s or time.monotonic() < until:
                name, is_there = self._changed.get(timeout=wait_s) if wait_s else self._changed.get_nowait()
                wait_s = 0.0
                if is_there:
                    self._take_in(name)
                else:
                    self._forget(name)

    def wake(self) -> None:
        """End a `listen` that waits. From any thread."""
        self._changed.put(("", False))

    def _follow_interfaces(self) -> None:
        now = time.monotonic()
        if self._checked and (self._given is not None or now < self._checked + _INTERFACE_CHECK_S):
            return
        self._checked = now
        interfaces = list(self._given) if self._given is not None else find_interfaces()
        if interfaces == self._interfaces:
            return
        self._stack.close()
        self._interfaces, self._daemon = interfaces, None
        self._claims.clear()
        self._since.clear()
        if not interfaces:
            return
        with contextlib.suppress(NetworkError):  # an interface that is on its way up or down: next time
            self._daemon = self._stack.enter_context(_start_daemon(interfaces))
            browser = zeroconf.ServiceBrowser(self._daemon, SERVICE_TYPE, handlers=[self._on_change])
            self._stack.callback(browser.cancel)
            return
        self._interfaces = []

    def _on_change(
        self,
        zeroconf: zeroconf.Zeroconf,  # noqa: ARG002 - called by keyword
        service_type: str,  # noqa: ARG002
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        is_there = state_change is not ServiceStateChange.Removed
        if not is_there or self._changed.qsize() < _MOST_CHANGED:
            self._changed.put((name, is_there))

    def _forget(self, name: str) -> None:
        self._claims.pop(name, None)
        self._since.pop(name, None)
        self._malformed.pop(name, None)

    def _take_in(self, name: str) -> None:
        """Look the service up afresh: it is new, or has changed."""
        if self._daemon is None:
            return
        before, since = self._claims.get(name), self._since.get(name)
        self._forget(name)
        if len(self._claims) + len(self._malformed) >= _MAX_HEARD:
            return
        blade = name.removesuffix(f".{SERVICE_TYPE}")
        try:
            info = self._daemon.get_service_info(SERVICE_TYPE, name, _RESOLVE_TIMEOUT_MS)
            addresses = info.parsed_addresses(zeroconf.IPVersion.V4Only) if info is not None else []
            if info is None or not addresses:
                return
            host = self._choose_address(addresses)
            claim = parse_txt(info.properties, blade=blade, host=host, port=info.port or 0)
            self._claims[name] = claim
            self._since[name] = since if since is not None and claim == before else time.monotonic()
        except BladerootError as error:
            self._malformed[name] = f"{blade[:63]!a}: {error}"
        except (zeroconf.Error, OSError, ValueError) as error:
            self._malformed[name] = f"{blade[:63]!a}: {str(error)[:100]!a}"

    def _choose_address(self, addresses: Sequence[str]) -> str:
        """Of a blade's several addresses, one on a subnet of ours."""
        for address in addresses:
            if any(interface.reaches(address) for interface in self._interfaces):
                return address
        return addresses[0]


@contextmanager
def _start_daemon(interfaces: Sequence[Interface]) -> Iterator[zeroconf.Zeroconf]:
    if not interfaces:
        raise NetworkError("no network interface is up", "see `ip address`")
    try:
        daemon = zeroconf.Zeroconf(
            interfaces=[interface.address for interface in interfaces], ip_version=zeroconf.IPVersion.V4Only
        )
    except OSError as error:
        where = ", ".join(str(interface) for interface in interfaces)
        raise NetworkError(f"no multicast on {where}: {error.strerror or error}") from error
    try:
        yield daemon
    finally:
        daemon.close()
