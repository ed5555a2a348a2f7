"""Power loss and self-replication with machines that run a real Debian, as `bladeroot lab run` shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios import run_scenario
from tests.vm.harness import needs_room, needs_time

pytestmark = needs_room

_MACHINES = ("--vm", "--firmware", "bios")
_OTHER_MACHINES = ("--vm", "--firmware", "mixed", "--disk", "sata")
"""The toy's kernel has no driver for these. The one that comes up alone has UEFI. The one that netboots has
not: OVMF gives up after some minutes, and on a busy machine that is before there is a root.
"""


def test_of_two_machines_one_brings_the_other_back(debian_snapshot: Path, tmp_path: Path) -> None:
    """What is lost is all but one; the survivor becomes root by itself, and answers netboot."""
    del debian_snapshot  # in the cache, so that the scenario finds it there
    facts = run_scenario("powerloss", tmp_path / "work", *_OTHER_MACHINES, "--blades", "2")
    loss = facts["power_loss"]
    assert (loss["kept"], loss["wiped"]) == (["web01"], ["cache01"])
    assert loss["root"] == loss["root_at_end"] == "web01"
    assert facts["promise"] is None


def test_a_room_comes_back_from_a_power_loss_and_from_one_survivor(
    debian_snapshot: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    del debian_snapshot
    needs_time(pytestconfig)
    facts = run_scenario("powerloss", tmp_path / "work", *_MACHINES, "--blades", "3")
    loss, promise = facts["power_loss"], facts["promise"]
    assert (loss["kept"], loss["wiped"]) == (["web01", "web02"], ["cache01"])
    assert loss["root"] in loss["kept"]
    assert (promise["kept"], promise["wiped"]) == (["cache01"], ["web01", "web02"])
    assert promise["root"] == promise["root_at_end"] == "cache01"


def test_two_machines_make_each_other(
    debian_snapshot: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    del debian_snapshot
    needs_time(pytestconfig)
    facts = run_scenario("replicate", tmp_path / "work", *_MACHINES, "--rounds", "1")
    assert facts["rounds"][0]["compared_files"] > 10_000, "extras are among them"
