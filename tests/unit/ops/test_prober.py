"""Asking roots whether they are there: against real control services."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest

from bladeroot.core import wire
from bladeroot.core.claims import Claim, ClaimState
from bladeroot.core.manifest import Manifest, SignedManifest, sign_manifest
from bladeroot.core.signing import SecretKey
from bladeroot.core.takeover import Answers
from bladeroot.errors import DepotError
from bladeroot.net.control import ControlServer
from bladeroot.ops import prober as prober_module
from bladeroot.ops.prober import Prober

KEY, OTHER_KEY = SecretKey(bytes(32)), SecretKey(bytes([7]) * 32)
OURS, OTHERS = "ab" * 16, "cd" * 16
DEADLINE_S = 60.0


def sign(serial: int, key: SecretKey = KEY, cluster_id: str = OURS) -> SignedManifest:
    manifest = Manifest(
        cluster_id=cluster_id,
        cluster_name="lab",
        serial=serial,
        previous=None,
        arch="x86_64",
        created=0,
        kernel_command_line="",
        artefacts=(),
        blades=(),
    )
    return sign_manifest(manifest, key)


@attrs.define(kw_only=True)
class Root:
    """What a machine says of itself, and which manifests it has to show."""

    blade: str = "web01"
    epoch: int = 3
    serial: int = 7
    cluster_id: str = OURS
    state: ClaimState = ClaimState.ROOT
    is_root: bool = True
    successor: str = ""
    announced: SignedManifest | None = None
    shown: SignedManifest | None = attrs.field(factory=lambda: sign(7))
    claims_asked: int = 0
    manifests_asked: list[int] = attrs.field(factory=list)

    def claim(self) -> Claim:
        self.claims_asked += 1
        if not self.is_root:
            raise DepotError("this blade is not root")
        signed = self.announced or self.shown
        return Claim(
            cluster_id=self.cluster_id,
            epoch=self.epoch,
            serial=self.serial,
            manifest_hash=signed.hash[:16] if signed else "0" * 16,
            state=self.state,
            blade=self.blade,
            host="elsewhere",
            port=1,
            successor=self.successor,
        )

    def serials(self) -> Sequence[int]:
        return ()

    def signed_manifest_bytes(self, serial: int) -> bytes | None:
        self.manifests_asked.append(serial)
        return wire.encode(self.shown) if self.shown else None

    def torrent(self, info_hash: str) -> bytes | None:
        del info_hash
        return None

    def artefact_files(self, info_hash: str) -> Sequence[Path] | None:
        del info_hash
        return None

    def swarm_port(self) -> int:
        return 0

    def blade_names(self) -> Collection[str]:
        return ()

    def racks(self) -> dict[str, str | None]:
        return {}


@contextmanager
def serving(root: Root, port: int = 0) -> Iterator[ControlServer]:
    with ControlServer(root, cluster_id=OURS, address="127.0.0.1", port=port) as server:
        yield server


@attrs.define
class Asking:
    """A prober that hardly pauses, and its news."""

    prober: Prober
    news: threading.Semaphore

    def watch(self, *claims: Claim) -> None:
        self.prober.watch(claims, is_keen=True)

    def wait_until(self, is_so: Callable[[], object]) -> None:
        waited = threading.Event()
        for _ in range(int(DEADLINE_S / 0.01)):
            if is_so():
                return
            waited.wait(0.01)
        pytest.fail("it did not come to that")

    def wait_for(self, claim: Claim, answers: Answers) -> None:
        self.wait_until(lambda: self.prober.answers(claim) is answers)


@contextmanager
def asking(*roots: str, default_port: int = 1) -> Iterator[Asking]:
    news = threading.Semaphore(0)
    prober = Prober(
        [KEY.public_key],
        OURS,
        roots=roots,
        default_port=default_port,
        on_news=news.release,
        chance=lambda _least, _most: 0.01,
    )
    prober.start()
    try:
        yield Asking(prober, news)
    finally:
        prober.stop()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober_module, "_AGAIN_S", 0.01)
    monkeypatch.setattr(prober_module, "_TIMEOUT_S", 5.0)


def announced(root: Root, port: int) -> Claim:
    """As mDNS has it."""
    return attrs.evolve(root.claim(), host="127.0.0.1", port=port, successor="")


def test_a_root_is_proven_by_a_signed_manifest_that_is_asked_for_once() -> None:
    root = Root()
    with serving(root) as server, asking() as it:
        claim = announced(root, server.port)
        it.watch(claim)
        it.wait_for(claim, Answers.PROVEN)
        it.wait_until(lambda: root.claims_asked > 5)
        assert it.prober.told(claim) == claim
        assert root.manifests_asked == [7]
        assert it.news.acquire(timeout=DEADLINE_S)
        root.shown, root.serial = sign(8), 8
        it.wait_until(lambda: root.manifests_asked == [7, 8])
        it.wait_until(lambda: (it.prober.told(claim) or claim).serial == 8)


@pytest.mark.parametrize(
    "root",
    [
        Root(shown=sign(7, OTHER_KEY)),
        Root(shown=sign(7, cluster_id=OTHERS)),
        Root(shown=sign(6)),
        Root(shown=sign(7), announced=sign(9)),
        Root(shown=sign(7), serial=2**52),
        Root(shown=None),
        Root(cluster_id=OTHERS),
        Root(state=ClaimState.CANDIDATE),
        Root(is_root=False),
    ],
    ids=[
        "another key",
        "another cluster's manifest",
        "another serial",
        "not what it announces",
        "a serial of its own making",
        "no generation",
        "another cluster",
        "a candidate",
        "no root",
    ],
)
def test_who_only_says_so_is_silent(root: Root) -> None:
    said = Claim(cluster_id=OURS, epoch=3, serial=7, blade="web01", host="127.0.0.1", port=1)
    with serving(root) as server, asking() as it:
        claim = attrs.evolve(said, port=server.port)
        it.watch(claim)
        it.wait_for(claim, Answers.SILENT)
        assert root.claims_asked >= 1
        assert it.prober.told(claim) is None


@pytest.mark.parametrize(
    "changes", [{"blade": "web09"}, {"epoch": 2**53}, {"blade": "web09", "epoch": 2**53}], ids=str
)
def test_another_claim_at_a_roots_address_is_not_proven_by_its_answers(changes: dict[str, Any]) -> None:
    root = Root()
    with serving(root) as server, asking() as it:
        claim = attrs.evolve(announced(root, server.port), **changes)
        true = announced(root, server.port)
        it.watch(*([claim] if claim.blade == true.blade else [claim, true]))
        it.wait_for(claim, Answers.SILENT)
        it.watch(true)
        it.wait_for(true, Answers.PROVEN)


def test_a_root_whose_newer_epoch_was_not_heard_yet_is_the_same_root() -> None:
    root = Root()
    with serving(root) as server, asking() as it:
        before = announced(root, server.port)
        root.epoch = 4
        it.watch(before)
        it.wait_for(before, Answers.PROVEN)
        told = it.prober.told(before)
        assert told is not None
        assert told.epoch == 4


def test_serial_and_hash_are_proven_together() -> None:
    root = Root()
    with serving(root) as server, asking() as it:
        claim = announced(root, server.port)
        it.watch(claim)
        it.wait_for(claim, Answers.PROVEN)
        root.serial = 2**52  # under the hash that was proven
        it.wait_for(claim, Answers.SILENT)


def test_who_is_gone_is_silent_and_who_comes_back_is_proven() -> None:
    root = Root()
    with asking() as it:
        with serving(root) as server:
            claim = announced(root, server.port)
            it.watch(claim)
            it.wait_for(claim, Answers.PROVEN)
        it.wait_for(claim, Answers.SILENT)
        assert it.prober.told(claim) is None
        with serving(root, server.port):
            it.wait_for(claim, Answers.PROVEN)
        it.wait_for(claim, Answers.SILENT)
        it.watch(attrs.evolve(claim, epoch=5))  # it has started anew, and says so
        assert it.prober.answers(claim) is Answers.UNKNOWN
        it.watch()
        assert it.prober.answers(claim) is Answers.UNKNOWN
        assert it.prober._targets == {}


def test_candidates_are_not_asked() -> None:
    root = Root()
    with serving(root) as server, asking() as it:
        it.watch(attrs.evolve(announced(root, server.port), state=ClaimState.CANDIDATE))
        assert it.prober._targets == {}


def test_a_root_that_was_named_is_asked_without_being_heard() -> None:
    root = Root()
    with serving(root) as server, asking("localhost", default_port=server.port) as it:
        where = f"localhost:{server.port}"
        it.wait_until(it.prober.static_claims)
        (claim,) = it.prober.static_claims()
        assert it.prober.answers(claim) is Answers.PROVEN
        # Where it was asked, whatever it calls itself: by that it is known.
        assert (claim.blade, claim.where) == ("web01", where)
        root.epoch, root.blade = 9, "web02"  # another machine has the address now
        it.wait_until(lambda: [one.blade for one in it.prober.static_claims()] == ["web02"])
        root.epoch = 1
        it.wait_until(lambda: [one.epoch for one in it.prober.static_claims()] == [1])
        root.is_root = False
        it.wait_until(lambda: it.prober.static_claims() == [])


def test_the_successor_is_heard_while_the_role_is_handed_over() -> None:
    root = Root()
    with serving(root) as server, asking() as it:
        claim = announced(root, server.port)
        it.watch(claim)
        it.wait_for(claim, Answers.PROVEN)
        root.successor = "web03"
        it.wait_until(lambda: (it.prober.told(claim) or claim).successor == "web03")
        root.successor = ""
        it.wait_until(lambda: (it.prober.told(claim) or claim).successor == "")


def test_doubt_asks_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Root()
    with serving(root) as server, asking() as it:
        monkeypatch.setattr(it.prober, "_chance", lambda _least, _most: 3600.0)
        claim = announced(root, server.port)
        it.watch(claim)
        it.wait_for(claim, Answers.PROVEN)
        asked = root.claims_asked
        it.prober.ask_now(claim.where)
        it.wait_until(lambda: root.claims_asked == asked + 1)
        it.prober.ask_now("10.9.9.9:1")  # nobody's


def test_a_defect_in_one_answer_leaves_the_others_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    good, odd = Root(), Root(blade="web02", shown=sign(9), serial=9)
    ask = Prober._ask

    def stumble(prober: Prober, where: str, proven: tuple[int, str] | None) -> Claim:
        claim = ask(prober, where, proven)
        if claim.serial == 9:
            raise RuntimeError("a defect")
        return claim

    monkeypatch.setattr(Prober, "_ask", stumble)
    with serving(good) as server, serving(odd) as other, asking() as it:
        claims = announced(good, server.port), announced(odd, other.port)
        it.watch(*claims)
        it.wait_for(claims[1], Answers.SILENT)
        it.wait_for(claims[0], Answers.PROVEN)
