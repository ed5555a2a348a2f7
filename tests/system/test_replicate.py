"""Two process blades make each other, again and again, and stay what was published."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bladeroot.lab.slots import looked_into
from tests.blankdisks import needs_loop_devices
from tests.scenarios import run_scenario
from tests.system.test_install import OWN
from tests.toyos import build_toy_os
from tests.treecompare import find_tree_differences

pytestmark = [pytest.mark.system, needs_loop_devices]

_OVERLAY = {
    b"etc/issue.d",
    b"etc/profile.d",
    b"etc/systemd",
    b"usr/local",
}
"""What the shipped overlay writes. (The toy has none of these folders.)"""
_TIMES_OF_FOLDERS = re.compile(r"(rsync: \.d\.\.t\S* )?(\.|etc|usr|var|var/lib)/?(: mtime.*)?")


def test_two_blades_make_each_other_and_stay_what_was_published(tmp_path: Path) -> None:
    build_toy_os(snapshot := tmp_path / "snapshot")
    work = tmp_path / "work"
    facts = run_scenario("replicate", work, "--snapshot", str(snapshot), "--rounds", "3")
    assert len(facts["rounds"]) == 3
    assert {one["compared_files"] for one in facts["rounds"]} == {count_files(snapshot)}
    for blade in ("blade01", "blade02"):
        with looked_into(work / "disks" / f"{blade}.img") as tree:
            assert json.loads((tree / "etc/bladeroot/installed.json").read_bytes())["blade"] == blade
            lines = find_tree_differences(snapshot, tree, ignore=OWN | _OVERLAY)
            assert [line for line in lines if not _TIMES_OF_FOLDERS.fullmatch(line)] == []


def count_files(snapshot: Path) -> int:
    """Regular files that no overlay replaces."""
    replaced = {snapshot / "etc/hostname"}
    return sum(
        path.is_file() and not path.is_symlink() and path not in replaced for path in snapshot.rglob("*")
    )
