"""The role machine: who of a room's blades is root. One table; time, chance and what was heard are passed in.

A blade steps it whenever something is heard or asked of it, and when `RoleState.until_s` has come. It only
says which role the blade has: announcing, serving and pulling are done by who steps it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import StrEnum

import attrs
from attrs import frozen

from bladeroot.core.claims import LARGEST, Claim, ClaimState, which_candidate_wins, which_wins
from bladeroot.core.cluster import Cluster

SETTLE_S = 2.0
"""How long a candidate waits for objections: an announcement takes under a second, one may be lost."""
CANDIDATE_LASTS_S = 3 * SETTLE_S
"""A candidate that is neither root nor gone after that has died: it is waited for no longer."""
MOST_PATIENCE_S = 60.0
"""So long candidates that never become root keep a blade from being one: whatever they are up to."""
RETIRED_REST_S = 20.0
DEMOTED_REST_S = 600.0
"""So long who was told to step down does not step up by itself, though nobody else does."""
PROMOTION_LASTS_S = 10.0
"""So long a promotion stands: a blade that is just up has not heard yet whom it has to outdo."""
MOST_UNPROVEN_STEPS = 1000
"""An epoch that is higher by more than that counts only of who has proven to be root: after one lie that
reached the end of all epochs nobody could outdo anybody any more.
"""
_FIRST_WAIT_S = 2.0
_RANK_WAIT_S = 1.5
_MOST_SPREAD_S = 30.0


class Role(StrEnum):
    """What a blade is at the moment."""

    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    ROOT = "root"
    RETIRED = "retired"
    """Was root, and rests before it is a follower like others; it follows a root as they do."""


class Answers(StrEnum):
    """What is known of who announced a claim."""

    UNKNOWN = "unknown"
    """Not asked yet: a follower takes its word for it, a root does not give way to it."""
    PROVEN = "proven"
    """It serves a generation that is signed for this cluster."""
    SILENT = "silent"
    """It did not answer when it was asked: its announcement is older than its death."""


class Wish(StrEnum):
    """What a person asked this blade to do."""

    NONE = ""
    PROMOTE = "promote"
    DEMOTE = "demote"


@frozen(kw_only=True)
class Sighting:
    """Another's claim, and for how long exactly this has been heard of it."""

    claim: Claim
    answers: Answers = Answers.UNKNOWN
    age_s: float = 0.0


@frozen(kw_only=True)
class View:
    """All that a blade goes by in one step."""

    now_s: float
    chance: float
    """From 0 to 1, drawn anew for each step."""
    serial: int
    """Of the best generation that the blade holds whole; 0: it cannot be root."""
    sightings: tuple[Sighting, ...] = ()
    wish: Wish = Wish.NONE


@frozen(kw_only=True)
class RoleState:
    """A blade's role. `rank` is its place in the order of succession, from 0."""

    blade: str
    rank: int = 0
    priority: int = 0
    is_automatic: bool = True
    """Whether it takes the role without being asked to."""
    role: Role = Role.FOLLOWER
    epoch: int = 0
    """Of its own claim, while it is candidate or root; of its last one otherwise."""
    highest_epoch: int = 0
    """Of all claims that were ever heard, its own too."""
    until_s: float | None = None
    """When what it waits for is over; None: it waits for nothing."""
    patient_until_s: float | None = None
    """Until then it lets candidates go first; None: none has held it back since there was a root."""
    promoted_until_s: float | None = None
    """Until then it outdoes a better root, instead of retiring: once, or two that are promoted never rest."""

    @property
    def announces(self) -> ClaimState | None:
        """What it says of itself over mDNS, if anything: only candidates and roots do."""
        return {Role.CANDIDATE: ClaimState.CANDIDATE, Role.ROOT: ClaimState.ROOT}.get(self.role)


def find_rank(cluster: Cluster, blade: str) -> int:
    """The blade's place in the order of succession: higher priority first, then by name; strangers last."""
    order = sorted(cluster.blades.values(), key=lambda one: (-one.priority, one.name))
    names = [one.name for one in order]
    return names.index(blade) if blade in names else len(names)


