from __future__ import annotations

import pytest

from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Booted, Event, Held, Progress, RoleChanged, RootStarted, Warned, ignore
from bladeroot.lab.roomwatch import RoomWatch


def start(blade: str) -> RootStarted:
    return RootStarted(subject=blade, blade=blade, cluster="lab", serial=3, port=7474)


def change(blade: str, role: str) -> RoleChanged:
    return RoleChanged(subject=blade, blade=blade, role=role, epoch=2, serial=3)


def watch(*events: Event) -> RoomWatch:
    watch = RoomWatch(ignore)
    for event in events:
        watch(event)
    return watch


def test_a_reign_begins_when_it_serves_and_ends_with_the_role_or_the_power() -> None:
    watched = watch(change("a", "candidate"), start("a"), change("a", "root"), start("b"))
    assert [one.blade for one in watched.reigns()] == ["a", "b"]
    assert [one.blade for one in watched.reigns(["b", "c"])] == ["b"]
    watched(change("a", "retired"))
    assert watched.wait_for_root(None, 0.0).blade == "b"
    watched.forget("b")
    assert watched.reigns() == []


def test_two_roots_are_not_one() -> None:
    watched = watch(start("a"), start("b"))
    assert watched.wait_for_root(["a"], 0.0).serial == 3
    with pytest.raises(ClaimNotHeldError, match="not one root of the room after 0 s"):
        watched.wait_for_root(None, 0.0)


def test_how_much_of_the_swarm_is_done_never_goes_back() -> None:
    watched = watch(
        Progress(subject="a", step="runtime", done=3, total=4),
        Progress(subject="a", step="runtime", done=2, total=4),
        Progress(subject="a", step="extras", done=4, total=4),
        Progress(subject="c", step="runtime", done=1, total=4),
    )
    assert watched.fetched(["a", "b"]) == 0.375
    watched(Booted(subject="b", serial=1))
    assert watched.fetched(["a", "b"]) == 0.875


def test_who_is_held_is_said_where_something_is_waited_for_in_vain() -> None:
    watched = watch(Held(subject="a", reason="5 tries"), Warned(subject="b", text="look"))
    assert watched.warnings() == ["look"]
    with pytest.raises(ClaimNotHeldError, match="nothing comes after 0 s; a is held: 5 tries"):
        watched.wait(lambda: None, 0.0, "nothing comes")
    watched(Booted(subject="a", serial=1))
    assert watched.held() == []


def test_everything_is_passed_on() -> None:
    heard: list[Event] = []
    RoomWatch(heard.append)(start("a"))
    assert heard == [start("a")]
