"""Loop devices: whose they are, and that they go with their last user."""

from __future__ import annotations

import fcntl
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bladeroot.core.cluster import MIB
from bladeroot.host import loopdev
from bladeroot.host.loopdev import attached_loop, find_loops
from tests.blankdisks import make_disk, needs_loop_devices

pytestmark = [pytest.mark.system, needs_loop_devices]


def test_another_who_was_faster_keeps_its_device_no_longer_than_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both were told the same free device; who came second takes the next, and lets go of the first."""
    mine, theirs = make_disk(tmp_path / "mine", MIB), make_disk(tmp_path / "theirs", MIB)
    plain_ioctl = fcntl.ioctl
    with ExitStack() as other:

        def be_overtaken(descriptor: int, request: int, *argument: Any) -> Any:
            if request == loopdev._LOOP_CONFIGURE:
                monkeypatch.setattr(fcntl, "ioctl", plain_ioctl)
                taken.append(other.enter_context(attached_loop(theirs)))
            return plain_ioctl(descriptor, request, *argument)

        taken: list[Path] = []
        monkeypatch.setattr(fcntl, "ioctl", be_overtaken)
        with attached_loop(mine) as device:
            assert find_loops(theirs) == taken != [device]
            assert find_loops(mine) == [device]
            other.close()
            assert find_loops(theirs) == []
        assert find_loops(mine) == []