def plan_patience(rank: int, chance: float) -> float:
    """How long a blade of that rank waits for others, in seconds.

    The first few differ by more than an announcement takes. Those behind them come up in hundreds, and are
    spread, so that the first is heard before many others have begun.
    """
    spread_s = min(1.0 + rank / 8, _MOST_SPREAD_S)
    return _FIRST_WAIT_S + _RANK_WAIT_S * math.log2(1 + rank) + spread_s * chance


def step_role(state: RoleState, view: View) -> RoleState:
    """The state after what is seen now: the first line of `TABLE` that fits says what it is."""
    state = attrs.evolve(state, highest_epoch=_find_highest_epoch(state, view))
    for role, signal, become in TABLE:
        if role is state.role and signal(state, view):
            return become(state, view)
    return state


def find_followed(state: RoleState, view: View) -> Sighting | None:
    """Whom a blade in that role follows: the best root that is not silent. A root follows nobody."""
    if state.role is Role.ROOT:
        return None
    roots = [one for one in view.sightings if _is_live_root(one)]
    return min(roots, key=lambda one: _order_of(one.claim), default=None)


def is_challenged(state: RoleState, view: View) -> bool:
    """Whether somebody is about to do what this root does: it should make itself heard once more."""
    return state.role is Role.ROOT and any(
        one.answers is not Answers.SILENT and one.age_s < CANDIDATE_LASTS_S for one in view.sightings
    )


def _find_highest_epoch(state: RoleState, view: View) -> int:
    believed = state.highest_epoch + MOST_UNPROVEN_STEPS
    epochs = [
        one.claim.epoch
        for one in view.sightings
        if one.answers is Answers.PROVEN or one.claim.epoch <= believed
    ]
    return max(state.highest_epoch, *epochs, 0)


def _order_of(claim: Claim) -> tuple[int, str]:
    return -claim.epoch, claim.blade


# Signals: what may be the case


def _is_asked_to_promote(_state: RoleState, view: View) -> bool:
    return view.wish is Wish.PROMOTE and view.serial > 0


def _is_asked_to_demote(_state: RoleState, view: View) -> bool:
    return view.wish is Wish.DEMOTE


def _is_live_root(sighting: Sighting) -> bool:
    return sighting.claim.state is ClaimState.ROOT and sighting.answers is not Answers.SILENT


def _hears_root(_state: RoleState, view: View) -> bool:
    return any(map(_is_live_root, view.sightings))


def _live_candidates(state: RoleState, view: View) -> Iterable[Claim]:
    if state.patient_until_s is not None and view.now_s >= state.patient_until_s:
        return
    for sighting in view.sightings:
        is_live = sighting.age_s < CANDIDATE_LASTS_S and sighting.answers is not Answers.SILENT
        if sighting.claim.state is ClaimState.CANDIDATE and is_live:
            yield sighting.claim


def _hears_candidate(state: RoleState, view: View) -> bool:
    return any(True for _claim in _live_candidates(state, view))


def _hears_better_candidate(state: RoleState, view: View) -> bool:
    own = _own_rank(state, view)
    return any(which_candidate_wins(own(claim), claim) is claim for claim in _live_candidates(state, view))


def _hears_better_root(state: RoleState, view: View) -> bool:
    own = _own_rank(state, view)
    return any(
        which_wins(own(one.claim), one.claim) is one.claim
        for one in view.sightings
        if one.claim.state is ClaimState.ROOT and one.answers is Answers.PROVEN
    )


def _is_outdone_after_promotion(state: RoleState, view: View) -> bool:
    stands = state.promoted_until_s is not None and view.now_s < state.promoted_until_s
    return stands and view.serial > 0 and _hears_better_root(state, view)


def _own_rank(state: RoleState, view: View) -> Callable[[Claim], Claim]:
    """What this blade would claim where another claims that: only what decides between them differs.

    Compared with itself (its own address is among `roots`) a blade is not outdone: its own comes first.
    """

    def claim(other: Claim) -> Claim:
        return attrs.evolve(
            other, blade=state.blade, epoch=state.epoch, serial=view.serial, priority=state.priority
        )

    return claim


