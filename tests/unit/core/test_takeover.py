"""The role machine, line by line; rooms of such machines are in test_takeover_rooms.py."""

from __future__ import annotations

import itertools
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.claims import LARGEST, Claim, ClaimState
from bladeroot.core.cluster import Blade, Cluster
from bladeroot.core.cluster import Role as BladeRole
from bladeroot.core.takeover import (
    CANDIDATE_LASTS_S,
    DEMOTED_REST_S,
    MOST_PATIENCE_S,
    MOST_UNPROVEN_STEPS,
    PROMOTION_LASTS_S,
    RETIRED_REST_S,
    SETTLE_S,
    TABLE,
    Answers,
    Role,
    RoleState,
    Sighting,
    View,
    Wish,
    find_followed,
    find_rank,
    is_challenged,
    plan_patience,
    step_role,
)

CLUSTER_ID = "0123456789abcdef" * 2
NOW_S = 1000.0
PATIENCE_S = plan_patience(2, 0.5)
OLD_S = CANDIDATE_LASTS_S + 0.1

FOLLOWER = RoleState(blade="blade05", rank=2, priority=5)
WAITING = attrs.evolve(FOLLOWER, until_s=NOW_S + 1)
WAITED = attrs.evolve(FOLLOWER, until_s=NOW_S)
CANDIDATE = attrs.evolve(FOLLOWER, role=Role.CANDIDATE, epoch=4, highest_epoch=4, until_s=NOW_S + 1)
SETTLED = attrs.evolve(CANDIDATE, until_s=NOW_S)
ROOT = attrs.evolve(FOLLOWER, role=Role.ROOT, epoch=4, highest_epoch=4)
PROMOTED = attrs.evolve(ROOT, promoted_until_s=NOW_S + 1)
RETIRED = attrs.evolve(FOLLOWER, role=Role.RETIRED, epoch=4, highest_epoch=4, until_s=NOW_S + 1)
RESTED = attrs.evolve(RETIRED, until_s=NOW_S)


def see(blade: str, epoch: int = 4, **changes: Any) -> Sighting:
    """Somebody's claim: a root's, proven and just heard, unless `changes` say otherwise."""
    of_sighting = {"answers": Answers.PROVEN, "age_s": 0.0}
    given = {name: changes.pop(name, value) for name, value in of_sighting.items()}
    claim = Claim(cluster_id=CLUSTER_ID, epoch=epoch, serial=7, blade=blade, host="10.77.0.9", port=7474)
    return Sighting(claim=attrs.evolve(claim, **changes), **given)


def see_candidate(blade: str, epoch: int = 4, **changes: Any) -> Sighting:
    return see(blade, epoch, **{"answers": Answers.UNKNOWN, "state": ClaimState.CANDIDATE, **changes})


def view(*sightings: Sighting, serial: int = 7, wish: Wish = Wish.NONE, now_s: float = NOW_S) -> View:
    return View(now_s=now_s, chance=0.5, serial=serial, sightings=sightings, wish=wish)


def manual(state: RoleState) -> RoleState:
    return attrs.evolve(state, is_automatic=False)


