"""A real Debian all the way, as `bladeroot lab run` shows it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bladeroot.host.run import run
from tests.vm.harness import needs_room, needs_time

pytestmark = needs_room

TIMEOUT_S = 1500.0


def test_a_real_debian_netboots_installs_and_boots_alone(
    debian_snapshot: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """What test_losses does not show of it: that it is sent to its own disk, and boots without a network."""
    del debian_snapshot  # in the cache, so that the scenario finds it there
    needs_time(pytestconfig)
    # UEFI: of 512 MiB it leaves the agent less than BIOS does.
    work = str(tmp_path / "work")
    words = ["lab", "run", "netboot", "--vm", "--blades", "1", "--firmware", "uefi", "--disk", "sata"]
    words += ["--work", work]
    completed = run([sys.executable, "-m", "bladeroot", "--json", *words], check=False, timeout_s=TIMEOUT_S)
    assert completed.code == 0, completed.stderr[-4000:]
    report = json.loads(completed.stdout)
    assert report["blades"] == [
        {"blade": "web01", "firmware": "uefi", "hostname": "web01", "role": "web", "serial": 1}
    ]
    events = [json.loads(line) for line in completed.stderr.splitlines() if line.startswith("{")]
    installed = [one["facts"] for one in events if one["event"] == "Finished" and one["subject"] == "web01"]
    assert {facts["disk"] for facts in installed} == {"/dev/sda"}, "the toy's kernel has no driver for this"
    assert list(report["phases_s"]) == [
        "cluster",
        "snapshot",
        "publish",
        "install",
        "first-boot",
        "boot-alone",
    ]
