"""The air of a simulated room: events in simulated time, and mDNS as python-zeroconf 0.154 does it.

What is not obvious of zeroconf is cited by file and name where it is modelled. Questions are delivered only
to those that would answer: for the others nothing follows from hearing one (see `Air.suppresses`).
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import attrs
from attrs import define, frozen

from bladeroot.core.claims import NO_MANIFEST, Claim
from bladeroot.core.takeover import Answers, Role, RoleState

_COPIES = 3
"""_core.py: _REGISTER_BROADCASTS, of probes, announcements and goodbyes alike."""
_STARTUP_QUERIES_S = (0.0, 1.0, 5.0, 14.0)
"""browser.py, _process_startup_queries: four of them, 1, 4 and 9 s apart, not three in 1.5 s."""


@frozen(kw_only=True)
class Air:
    """How multicast behaves. The defaults are what python-zeroconf really does."""

    loss: float = 0.0
    """Of each packet to each receiver, and of each question that is asked over unicast."""
    delay_s: float = 0.02
    ttl_s: float = 1125.0
    """record_manager.py raises the TTL of any PTR record to this (const.py: _DNS_PTR_MIN_TTL)."""
    probe_gap_s: float = 0.5
    """const.py: _CHECK_TIME."""
    beacon_s: float | None = 30.0
    """How often a root announces itself unasked; zeroconf by itself never does."""
    suppresses: bool = False
    """Whether who announces nothing remembers what others asked (RFC 6762, 7.3). query_handler.py
    (async_response) returns before it notes the question where there is nothing to answer: followers do not.
    """


LIBRARY = Air()
TEXTBOOK = Air(ttl_s=60.0, probe_gap_s=0.2, suppresses=True)
"""As one would have it: a TTL that is kept, probes as in RFC 6762, nothing asked twice."""


@define
class Heard:
    """Another's claim, in one blade's memory. Times are the room's, not the blade's."""

    claim: Claim
    since_s: float
    fresh_s: float
    answers: Answers = Answers.UNKNOWN
    is_asked: bool = False


@define(eq=False)
class SimBlade:
    """A machine. `depot` holds serials and manifests' hashes, and outlasts everything but the machine."""

    name: str
    initial: RoleState
    rate: float
    offset_s: float
    depot: set[tuple[int, str]]
    state: RoleState
    segment: int = 0
    is_up: bool = False
    is_dead: bool = False
    life: int = 0
    """Counts restarts: what an earlier life had planned does not happen."""
    heard: dict[str, Heard] = attrs.field(factory=dict)
    said: Claim | None = None
    saying: int = 0
    is_public: bool = False
    spoke_s: float = -1e9
    objected_s: float = -1e9
    has_answer_pending: bool = False
    pulling: tuple[int, str] | None = None
    is_asking_again: bool = False

    @property
    def best(self) -> tuple[int, str]:
        """Serial and manifest that it is root with."""
        return max(self.depot, default=(0, NO_MANIFEST))

    @property
    def role(self) -> Role:
        return self.state.role

    @property
    def is_able(self) -> bool:
        """Whether it would be root by itself if nobody else were."""
        return self.is_up and self.initial.is_automatic and self.best[0] > 0 and self.role is not Role.RETIRED

    def local(self, now_s: float) -> float:
        return self.offset_s + self.rate * now_s


