"""Find a root that answers: one that was named, one of cluster.toml, or one that announces itself.

Without what being in swarms takes: `bladeroot status` and the daemon want no more than to talk to a root.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from bladeroot.core.claims import Claim, ClaimState
from bladeroot.core.cluster import Cluster
from bladeroot.errors import NetworkError, NoRootFoundError, UsageError
from bladeroot.events import Note, Reporter
from bladeroot.net.client import RootClient
from bladeroot.net.discovery import wait_for_root

_ROUND_S = 5.0
_OTHERS_S = 5.0
"""How long to listen for another root before asking a silent one again."""


def find_root(
    cluster: Cluster, *, root: str | None, wait_s: float, reporter: Reporter
) -> tuple[RootClient, int]:
    """A root that answers (the named one, one of `network.roots`, or what mDNS finds), and its serial."""
    for address in [root] if root else cluster.network.roots:
        client = RootClient(*parse_address(address, cluster.network.port))
        try:
            claim = client.claim()
            _check_root(claim, cluster.id, address)
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
            _check_root(claim, cluster_id, heard.where)
        except NetworkError as error:
            reporter(Note(text=f"passing over {heard}: {error}"))
            silent.add(heard.where)
            continue
        reporter(Note(text=f"found {claim}"))
        return client, claim.serial


def _check_root(claim: Claim, cluster_id: str, address: str) -> None:
    if claim.cluster_id != cluster_id:
        raise NetworkError(f"{address} is root of another cluster, {claim.cluster_id}")
    if claim.state is not ClaimState.ROOT:
        raise NetworkError(f"{address} is not root, only {claim.state}")


def parse_address(text: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[ipv6]:port` or an IPv6 address. Raises UsageError."""
    bare = text.endswith("]") or (text.count(":") > 1 and not text.startswith("["))
    host, separator, port = (text, "", "") if bare else text.rpartition(":")
    if not separator:
        host, port = text, str(default_port)
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise UsageError(f"not the address of a root: {text!r}", "write it as HOST:PORT")
    return host.strip("[]"), int(port)
