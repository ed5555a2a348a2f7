from __future__ import annotations

import io
import json
import re
import threading

import pytest

from bladeroot import events
from bladeroot.errors import DiskBusyError, UsageError
from bladeroot.ui.cli.output import Output, make_facts, make_printable, make_table


class Screen(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def make(**options: bool) -> tuple[Output, io.StringIO, io.StringIO]:
    stdout, stderr = io.StringIO(), io.StringIO()
    return Output(stdout=stdout, stderr=stderr, **options), stdout, stderr


RUN = [
    events.StepStarted(step="pack", title="packing the runtime"),
    events.Progress(step="pack", done=1, total=2),
    events.Warned(text="odd file", hint="look"),
    events.StepFinished(step="pack", duration_s=3.25),
    events.Note(subject="web01", text="here"),
    events.Finished(facts={"serial": 1}),
]


def test_events_are_lines() -> None:
    out, stdout, stderr = make()
    for event in RUN:
        out.reporter(event)

    assert stdout.getvalue() == ""
    assert stderr.getvalue() == (
        "packing the runtime …\nwarning: odd file (look)\npacking the runtime: 3.2 s\nweb01: here\n"
    )


def test_quiet_leaves_warnings() -> None:
    out, _, stderr = make(quiet=True)
    for event in RUN:
        out.reporter(event)
    out.say("hello")

    assert stderr.getvalue() == "warning: odd file (look)\n"


def test_events_are_json_lines() -> None:
    out, stdout, stderr = make(as_json=True)
    for event in RUN:
        out.reporter(event)
    out.facts({"a": 1}, "not this")

    assert [events.from_mapping(json.loads(line)) for line in stderr.getvalue().splitlines()] == RUN
    assert json.loads(stdout.getvalue()) == {"a": 1}


def test_progress_is_one_line_that_makes_room_for_others() -> None:
    screen = Screen()
    out = Output(stdout=io.StringIO(), stderr=screen)
    out.reporter(RUN[0])
    out.reporter(RUN[1])
    out.reporter(events.Note(text="a note"))

    assert screen.getvalue().startswith("\r\x1b[Kpacking the runtime …")
    assert screen.getvalue().endswith("\r\x1b[Ka note\n")


def test_progress_says_what_is_fetched_and_what_is_extracted() -> None:
    screen = Screen()
    out = Output(stdout=io.StringIO(), stderr=screen)
    out.reporter(events.Progress(step="runtime", done=3 << 20, total=4 << 20, extracted=2 << 20))
    assert screen.getvalue().endswith("runtime  75 %  3.0 MiB of 4.0 MiB fetched, 50 % extracted")


def test_a_reporter_never_raises() -> None:
    stderr = io.StringIO()
    out = Output(stdout=io.StringIO(), stderr=stderr)
    stderr.close()

    for event in RUN:
        out.reporter(event)


def test_lines_of_several_threads_stay_whole() -> None:
    out, _, stderr = make()

    def say_much() -> None:
        for _ in range(100):
            out.reporter(events.Note(text="x" * 50))

    threads = [threading.Thread(target=say_much) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert stderr.getvalue() == ("x" * 50 + "\n") * 400


def test_an_error_on_a_terminal_is_wrapped_between_words() -> None:
    screen = Screen()
    Output(stdout=io.StringIO(), stderr=screen).error(DiskBusyError("word " * 40))

    plain = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert plain.split() == ["bladeroot:", *["word"] * 40]
    assert plain.count("\n") > 1


def test_errors() -> None:
    out, _, stderr = make()
    out.error(DiskBusyError("/dev/sdb is mounted", "unmount it"))
    assert stderr.getvalue() == "bladeroot: /dev/sdb is mounted (unmount it)\n"


def test_tables_into_a_pipe_are_not_wrapped_and_have_no_blanks_at_the_end() -> None:
    out, stdout, _ = make()
    table = make_table(["name", "size", "what"], [("a", 1, "x" * 300), ("bcd", 22, None)], right=["size"])
    out.facts([], table)

    assert stdout.getvalue() == f"NAME  SIZE  WHAT\na        1  {'x' * 300}\nbcd     22  -\n"


def test_facts_below_each_other() -> None:
    out, stdout, _ = make()
    out.facts({}, lambda: make_facts([("name", "lab"), ("kernel line", "[red]quiet[/]")]))

    assert stdout.getvalue() == "name         lab\nkernel line  [red]quiet[/]\n"


def test_names_cannot_steer_the_terminal() -> None:
    assert make_printable("a\x1b[2Jb\tc\udcff\u202e") == "a\\x1b[2Jb\tc\\xdcff\\x202e"


def test_bytes_are_not_for_terminals() -> None:
    with pytest.raises(UsageError, match="a terminal cannot show"):
        Output(stdout=Screen(), stderr=io.StringIO()).binary()