def _cannot_be_root(_state: RoleState, view: View) -> bool:
    return view.serial == 0


def _may_not_begin(state: RoleState, view: View) -> bool:
    return view.serial == 0 or not state.is_automatic


def _is_not_waiting(state: RoleState, _view: View) -> bool:
    return state.until_s is None


def _has_waited(state: RoleState, view: View) -> bool:
    return state.until_s is not None and view.now_s >= state.until_s


# What becomes of it


def _follow(state: RoleState, _view: View) -> RoleState:
    return attrs.evolve(state, role=Role.FOLLOWER, until_s=None, patient_until_s=None)


def _wait(state: RoleState, view: View) -> RoleState:
    until_s = view.now_s + plan_patience(state.rank, view.chance)
    return attrs.evolve(state, role=Role.FOLLOWER, until_s=until_s)


def _hold_back(state: RoleState, view: View) -> RoleState:
    """Somebody else is about to be root: wait for that, and then as long as ever."""
    until_s = view.now_s + SETTLE_S + plan_patience(state.rank, view.chance)
    patient_until_s = state.patient_until_s or view.now_s + MOST_PATIENCE_S
    return attrs.evolve(state, role=Role.FOLLOWER, until_s=until_s, patient_until_s=patient_until_s)


def _stand(state: RoleState, view: View) -> RoleState:
    epoch = _next_epoch(state)
    return attrs.evolve(
        state, role=Role.CANDIDATE, epoch=epoch, highest_epoch=epoch, until_s=view.now_s + SETTLE_S
    )


def _become_root(state: RoleState, _view: View) -> RoleState:
    return attrs.evolve(state, role=Role.ROOT, until_s=None, patient_until_s=None)


def _promote(state: RoleState, view: View) -> RoleState:
    """Above everybody: a person wants it."""
    return attrs.evolve(_outdo(state, view), promoted_until_s=view.now_s + PROMOTION_LASTS_S)


def _outdo(state: RoleState, view: View) -> RoleState:
    epoch = _next_epoch(state)
    state = attrs.evolve(state, epoch=epoch, highest_epoch=epoch, promoted_until_s=None)
    return _become_root(state, view)


def _retire(state: RoleState, view: View) -> RoleState:
    return attrs.evolve(state, role=Role.RETIRED, until_s=view.now_s + RETIRED_REST_S)


def _step_down(state: RoleState, view: View) -> RoleState:
    return attrs.evolve(state, role=Role.RETIRED, until_s=view.now_s + DEMOTED_REST_S)


def _next_epoch(state: RoleState) -> int:
    return min(max(state.highest_epoch, state.epoch) + 1, LARGEST)


_Signal = Callable[[RoleState, View], bool]
_Become = Callable[[RoleState, View], RoleState]

TABLE: tuple[tuple[Role, _Signal, _Become], ...] = (
    (Role.FOLLOWER, _is_asked_to_promote, _promote),
    (Role.FOLLOWER, _hears_root, _follow),
    (Role.FOLLOWER, _may_not_begin, _follow),
    (Role.FOLLOWER, _hears_candidate, _hold_back),
    (Role.FOLLOWER, _is_not_waiting, _wait),
    (Role.FOLLOWER, _has_waited, _stand),
    #
    (Role.CANDIDATE, _is_asked_to_promote, _promote),
    (Role.CANDIDATE, _is_asked_to_demote, _step_down),
    (Role.CANDIDATE, _hears_root, _follow),
    (Role.CANDIDATE, _may_not_begin, _follow),
    (Role.CANDIDATE, _hears_better_candidate, _hold_back),
    (Role.CANDIDATE, _has_waited, _become_root),
    #
    (Role.ROOT, _is_asked_to_demote, _step_down),
    (Role.ROOT, _is_outdone_after_promotion, _outdo),
    (Role.ROOT, _hears_better_root, _retire),
    (Role.ROOT, _cannot_be_root, _retire),
    #
    (Role.RETIRED, _is_asked_to_promote, _promote),
    (Role.RETIRED, _has_waited, _wait),
)
"""Role, what is the case, what becomes of it; of each role the first line that fits."""
