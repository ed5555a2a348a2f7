"""Who claims to be root, and whether it is there; and how a person moves the role."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from bladeroot.core.claims import Claim, ClaimState, choose_root, is_answer_of
from bladeroot.core.cluster import Blade, Cluster
from bladeroot.core.roleorders import RoleOrder, sign_role_order
from bladeroot.core.signing import SecretKey
from bladeroot.core.takeover import Wish
from bladeroot.errors import NetworkError, NoRootFoundError, PrivilegeError, find_error_class
from bladeroot.host import localsocket
from bladeroot.net.client import RootClient
from bladeroot.net.discovery import find_claims
from bladeroot.ops.findroot import parse_address
from bladeroot.ops.rolecontrol import SOCKET_NAME
from bladeroot.ops.status import read_status

_ASK_TIMEOUT_S = 3.0
_DAEMON_TIMEOUT_S = 120.0
_AT_ONCE = 16
_LOG_HINT = "`systemctl status bladeroot`"


@frozen(kw_only=True)
class RootLine:
    """A claim that was heard, or the silence of a root that was named."""

    claim: Claim | None
    where: str
    is_announced: bool
    answers: bool


@frozen(kw_only=True)
class RootList:
    """All of a cluster's claims."""

    lines: tuple[RootLine, ...]
    looked_s: float

    @property
    def root(self) -> Claim | None:
        """The one that blades follow."""
        return choose_root(line.claim for line in self.lines if line.claim and line.answers)

    @property
    def twins(self) -> tuple[int, ...]:
        """Serials under which two claims have different generations."""
        hashes: dict[int, set[str]] = {}
        for line in self.lines:
            if line.claim is not None:
                hashes.setdefault(line.claim.serial, set()).add(line.claim.manifest_hash)
        return tuple(sorted(serial for serial, found in hashes.items() if len(found) > 1))


def find_roots(cluster: Cluster, *, wait_s: float, also: str | None = None) -> RootList:
    """Listen for so long, and ask everybody who was heard or is named in the inventory."""
    heard = find_claims(cluster.id, timeout_s=wait_s)
    named = [*([also] if also else []), *cluster.network.roots]
    addresses = [":".join(map(str, parse_address(root, cluster.network.port))) for root in named]
    places = list(dict.fromkeys([*(claim.where for claim in heard.claims), *addresses]))
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = dict(zip(places, pool.map(lambda where: _ask(where, cluster.id), places), strict=True))
    lines = [_make_line(claim, answers[claim.where]) for claim in heard.claims]
    lines += [
        RootLine(claim=answers[where], where=where, is_announced=False, answers=answers[where] is not None)
        for where in dict.fromkeys(addresses)
    ]
    return RootList(lines=tuple(_once_each(lines)), looked_s=heard.looked_s)


def _make_line(claim: Claim, answer: Claim | None) -> RootLine:
    """Of what was announced. A candidate does not answer as root before it is one."""
    is_proven = answer is not None and is_answer_of(answer, claim)
    return RootLine(
        claim=answer if is_proven else claim,
        where=claim.where,
        is_announced=True,
        answers=is_proven or claim.state is ClaimState.CANDIDATE,
    )


def _once_each(lines: list[RootLine]) -> list[RootLine]:
    """A root that is named and announces itself is one."""
    found: dict[Any, RootLine] = {}
    for line in lines:
        found.setdefault((line.claim.blade, line.claim.port) if line.claim else line.where, line)
    return list(found.values())


def _ask(where: str, cluster_id: str) -> Claim | None:
    try:
        claim = RootClient(*parse_address(where, 0), timeout_s=_ASK_TIMEOUT_S).claim()
    except NetworkError:
        return None
    return claim if claim.cluster_id == cluster_id else None


def ask_daemon(depot: Path, **request: Any) -> Mapping[str, Any] | None:
    """Have the daemon of this machine do something; None where none runs.

    Raises the daemon's own error with what it says against it, NetworkError where it does not answer,
    PrivilegeError where only the superuser may ask.
    """
    try:
        answer = localsocket.ask(depot, SOCKET_NAME, _DAEMON_TIMEOUT_S, **request)
    except TimeoutError:
        raise NetworkError("the daemon of this machine does not answer", _LOG_HINT) from None
    except PermissionError:
        raise PrivilegeError(
            "asking the daemon of this machine needs the superuser's rights", "run it with sudo"
        ) from None
    except ValueError:
        raise NetworkError("the daemon of this machine broke its answer off", _LOG_HINT) from None
    except OSError:
        return None
    if "error" in answer:
        code, text = answer.get("exit_code"), str(answer["error"])
        raise find_error_class(code)(text, str(answer.get("hint", "")))
    return answer


def order_role(cluster: Cluster, blade: Blade, wish: Wish, secret_key: SecretKey) -> str:
    """Sign that, and tell the blade; returns where it was reached. Raises NetworkError."""
    where = _find_blade(cluster, blade)
    order = RoleOrder(cluster_id=cluster.id, number=int(time.time()), blade=blade.name, wish=wish)
    client = RootClient(*parse_address(where, cluster.network.port))
    client.give_role_order(sign_role_order(order, secret_key))
    return where


def wait_for_role(cluster: Cluster, blade: str, *, is_root: bool, timeout_s: float) -> RootList:
    """Wait until that blade is the root, or is not. Raises NetworkError where it takes longer."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        roots = find_roots(cluster, wait_s=1.5)
        if (roots.root is not None and roots.root.blade == blade) is is_root:
            return roots
    what = "does not answer as root" if is_root else "is still root"
    raise NetworkError(f"{blade} {what} after {timeout_s:.0f} s", "`journalctl -u bladeroot` there says why")


def _find_blade(cluster: Cluster, blade: Blade) -> str:
    """Where its daemon answers: its own claim, the inventory, or what it reported to a root."""
    if blade.address:
        return f"{blade.address.partition('/')[0]}:{cluster.network.port}"
    roots = find_roots(cluster, wait_s=1.5)
    for line in roots.lines:
        if line.claim is not None and line.claim.blade == blade.name:
            return line.where
    if roots.root is None:
        raise NoRootFoundError(
            f"{blade.name} has no address in the inventory, and no root knows where it is",
            f"`bladeroot blades set {blade.name} address=…`, or promote it at its own shell",
        )
    state = read_status(RootClient(roots.root.host, roots.root.port)).blades.get(blade.name)
    if state is None or not state.address:
        raise NetworkError(f"root {roots.root.blade} has not heard of {blade.name}", "is it up?")
    return f"{state.address}:{state.http_port or cluster.network.port}"


def to_facts(roots: RootList) -> dict[str, Any]:
    """For programs."""
    return {
        "root": roots.root.blade if roots.root else None,
        "claims": [
            {**(attrs.asdict(line.claim) if line.claim else {}), "where": line.where, "answers": line.answers}
            for line in roots.lines
        ],
        "twins": list(roots.twins),
    }
