"""Asking roots whether they are there: an announcement outlives who made it, an answer does not.

A root is believed to be one when it serves a manifest that is signed for this cluster, and says of itself
what is announced: only to such a one does another root give way.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable

import attrs

from bladeroot.core.claims import Claim, ClaimState, is_answer_of
from bladeroot.core.manifest import accept_manifest
from bladeroot.core.signing import PublicKey
from bladeroot.core.takeover import Answers
from bladeroot.errors import NetworkError, RefusedError
from bladeroot.net.client import RootClient
from bladeroot.ops.findroot import parse_address

_TIMEOUT_S = 2.0
_AGAIN_S = 1.0
_FAILURES = 3
"""So often in a row a root does not answer before it counts as gone."""
_GONE_S = (4.0, 8.0)
"""Between questions to one that is gone: it may have been its link."""
KEEN_S = (1.5, 2.5)
"""Between the questions of those who would be the next root."""
LEISURELY_S = (15.0, 30.0)
_STATIC_S = (8.0, 15.0)
_Key = tuple[str, str]
"""Where, and which blade announces that it is there; none for a root that was only named: anybody may
announce an address that is another's.
"""


@attrs.define
class _Target:
    """One address that is asked."""

    where: str
    is_static: bool = False
    heard: Claim | None = None
    """What it announces; None where it was only named."""
    answers: Answers = Answers.UNKNOWN
    claim: Claim | None = None
    """What it said last."""
    failures: int = 0
    due_s: float = 0.0
    proven: _Proof | None = None
    """What it proved itself by."""


_Proof = tuple[int, str]
"""Serial and hash of a manifest that is signed."""


class Prober:
    """Asks in a thread of its own, from `start` to `stop`. `on_news` is called when an answer changes."""

    def __init__(
        self,
        trusted_keys: Collection[PublicKey],
        cluster_id: str,
        *,
        roots: Iterable[str] = (),
        default_port: int,
        on_news: Callable[[], None],
        pauses_s: tuple[float, float] = LEISURELY_S,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._trusted_keys = trusted_keys
        self._cluster_id = cluster_id
        self._on_news = on_news
        self._pauses_s = pauses_s
        self._chance = chance
        addresses = (parse_address(root, default_port) for root in roots)
        self._static = tuple(
            f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in addresses
        )
        self._targets = {_named(where): _Target(where, is_static=True) for where in self._static}
        self._lock = threading.Condition()
        self._stop = False
        self._is_urgent = False
        self._thread = threading.Thread(target=self._run, name="prober", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question under way is not waited for."""
        with self._lock:
            self._stop = True
            self._lock.notify_all()

    def watch(self, claims: Iterable[Claim], *, is_keen: bool, is_urgent: bool = False) -> None:
        """Ask those who announce these, and the static ones. `is_keen`: often. `is_urgent`: those that are
        silent too, since a wrong answer moves the role.
        """
        heard = {_key(claim): claim for claim in claims if claim.state is ClaimState.ROOT}
        with self._lock:
            self._pauses_s = KEEN_S if is_keen else LEISURELY_S
            self._is_urgent = is_urgent
            for key in [one for one, it in self._targets.items() if not it.is_static and one not in heard]:
                del self._targets[key]
            for key, claim in heard.items():
                target = self._targets.setdefault(key, _Target(claim.where))
                if target.heard is not None and target.heard.epoch != claim.epoch:
                    # Another one, or started anew: what it answered before is of the past.
                    target.failures, target.due_s = 0, 0.0
                    target.answers, target.claim = Answers.UNKNOWN, None
                target.heard = claim
            self._lock.notify_all()

    def ask_now(self, where: str) -> None:
        """Somebody had no answer from there."""
        with self._lock:
            for target in self._targets.values():
                if target.where == where and target.failures == 0:
                    target.due_s = 0.0
            self._lock.notify_all()

    def answers(self, claim: Claim) -> Answers:
        """What is known of who claims that."""
        with self._lock:
            target = self._find(claim)
            return target.answers if target else Answers.UNKNOWN

    def told(self, claim: Claim) -> Claim | None:
        """What who claims that said of itself when it was asked last, if it answered then."""
        with self._lock:
            target = self._find(claim)
            return target.claim if target and target.answers is Answers.PROVEN else None

    def _find(self, claim: Claim) -> _Target | None:
        return self._targets.get(_key(claim)) or self._targets.get(_named(claim.where))

    def static_claims(self) -> list[Claim]:
        """Of the roots that were named, those that answer."""
        with self._lock:
            found = [self._targets[_named(where)] for where in self._static]
            return [one.claim for one in found if one.claim is not None and one.answers is Answers.PROVEN]

    def _run(self) -> None:
        while True:
            with self._lock:
                if self._stop:
                    return
                key = min(self._targets, key=lambda one: self._targets[one].due_s, default=_named(""))
                target = self._targets.get(key)
                wait_s = target.due_s - time.monotonic() if target else None
                if target is None or (wait_s is not None and wait_s > 0):
                    self._lock.wait(wait_s)
                    continue
                target.due_s = float("inf")  # being asked
                where, proven = target.where, target.proven
            claim, is_refused = None, False
            try:
                claim = self._ask(where, proven)
            except RefusedError:
                is_refused = True
            except Exception:  # whatever somebody's answer has led to, the next one is asked
                claim = None
            if self._note(key, claim, is_refused=is_refused):
                self._on_news()

    def _ask(self, where: str, proven: _Proof | None) -> Claim:
        client = RootClient(*parse_address(where, 0), timeout_s=_TIMEOUT_S)
        claim = client.claim()
        if claim.cluster_id != self._cluster_id or claim.state is not ClaimState.ROOT:
            raise NetworkError(f"{where} is no root of this cluster")
        if proven != (claim.serial, claim.manifest_hash):
            patient = attrs.evolve(client, timeout_s=_TIMEOUT_S * 5)
            signed = patient.manifest(claim.serial)
            manifest = accept_manifest(signed, self._trusted_keys, self._cluster_id)
            if manifest.serial != claim.serial or signed.hash[:16] != claim.manifest_hash:
                raise NetworkError(f"{where} does not have what it announces")
        return claim

    def _note(self, key: _Key, claim: Claim | None, *, is_refused: bool) -> bool:
        """Keep the answer; True if it is news. Who says himself that he is no root is gone at once."""
        with self._lock:
            target = self._targets.get(key)
            if target is None:
                return False
            before = target.answers, target.claim
            if claim is not None and target.heard is not None and not is_answer_of(claim, target.heard):
                claim = None
            now = time.monotonic()
            if claim is not None:
                target.answers, target.claim, target.failures = Answers.PROVEN, claim, 0
                target.proven = claim.serial, claim.manifest_hash
                target.due_s = now + self._chance(*(_STATIC_S if target.is_static else self._pauses_s))
            else:
                target.failures += _FAILURES if is_refused else 1
                gone = target.failures >= _FAILURES
                if gone:
                    target.answers = Answers.SILENT
                target.due_s = now + (self._chance(*_GONE_S) if gone and not self._is_urgent else _AGAIN_S)
            return before != (target.answers, target.claim)


def _key(claim: Claim) -> _Key:
    return claim.where, claim.blade


def _named(where: str) -> _Key:
    return where, ""
