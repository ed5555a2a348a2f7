"""A toy generation for all tests, and a room for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.lab.vmroom import VmRoom, open_vm_room
from tests.toycluster import ToyCluster
from tests.vm.harness import Heard, make_toys, with_own_depot


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    """Published once; not to be changed."""
    return make_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture
def toy(toys: ToyCluster, tmp_path: Path) -> ToyCluster:
    """The same with a depot of its own."""
    return with_own_depot(toys, tmp_path / "depot")


@pytest.fixture
def heard() -> Heard:
    """What roots in `room` tell."""
    return Heard()


@pytest.fixture
def room(tmp_path: Path, heard: Heard) -> Iterator[VmRoom]:
    """An empty room, without a root."""
    with open_vm_room(tmp_path / "room", heard) as room:
        yield room
