from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attrs import frozen

from bladeroot.ui.cli import main


@frozen
class Ran:
    """What a command line did."""

    code: int
    out: str
    err: str

    @property
    def facts(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`bladeroot WORD …` with a home, a cluster folder (not made yet) and a depot of its own."""
    for name in list(os.environ):
        if name.startswith(("BLADEROOT_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BLADEROOT_CLUSTER", str(tmp_path / "lab"))
    monkeypatch.setenv("BLADEROOT_DEPOT", str(tmp_path / "depot"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)

    def run_words(*words: str) -> Ran:
        capsys.readouterr()
        try:
            code = main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return run_words
