"""Whether an installed tree will run bladeroot's daemon."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bladeroot.host.depot import DEFAULT_DEPOT
from bladeroot.ops.owndaemon import runs_daemon
from bladeroot.ops.snapshots.selfcopy import SERVICE_TEXT
from tests.toyos import put_daemon_into

ETC = "etc/systemd/system"
WANTS = f"{ETC}/multi-user.target.wants/bladeroot.service"
UNIT = "usr/lib/systemd/system/bladeroot.service"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    put_daemon_into(tmp_path)
    (tmp_path / "etc/bladeroot").mkdir()
    (tmp_path / "etc/bladeroot/cluster.toml").write_text('name = "toy"\n')
    return tmp_path


def link(tree: Path, name: str, target: str) -> None:
    (tree / name).unlink(missing_ok=True)
    (tree / name).symlink_to(target)


def test_it_starts_when_its_depot_is_mounted() -> None:
    after = [line for line in SERVICE_TEXT.splitlines() if line.startswith("After=")]
    assert str(DEFAULT_DEPOT) == "/var/lib/bladeroot"
    assert ["var-lib-bladeroot.mount" in line.split() for line in after] == [True]


def test_one_that_is_there_and_enabled_runs(tree: Path) -> None:
    assert runs_daemon(tree)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tree: (tree / WANTS).unlink(),
        lambda tree: (tree / UNIT).unlink(),
        lambda tree: (tree / UNIT).write_text(""),
        lambda tree: (tree / "usr/bin/bladeroot").unlink(),
        lambda tree: (tree / "usr/bin/bladeroot").chmod(0o644),
        lambda tree: (tree / "etc/bladeroot/cluster.toml").unlink(),
        lambda tree: link(tree, f"{ETC}/bladeroot.service", "/dev/null"),
        lambda tree: link(tree, WANTS, "/dev/null"),
        lambda tree: link(tree, UNIT, "bladeroot.service"),
        lambda tree: link(tree, "usr/bin/bladeroot", "/usr/bin/env"),
    ],
    ids=[
        *("disabled", "no unit", "empty unit", "no program", "no program any more", "no cluster"),
        *("masked", "taken out of the target", "a loop", "a program that only this machine has"),
    ],
)
def test_one_that_something_keeps_from_it_does_not(tree: Path, spoil: Callable[[Path], object]) -> None:
    spoil(tree)
    assert not runs_daemon(tree)


def test_the_links_of_a_distribution_are_followed_inside_the_tree(tree: Path) -> None:
    (tree / "lib").symlink_to("usr/lib")
    link(tree, WANTS, "/lib/systemd/system/bladeroot.service")
    (tree / "usr/bin/bladeroot").rename(tree / "usr/bin/bladeroot-1")
    link(tree, "usr/bin/bladeroot", "/usr/bin/bladeroot-1")
    assert runs_daemon(tree)


def test_an_operators_own_unit_goes_before(tree: Path) -> None:
    (tree / ETC / "bladeroot.service").write_text("[Service]\nExecStart=/usr/bin/bladeroot daemon -v\n")
    (tree / UNIT).unlink()
    link(tree, WANTS, f"/{ETC}/bladeroot.service")
    assert runs_daemon(tree)


def test_an_empty_tree_has_none(tmp_path: Path) -> None:
    assert not runs_daemon(tmp_path)
    assert not runs_daemon(tmp_path / "nothing")
