"""The frame: help, global options, and one place where errors become text."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys

import pytest

from bladeroot import __version__, errors
from bladeroot.core.clusterfile import CLUSTER_KEYS, NETWORK_KEYS, SECTIONS, STRANGERS_KEYS
from bladeroot.ui import cli
from bladeroot.ui.cli.blades import show
from bladeroot.ui.cli.output import Output
from tests.unit.ui.cli.conftest import Run


def verbs_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def pages() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for name, parser in verbs_of(cli.build_parser()).items():
        found += [(name,), *((name, inner) for inner in verbs_of(parser))]
    return found


@pytest.mark.parametrize("words", pages(), ids=" ".join)
def test_every_page_has_the_same_shape(run: Run, words: tuple[str, ...]) -> None:
    page = run(*words, "--help")

    assert page.code == 0
    headings = re.findall(r"^([A-Z ]+)$", page.out, re.MULTILINE)
    assert headings[:2] == ["NAME", "USAGE"]
    assert "GLOBAL OPTIONS" in headings
    assert re.search(rf"^  bladeroot {' '.join(words)} - \S", page.out, re.MULTILINE)
    commands = re.compile(r"^  \$ .*\n", re.MULTILINE)  # for copying: never wrapped
    assert max(len(line) for line in commands.sub("", page.out).splitlines()) <= 80
    assert run("help", *words).out == page.out


def test_the_front_page_lists_every_verb_in_its_order(run: Run) -> None:
    page = run("--help").out

    listed = re.findall(r"^  ([\w-]+) +\S", page[page.index("VERBS") : page.index("OPTIONS")], re.MULTILINE)
    assert listed == list(verbs_of(cli.build_parser()))
    assert [verb for verb in cli.VERBS if verb in listed] == listed


def test_headings_are_bold_for_people_only(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "\x1b" not in run("help", "blades").out
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["help", "blades"]) == 0
    assert "\x1b[1mUSAGE\x1b[0m\n" in capsys.readouterr().out
    assert "\\x1b" not in run("help", "blades").out
    assert "\x1b" not in run("help", "blades", "--json").facts["help"]


def test_version(run: Run) -> None:
    assert run("--version").out == f"bladeroot {__version__}\n"


def test_exit_codes_are_those_of_the_classes(run: Run) -> None:
    listed = {entry["name"]: entry["exit_code"] for entry in run("help", "exit-codes", "--json").facts}

    assert listed.pop("Success") == 0
    assert listed == {found.__name__: found.exit_code for found in errors.iter_error_classes()}
    assert re.search(r"^ +11  InventoryError +The inventory", run("help", "exit-codes").out, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "`bladeroot` needs a verb"),
        (("balde",), "no verb 'balde' in bladeroot (did you mean 'blades'?)"),
        (("blades",), "`bladeroot blades` needs a verb"),
        (("blades", "sett"), "no verb 'sett' in bladeroot blades (did you mean 'set'?)"),
        (("blades", "list", "--color"), "no option '--color' in bladeroot blades list"),
        (("blades", "--jso", "list"), "no option '--jso' in bladeroot blades (did you mean '--json'?)"),
        (("help", "nope"), "no help on 'nope'"),
        (("help", "blades", "nope"), "no help on 'blades nope'"),
    ],
)
def test_usage_errors_are_one_line_and_code_2(run: Run, words: tuple[str, ...], said: str) -> None:
    ran = run(*words)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"bladeroot: {said}")
    assert ran.err.count("\n") == 1


def test_errors_are_json_too(run: Run) -> None:
    assert json.loads(run("--json", "balde").err) == {
        "error": "no verb 'balde' in bladeroot",
        "hint": "did you mean 'blades'?",
        "exit_code": 2,
    }
    ran = run("blades", "list", "--json")
    assert ran.code == errors.ConfigError.exit_code == json.loads(ran.err)["exit_code"]


def test_global_options_stand_before_or_after_the_verb(run: Run) -> None:
    run("init", "other", "--blades", "web01=web")
    before = run("--cluster", "other", "--json", "blades", "list")
    after = run("blades", "list", "--json", "--cluster", "other")
    between = run("blades", "--json", "--cluster", "other", "list")

    assert before.facts == after.facts == between.facts
    assert before.facts[0]["name"] == "web01"


def raising(error: BaseException) -> object:
    def run_list(_args: argparse.Namespace, _out: Output) -> int:
        raise error

    return run_list


def test_help_explains_every_key_of_the_inventory(run: Run) -> None:
    text = run("help", "cluster.toml").out
    keys = [
        *CLUSTER_KEYS,
        *NETWORK_KEYS,
        *STRANGERS_KEYS,
        *(key for _, keys in SECTIONS.values() for key in keys),
    ]
    missing = {key.name for key in keys} - set(re.findall(r"(\w+) = ", text))
    assert not missing
    assert run("help", "cluster.toml", "--json").facts == {"help": text}


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (
            errors.DiskBusyError("/dev/sdb is mounted", "unmount it"),
            42,
            "/dev/sdb is mounted (unmount it)",
        ),
        (KeyboardInterrupt(), 130, "stopped"),
        (PermissionError(13, "Permission denied", "/etc/x"), 3, "/etc/x: Permission denied ("),
        (OSError(28, "No space left on device", "/srv/x"), 24, "/srv/x: No space left on device (make room"),
        (OSError(5, "Input/output error"), 1, "Input/output error (a disk fails"),
        (FileNotFoundError(2, "No such file or directory", "/etc/x"), 1, "/etc/x: No such file or directory"),
        (ValueError("odd"), 1, "this is a bug: ValueError: odd (run it again with --debug"),
    ],
)
def test_every_failure_is_one_line_with_its_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    monkeypatch.setattr(show, "run_list", raising(error))

    ran = run("blades", "list")

    assert ran.code == code
    assert ran.err.startswith(f"bladeroot: {said}")
    assert ran.err.count("\n") == 1


def test_tracebacks_are_for_debugging(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "run_list", raising(ValueError("odd")))

    assert "Traceback" in run("blades", "list", "--debug").err
    monkeypatch.setenv("BLADEROOT_DEBUG", "1")
    assert "Traceback" in run("blades", "list").err


def test_a_reader_that_leaves_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bladeroot", "help", "exit-codes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        said = process.stderr.read()

    assert (process.returncode, said) == (cli.EXIT_PIPE_CLOSED, b"")


def test_one_verb_starts_without_the_others_libraries() -> None:
    code = (
        "import sys; from bladeroot.ui.cli import build_parser; build_parser(['--json', 'blades', 'list']);"
        "sys.exit(bool({'libtorrent', 'zeroconf', 'aiohttp'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
