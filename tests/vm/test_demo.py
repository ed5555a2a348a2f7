"""The whole job, as the demo does it: a real Debian, a root, blades, and a disk that boots alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bladeroot.host.run import run
from bladeroot.lab.demo import FIRMWARES

pytestmark = pytest.mark.vm

_TIMEOUT_S = 2400.0


def test_the_demo(debian_snapshot: Path, tmp_path: Path) -> None:
    del debian_snapshot  # in the cache, so that the demo finds it there
    argv = [
        sys.executable,
        "-m",
        "bladeroot",
        "--json",
        "lab",
        "demo",
        "--blades",
        "2",
        "--work",
        str(tmp_path / "demo"),
    ]
    completed = run(argv, check=False, timeout_s=_TIMEOUT_S)
    assert completed.code == 0, completed.stderr[-4000:]
    report = json.loads(completed.stdout)
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
