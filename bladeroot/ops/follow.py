"""Follow a root: find it, join its swarms, and report to it."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from attrs import frozen

from bladeroot.core.claims import Claim
from bladeroot.core.cluster import Cluster
from bladeroot.errors import BladerootError, NetworkError, NoRootFoundError, PortTakenError, UsageError
from bladeroot.events import Event, Failed, Note, Reporter
from bladeroot.net.client import RootClient
from bladeroot.net.discovery import wait_for_root
from bladeroot.net.swarm import DEFAULT_SWARM_PORT, Swarm
from bladeroot.ops.reporting import RootReporter
from bladeroot.ops.sources import Source, SwarmSource

_ROUND_S = 5.0
_OTHERS_S = 5.0
"""How long to listen for another root before asking a silent one again."""


@frozen(kw_only=True)
class Followed:
    """Where an install gets its generation from, and who hears of its progress."""

    source: Source
    reporter: Reporter
    root_reporter: Reporter | None = None

    @contextmanager
    def reporting_failure(self) -> Iterator[None]:
        """Let the root know of an error inside the block, which is raised all the same."""
        try:
            yield
        except BladerootError as error:
            if self.root_reporter is not None:
                self.root_reporter(Failed(text=str(error), hint=error.hint, exit_code=error.exit_code))
            raise


@contextmanager
def follow_root(
    cluster: Cluster, blade: str, *, root: str | None = None, wait_s: float, reporter: Reporter
) -> Iterator[Followed]:
    """Find the cluster's root (or take `root`, as `host:port`) and be in its swarms for the whole block.

    Raises NoRootFoundError, NetworkError.
    """
    client, serial = find_root(cluster, root=root, wait_s=wait_s, reporter=reporter)
    wants: set[str] = set()
    root_reporters: list[Reporter] = []

    def report(event: Event) -> None:
        reporter(event)
        for root_reporter in root_reporters:
            root_reporter(event)

    with join_swarms(client, report) as swarm:
        source = SwarmSource(client, swarm, serial, wants, reporter)
        with RootReporter(
            client, cluster_id=cluster.id, blade=blade, swarm_port=swarm.port, wants=lambda: wants
        ) as root_reporter:
            root_reporters.append(root_reporter)
            yield Followed(source=source, reporter=report, root_reporter=root_reporter)


def find_root(
    cluster: Cluster, *, root: str | None, wait_s: float, reporter: Reporter
) -> tuple[RootClient, int]:
    """A root that answers (the named one, one of `network.roots`, or what mDNS finds), and its serial."""
    for address in [root] if root else cluster.network.roots:
        client = RootClient(*parse_address(address, cluster.network.port))
        try:
            claim = client.claim()
            _check_cluster(claim, cluster.id, address)
        except NetworkError as error:
            if root:
                raise
            reporter(Note(text=f"a root of cluster.toml is passed over: {error}"))
            continue
        return client, claim.serial
    return _find_announced_root(cluster.id, wait_s, reporter)


def find_root_again(cluster: Cluster, *, named: Iterable[str], reporter: Reporter) -> RootClient:
    """One round of looking: the named roots first, as `host:port`, then as `find_root` does.

    Raises NetworkError, NoRootFoundError; whoever calls it again and again pauses in between.
    """
    for address in named:
        try:
            return find_root(cluster, root=address, wait_s=0, reporter=reporter)[0]
        except (NetworkError, UsageError) as error:
            reporter(Note(text=f"the root that this machine was started by is passed over: {error}"))
    return find_root(cluster, root=None, wait_s=_ROUND_S, reporter=reporter)[0]


def _find_announced_root(cluster_id: str, wait_s: float, reporter: Reporter) -> tuple[RootClient, int]:
    """Of those that announce themselves the best that answers; who does not is asked again later."""
    until = time.monotonic() + wait_s
    silent: set[str] = set()
    while True:
        left_s = max(until - time.monotonic(), 0.0)
        try:
            heard = wait_for_root(
                cluster_id, timeout_s=min(left_s, _OTHERS_S) if silent else left_s, avoid=silent
            )
        except NoRootFoundError:
            if left_s <= _OTHERS_S:
                raise
            silent.clear()
            continue
        client = RootClient(heard.host, heard.port)
        try:
            claim = client.claim()
            _check_cluster(claim, cluster_id, heard.where)
        except NetworkError as error:
            reporter(Note(text=f"passing over {heard}: {error}"))
            silent.add(heard.where)
            continue
        reporter(Note(text=f"found {claim}"))
        return client, claim.serial


def _check_cluster(claim: Claim, cluster_id: str, address: str) -> None:
    if claim.cluster_id != cluster_id:
        raise NetworkError(f"{address} is root of another cluster, {claim.cluster_id}")


def parse_address(text: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[ipv6]:port` or an IPv6 address. Raises UsageError."""
    bare = text.endswith("]") or (text.count(":") > 1 and not text.startswith("["))
    host, separator, port = (text, "", "") if bare else text.rpartition(":")
    if not separator:
        host, port = text, str(default_port)
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise UsageError(f"not the address of a root: {text!r}", "write it as HOST:PORT")
    return host.strip("[]"), int(port)


def wait_until_stopped() -> None:
    """Return when the process is asked to end (SIGTERM, or Ctrl-C)."""
    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda _number, _frame: stop.set())
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        stop.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def join_swarms(client: RootClient, reporter: Reporter) -> Swarm:
    """A membership in swarms, at the usual port if it is free."""
    try:
        return Swarm(port=DEFAULT_SWARM_PORT, reporter=reporter, root_address=client.host)
    except PortTakenError:
        return Swarm(port=0, reporter=reporter, root_address=client.host)