LINES: tuple[tuple[str, RoleState, View, Role, float | None], ...] = (
    ("is promoted", FOLLOWER, view(see("blade01"), wish=Wish.PROMOTE), Role.ROOT, None),
    ("follows a root", WAITED, view(see("blade01")), Role.FOLLOWER, None),
    ("does not begin by itself", manual(WAITED), view(), Role.FOLLOWER, None),
    ("holds back", WAITED, view(see_candidate("blade01")), Role.FOLLOWER, NOW_S + SETTLE_S + PATIENCE_S),
    ("begins to wait", FOLLOWER, view(), Role.FOLLOWER, NOW_S + PATIENCE_S),
    ("stands", WAITED, view(), Role.CANDIDATE, NOW_S + SETTLE_S),
    #
    ("is promoted at once", CANDIDATE, view(wish=Wish.PROMOTE), Role.ROOT, None),
    ("is told to leave it", CANDIDATE, view(wish=Wish.DEMOTE), Role.RETIRED, NOW_S + DEMOTED_REST_S),
    ("gives way to a root", SETTLED, view(see("blade01", 1)), Role.FOLLOWER, None),
    ("has lost its generation", SETTLED, view(serial=0), Role.FOLLOWER, None),
    (
        "gives way to a better one",
        SETTLED,
        view(see_candidate("blade09", 5)),
        Role.FOLLOWER,
        NOW_S + SETTLE_S + PATIENCE_S,
    ),
    ("nobody objected", SETTLED, view(), Role.ROOT, None),
    #
    ("is told to step down", ROOT, view(wish=Wish.DEMOTE), Role.RETIRED, NOW_S + DEMOTED_REST_S),
    ("is outdone just after its promotion", PROMOTED, view(see("blade09", 5)), Role.ROOT, None),
    ("retires", ROOT, view(see("blade09", 5)), Role.RETIRED, NOW_S + RETIRED_REST_S),
    ("has nothing to serve", ROOT, view(serial=0), Role.RETIRED, NOW_S + RETIRED_REST_S),
    #
    ("is promoted again", RETIRED, view(see("blade01"), wish=Wish.PROMOTE), Role.ROOT, None),
    ("has rested", RESTED, view(), Role.FOLLOWER, NOW_S + PATIENCE_S),
)
"""What, in which state, what is seen: which role and which waiting become of it. In the order of TABLE."""


@pytest.mark.parametrize(
    ("index", "before", "seen", "role", "until_s"),
    [pytest.param(index, *line[1:], id=line[0]) for index, line in enumerate(LINES)],
)
def test_each_line_of_the_table(
    index: int, before: RoleState, seen: View, role: Role, until_s: float | None
) -> None:
    fitting = [line for line in TABLE if line[0] is before.role and line[1](before, seen)]
    assert fitting[0] is TABLE[index]
    after = step_role(before, seen)
    assert (after.role, after.until_s) == (role, until_s)


def test_every_line_of_the_table_has_its_example() -> None:
    assert len(LINES) == len(TABLE)


UNMOVED: tuple[tuple[str, RoleState, View], ...] = (
    ("still waits", WAITING, view()),
    ("is asked to step down, which it is", WAITING, view(wish=Wish.DEMOTE)),
    ("waits for others while it is candidate", CANDIDATE, view()),
    ("hears a worse candidate", CANDIDATE, view(see_candidate("blade09"))),
    ("hears a candidate of an older epoch", CANDIDATE, view(see_candidate("blade01", 3))),
    ("hears a candidate that holds less", CANDIDATE, view(see_candidate("blade01", priority=9, serial=6))),
    ("is root and hears a candidate", ROOT, view(see_candidate("blade01", 9))),
    ("is root and hears a lower one", ROOT, view(see("blade01", 3))),
    ("is root and hears a lower one by name", ROOT, view(see("blade09"))),
    ("is root and hears one that was not asked yet", ROOT, view(see("blade01", 9, answers=Answers.UNKNOWN))),
    ("is root and hears a dead one", ROOT, view(see("blade01", 9, answers=Answers.SILENT))),
    ("is root and manual", manual(ROOT), view()),
    ("rests", RETIRED, view()),
    ("rests while it follows its successor", RETIRED, view(see("blade09", 5))),
    ("rests whoever is about to be root", RETIRED, view(see_candidate("blade01"))),
)


@pytest.mark.parametrize(("state", "seen"), [pytest.param(*line[1:], id=line[0]) for line in UNMOVED])
def test_what_moves_nobody(state: RoleState, seen: View) -> None:
    after = step_role(state, seen)
    assert attrs.evolve(after, highest_epoch=0) == attrs.evolve(state, highest_epoch=0)


