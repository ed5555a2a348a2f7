"""A virtual machine that does not do what is waited for is one clear line, at once."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bladeroot.errors import ClaimNotHeldError
from bladeroot.lab.qemu import boot

pytestmark = [
    pytest.mark.vm,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    path = tmp_path / "empty, disk.img"
    with path.open("wb") as stream:
        stream.truncate(1 << 20)
    return path


def test_a_machine_that_ended_fails_at_once_and_says_why(empty: Path, tmp_path: Path) -> None:
    arguments = ("-device", "no-such-device")
    with (
        boot(empty, "bios", log=tmp_path / "log", extra_arguments=arguments) as machine,
        pytest.raises(ClaimNotHeldError, match=r"ended without.*no-such-device"),
    ):
        machine.wait_for("login:", 600)


def test_waiting_has_an_end_and_the_machine_too(empty: Path, tmp_path: Path) -> None:
    with boot(empty, "bios", log=tmp_path / "log") as machine:
        with pytest.raises(ClaimNotHeldError, match=r"no 'login:' after 0\.5 s") as caught:
            machine.wait_for("login:", 0.5)
        assert str(tmp_path / "log") in caught.value.hint
        with pytest.raises(ClaimNotHeldError, match="still on"):
            machine.wait_until_ended(0.1)
    assert machine.has_ended()


def test_power_cut(empty: Path, tmp_path: Path) -> None:
    with boot(empty, "bios", log=tmp_path / "log") as machine:
        machine.cut_power()
        assert machine.has_ended()
        assert machine.wait_until_ended(1) == -9
