from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import pytest

from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.events import ignore
from bladeroot.lab.bladeroom import BladeRoom
from bladeroot.lab.powerlossscenario import PowerlossReport, run_powerloss
from bladeroot.lab.recovery import Recovery, describe, is_room_whole, look
from bladeroot.lab.replicatescenario import ReplicateReport, Round
from bladeroot.lab.vmcluster import VmClusterOptions
from bladeroot.lab.witness import RoomView, SeenBlade, Witness

UP = SeenBlade(phase="up", serial=1, holds=1)
RECOVERY = Recovery(
    kept=("web02", "web03"),
    wiped=("web01",),
    booted_s={"web01": 20.0, "web02": 1.0, "web03": 2.0},
    root="web02",
    root_s=7.5,
    root_at_end="web02",
    whole_s=22.0,
)


class _Manifest:
    serial = 1


class _Cluster:
    manifest = _Manifest()


class _Room:
    names = ("web01", "web02")
    cluster = _Cluster()


class _Witness:
    def __init__(self, blades: Mapping[str, SeenBlade]) -> None:
        self.view = RoomView(roots={"web01": blades})

    def look(self) -> RoomView:
        return self.view


ROOM = cast(BladeRoom, _Room())


def is_whole(view: RoomView, *names: str) -> bool:
    return is_room_whole(ROOM, view, names)


def test_a_room_is_whole_with_one_root_and_all_blades() -> None:
    both = {"web01": UP, "web02": UP}
    assert is_whole(RoomView(roots={"web01": both}))
    assert not is_whole(RoomView())
    assert not is_whole(RoomView(roots={"web01": both, "web02": both}))
    assert not is_whole(RoomView(roots={"web01": {"web01": UP}}))
    assert is_whole(RoomView(roots={"web01": {"web01": UP}}), "web01")
    late = SeenBlade(phase="up", serial=1, holds=0)
    view = RoomView(roots={"web01": {"web01": UP, "web02": late}})
    assert not is_whole(view)
    assert describe(ROOM, view) == "roots: web01; web01 up, runs 1, holds 1; web02 up, runs 1, holds 0"


@pytest.mark.parametrize("phase", ["failed", "held"])
def test_a_blade_that_goes_no_further_ends_the_waiting(phase: str) -> None:
    bad = SeenBlade(phase=phase, serial=0, holds=0, failure="the disk is broken")
    with pytest.raises(ClaimNotHeldError, match=f"web02 is {phase}: the disk is broken"):
        look(cast(Witness, _Witness({"web01": UP, "web02": bad})))
    assert look(cast(Witness, _Witness({"web02": UP}))).root == "web01"


def test_the_summary_of_a_power_loss() -> None:
    assert RECOVERY.root_after_s == 5.5
    report = PowerlossReport(phases_s={"install": 10.0}, power_loss=RECOVERY, promise=RECOVERY)
    lines = report.lines()
    assert lines[0] == "3 blades, 10 s in all:"
    assert "power loss, and web01 with an empty disk:" in lines
    assert "  root: web02, at 8 s (+5.5 s)" in lines
    facts: dict[str, Any] = json.loads(json.dumps(report.facts()))
    assert facts["root_after_s"] == {"power_loss": 5.5, "promise": 5.5}
    assert facts["promise"]["whole_s"] == 22.0
    alone = PowerlossReport(phases_s={}, power_loss=RECOVERY, promise=None)
    assert alone.facts()["root_after_s"] == {"power_loss": 5.5}
    assert not any("all lost but" in line for line in alone.lines())


def test_the_summary_of_a_replication() -> None:
    one = Round(there_s=20.0, promoted_s=1.0, back_s=30.0, compared_files=47)
    report = ReplicateReport(phases_s={"round-1": 60.0}, rounds=(one,))
    assert report.lines()[-1].startswith("round 1: A reimaged B in 20 s")
    assert report.facts()["rounds"][0]["compared_files"] == 47


def test_one_blade_has_nobody_to_come_back_from(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="one blade alone"):
        run_powerloss(tmp_path, VmClusterOptions(blades=1), ignore)
