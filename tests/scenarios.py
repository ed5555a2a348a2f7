"""Scenarios of the lab, run as a person runs them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from bladeroot.host.run import run

_TIMEOUT_S = 2400.0


def run_scenario(name: str, work: Path, *words: str) -> dict[str, Any]:
    """`bladeroot lab run NAME` in that folder: its facts. Its claim must hold."""
    argv = ["lab", "run", name, "--work", str(work), *words]
    completed = run([sys.executable, "-m", "bladeroot", "--json", *argv], check=False, timeout_s=_TIMEOUT_S)
    assert completed.code == 0, completed.stderr[-4000:]
    facts: dict[str, Any] = json.loads(completed.stdout)
    return facts
