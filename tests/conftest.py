"""What tests of several layers share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bladeroot.ops.snapshots.debian import ensure_cached_debian

DEMO_PACKAGES = ("memcached", "nginx-light")


@pytest.fixture(scope="session")
def debian_snapshot() -> Path:
    """A real Debian without bladeroot, from the cache; not to be changed (`clone_snapshot` copies it)."""
    if os.geteuid() != 0:
        pytest.skip("making a Debian snapshot needs root")
    return ensure_cached_debian(include=DEMO_PACKAGES)
