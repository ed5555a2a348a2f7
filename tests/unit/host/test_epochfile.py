"""The epoch in a depot."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.host.epochfile import read_epoch, write_epoch


def test_what_was_noted_is_read(tmp_path: Path) -> None:
    assert read_epoch(tmp_path) == 0
    write_epoch(tmp_path, 7)
    write_epoch(tmp_path, 9)
    assert read_epoch(tmp_path) == 9


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"epoch": "9"}', '{"epoch": -1}', '{"epoch": 1e300}', "\0"]
)
def test_what_makes_no_sense_counts_as_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "epoch.json").write_text(text)
    assert read_epoch(tmp_path) == 0