@pytest.mark.parametrize("state", [FOLLOWER, WAITED, CANDIDATE, SETTLED, RETIRED])
def test_without_a_generation_nobody_is_promoted(state: RoleState) -> None:
    assert step_role(state, view(serial=0, wish=Wish.PROMOTE)).role not in (Role.ROOT, Role.CANDIDATE)


def test_without_a_generation_nobody_begins() -> None:
    state = FOLLOWER
    for now_s in range(1000, 1200):
        state = step_role(state, view(serial=0, now_s=float(now_s)))
        assert (state.role, state.until_s) == (Role.FOLLOWER, None)


def test_a_manual_blade_stands_for_nothing_but_can_be_promoted() -> None:
    assert step_role(manual(SETTLED), view()).role is Role.FOLLOWER
    assert step_role(manual(FOLLOWER), view(wish=Wish.PROMOTE)).role is Role.ROOT


@pytest.mark.parametrize(
    ("better", "changes"),
    [
        (True, {"epoch": 5, "serial": 1}),
        (True, {"serial": 8, "blade": "blade09"}),
        (True, {"priority": 6, "blade": "blade09"}),
        (True, {"priority": 5, "blade": "blade04"}),
        (False, {"priority": 5, "blade": "blade06"}),
        (False, {"serial": 6, "priority": 99}),
        (False, {"epoch": 3, "serial": 99}),
    ],
)
def test_which_candidate_is_better(better: bool, changes: dict[str, Any]) -> None:
    after = step_role(SETTLED, view(see_candidate(**{"blade": "blade01", **changes})))
    assert after.role is (Role.FOLLOWER if better else Role.ROOT)


def test_a_candidate_that_has_died_is_waited_for_no_longer() -> None:
    dead = see_candidate("blade01", 9, age_s=OLD_S)
    assert step_role(SETTLED, view(dead)).role is Role.ROOT
    assert step_role(WAITED, view(dead)).role is Role.CANDIDATE
    silent = see_candidate("blade01", 9, answers=Answers.SILENT)
    assert step_role(SETTLED, view(silent)).role is Role.ROOT


def test_candidates_that_never_become_root_hold_nobody_up_for_ever() -> None:
    """One that says something new every few seconds is always fresh."""
    state, now_s = WAITED, NOW_S
    while state.role is not Role.ROOT:
        assert now_s < NOW_S + MOST_PATIENCE_S + plan_patience(2, 0.5) + 2 * SETTLE_S
        state = step_role(state, view(see_candidate("blade01", 9), now_s=now_s))
        now_s += 1.0
    assert now_s > NOW_S + MOST_PATIENCE_S
    assert step_role(WAITED, view(see_candidate("blade01"))).patient_until_s == NOW_S + MOST_PATIENCE_S


def test_a_root_forgives_those_who_held_it_back() -> None:
    held_back = step_role(WAITED, view(see_candidate("blade01")))
    assert step_role(held_back, view(see("blade01"))).patient_until_s is None
    assert step_role(held_back, view(wish=Wish.PROMOTE)).patient_until_s is None


def test_a_silent_root_is_nobody() -> None:
    silent = see("blade01", 8, answers=Answers.SILENT)
    assert find_followed(FOLLOWER, view(silent)) is None
    stood = step_role(WAITED, view(silent))
    assert (stood.role, stood.epoch) == (Role.CANDIDATE, 9)
    assert step_role(stood, view(silent, now_s=NOW_S + SETTLE_S)).role is Role.ROOT


def test_a_silent_root_that_answers_again_is_followed_again() -> None:
    waiting = step_role(FOLLOWER, view(see("blade01", answers=Answers.SILENT)))
    assert waiting.until_s is not None
    assert step_role(waiting, view(see("blade01"))).until_s is None


