"""The agent's decision: each line of its table, and what must never come out of it."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.agentdecision import (
    FRESH_S,
    FRUITLESS_VISITS,
    MAX_TRIES,
    BootLocally,
    Decision,
    DiskFacts,
    DiskState,
    Hold,
    Install,
    Why,
    count_tries,
    decide,
    take_over,
    with_tries,
)
from bladeroot.core.orders import Order

CLUSTER = "0" * 32
NEWEST = 7
NOW = FRESH_S + 3
"""Orders with a number below 3 are older than a day."""
BLANK = DiskFacts(state=DiskState.BLANK)
OURS = DiskFacts(state=DiskState.OURS)
FOREIGN = DiskFacts(state=DiskState.FOREIGN, path="/dev/vda", holds="an ext4 filesystem")
COMMITTED = DiskFacts(state=DiskState.COMMITTED, blade="web01", serial=6, order=100)


def order(number: int, *, serial: int | None = None, wipe_data: bool = False, blade: str = "web01") -> Order:
    return Order(cluster_id=CLUSTER, number=number, blades=(blade,), serial=serial, wipe_data=wipe_data)


def told(disk: DiskFacts, *orders: Order, why: Why = Why.UNKNOWN) -> Decision:
    return decide("web01", disk, newest=NEWEST, orders=orders, why=why, now_s=NOW)


@pytest.mark.parametrize("disk", [BLANK, OURS])
def test_what_nobody_misses_is_installed_with_the_newest(disk: DiskFacts) -> None:
    assert attrs.evolve(_install(told(disk)), reason="") == Install(serial=NEWEST, reason="")


def test_foreign_data_waits_for_an_order() -> None:
    decision = told(FOREIGN)
    assert isinstance(decision, Hold)
    assert decision.reason == "/dev/vda holds an ext4 filesystem"
    assert "bladeroot reimage web01" in decision.hint
    assert _install(told(FOREIGN, order(3))).order == 3


def test_an_order_of_long_ago_was_not_about_the_foreign_disk_that_is_there_now() -> None:
    assert isinstance(told(FOREIGN, order(2)), Hold)
    assert _install(told(BLANK, order(2))).order == 2
    decision = decide("web01", FOREIGN, newest=NEWEST, orders=[order(2 * NOW)], now_s=NOW)
    assert isinstance(decision, Hold), "nor one that comes from a time that is not yet"


def test_an_order_of_long_ago_was_about_the_disk_that_was_there_then() -> None:
    old = order(2, serial=3, wipe_data=True)
    decision = _install(told(BLANK, old))
    assert (decision.serial, decision.order, decision.wipe_data) == (NEWEST, 2, False)
    assert take_over(old, decision) == order(2)
    of_another = attrs.evolve(COMMITTED, blade="web02", order=0)
    assert isinstance(told(of_another, old), Hold)
    assert _install(told(attrs.evolve(COMMITTED, order=0), old)).serial == 3
    assert _install(told(OURS, order(2))).order == 2


def test_an_order_is_for_the_blades_it_names() -> None:
    assert isinstance(told(COMMITTED, order(200, blade="web02")), BootLocally)


def test_an_order_is_done_once_and_older_ones_never() -> None:
    assert _install(told(COMMITTED, order(101))).order == 101
    assert isinstance(told(COMMITTED, order(100), order(99)), BootLocally)


def test_an_order_says_which_generation_even_a_lower_one() -> None:
    decision = _install(told(COMMITTED, order(101, serial=2, wipe_data=True)))
    assert (decision.serial, decision.wipe_data, decision.anew) == (2, True, True)


def test_a_cut_off_reimage_goes_on_as_it_was_ordered() -> None:
    assert _install(told(attrs.evolve(OURS, order=100), order(101, serial=2))).serial == 2


def test_fruitless_visits_lead_to_an_install() -> None:
    disk = COMMITTED
    for _visit in range(FRUITLESS_VISITS):
        assert told(disk, why=Why.NO_BOOT) == BootLocally(reason="the disk has generation 6", counts=True), (
            disk.visits
        )
        disk = attrs.evolve(disk, visits=disk.visits + 1)
    assert _install(told(disk, why=Why.NO_BOOT)).serial == NEWEST


@pytest.mark.parametrize("why", [Why.ORDER, Why.DISK])
def test_a_root_that_repeats_an_order_says_nothing_of_the_disk(why: Why) -> None:
    decision = told(attrs.evolve(COMMITTED, visits=9), order(100), why=why)
    assert isinstance(decision, BootLocally)
    assert not decision.counts


def test_a_dead_disk_with_more_on_it_than_ours_waits() -> None:
    disk = attrs.evolve(COMMITTED, visits=2, holds="a partition scratch")
    assert isinstance(told(disk, why=Why.NO_BOOT), Hold)


def test_another_blades_disk_waits() -> None:
    decision = told(attrs.evolve(COMMITTED, blade="web02", visits=9), why=Why.NO_BOOT)
    assert isinstance(decision, Hold)
    assert "installed as web02" in decision.reason


def test_what_a_committed_slot_lacks_is_fetched_without_writing_over_it() -> None:
    disk = attrs.evolve(COMMITTED, serial=NEWEST, is_complete=False)
    assert _install(told(disk, why=Why.ORDER)).anew is False
    assert isinstance(told(with_tries(disk, 0, MAX_TRIES), why=Why.ORDER), BootLocally)
    assert isinstance(told(attrs.evolve(disk, serial=6), why=Why.ORDER), BootLocally)


@pytest.mark.parametrize("why", [Why.ORDER, Why.DISK, Why.NO_BOOT, Why.UNKNOWN])
def test_what_its_daemon_fetches_is_left_to_it(why: Why) -> None:
    disk = attrs.evolve(COMMITTED, serial=NEWEST, is_complete=False, completes_itself=True)
    decision = told(disk, why=why)
    assert isinstance(decision, BootLocally)
    assert decision.counts is (why in (Why.NO_BOOT, Why.UNKNOWN))
    assert _install(told(disk, order(101), why=why)).anew
    assert _install(told(attrs.evolve(disk, visits=FRUITLESS_VISITS), why=Why.NO_BOOT)).anew


def test_a_new_order_releases_what_the_cap_holds() -> None:
    disk = with_tries(OURS, 0, MAX_TRIES)
    assert isinstance(told(disk), Hold)
    assert _install(told(disk, order(101))).order == 101
    assert isinstance(told(with_tries(disk, 101, MAX_TRIES), order(101)), Hold)
    assert _install(told(with_tries(disk, 101, MAX_TRIES), order(101), order(102))).order == 102


def test_tries_count_for_their_order_only() -> None:
    disk = with_tries(OURS, 5, 3)
    assert (count_tries(disk, 5), count_tries(disk, 0)) == (3, 0)
    assert count_tries(with_tries(disk, 5, 1), 5) == 3


NUMBERS = st.integers(1, 6)
ORDERS = st.lists(
    st.builds(
        Order,
        cluster_id=st.just(CLUSTER),
        number=NUMBERS,
        blades=st.sampled_from([("web01",), ("web02",), ("web01", "web02")]),
        serial=st.none() | st.integers(1, 9),
        wipe_data=st.booleans(),
    ),
    max_size=4,
)
DISKS = st.builds(
    DiskFacts,
    state=st.sampled_from(DiskState),
    holds=st.sampled_from(["", "a partition"]),
    blade=st.sampled_from(["", "web01", "web02"]),
    serial=st.integers(0, 9),
    is_complete=st.booleans(),
    completes_itself=st.booleans(),
    order=st.integers(0, 6),
    visits=st.integers(0, 5),
    tries_order=st.integers(0, 6),
    tries=st.integers(0, 7),
)


@given(disk=DISKS, orders=ORDERS, newest=st.integers(1, 9), why=st.sampled_from(Why))
def test_nothing_is_written_over_without_a_good_reason(
    disk: DiskFacts, orders: list[Order], newest: int, why: Why
) -> None:
    decision = decide("web01", disk, newest=newest, orders=orders, why=why, now_s=NOW)
    if not isinstance(decision, Install):
        return
    open_numbers = {order.number for order in orders if "web01" in order.blades and order.number > disk.order}
    newest_order = max(open_numbers, default=0)
    is_for_the_disk_before = newest_order < NOW - FRESH_S and disk.blade == "web02"
    if is_for_the_disk_before and disk.state is DiskState.OURS:
        newest_order = 0
    assert decision.order == newest_order, "the newest open order, or none"
    assert count_tries(disk, decision.order) < MAX_TRIES
    if decision.order:
        assert disk.state is not DiskState.FOREIGN or decision.order >= NOW - FRESH_S
        return
    assert disk.state is not DiskState.FOREIGN
    assert not decision.wipe_data
    assert decision.serial == newest
    if disk.state is DiskState.COMMITTED and decision.anew:
        assert disk.visits >= FRUITLESS_VISITS
        assert why not in (Why.ORDER, Why.DISK)
        assert not disk.holds
        assert disk.blade in ("", "web01")


@given(orders=ORDERS, disk=DISKS, whys=st.lists(st.sampled_from([Why.ORDER, Why.DISK]), max_size=30))
def test_whatever_is_repeated_a_blade_that_boots_installs_each_order_at_most_once(
    orders: list[Order], disk: DiskFacts, whys: list[Why]
) -> None:
    """Installs end well here, and roots forget: each visit may bring any of the orders again."""
    done: list[int] = []
    disk = attrs.evolve(disk, tries=0, is_complete=True, blade="web01", state=DiskState.COMMITTED)
    for turn, why in enumerate(whys):
        shown = orders[turn % (len(orders) + 1) :]
        decision = decide("web01", disk, newest=NEWEST, orders=shown, why=why, now_s=NOW)
        if isinstance(decision, Install):
            done.append(decision.order)
            disk = attrs.evolve(disk, order=decision.order, serial=decision.serial)
    assert done == sorted(set(done)), "each number once, ascending, and never without one"


@given(orders=ORDERS, disk=DISKS, turns=st.integers(1, 60))
def test_installs_that_fail_for_ever_end_in_a_hold(orders: list[Order], disk: DiskFacts, turns: int) -> None:
    """Each begun install is noted, and none ends well: after the cap nothing is tried any more."""
    disk = attrs.evolve(disk, tries=0)
    begun = 0
    for _turn in range(turns):
        decision = decide("web01", disk, newest=NEWEST, orders=orders, why=Why.NO_BOOT, now_s=NOW)
        if isinstance(decision, Install):
            begun += 1
            disk = with_tries(disk, decision.order, count_tries(disk, decision.order) + 1)
    assert begun <= MAX_TRIES


def _install(decision: Decision) -> Install:
    assert isinstance(decision, Install), decision
    return decision
