from __future__ import annotations

import io
import os
import time
from pathlib import Path

import pytest

from bladeroot.errors import ToolError
from bladeroot.host import limited
from bladeroot.host.limited import MOST_LOGGED_BYTES, TAIL_BYTES, run_limited
from bladeroot.host.run import Argument


def sh(text: str) -> list[Argument]:
    return ["/bin/sh", "-c", text]


def is_running(pid: int) -> bool:
    """A zombie does not count: whoever adopted it has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.01)


def test_output_code_and_environment() -> None:
    log = io.BytesIO()
    ended = run_limited(
        sh("echo out; echo err >&2; env; exit 3"), environment={"ONLY": "this"}, timeout_s=60, log=log
    )
    assert ended.code == 3
    assert ended.tail == log.getvalue()
    lines = set(ended.tail.decode().split())
    assert {"out", "err", "ONLY=this"} <= lines
    assert not any(line.startswith(("HOME=", "BLADEROOT", "PYTHON")) for line in lines)


def test_it_reads_nothing_and_stands_at_the_root() -> None:
    assert run_limited(sh("read line || pwd"), environment={}, timeout_s=60).tail == b"/\n"


def test_much_output_is_cut_in_the_log_and_its_end_kept() -> None:
    log = io.BytesIO()
    program = "head -c 3000000 /dev/zero | tr '\\0' x; echo the end"
    ended = run_limited(sh(program), environment={"PATH": os.defpath}, timeout_s=60, log=log)
    assert len(ended.tail) == TAIL_BYTES
    assert ended.tail.endswith(b"x" * 100 + b"the end\n")
    assert MOST_LOGGED_BYTES < len(log.getvalue()) < MOST_LOGGED_BYTES + 100


def test_what_takes_too_long_is_killed_with_all_that_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limited, "_GRACE_S", 0.2)
    program = "trap '' TERM; sleep 1000 & echo $!; echo begun; while :; do sleep 0.1; done"
    ended = run_limited(sh(program), environment={"PATH": os.defpath}, timeout_s=0.5)
    assert ended.code is None
    pid, _, said = ended.tail.decode().partition("\n")
    assert said.startswith("begun")
    wait_until_gone(int(pid))


def test_what_it_leaves_running_is_killed_and_does_not_hold_it_up() -> None:
    started = time.monotonic()
    ended = run_limited(sh("sleep 1000 & echo $!"), environment={"PATH": os.defpath}, timeout_s=900)
    assert ended.code == 0
    wait_until_gone(int(ended.tail))
    assert time.monotonic() - started < 60


def test_a_program_that_closes_its_output_is_waited_for() -> None:
    program = "exec >&- 2>&-; sleep 0.3; exit 7"
    assert run_limited(sh(program), environment={"PATH": os.defpath}, timeout_s=60).code == 7


def test_what_cannot_be_started(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/no/such/shell\n")
    program.chmod(0o755)
    with pytest.raises(ToolError, match="No such file"):
        run_limited([str(program)], environment={}, timeout_s=60)
