from __future__ import annotations

import os
import select
import signal
import sys
from pathlib import Path

import pytest

from bladeroot.errors import MissingToolError, ToolError
from bladeroot.host.run import PIPE, find_tool, run, start_process

_DEADLINE_S = 30.0


def test_output_is_text_and_input_is_given() -> None:
    completed = run(["cat"], stdin="hello\n")
    assert (completed.code, completed.stdout) == (0, "hello\n")


def test_a_program_that_is_missing_is_named_with_its_package() -> None:
    with pytest.raises(MissingToolError, match="no-such-program") as caught:
        run(["no-such-program"])
    assert "apt install" in caught.value.hint
    with pytest.raises(MissingToolError):
        find_tool("no-such-program")


def test_a_failure_is_its_command_and_the_last_it_said() -> None:
    with pytest.raises(ToolError, match=r"sh -c .*: one . the last word"):
        run(["sh", "-c", "echo one >&2; echo the last word >&2; exit 3"])
    assert run(["sh", "-c", "exit 3"], check=False).code == 3


def test_a_program_that_was_killed_says_so() -> None:
    with pytest.raises(ToolError, match="killed by signal 9"):
        run(["sh", "-c", "kill -9 $$"])


def test_what_takes_too_long_is_ended() -> None:
    with pytest.raises(ToolError, match=r"not done after 0\.2 s"):
        run(["sleep", "60"], timeout_s=0.2)


def test_a_child_does_not_outlive_its_block() -> None:
    with start_process(["sleep", "600"]) as process:
        assert process.poll() is None
    assert process.poll() == -signal.SIGTERM


def has_ended(pid: int) -> bool:
    """Whether the process ends in time; one that is a zombie has."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], _DEADLINE_S)[0])
    finally:
        os.close(descriptor)


def test_a_child_takes_its_group_with_it(tmp_path: Path) -> None:
    said = tmp_path / "child"
    script = f"sleep 600 & echo $! > {said}.new; mv {said}.new {said}; wait"
    with start_process(["sh", "-c", script], new_group=True):
        while not said.exists():
            os.sched_yield()
        child = int(said.read_text())
    assert has_ended(child)


def test_a_child_that_shall_end_with_its_parent_does_so_even_if_that_is_killed() -> None:
    code = (
        "import sys\n"
        "from bladeroot.host.run import start_process\n"
        "with start_process(['sleep', '600'], ends_with_parent=True) as child:\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with start_process([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        while Path(f"/proc/{child}/comm").read_text() != "sleep\n":  # setpriv has done its work by then
            os.sched_yield()
        parent.kill()
        assert has_ended(child)
