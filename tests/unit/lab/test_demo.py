from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bladeroot.core.cluster import Blade
from bladeroot.errors import ClaimNotHeldError
from bladeroot.lab.demo import ROLES, BootResult, _check_boot
from bladeroot.ops.folder import ClusterFolder, init_cluster


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
