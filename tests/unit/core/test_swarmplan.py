"""Seconds and words from a simulated room."""

from __future__ import annotations

import random
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bladeroot.core import swarmplan
from bladeroot.core.swarmplan import Calibration, Forecast, Limit, Question, default_pieces, forecast
from bladeroot.core.swarmsim import PieceChoice, Policy, Room, Run, simulate

GIB = 1 << 30
IDEAL = Calibration(wire_efficiency=1, protocol_efficiency=1, start_up_s=0)


def ask(
    blades: int, *, calibration: Calibration = IDEAL, policy: Policy | None = None, **changes: Any
) -> Forecast:
    base = {"blades": blades, "size_bytes": 2 * GIB, "link": 1e9, "root_link": 1e9, "pieces": 400}
    question = Question(**{**base, **changes})
    return forecast(question, random.Random(1), policy=policy or Policy(), calibration=calibration)


def test_one_blade_takes_its_link_and_the_start() -> None:
    answer = ask(1, calibration=Calibration(wire_efficiency=0.5, protocol_efficiency=0.5, start_up_s=3))

    assert answer.floor_s == pytest.approx(2 * GIB * 8 / 1e9)
    assert answer.last_s == answer.median_s == pytest.approx(4 * answer.floor_s + 3)
    assert (answer.limit, answer.root_copies) == (Limit.LINKS, 1)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 3000), st.sampled_from([1e8, 1e9, 1e10]), st.integers(0, 3))
def test_no_floor_is_beaten(blades: int, pieces: int, root_link: float, seed: int) -> None:
    question = Question(
        blades=blades, size_bytes=GIB // 4, link=1e9, root_link=root_link, pieces=min(pieces, 300)
    )
    answer = forecast(question, random.Random(seed), calibration=IDEAL)

    assert answer.last_s * (1 + 1e-9) >= max(answer.floor_s, GIB * 2 / root_link)
    assert answer.median_s <= answer.last_s
    assert answer.root_copies >= 1


@pytest.mark.parametrize(
    ("limit", "changes"),
    [
        (Limit.LINKS, {"blades": 40}),
        (Limit.ROOT, {"blades": 40, "root_link": 1e8}),
        (Limit.UPLINKS, {"blades": 40, "racks": 4, "uplink": 1e8}),
        (Limit.PIECES, {"blades": 40, "pieces": 8}),
        (Limit.START_UP, {"blades": 40, "size_bytes": 1 << 20}),
    ],
)
def test_what_limits(limit: Limit, changes: dict[str, Any]) -> None:
    answer = ask(calibration=Calibration(), **changes)

    assert answer.limit is limit
    assert 0 < answer.limit_s <= answer.last_s


def test_enough_pieces_are_enough() -> None:
    few = ask(40, pieces=8)
    enough = ask(40, pieces=few.enough_pieces)

    assert few.limit is Limit.PIECES
    assert enough.limit is Limit.LINKS
    assert enough.last_s < few.last_s


@pytest.mark.parametrize(
    "policy", [Policy(), Policy(choice=PieceChoice.STRIPE, most_asked=4)], ids=["plain", "best"]
)
def test_coarser_pieces_give_about_the_same(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = ask(100, policy=policy)
    monkeypatch.setattr(swarmplan, "_MOST_SIMULATED", 8_000)
    coarse = ask(100, policy=policy)

    assert exact.simulated_pieces == 400
    assert coarse.simulated_pieces == 80
    assert coarse.last_s == pytest.approx(exact.last_s, rel=0.1)
    assert coarse.mean_use == pytest.approx(exact.mean_use, rel=0.1)
    assert exact.mean_use == pytest.approx(sum(exact.use) / len(exact.use), rel=0.02)


def test_a_wide_root_gets_the_slots_to_fill_its_link() -> None:
    answer = ask(30, root_link=1e10, pieces=200)

    assert answer.policy.root_slots == 10 * Policy().root_slots
    assert answer.last_s <= ask(30, pieces=200).last_s


def test_one_server_shares_its_link() -> None:
    calibration = attrs.evolve(IDEAL, wire_efficiency=0.5)

    assert ask(10, calibration=calibration).one_server_s == pytest.approx(20 * 2 * GIB * 8 / 1e9)
    assert ask(2, root_link=1e11).one_server_s == pytest.approx(2 * GIB * 8 / 1e9)


def test_five_thousand_blades_stay_affordable() -> None:
    """Counted, not timed: some microseconds each."""
    rooms = [(5000, 3000), (300, 3000), (20, 1_000_000), (1, 1_000_000)]
    calls: list[int] = []

    def count(room: Room, _policy: Policy, chance: random.Random) -> Run:
        calls.append(room.blades * room.pieces * 4)
        return simulate(attrs.evolve(room, blades=1, pieces=1), Policy(), chance)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swarmplan, "simulate", count)
        for blades, pieces in rooms:
            calls.clear()
            ask(blades, pieces=pieces)
            assert sum(calls) <= 800_000


def test_as_many_pieces_as_publish_makes() -> None:
    assert default_pieces(1) == 1
    assert 300 < default_pieces(205 << 20) < 400
    assert default_pieces(100 * GIB) == 3000
