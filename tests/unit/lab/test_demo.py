from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bladeroot.core.cluster import Blade
from bladeroot.errors import ClaimNotHeldError, UsageError
from bladeroot.lab.demo import ROLES, BootResult, _check_boot, _make_work_folder
from bladeroot.ops.folder import ClusterFolder, init_cluster


def test_a_folder_of_somebody_elses_is_not_emptied(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("four years")
    with pytest.raises(UsageError, match="no earlier demo made it"):
        _make_work_folder(theirs)
    with pytest.raises(UsageError):
        _make_work_folder(theirs / "thesis.tex")
    assert (theirs / "thesis.tex").read_text() == "four years"


def test_a_new_or_empty_folder_is_taken_and_its_own_is_emptied(tmp_path: Path) -> None:
    work = tmp_path / "empty"
    work.mkdir()
    for folder in (work, tmp_path / "new/deep"):
        _make_work_folder(folder)
        (folder / "left over").touch()
        _make_work_folder(folder)
        assert not (folder / "left over").exists()


@pytest.fixture
def folder(tmp_path: Path) -> ClusterFolder:
    return init_cluster(
        tmp_path / "cluster",
        roles=list(ROLES.values()),
        blades=[Blade(name="web01", role="web"), Blade(name="cache01", role="cache")],
        secret_key_path=tmp_path / "key",
    ).folder


GOOD = BootResult(
    firmware="bios",
    blade="web01",
    role="web",
    serial=1,
    active=("nginx.service",),
    inactive=("memcached.service",),
    failed=(),
)


def test_a_boot_as_it_should_be(folder: ClusterFolder) -> None:
    _check_boot(GOOD, "web01", folder, 1)


@pytest.mark.parametrize(
    ("result", "complaint"),
    [
        (attrs.evolve(GOOD, blade="cache01"), "calls itself cache01"),
        (attrs.evolve(GOOD, role="cache"), "role cache, not web"),
        (attrs.evolve(GOOD, serial=2), "generation 2, not 1"),
        (attrs.evolve(GOOD, active=()), "nginx.service does not run"),
        (attrs.evolve(GOOD, inactive=()), "memcached.service runs"),
        (attrs.evolve(GOOD, failed=("nginx.service",)), "nginx.service failed"),
    ],
    ids=["name", "role", "generation", "its service", "another's service", "failed"],
)
def test_what_is_wrong_with_a_boot_is_said(folder: ClusterFolder, result: BootResult, complaint: str) -> None:
    with pytest.raises(ClaimNotHeldError, match=complaint):
        _check_boot(result, "web01", folder, 1)
