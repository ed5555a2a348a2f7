"""What tests of several layers share."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from bladeroot.errors import PrivilegeError
from bladeroot.host.mounts import enter_own_namespace
from bladeroot.ops.snapshots.debian import ensure_cached_debian

DEMO_PACKAGES = ("memcached", "nginx-light")


@pytest.fixture(scope="session")
def debian_snapshot() -> Path:
    """A real Debian without bladeroot, from the cache; not to be changed (`clone_snapshot` copies it)."""
    if os.geteuid() != 0:
        pytest.skip("making a Debian snapshot needs root")
    return ensure_cached_debian(include=DEMO_PACKAGES)


def pytest_sessionstart() -> None:
    """Of tests side by side, each side has its own mounts: a program that one side starts would otherwise
    hold what the other has mounted just then, for as long as it runs.
    """
    if os.geteuid() == 0 and "PYTEST_XDIST_WORKER" in os.environ:
        with suppress(PrivilegeError):  # those that mount say so themselves
            enter_own_namespace()


def pytest_addoption(parser: pytest.Parser) -> None:
    """For whoever has the time."""
    parser.addoption(
        "--every-step",
        action="store_true",
        help="power cuts: at every step of the agent on an empty disk and in a reimage, not in turn; "
        "real Debians: a life over the network, the loss of two of three, two that make each other",
    )


_LONGEST_FIRST = (
    "test_power_cut",
    "test_losses",
    "test_netboot",
    "test_demo",
    "test_install",
)
"""Test files that take minutes: begun last, they would be waited for with one CPU idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order whole files; within one, tests stay as they are written."""

    def rank(item: pytest.Item) -> int:
        return _LONGEST_FIRST.index(item.path.stem) if item.path.stem in _LONGEST_FIRST else 99

    items.sort(key=rank)