def test_who_is_promoted_is_above_all_that_was_ever_heard() -> None:
    follower = step_role(FOLLOWER, view(see("blade01", 41)))
    assert follower.highest_epoch == 41
    root = step_role(follower, view(wish=Wish.PROMOTE))
    assert (root.role, root.epoch) == (Role.ROOT, 42)
    assert step_role(ROOT, view(see(root.blade, root.epoch))).role is Role.RETIRED


def test_who_was_promoted_before_it_had_heard_the_root_outdoes_it_once_when_it_hears_it() -> None:
    early = step_role(FOLLOWER, view(wish=Wish.PROMOTE))
    assert (early.role, early.epoch) == (Role.ROOT, 1)
    unknown = view(see("blade01", 41, answers=Answers.UNKNOWN))
    assert step_role(early, unknown).epoch == 1
    outdone = step_role(early, view(see("blade01", 41)))
    assert (outdone.role, outdone.epoch) == (Role.ROOT, 42)
    assert step_role(outdone, view(see("blade01", 43))).role is Role.RETIRED
    late = view(see("blade01", 41), now_s=NOW_S + PROMOTION_LASTS_S)
    assert step_role(early, late).role is Role.RETIRED


def test_a_promoted_root_is_not_displaced_by_the_one_that_it_displaces() -> None:
    root = step_role(FOLLOWER, view(see("blade01", 41), wish=Wish.PROMOTE))
    assert root.epoch == 42
    assert step_role(root, view(see("blade01", 41))) == root


def test_who_was_demoted_rests_unless_a_person_wants_it_back() -> None:
    rests = step_role(ROOT, view(wish=Wish.DEMOTE))
    late = view(now_s=NOW_S + DEMOTED_REST_S - 1)
    assert step_role(rests, late).role is Role.RETIRED
    assert step_role(rests, view(wish=Wish.PROMOTE)).epoch == 5


def test_a_blade_does_not_give_way_to_itself() -> None:
    assert step_role(ROOT, view(see("blade05", 4))) == ROOT
    itself = see_candidate("blade05", 4, priority=5)
    assert step_role(SETTLED, view(itself)).role is Role.ROOT


def test_who_was_demoted_does_not_come_back_when_its_successor_dies() -> None:
    rests = step_role(ROOT, view(wish=Wish.DEMOTE))
    followed = find_followed(rests, view(see("blade09", 5)))
    assert followed is not None
    assert followed.claim.blade == "blade09"
    rests = step_role(rests, view(see("blade09", 5), now_s=NOW_S + 60))
    assert step_role(rests, view(now_s=NOW_S + 120)).role is Role.RETIRED
    back = step_role(rests, view(now_s=NOW_S + DEMOTED_REST_S))
    assert back.role is Role.FOLLOWER


def test_epochs_end_without_a_crash() -> None:
    seen = step_role(FOLLOWER, view(see("blade01", LARGEST)))
    stood = step_role(attrs.evolve(seen, until_s=NOW_S), view())
    assert (stood.role, stood.epoch) == (Role.CANDIDATE, LARGEST)


@pytest.mark.parametrize("answers", [Answers.UNKNOWN, Answers.SILENT])
def test_one_lie_does_not_reach_the_end_of_all_epochs(answers: Answers) -> None:
    liar = see("blade01", LARGEST, answers=answers)
    near = see("blade02", 4 + MOST_UNPROVEN_STEPS, answers=answers)
    assert step_role(ROOT, view(liar)).highest_epoch == 4
    assert step_role(ROOT, view(liar, near)).highest_epoch == 4 + MOST_UNPROVEN_STEPS
    assert step_role(ROOT, view(liar, wish=Wish.PROMOTE)).role is Role.ROOT
    assert step_role(RETIRED, view(liar, wish=Wish.PROMOTE)).epoch == 5


def test_only_candidates_and_roots_announce() -> None:
    said = {state.role: state.announces for state in (FOLLOWER, CANDIDATE, ROOT, RETIRED)}
    assert said == {
        Role.FOLLOWER: None,
        Role.CANDIDATE: ClaimState.CANDIDATE,
        Role.ROOT: ClaimState.ROOT,
        Role.RETIRED: None,
    }


