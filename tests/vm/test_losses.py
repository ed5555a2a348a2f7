"""Power loss and self-replication with machines that run a real Debian, as `bladeroot lab run` shows it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bladeroot.host.run import run
from tests.vm.harness import needs_room

pytestmark = needs_room

_TIMEOUT_S = 2400.0


def run_scenario(name: str, work: Path, *words: str) -> dict[str, Any]:
    argv = ["lab", "run", name, "--vm", "--firmware", "bios", "--work", str(work), *words]
    completed = run([sys.executable, "-m", "bladeroot", "--json", *argv], check=False, timeout_s=_TIMEOUT_S)
    assert completed.code == 0, completed.stderr[-4000:]
    facts: dict[str, Any] = json.loads(completed.stdout)
    return facts


def needs_time(config: pytest.Config) -> None:
    if not config.getoption("every_step"):
        pytest.skip("a quarter of an hour: with --every-step")


def test_of_two_machines_one_brings_the_other_back(debian_snapshot: Path, tmp_path: Path) -> None:
    """What is lost is all but one; the survivor becomes root by itself, and answers netboot."""
    del debian_snapshot  # in the cache, so that the scenario finds it there
    facts = run_scenario("powerloss", tmp_path / "work", "--blades", "2")
    loss = facts["power_loss"]
    assert (loss["kept"], loss["wiped"]) == (["web01"], ["cache01"])
    assert loss["root"] == loss["root_at_end"] == "web01"
    assert facts["promise"] is None


def test_a_room_comes_back_from_a_power_loss_and_from_one_survivor(
    debian_snapshot: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    del debian_snapshot
    needs_time(pytestconfig)
    facts = run_scenario("powerloss", tmp_path / "work", "--blades", "3")
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
    facts = run_scenario("replicate", tmp_path / "work", "--rounds", "1")
    assert facts["rounds"][0]["compared_files"] > 10_000, "extras are among them"
