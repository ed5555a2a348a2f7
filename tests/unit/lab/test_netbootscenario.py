from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from bladeroot.core.manifest import Manifest
from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Failed, Finished, Held
from bladeroot.lab.netbootscenario import BladeResult, NetbootReport, NetbootRun
from bladeroot.lab.qemu import VirtualMachine
from bladeroot.lab.roomprocess import RoomProcess
from bladeroot.lab.vmcluster import VmCluster, VmClusterOptions, make_cluster
from bladeroot.lab.vmroom import VmRoom

TOLD = {"blade": "web01", "hostname": "web01", "role": "web", "serial": 4, "failed": []}


class _Serial:
    serial = 4


class _Room:
    def __init__(self) -> None:
        self.work = Path("/work")
        self.blades: dict[str, Any] = {}

    def wait_for_root(self, root: RoomProcess) -> None:
        assert not root.has_ended


class _Root:
    has_ended = False


@pytest.fixture
def scenario(tmp_path: Path) -> NetbootRun:
    folder, key_path = make_cluster(tmp_path, VmClusterOptions(blades=2))
    cluster = VmCluster(
        folder=folder,
        key_path=key_path,
        depot=tmp_path / "depot",
        manifest=cast(Manifest, _Serial()),
        firmwares={"web01": "bios", "cache01": "uefi"},
    )
    return NetbootRun(cluster, cast(VmRoom, _Room()))


def read(scenario: NetbootRun, **other: object) -> BladeResult:
    machine = VirtualMachine(cast(Any, None), Path("/work/log"), Path("/work/errors"))
    return scenario._read_result("web01", json.dumps({**TOLD, **other}), machine)


def test_a_blade_that_is_what_it_should_be(scenario: NetbootRun) -> None:
    result = read(scenario)
    assert (result.blade, result.firmware, result.role, result.serial) == ("web01", "bios", "web", 4)


@pytest.mark.parametrize(
    ("other", "complaint"),
    [
        ({"blade": "cache01"}, "calls itself cache01"),
        ({"hostname": "localhost"}, "has the host name localhost"),
        ({"role": "cache"}, "has the role cache"),
        ({"serial": 3}, "has generation 3"),
        ({"failed": ["nginx.service"]}, "its services failed: nginx.service"),
    ],
)
def test_what_is_wrong_with_a_blade_is_said(
    scenario: NetbootRun, other: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ClaimNotHeldError, match=complaint):
        read(scenario, **other)


def test_a_blade_that_fails_or_is_held_ends_the_waiting_at_once(scenario: NetbootRun) -> None:
    root = cast(RoomProcess, _Root())
    scenario.hear(Finished(subject="web01"))
    scenario.install(root)
    scenario.hear(Failed(subject="web01", text="the disk is broken"))
    scenario.hear(Held(subject="cache01", reason="/dev/vda holds ext4"))
    with pytest.raises(ClaimNotHeldError, match=r"web01 failed: the disk.*; cache01 is held: /dev/vda"):
        scenario.install(root)


def test_the_summary() -> None:
    result = BladeResult(blade="web01", firmware="uefi", hostname="web01", role="web", serial=4)
    report = NetbootReport(phases_s={"install": 50.0, "boot-alone": 10.0}, blades=(result,))
    assert report.lines()[0] == "1 blades, 60 s in all:"
    assert "web01 (web), uefi: netbooted, installed, and up alone with generation 4" in report.lines()
    assert report.facts()["blades"][0]["firmware"] == "uefi"
