from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.host.bootarguments import find_named_root


@pytest.mark.parametrize(
    ("line", "root"),
    [
        ("quiet bladeroot.root=10.2.0.5:7474 ro\n", "10.2.0.5:7474"),
        ("bladeroot.root=a:1 bladeroot.root=b:2", "b:2"),
        ("bladeroot.root=a:1 bladeroot.root=", None),
        ("xbladeroot.root=a:1 bladeroot.rooted=b", None),
        ("", None),
        ("bladeroot.root=\udcff", "�"),
    ],
)
def test_the_last_one_named_counts(tmp_path: Path, line: str, root: str | None) -> None:
    path = tmp_path / "cmdline"
    path.write_bytes(line.encode(errors="surrogateescape"))
    assert find_named_root(path) == root


def test_a_machine_without_a_command_line_names_none(tmp_path: Path) -> None:
    assert find_named_root(tmp_path / "none") is None
