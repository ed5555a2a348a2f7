"""While nothing happens the console says so; and what memory an install took."""

from __future__ import annotations

import threading
from pathlib import Path

from bladeroot.agent.installing import _tell_of_silence, read_memory
from bladeroot.events import Event, Note, StepStarted


def test_silence_is_told_with_the_step_that_is_silent() -> None:
    told: list[Event] = []
    heard = threading.Event()

    def console(event: Event) -> None:
        told.append(event)
        heard.set()

    with _tell_of_silence(console, every_s=0.05) as hear:
        hear(StepStarted(step="runtime"))
        assert heard.wait(30)
    assert isinstance(told[0], Note)
    assert told[0].text.startswith("runtime: nothing new for ")


def test_memory_is_read_from_proc(tmp_path: Path) -> None:
    (tmp_path / "self").mkdir()
    (tmp_path / "self/status").write_text("Name:\tx\nVmHWM:\t  2048 kB\n")
    (tmp_path / "meminfo").write_text("MemFree: 1 kB\nMemAvailable:    4096 kB\n")
    assert read_memory(tmp_path) == (2 << 20, 4 << 20)
    assert all(value > 0 for value in read_memory())
