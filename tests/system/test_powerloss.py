"""A room of process blades comes back from a power loss, and from one survivor."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.blankdisks import needs_loop_devices
from tests.scenarios import run_scenario
from tests.toyos import build_toy_os

pytestmark = [pytest.mark.system, needs_loop_devices]


def test_a_room_comes_back_from_a_power_loss_and_from_one_survivor(tmp_path: Path) -> None:
    build_toy_os(snapshot := tmp_path / "snapshot")
    facts = run_scenario("powerloss", tmp_path / "work", "--snapshot", str(snapshot), "--blades", "3")
    loss, promise = facts["power_loss"], facts["promise"]
    assert (loss["kept"], loss["wiped"]) == (["blade02", "blade03"], ["blade01"])
    assert loss["root"] == loss["root_at_end"]
    assert loss["root"] in loss["kept"]
    assert (promise["kept"], promise["wiped"]) == (["blade01"], ["blade02", "blade03"])
    assert promise["root"] == promise["root_at_end"] == "blade01"
    for recovery in (loss, promise):
        assert set(recovery["booted_s"]) == {"blade01", "blade02", "blade03"}
        assert all(recovery["booted_s"][name] > recovery["root_s"] for name in recovery["wiped"])
    assert list(facts["phases_s"]) == ["cluster", "snapshot", "publish", "install", "power-loss", "promise"]
