"""Signals to this very process, at chosen instants."""

# ruff: noqa: PT012 - where in its block a signal raises is what these are about.

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.errors import BladerootError
from bladeroot.host import interrupts
from bladeroot.host.files import scratch_folder
from bladeroot.host.interrupts import allowed, check, deferred, uninterrupted, was_requested
from bladeroot.host.run import run

reached: list[str] = []


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    reached.clear()
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with interrupts.handled(restore=True):
        yield
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    assert not was_requested()


def send(number: int = signal.SIGTERM) -> None:
    """The handler runs before this returns (signal.raise_signal)."""
    signal.raise_signal(number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_raises_at_once_and_once_only(number: int) -> None:
    assert not was_requested()
    with pytest.raises(KeyboardInterrupt):
        send(number)
    send(signal.SIGINT)
    send(signal.SIGTERM)
    check()
    assert was_requested()
    assert interrupts.requested.is_set()


def test_deferred_work_is_stopped_where_it_looks() -> None:
    with pytest.raises(KeyboardInterrupt), deferred():
        send()
        reached.append("after the signal")
        check()
        reached.append("never")
    assert reached == ["after the signal"]


def test_deferred_work_that_never_looks_is_stopped_at_its_end() -> None:
    with pytest.raises(KeyboardInterrupt):
        with deferred():
            with deferred():
                send()
            reached.append("the outer block goes on")
        reached.append("never")
    assert reached == ["the outer block goes on"]


def test_deferred_work_is_stopped_at_once_where_that_is_allowed() -> None:
    with pytest.raises(KeyboardInterrupt), deferred():
        reached.append("before")
        with allowed():
            send()
            reached.append("never")
    assert reached == ["before"]


def test_what_is_allowed_does_not_begin_when_a_signal_has_come() -> None:
    with pytest.raises(KeyboardInterrupt), deferred():
        send()
        with allowed():
            reached.append("never")
    assert reached == []


def test_nothing_stops_what_must_not_be_interrupted() -> None:
    with pytest.raises(KeyboardInterrupt):
        with uninterrupted():
            send()
            check()
            with deferred(), allowed():
                reached.append("inside")
            assert interrupts.is_uninterrupted()
            assert was_requested()
        reached.append("never")
    assert reached == ["inside"]


def test_an_error_that_follows_from_a_signal_is_the_signal() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, deferred():
        send()
        raise BladerootError("a child was stopped too")
    assert isinstance(caught.value.__context__, BladerootError)


def test_other_threads_change_nothing() -> None:
    def work() -> None:
        with uninterrupted(), deferred(), allowed():
            reached.append("worked")
            check()

    with pytest.raises(KeyboardInterrupt), deferred():
        send()
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert reached == ["worked"]


def test_a_scratch_folder_goes_however_its_making_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mkdtemp(prefix: str, dir: Path) -> str:  # noqa: A002
        path = dir / prefix
        path.mkdir()
        send()
        return str(path)

    monkeypatch.setattr("bladeroot.host.files.tempfile.mkdtemp", mkdtemp)
    with pytest.raises(KeyboardInterrupt), scratch_folder("new", tmp_path):
        reached.append("never")
    assert (list(tmp_path.iterdir()), reached) == ([], [])


def test_a_scratch_folder_goes_with_what_is_in_it(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), scratch_folder("new", tmp_path) as folder:
        (folder / "a").mkdir()
        send()
    assert list(tmp_path.iterdir()) == []


def test_a_program_is_ended_and_what_must_not_be_interrupted_is_waited_for(tmp_path: Path) -> None:
    tell = f"kill -TERM {os.getpid()}; "
    with pytest.raises(KeyboardInterrupt), deferred():
        run(["sh", "-c", f"{tell} exec sleep 1000"])
    marker = tmp_path / "done"
    with interrupts.handled(restore=True):
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            run(["sh", "-c", f"{tell} sleep 0.2; echo yes >{marker}"])
        assert marker.read_text() == "yes\n"


def test_a_process_that_is_over_keeps_its_exit_code() -> None:
    program = (
        "import os, signal\n"
        "from bladeroot.host import interrupts\n"
        "with interrupts.handled(restore=False):\n"
        "    pass\n"
        "os.kill(os.getpid(), signal.SIGTERM)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
        "raise SystemExit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 7
