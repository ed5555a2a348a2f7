from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from bladeroot.ui.cli.lab.terminal import LEAVE, copy_both_ways
from bladeroot.ui.cli.lab.up import describe
from tests.unit.ui.cli.conftest import Run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("up", "--blades", "2"), "say --vm"),
        (("run", "netboot", "--blades", "2"), "say --vm"),
        (("up", "--vm", "--firmware", "coreboot"), "invalid choice: 'coreboot'"),
        (("status", "--work", "nowhere"), "no lab is running in nowhere"),
        (("power", "--work", "nowhere", "web01", "cut"), "no lab is running in nowhere"),
        (("console", "--work", "nowhere", "web01"), "no lab is running in nowhere"),
        (("exec", "--work", "nowhere"), "nothing to run"),
        (("exec", "--work", "nowhere", "--", "true"), "no lab is running in nowhere"),
        (("down", "--work", "nowhere"), "no lab is running in nowhere"),
    ],
)
def test_what_makes_no_sense_is_one_line(run: Run, words: tuple[str, ...], said: str) -> None:
    ran = run("lab", *words)
    assert ran.code == 2
    assert said in ran.err
    assert len(ran.err.splitlines()) <= 2


def test_what_to_try_next_names_the_labs_folder_where_it_is_not_the_usual_one() -> None:
    assert any("bladeroot lab down " in line for line in describe(Path("/var/lib/bladeroot-lab"), "web01"))
    lines = describe(Path("/srv/lab"), "web01")
    assert any("bladeroot lab exec --work /srv/lab -- bladeroot status" in line for line in lines)
    assert any("bladeroot lab console --work /srv/lab web01" in line for line in lines)


def test_a_terminal_on_a_serial_line_ends_with_the_leaving_key_or_the_line() -> None:
    line, machine = socket.socketpair()
    keyboard, typing = os.pipe()
    shown, screen = os.pipe()
    with line, machine:
        machine.sendall(b"login: ")
        os.write(typing, b"root\n" + LEAVE + b"not sent")
        copy_both_ways(line, keyboard, screen)
        assert machine.recv(100) == b"root\n"
        assert os.read(shown, 100) == b"login: "
        machine.close()
        copy_both_ways(line, keyboard, screen)
    for descriptor in (keyboard, typing, shown, screen):
        os.close(descriptor)