def test_the_best_root_is_followed() -> None:
    sightings = (
        see("blade02", 5),
        see("blade01", 5, answers=Answers.UNKNOWN),
        see("blade03", 9, answers=Answers.SILENT),
        see_candidate("blade04", 9),
        see("blade00", 4),
    )
    followed = find_followed(FOLLOWER, view(*sightings))
    assert followed is not None
    assert followed.claim.blade == "blade01"
    assert find_followed(ROOT, view(*sightings)) is None
    assert find_followed(FOLLOWER, view()) is None


def test_a_root_objects_to_whoever_is_new() -> None:
    assert is_challenged(ROOT, view(see_candidate("blade09")))
    assert is_challenged(ROOT, view(see("blade09", 2, answers=Answers.UNKNOWN)))
    assert not is_challenged(ROOT, view(see_candidate("blade09", age_s=OLD_S)))
    assert not is_challenged(ROOT, view(see("blade09", answers=Answers.SILENT)))
    assert not is_challenged(ROOT, view())
    assert not is_challenged(CANDIDATE, view(see_candidate("blade09")))


def test_the_order_of_succession() -> None:
    blades = {
        name: Blade(name=name, priority=priority)
        for name, priority in (("blade03", 0), ("blade01", 0), ("blade02", 7), ("blade04", -1))
    }
    cluster = Cluster(name="room", id=CLUSTER_ID, roles={"blade": BladeRole(name="blade")}, blades=blades)
    order = sorted(blades, key=lambda name: find_rank(cluster, name))
    assert order == ["blade02", "blade01", "blade03", "blade04"]
    assert find_rank(cluster, "blade02") == 0
    assert find_rank(cluster, "stranger") == 4


def test_the_first_is_before_all_others_and_the_next_few_are_apart_as_a_rule() -> None:
    assert plan_patience(1, 0.0) - plan_patience(0, 1.0) >= 0.5
    usual = [plan_patience(rank, 0.5) for rank in range(4)]
    assert all(later - sooner > 0.6 for sooner, later in itertools.pairwise(usual))


@given(st.integers(0, 5000), st.floats(0, 1))
def test_patience_grows_with_the_rank_and_stays_under_a_minute(rank: int, chance: float) -> None:
    assert plan_patience(rank, chance) <= plan_patience(rank + 1, chance)
    assert 2.0 <= plan_patience(rank, chance) < 60.0


names = st.sampled_from(["blade01", "blade04", "blade09"])
sightings = st.builds(
    lambda blade, epoch, state, answers, age_s: see(blade, epoch, state=state, answers=answers, age_s=age_s),
    names,
    st.integers(0, 9),
    st.sampled_from(ClaimState),
    st.sampled_from(Answers),
    st.sampled_from([0.0, 1.0, OLD_S]),
)
states = st.builds(
    attrs.evolve,
    st.sampled_from([line[1] for line in LINES]),
    is_automatic=st.booleans(),
    highest_epoch=st.integers(4, 9),
)
views = st.builds(
    lambda seen, serial, wish: view(*seen, serial=serial, wish=wish),
    st.lists(sightings, max_size=4),
    st.integers(0, 9),
    st.sampled_from(Wish),
)


@given(states, views)
def test_of_any_state_and_any_view(state: RoleState, seen: View) -> None:
    after = step_role(state, seen)
    assert after.highest_epoch >= max([state.highest_epoch, *(one.claim.epoch for one in seen.sightings)])
    assert after.epoch <= after.highest_epoch
    if after.role in (Role.CANDIDATE, Role.ROOT) and after.role is not state.role:
        assert seen.serial > 0
        assert after.is_automatic or seen.wish is Wish.PROMOTE
    if after.role is Role.ROOT:
        assert after.until_s is None
    if after.role in (Role.CANDIDATE, Role.RETIRED):
        assert after.until_s is not None
