from __future__ import annotations

from bladeroot.lab.witness import RoomView, SeenBlade, parse_view, render_view

UP = SeenBlade(phase="up", serial=3, holds=3, order=7)


def test_a_view_survives_being_a_line() -> None:
    held = SeenBlade(phase="held", serial=0, holds=0, failure='the disk holds "ext4"')
    view = RoomView(roots={"web01": {"web01": UP, "web02": held}, "web03": {}})
    assert parse_view(render_view(view).encode()) == view
    assert parse_view(render_view(RoomView()).encode()) == RoomView()


def test_who_is_root_is_said_only_of_one() -> None:
    one, two = RoomView(roots={"web01": {"web01": UP}}), RoomView(roots={"web01": {"web01": UP}, "web02": {}})
    assert (one.root, one.blades) == ("web01", {"web01": UP})
    assert (two.root, two.blades) == ("", {})
    assert (RoomView().root, RoomView().blades) == ("", {})


def test_a_blade_is_whole_that_runs_and_holds_the_generation() -> None:
    assert UP.is_whole(3)
    assert not UP.is_whole(4)
    assert not SeenBlade(phase="up", serial=3, holds=0).is_whole(3)
    assert not SeenBlade(phase="up", serial=2, holds=3).is_whole(3)
    assert not SeenBlade(phase="finished", serial=3, holds=3).is_whole(3)
