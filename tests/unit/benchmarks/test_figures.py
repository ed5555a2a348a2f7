from __future__ import annotations

import math

import attrs
import pytest
from benchmarks.figures import Spread, expected_bytes, max_time, median_time, summarise

from tests.unit.benchmarks.measured import FLOOR_S, IMAGE_BYTES, make_measurement


def test_what_a_whole_measurement_comes_to() -> None:
    one = make_measurement(bootable_s=(12.0, 14.0), redundant_bytes=20_000)
    assert one.is_whole
    assert one.copies == pytest.approx(1.5)
    assert one.most_copies == pytest.approx(101 / IMAGE_BYTES)
    assert one.redundant == pytest.approx(0.05)
    assert one.told_redundant == pytest.approx(0.02)
    assert one.estimate_s(IMAGE_BYTES) == 14.0


def test_what_was_stopped_is_extrapolated_in_a_straight_line() -> None:
    one = make_measurement(bootable_s=(None, None), received_bytes=(250_000, 350_000))
    assert not one.is_whole
    assert one.redundant is None
    assert one.arrived(IMAGE_BYTES) == pytest.approx(0.3)
    assert one.estimate_s(IMAGE_BYTES) == pytest.approx(100.0)


def test_a_blade_that_has_the_image_has_all_of_it_however_little_came() -> None:
    one = make_measurement(bootable_s=(20.0, None), received_bytes=(900_000, 500_000))
    assert one.arrived(IMAGE_BYTES) == pytest.approx(0.75)


def test_nothing_came_and_nothing_can_be_said() -> None:
    one = make_measurement(bootable_s=(None,), received_bytes=(0,))
    assert one.estimate_s(IMAGE_BYTES) == math.inf


def test_what_a_blade_receives_is_known_from_rooms_where_all_had_it() -> None:
    whole = make_measurement("sync", bootable_s=(12.0,), received_bytes=(800_000,))
    stopped = make_measurement("sync", bootable_s=(None, None), received_bytes=(400_000, 400_000))
    other = make_measurement("swarm")
    assert expected_bytes("sync", [whole, stopped, other]) == 800_000
    assert expected_bytes("sync", [stopped, other]) == IMAGE_BYTES
    summary = next(one for one in summarise([whole, stopped, other]) if not one.is_whole)
    assert summary.arrived == pytest.approx(0.5)
    assert summary.estimate_s.median == pytest.approx(60.0)


def test_runs_come_to_medians_and_spreads() -> None:
    runs = [make_measurement(bootable_s=(12.0, last)) for last in (15.0, 13.0, 18.0)]
    (summary,) = summarise(runs)
    assert summary.runs == 3
    assert summary.bootable_last_s == Spread(15.0, 13.0, 18.0)
    assert summary.floors == pytest.approx(14.0 / FLOOR_S)
    assert summary.cpu_s.median == 4.0


def test_rooms_and_tools_are_apart() -> None:
    runs = [make_measurement("a"), make_measurement("b"), make_measurement("a", bootable_s=(1.0,))]
    assert [(one.contender, one.blades) for one in summarise(runs)] == [("a", 2), ("b", 2), ("a", 1)]


def test_one_run_of_three_that_was_stopped_makes_a_bound_of_the_spread_only() -> None:
    runs = [make_measurement(), make_measurement(), make_measurement(bootable_s=(12.0, None))]
    (summary,) = summarise(runs)
    assert not summary.is_whole
    assert summary.bootable_last_s == Spread(14.0, 14.0, math.inf)


def test_times_that_never_came() -> None:
    assert max_time((1.0, None)) == math.inf
    assert median_time((1.0, 2.0, None)) == 2.0
    assert median_time((1.0, None, None)) == math.inf


def test_measurements_can_be_told_as_plain_values() -> None:
    assert attrs.asdict(make_measurement())["blades"] == 2
