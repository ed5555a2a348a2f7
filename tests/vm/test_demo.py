"""The whole job, as the demo does it: a real Debian, blades that install, boot alone, and are root."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from bladeroot.core.cluster import GIB
from bladeroot.host.blockdev import open_disk, read_table
from bladeroot.host.mounts import mounted, mounted_chroot
from bladeroot.host.run import DEVNULL, run, start_process
from bladeroot.lab.demo import FIRMWARES
from bladeroot.lab.network import start_network

pytestmark = pytest.mark.vm

_TIMEOUT_S = 2400.0


@frozen
class Demo:
    """What a run of the demo left, and said."""

    work: Path
    report: dict[str, Any]


@pytest.fixture(scope="module")
def demo(debian_snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Demo:
    del debian_snapshot  # in the cache, so that the demo finds it there
    work = tmp_path_factory.mktemp("demo") / "work"
    command = [
        sys.executable,
        "-m",
        "bladeroot",
        "--json",
        "lab",
        "demo",
        "--blades",
        "2",
        "--work",
        str(work),
    ]
    completed = run(command, check=False, timeout_s=_TIMEOUT_S)
    assert completed.code == 0, completed.stderr[-4000:]
    return Demo(work, json.loads(completed.stdout))


def test_every_blade_is_installed_and_one_boots_as_what_it_should_be(demo: Demo) -> None:
    report = demo.report
    assert report["blades"] == ["cache01", "web01"]
    assert report["installed_bytes"] > 2 * report["image_bytes"]
    assert 0 < report["root_copies"] <= 2.1
    running = {"web": "nginx.service", "cache": "memcached.service"}
    assert {boot["firmware"] for boot in report["boots"]} == set(FIRMWARES)
    for boot in report["boots"]:
        others = [service for role, service in running.items() if role != boot["role"]]
        assert (boot["active"], boot["inactive"]) == ([running[boot["role"]]], others)
        assert boot["blade"] == f"{boot['role']}01"
        assert boot["failed"] == []


@contextmanager
def opened_blade(disk: Path, work: Path) -> Iterator[Path]:
    """An installed blade's tree with its own depot mounted, as it is when it runs."""
    with ExitStack() as stack:
        opened = stack.enter_context(open_disk(disk))
        table = read_table(opened)
        assert table is not None
        numbers = {partition.label: partition.number for partition in table.partitions}
        slot = stack.enter_context(mounted(opened.partition(numbers["BR-A"]), work))
        stack.enter_context(mounted(opened.partition(numbers["BR-DATA"]), slot / "var/lib/bladeroot"))
        yield stack.enter_context(mounted_chroot(slot))


def test_an_installed_blade_is_root_with_what_is_on_its_own_disk(demo: Demo, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(6 * GIB)
    with (
        start_network("next") as network,
        opened_blade(demo.work / "disks/web01.img", tmp_path / "web01") as tree,
    ):
        root = network.add_host("web01").command(
            ["chroot", str(tree), "/usr/bin/bladeroot", "promote", "--blade", "web01"]
        )
        blade = network.add_host("cache01")
        install = [sys.executable, "-m", "bladeroot", "--json", "--cluster", str(demo.work / "cluster")]
        install += ["install", "--blade", "cache01", "--disk", str(disk), "--yes"]
        with start_process(root, stdout=DEVNULL, stderr=DEVNULL):
            completed = run(blade.command(install), check=False, timeout_s=_TIMEOUT_S)
    assert completed.code == 0, completed.stderr[-4000:]
    assert json.loads(completed.stdout)["blade"] == "cache01"