@define(eq=False)
class SimAir:
    """Blades, what they say and hear, and the clock. `_notice` is what a blade does with what it heard."""

    random: Random
    air: Air = LIBRARY
    now_s: float = 0.0
    blades: dict[str, SimBlade] = attrs.field(factory=dict)
    packets: list[tuple[float, str]] = attrs.field(factory=list)
    """All multicast ones: when, and what."""
    _events: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = attrs.field(factory=list)
    _count: int = 0
    _questions: list[tuple[float, int]] = attrs.field(factory=list)

    def notice(self, blade: SimBlade, name: str) -> None:
        """The blade has heard something new of that one, or that it is gone."""
        raise NotImplementedError

    # Time

    def at(self, when_s: float, action: Callable[..., None], *arguments: Any) -> None:
        self._count += 1
        heapq.heappush(self._events, (when_s, self._count, action, arguments))

    def run(self, until_s: float) -> None:
        events = self._events
        while events and events[0][0] <= until_s:
            self.now_s, _count, action, arguments = heapq.heappop(events)
            action(*arguments)
        self.now_s = until_s

    def later(self, blade: SimBlade, delay_s: float, action: Callable[..., None], *rest: Any) -> None:
        life = blade.life

        def act() -> None:
            if blade.life == life and blade.is_up:
                action(*rest)

        self.at(self.now_s + delay_s, act)

    def count_packets(self, since_s: float, until_s: float) -> Counter[str]:
        return Counter(kind for when_s, kind in self.packets if since_s <= when_s < until_s)

    def in_reach(self, blade: SimBlade, others: Iterable[SimBlade]) -> list[SimBlade]:
        """Whom one packet of the blade's reaches, as chance has it."""
        loss, draw = self.air.loss, self.random.random
        return [
            other
            for other in others
            if other.is_up
            and other.segment == blade.segment
            and other is not blade
            and (not loss or draw() >= loss)
        ]

    # Speaking

    def say(self, blade: SimBlade, claim: Claim | None) -> None:
        """Announce this from now on; None: withdraw."""
        if claim == blade.said:
            return
        was_public, was_said = blade.is_public, blade.said is not None
        blade.said = claim
        if claim is None:
            blade.saying += 1
            blade.is_public = False
            self._say_copies(blade, "goodbye", 0.125, None)
        elif was_public:
            self.announce(blade)
        elif not was_said:
            self._probe(blade)

    def _probe(self, blade: SimBlade) -> None:
        """_core.py, async_check_service: wait for 150-250 ms, three probes, then the first announcement."""
        blade.saying += 1
        wait_s = self.random.uniform(0.15, 0.25)
        for copy in range(_COPIES):
            self._say_later(blade, wait_s + copy * self.air.probe_gap_s, self._send, blade, "probe")
        ready_s = wait_s + (_COPIES - 1) * self.air.probe_gap_s
        self._say_later(blade, ready_s, self._go_public, blade)

    def _go_public(self, blade: SimBlade) -> None:
        blade.is_public = True
        self.announce(blade)
        if self.air.beacon_s is not None:
            self._say_beacon(blade, blade.saying)

    def _say_beacon(self, blade: SimBlade, saying: int) -> None:
        assert self.air.beacon_s is not None
        self.later(blade, self.air.beacon_s, self._beacon, blade, saying)

    def _beacon(self, blade: SimBlade, saying: int) -> None:
        if blade.is_public and saying == blade.saying:
            if blade.role is Role.ROOT:
                self._send(blade, "beacon", blade.said)
            self._say_beacon(blade, saying)

    def announce(self, blade: SimBlade) -> None:
        self._say_copies(blade, "announcement", 0.225, blade.said)

    def _say_copies(self, blade: SimBlade, kind: str, gap_s: float, claim: Claim | None) -> None:
        for copy in range(_COPIES):
            self._say_later(blade, copy * gap_s, self._send, blade, kind, claim)

    def _say_later(self, blade: SimBlade, delay_s: float, action: Callable[..., None], *rest: Any) -> None:
        """Unless it has withdrawn by then, or has come back: that says something else."""
        saying = blade.saying

        def act() -> None:
            if blade.saying == saying:
                action(*rest)

        self.later(blade, delay_s, act)

    def _send(self, blade: SimBlade, kind: str, claim: Claim | None = None) -> None:
        self.packets.append((self.now_s, kind))
        if kind == "probe":
            self._reach_public(blade, is_first=False)
            return
        if claim is not None:
            blade.spoke_s = self.now_s
            claim = blade.said  # of an announcement that was changed meanwhile nothing else is left to say
        for other in self.in_reach(blade, self.blades.values()):
            delay_s = self.random.random() * self.air.delay_s
            self.later(other, delay_s, self._hear, other, blade.name, claim)

    # Hearing

    def browse(self, blade: SimBlade) -> None:
        """What a ServiceBrowser asks when it is made."""
        first_s = self.random.uniform(0.02, 0.12)
        for index, delay_s in enumerate(_STARTUP_QUERIES_S):
            self.later(blade, first_s + delay_s, self._ask_everybody, blade, index == 0)

    def _hear(self, blade: SimBlade, name: str, claim: Claim | None) -> None:
        old = blade.heard.get(name)
        if claim is None:
            if blade.heard.pop(name, None):
                self.notice(blade, name)
            return
        if old is not None and (old.claim is claim or old.claim == claim):
            old.fresh_s = self.now_s
            return
        heard = Heard(claim, self.now_s, self.now_s)
        blade.heard[name] = heard
        self.later(blade, self._refresh_s(), self._refresh, blade, name, heard)
        self.notice(blade, name)

    def _refresh_s(self) -> float:
        """browser.py: at 75 % of the TTL, rounded up to the 10 s in which it looks."""
        return self.air.ttl_s * 0.75 + self.random.random() * min(10.0, self.air.ttl_s * 0.1)

    def _refresh(self, blade: SimBlade, name: str, heard: Heard) -> None:
        if blade.heard.get(name) is not heard:
            return
        age_s = self.now_s - heard.fresh_s
        if age_s >= self.air.ttl_s - 1e-6:
            del blade.heard[name]
            self.notice(blade, name)
            return
        due_s = self.air.ttl_s * 0.75
        if age_s >= due_s - 1e-6:
            self._ask_everybody(blade)
            again_s = min(self.air.ttl_s * 0.1, self.air.ttl_s - age_s)
        else:
            again_s = self._refresh_s() - age_s
        self.later(blade, max(again_s, 0.01), self._refresh, blade, name, heard)

    def _ask_everybody(self, blade: SimBlade, is_first: bool = False) -> None:
        """The first question is QU (RFC 6762, 5.4): who was heard lately answers the asker alone."""
        if not is_first and self._is_suppressed(blade):
            return
        self.packets.append((self.now_s, "query"))
        if not is_first:
            self._questions.append((self.now_s, blade.segment))
        self._reach_public(blade, is_first=is_first)

    def _is_suppressed(self, blade: SimBlade) -> bool:
        if not self.air.suppresses:
            return False
        self._questions = [one for one in self._questions if one[0] > self.now_s - 0.999]
        return any(
            segment == blade.segment and self.random.random() >= self.air.loss
            for _when_s, segment in self._questions
        )

    def _reach_public(self, blade: SimBlade, *, is_first: bool) -> None:
        public = (one for one in self.blades.values() if one.is_public)
        for other in self.in_reach(blade, public):
            known = blade.heard.get(other.name)
            if known and self.now_s - known.fresh_s < self.air.ttl_s / 2:
                continue  # the question lists it as known
            if is_first and self.now_s - other.spoke_s < self.air.ttl_s / 4:
                self.later(other, 0.02, self._answer_alone, other, blade)
            elif not other.has_answer_pending:
                other.has_answer_pending = True
                held_s = 1.0 if self.now_s - other.spoke_s < 1.0 else 0.0
                delay_s = held_s + self.random.uniform(0.02, 0.12)
                self.later(other, delay_s, self._answer, other)

    def _answer(self, blade: SimBlade) -> None:
        blade.has_answer_pending = False
        if blade.is_public and blade.said is not None:
            self._send(blade, "answer", blade.said)

    def _answer_alone(self, blade: SimBlade, asker: SimBlade) -> None:
        if blade.is_public and blade.said is not None and self.in_reach(blade, [asker]):
            self._hear(asker, blade.name, blade.said)
