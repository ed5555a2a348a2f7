from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from bladeroot.errors import ToolError
from bladeroot.host.restart import RESTART_LIMIT_S, restart_in_order


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that notes what it was asked, and whether the limit was there by then."""
    folder = tmp_path / "bin"
    folder.mkdir()
    log = tmp_path / "calls"
    program = folder / "systemctl"
    limit = tmp_path / "root/run/systemd/system/reboot.target.d/50-bladeroot.conf"
    program.write_text(
        "#!/bin/sh\n"
        f'[ -s {limit} ] && echo "$*" >> {log}\n'
        f"[ ! -e {tmp_path}/broken ] || {{ echo no bus >&2; exit 1; }}\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("bladeroot.host.run._SEARCH_PATH", f"{folder}:/usr/bin:/bin")
    return log


def test_the_limit_is_known_before_the_restart_begins(calls: Path, tmp_path: Path) -> None:
    for _ in range(2):
        restart_in_order(tmp_path / "root")
    assert calls.read_text().splitlines() == ["daemon-reload", "--no-block reboot"] * 2
    unit = configparser.ConfigParser()
    unit.read(tmp_path / "root/run/systemd/system/reboot.target.d/50-bladeroot.conf")
    assert unit["Unit"]["JobTimeoutSec"] == f"{RESTART_LIMIT_S}s"
    assert unit["Unit"]["JobTimeoutAction"] == "reboot-force"


@pytest.mark.usefixtures("calls")
def test_an_init_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "broken").touch()
    with pytest.raises(ToolError, match="no bus"):
        restart_in_order(tmp_path / "root")
