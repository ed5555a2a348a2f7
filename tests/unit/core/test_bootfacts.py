"""What a disk says of itself: there and back, within a sector, and what stays when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.bootfacts import BootFacts, parse_boot_facts, render_boot_facts
from bladeroot.core.bootplan import parse_grubenv, render_grubenv
from bladeroot.core.disklayout import Use
from bladeroot.core.orders import MAX_NUMBER

CLUSTER, OTHER = "ab" * 16, "cd" * 16
numbers = st.integers(0, MAX_NUMBER - 1)
facts_of_any_kind = st.builds(
    BootFacts,
    slot=st.sampled_from([None, Use.SLOT_A, Use.SLOT_B]),
    serial=numbers,
    cluster_id=st.sampled_from(["", CLUSTER]),
    order=numbers,
    visits=numbers,
    tries_order=numbers,
    tries=st.integers(1, 999_999_999),
    wiped=numbers,
    next_agent=st.booleans(),
)


@given(facts_of_any_kind)
def test_there_and_back_through_one_sector(facts: BootFacts) -> None:
    assert parse_boot_facts(parse_grubenv(render_grubenv(render_boot_facts(facts)))) == facts


@pytest.mark.parametrize(
    "values",
    [
        {"bladeroot_slot": "c"},
        {"bladeroot_order": "-1"},
        {"bladeroot_order": "9" * 30},
        {"bladeroot_tries": "7"},
        {"bladeroot_tries": "7:x"},
        {"bladeroot_next": "", "bladeroot_cluster": "../\ufffd"},
    ],
)
def test_what_makes_no_sense_counts_as_not_there(values: dict[str, str]) -> None:
    assert parse_boot_facts(values) == BootFacts()


def test_tries_are_counted_for_one_order_at_a_time() -> None:
    facts = BootFacts(order=3).with_try(7).with_try(7)
    assert (facts.count_tries(7), facts.count_tries(0)) == (2, 0)
    assert facts.with_try(8).count_tries(8) == 1
    assert facts.with_try(8).count_tries(7) == 0


def test_a_released_disk_forgets_nothing_but_what_it_boots() -> None:
    kept = BootFacts(serial=5, cluster_id=CLUSTER, order=3, visits=2, tries_order=7, tries=4, wiped=7)
    before = BootFacts(
        slot=Use.SLOT_A, serial=5, cluster_id=CLUSTER, order=3, visits=2, tries_order=7, tries=4, wiped=7
    )
    assert before.when_released() == kept


def test_a_commit_ends_the_order_and_its_tries() -> None:
    before = BootFacts(serial=5, cluster_id=CLUSTER, order=3, visits=2, wiped=7).with_try(7)
    after = before.when_committed(Use.SLOT_B, 6, CLUSTER, 7)
    assert after == BootFacts(slot=Use.SLOT_B, serial=6, cluster_id=CLUSTER, order=7)
    assert after.when_committed(Use.SLOT_A, 6, CLUSTER, None).order == 7
    assert after.when_committed(Use.SLOT_A, 1, OTHER, None).order == 0


def test_a_disk_that_takes_every_install_and_never_boots_is_not_installed_for_ever() -> None:
    facts = BootFacts()
    for _ in range(5):
        facts = facts.with_try(0).when_committed(Use.SLOT_A, 1, CLUSTER, None)
    assert facts.count_tries(0) == 5
    assert facts.when_booted().count_tries(0) == 0
