"""A room that comes back from a power loss and from one survivor, and blades that make each other."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bladeroot.host.run import run
from bladeroot.lab.slots import looked_into
from tests.blankdisks import needs_loop_devices
from tests.system.test_install import OWN
from tests.toyos import build_toy_os
from tests.treecompare import find_tree_differences

pytestmark = [pytest.mark.system, needs_loop_devices]

_TIMEOUT_S = 1500.0
_OWN = OWN | {b"etc/issue.d", b"etc/profile.d", b"etc/systemd", b"usr/local", b"var/log"}
"""The shipped overlay's too."""


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("toy") / "snapshot"
    build_toy_os(path)
    return path


def run_scenario(name: str, snapshot: Path, work: Path, *words: str) -> dict[str, Any]:
    argv = ["lab", "run", name, "--snapshot", str(snapshot), "--work", str(work), *words]
    completed = run([sys.executable, "-m", "bladeroot", "--json", *argv], check=False, timeout_s=_TIMEOUT_S)
    assert completed.code == 0, completed.stderr[-4000:]
    facts: dict[str, Any] = json.loads(completed.stdout)
    return facts


def test_a_room_comes_back_from_a_power_loss_and_from_one_survivor(snapshot: Path, tmp_path: Path) -> None:
    facts = run_scenario("powerloss", snapshot, tmp_path / "work", "--blades", "3")
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


def test_two_blades_make_each_other_and_stay_what_was_published(snapshot: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    facts = run_scenario("replicate", snapshot, work, "--rounds", "3")
    assert len(facts["rounds"]) == 3
    for blade in ("blade01", "blade02"):
        with looked_into(work / "disks" / f"{blade}.img") as tree:
            assert json.loads((tree / "etc/bladeroot/installed.json").read_bytes())["blade"] == blade
            lines = find_tree_differences(snapshot, tree, ignore=_OWN)
            assert [line for line in lines if "usr/share" in line or "bin" in line] == []
            assert lines == [] or all("mtime" in line or line.startswith("rsync: .d..t") for line in lines)
