"""Events as words on the console; the kernel's command line as arguments."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.agent.arguments import AgentArguments, Then, parse_arguments
from bladeroot.agent.console import Console, find_consoles
from bladeroot.agent.words import Narrator
from bladeroot.core.agentdecision import Why
from bladeroot.events import (
    Event,
    Failed,
    Finished,
    Held,
    Note,
    Progress,
    StepFinished,
    StepStarted,
    SwarmStats,
    Warned,
)

MIB = 1 << 20
SWARM = SwarmStats(artefact="x", peers=1, sources=1, have_bytes=1, total_bytes=2, down_bytes=1, up_bytes=0)


@pytest.mark.parametrize(
    ("event", "lines"),
    [
        (StepStarted(step="format", title="Make filesystems"), ["step format: Make filesystems"]),
        (StepFinished(step="format", duration_s=0.3), []),
        (StepFinished(step="format", duration_s=12.4), ["format done in 12 s"]),
        (Note(text="found it"), ["found it"]),
        (Warned(text="odd", hint="look"), ["WARNING: odd", "  look"]),
        (Failed(text="no disk", hint="plug one in"), ["FAILED: no disk", "  plug one in"]),
        (Finished(facts={}), ["done"]),
        (
            Finished(facts={"blade": "web01", "disk": "/dev/vda", "serial": 3}),
            ["web01 is installed on /dev/vda: generation 3"],
        ),
        (
            Finished(facts={"blade": "web01", "disk": "/dev/vda", "serial": 3, "complete": False}),
            ["web01 is installed on /dev/vda: generation 3; it fetches its extras when it is up"],
        ),
        (SWARM, []),
    ],
)
def test_an_event_in_words(event: Event, lines: list[str]) -> None:
    assert Narrator().tell(event, 0.0) == lines


def test_a_machine_on_hold_says_why_and_what_to_do() -> None:
    lines = Narrator().tell(Held(reason="the disk holds ntfs", hint="`bladeroot reimage web01`"), 0.0)
    assert lines[:2] == ["HELD: the disk holds ntfs", "  `bladeroot reimage web01`"]
    assert "nothing is written" in lines[2]


def test_progress_is_a_line_in_two_seconds_with_its_rate() -> None:
    narrator = Narrator()
    narrator.tell(StepStarted(step="runtime", title="Fetch"), 10.0)
    told = [
        line
        for tenth in range(1, 61)
        for line in narrator.tell(
            Progress(step="runtime", done=tenth * MIB, total=100 * MIB), 10.0 + tenth / 10
        )
    ]
    assert told == [
        "runtime 20 % of 100 MiB, 10.0 MiB/s",
        "runtime 40 % of 100 MiB, 10.0 MiB/s",
        "runtime 60 % of 100 MiB, 10.0 MiB/s",
    ]


def test_what_is_extracted_is_told_beside_what_is_fetched() -> None:
    narrator = Narrator()
    narrator.tell(StepStarted(step="runtime"), 0.0)
    progress = Progress(step="runtime", done=40 * MIB, total=100 * MIB, extracted=30 * MIB)
    assert narrator.tell(progress, 4.0) == ["runtime 40 % of 100 MiB, 10.0 MiB/s, 30 % extracted"]


def test_progress_without_a_total_and_in_other_units() -> None:
    narrator = Narrator()
    narrator.tell(StepStarted(step="x"), 0.0)
    assert narrator.tell(Progress(step="x", done=4 * MIB, total=0), 4.0) == ["x 4.0 MiB, 1.0 MiB/s"]
    assert narrator.tell(Progress(step="x", done=3, total=7, unit="blades"), 8.0) == ["x 3 of 7 blades"]


def test_the_command_line_says_where_to_begin() -> None:
    line = (
        "console=ttyS0 bladeroot.root=10.0.0.1:7474 bladeroot.mac=52-54-00-00-00-01 bladeroot.why=no-boot"
        " bladeroot.blade=web07 bladeroot.debug bladeroot.then=poweroff quiet"
    )
    assert parse_arguments(line) == AgentArguments(
        root="10.0.0.1:7474",
        mac="52:54:00:00:00:01",
        why=Why.NO_BOOT,
        blade="web07",
        debug=True,
        then=Then.POWER_OFF,
    )


@pytest.mark.parametrize(
    "line",
    ["", "quiet", "bladeroot.mac=rubbish bladeroot.why=because bladeroot.blade=../x bladeroot.then=dance"],
)
def test_what_makes_no_sense_has_its_default(line: str) -> None:
    assert parse_arguments(line) == AgentArguments()


def test_the_disks_own_loader_says_so() -> None:
    assert parse_arguments("bladeroot.from=disk bladeroot.why=no-boot").why is Why.DISK


def test_every_console_gets_every_line(tmp_path: Path) -> None:
    names = ["tty0", "ttyS0"]
    active = tmp_path / "active"
    active.write_text("tty0 ttyS0 ttyS9\n")
    for name in names:
        (tmp_path / name).touch()
    paths = find_consoles(active, tmp_path)
    assert [path.name for path in paths] == names
    console = Console([*paths, tmp_path / "gone/ttyS9"])
    console(StepStarted(step="drivers", title="Load drivers"))
    console(Note(text="two\nlines\x1b[2J"))
    console.flush()
    for path in paths:
        assert path.read_text() == "bladeroot: step drivers: Load drivers\nbladeroot: two lines [2J\n"


def test_without_knowing_it_is_the_kernels_own(tmp_path: Path) -> None:
    assert find_consoles(tmp_path / "none", Path("/dev")) == [Path("/dev/console")]
