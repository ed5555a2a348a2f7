"""The lab's machines and network go with whoever started them; a lab that is up is reached from beside it."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bladeroot.core.cluster import MIB
from bladeroot.errors import ClaimNotHeldError
from bladeroot.host.localsocket import connected_socket
from bladeroot.host.run import DEVNULL, PIPE, Completed, Process, run, start_process
from bladeroot.lab.power import CONSOLE_SOCKET
from bladeroot.lab.vmroom import VmRoom
from tests.toycluster import ToyCluster
from tests.vm.harness import BLADES, needs_room

pytestmark = needs_room

ENDS_WITHIN_S = 30.0
SUPERVISOR = """
import sys, time
from pathlib import Path
from bladeroot.lab.vmroom import open_vm_room, plan_blade
with open_vm_room(Path(sys.argv[1])) as room:
    machine = room.add_blade(plan_blade(1, "vm01"), disk_size_bytes=1 << 20).power_on()
    print(machine.pid, room.segment.holder, flush=True)
    time.sleep(600)
"""


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"  # nobody may be there to reap it


def wait_until(is_so: Callable[[], bool], timeout_s: float = ENDS_WITHIN_S) -> bool:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_everything_ends_with_a_killed_supervisor(tmp_path: Path) -> None:
    with start_process([sys.executable, "-c", SUPERVISOR, tmp_path], stdout=PIPE) as supervisor:
        assert supervisor.stdout is not None
        pids = [int(word) for word in supervisor.stdout.readline().split()]
        assert len(pids) == 2
        assert all(map(is_running, pids))
        supervisor.send_signal(signal.SIGKILL)
        assert wait_until(lambda: not any(map(is_running, pids)))


def test_a_killed_root_leaves_nothing_outside_of_the_rooms_folder(
    room: VmRoom, toy: ToyCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everybodys = tmp_path / "everybodys"
    everybodys.mkdir()
    monkeypatch.setenv("TMPDIR", str(everybodys))
    root = room.start_root(toy.folder.path, toy.depot.path)
    room.wait_for_root(root)
    root.kill()
    assert list((room.work / "tmp").iterdir()), "it had something to leave"
    assert not list(everybodys.iterdir())


def test_a_root_that_cannot_be_one_is_not_waited_for(room: VmRoom, toy: ToyCluster) -> None:
    root = room.start_root(toy.folder.path, toy.depot.path, ["--interface", "none0"])
    with pytest.raises(ClaimNotHeldError, match=r"root ended with exit code 10: .*none0"):
        room.wait_for_root(root)


def test_the_switch_and_the_console_of_a_blade(room: VmRoom) -> None:
    blade = room.add_blade(BLADES[0], disk_size_bytes=MIB)
    machine = blade.power_on("alone")
    with connected_socket(blade.folder, CONSOLE_SOCKET) as console:
        machine.wait_for("SeaBIOS", 60)
        assert console.recv(1), "who is connected reads what goes to the log"
    assert blade.power_on() is machine, "it is on already"
    assert not blade.press_power(1.0), "without an operating system nothing listens to the button"
    assert not blade.is_on
    again = blade.power_on("alone")
    again.wait_for("SeaBIOS", 60)
    blade.cut_power()
    assert blade.log.read_text(errors="replace").count("SeaBIOS (") == 2, "the log is of both"
    assert again.read_console().count("SeaBIOS (") == 1


def lab(work: Path, *words: str) -> Completed:
    return run([sys.executable, "-m", "bladeroot", "lab", words[0], "--work", work, *words[1:]], check=False)


def start_lab(work: Path, snapshot: Path) -> list[str | Path]:
    options: list[str | Path] = [
        "--vm",
        "--blades",
        "1",
        "--firmware",
        "bios",
        "--snapshot",
        snapshot,
        "--work",
        work,
    ]
    return [sys.executable, "-m", "bladeroot", "--json", "lab", "up", *options]


def test_a_lab_is_reached_from_beside_it(toys: ToyCluster, tmp_path: Path) -> None:
    work = tmp_path / "lab"
    with start_process(start_lab(work, toys.snapshot), stdout=PIPE, stderr=DEVNULL) as process:
        blade = wait_until_up(process)
        told = json.loads(lab(work, "status", "--json").stdout)
        assert [one["power"] for one in told["blades"]] == ["on"]
        assert lab(work, "power", blade, "cut").stdout == f"{blade}: power cut\n"
        assert lab(work, "power", blade, "off").stdout == f"{blade}: off already\n"
        refused = lab(work, "power", "web99", "on")
        assert (refused.code, "no blade 'web99'" in refused.stderr) == (2, True)
        status = ("exec", "--", "bladeroot", "status", "--json")
        assert wait_until(lambda: lab(work, *status).code == 0), "the root is found from inside"
        assert "10.77.0.1" in lab(work, *status).stdout
        assert lab(work, "exec", "--", "sh", "-c", "exit 7").code == 7
        second = run(start_lab(work, toys.snapshot), check=False)
        assert (second.code, "a lab is running" in second.stderr) == (2, True)
        assert lab(work, "down").code == 0
        assert process.wait(ENDS_WITHIN_S) == 0
    assert "no lab is running" in lab(work, "status").stderr


def wait_until_up(process: Process) -> str:
    """The blade of the lab, as its facts tell."""
    assert process.stdout is not None
    text = b""
    while line := process.stdout.readline():
        text += line
        if line == b"}\n":
            break
    blades: list[str] = json.loads(text)["blades"]
    return blades[0]
