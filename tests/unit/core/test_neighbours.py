from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.neighbours import ACROSS, NEAR, Neighbours, choose_neighbours


def make_members(count: int) -> dict[str, tuple[str, int]]:
    return {f"web{number:04d}": (f"10.0.{number // 250}.{number % 250 + 1}", 7475) for number in range(count)}


def test_one_is_told_of_few_and_always_the_same() -> None:
    members = make_members(200)
    told = choose_neighbours(members, "web0007", {})
    assert len(told.addresses) == NEAR
    assert not told.are_all
    assert members["web0007"] not in told.addresses
    assert told == choose_neighbours(members, "web0007", {})
    assert told != choose_neighbours(members, "web0008", {})


def test_an_outsider_is_told_too_and_alone_there_is_nobody() -> None:
    assert len(choose_neighbours(make_members(30), "10.0.9.9", {}).addresses) == NEAR
    assert choose_neighbours(make_members(1), "web0000", {}) == Neighbours(())


def test_near_ones_first_and_no_others() -> None:
    members = make_members(90)
    racks: dict[str, str | None] = {name: f"r{number // 30}" for number, name in enumerate(members)}
    told = choose_neighbours(members, "web0000", racks)
    name_of = {address: name for name, address in members.items()}
    inside = [address for address in told.addresses if racks[name_of[address]] == "r0"]
    assert (len(inside), len(told.addresses)) == (NEAR, NEAR + ACROSS)
    assert told.are_all


def test_a_blade_alone_in_its_rack_looks_for_others_everywhere() -> None:
    told = choose_neighbours(make_members(20), "web0000", {"web0000": "r1"})
    assert len(told.addresses) == ACROSS
    assert not told.are_all


@given(st.integers(2, 300), st.integers(1, 12))
def test_there_are_no_islands(count: int, racks: int) -> None:
    members = make_members(count)
    rack_of: dict[str, str | None] = {name: f"r{number % racks}" for number, name in enumerate(members)}
    name_of = {address: name for name, address in members.items()}
    links: dict[str, set[str]] = {name: set() for name in members}
    for name in members:
        for address in choose_neighbours(members, name, rack_of if racks > 1 else {}).addresses:
            links[name].add(name_of[address])
            links[name_of[address]].add(name)
    reached, waiting = {"web0000"}, ["web0000"]
    while waiting:
        for other in links[waiting.pop()] - reached:
            reached.add(other)
            waiting.append(other)
    assert reached == set(members)
