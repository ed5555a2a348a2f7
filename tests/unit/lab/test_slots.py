from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bladeroot.lab.slots import IDENTITY, WRITTEN_WHILE_UP, count_compared, find_differences, may_differ

OWN = frozenset({*IDENTITY, *WRITTEN_WHILE_UP, "etc/hostname", "srv/old"})
NANOSECOND = 1


def make_tree(folder: Path) -> Path:
    for name in ("etc/ssh", "usr/bin", "var/log", "srv"):
        (folder / name).mkdir(parents=True)
    (folder / "usr/bin/tool").write_text("tool\n")
    os.link(folder / "usr/bin/tool", folder / "usr/bin/same")
    (folder / "usr/bin/link").symlink_to("tool")
    (folder / "etc/hostname").write_text("one\n")
    return folder


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    first = make_tree(tmp_path / "a")
    second = tmp_path / "b"
    shutil.copytree(first, second, symlinks=True)
    (second / "usr/bin/same").unlink()
    os.link(second / "usr/bin/tool", second / "usr/bin/same")
    for path in (first / "usr/bin/tool", first / "usr/bin"):
        facts = path.stat()
        os.utime(second / path.relative_to(first), ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return first, second


def test_what_is_a_blades_own_may_differ(trees: tuple[Path, Path]) -> None:
    first, second = trees
    assert find_differences(first, second, OWN) == []
    (second / "etc/hostname").write_text("two\n")
    (second / "etc/ssh/ssh_host_rsa_key").write_text("key\n")
    (second / "var/log/nginx").mkdir()
    (second / "var/log/nginx/access.log").write_text("once\n")
    (first / "srv/old").mkdir()
    (first / "srv/old/file").touch()
    assert find_differences(first, second, OWN) == []


def test_files_that_may_differ_are_not_counted(trees: tuple[Path, Path]) -> None:
    assert count_compared(trees[0], OWN) == len(("tool", "same"))
    (trees[0] / "var/log/syslog").touch()
    (trees[0] / "usr/bin/new").touch()
    assert count_compared(trees[0], OWN) == len(("tool", "same", "new"))


def _change_content(tree: Path) -> None:
    facts = (tree / "usr/bin/tool").stat()
    (tree / "usr/bin/tool").write_text("fool\n")
    os.utime(tree / "usr/bin/tool", ns=(facts.st_atime_ns, facts.st_mtime_ns))


def _change_time(tree: Path) -> None:
    facts = (tree / "usr/bin/tool").stat()
    os.utime(tree / "usr/bin/tool", ns=(facts.st_atime_ns, facts.st_mtime_ns + NANOSECOND))


def _copy_link(tree: Path) -> None:
    (tree / "usr/bin/same").unlink()
    shutil.copy2(tree / "usr/bin/tool", tree / "usr/bin/same")


def _retarget(tree: Path) -> None:
    (tree / "usr/bin/link").unlink()
    (tree / "usr/bin/link").symlink_to("same")


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": _change_content,
    "time": _change_time,
    "hard link": _copy_link,
    "target": _retarget,
    "mode": lambda tree: (tree / "usr/bin/tool").chmod(0o4755),
    "attribute": lambda tree: os.setxattr(tree / "usr/bin/tool", "user.of", b"one"),
    "more": lambda tree: (tree / "usr/bin/new").touch(),
    "less": lambda tree: (tree / "usr/bin/same").unlink(),
    "mode of a directory": lambda tree: (tree / "var/log").chmod(0o700),
}


@pytest.mark.parametrize("what", CHANGES)
@pytest.mark.parametrize("which", [0, 1])
def test_anything_else_may_not(trees: tuple[Path, Path], what: str, which: int) -> None:
    CHANGES[what](trees[which])
    assert find_differences(*trees, OWN)


@pytest.mark.parametrize(
    ("line", "may"),
    [
        (">fcst...... etc/hostname", True),
        (">fcst...... etc/hostname2", False),
        (".d..t...... etc/", True),
        (".d..t...... ./", True),
        (".d..tp..... etc/", False),
        (".d..t...... usr/", False),
        ("*deleting   srv/old/file", True),
        ("*deleting   srv/other", False),
        ("cL+++++++++ etc/hostname -> elsewhere", True),
        ("what rsync never said", False),
    ],
)
def test_items(line: str, may: bool) -> None:
    assert may_differ(line, OWN) is may
