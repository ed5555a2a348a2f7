"""Roots are found across machines, each a network namespace."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bladeroot.host.run import PIPE, run, start_process
from bladeroot.lab.network import LabHost, start_network

pytestmark = pytest.mark.system

REPOSITORY = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60.0

ANNOUNCE = """
import sys
from bladeroot.core.claims import Claim
from bladeroot.net.discovery import announce
blade, epoch = sys.argv[1], int(sys.argv[2])
claim = Claim(cluster_id="0" * 32, epoch=epoch, serial=1, blade=blade, host="unused", port=7474)
with announce(claim):
    print("announced", flush=True)
    sys.stdin.read()
"""
LOOK = """
from bladeroot.errors import BladerootError
from bladeroot.net.discovery import wait_for_root
print("looking", flush=True)
try:
    print(wait_for_root("0" * 32, timeout_s={timeout_s}))
except BladerootError as error:
    print(error.exit_code, error)
"""


def python(host: LabHost, program: str, *arguments: str) -> list[str]:
    argv = host.command([sys.executable, "-c", program, *arguments])
    return [str(part) for part in argv]


def test_two_roots_and_a_blade_that_looks_before_them() -> None:
    """It follows the higher epoch, at the address that it can reach."""
    environment = {"PYTHONPATH": str(REPOSITORY)}
    with start_network("mdns", "10.78.0.0/24") as network:
        one, two, blade = (network.add_host(name) for name in ("one", "two", "blade"))
        look = python(blade, LOOK.format(timeout_s=TIMEOUT_S))
        with start_process(look, stdout=PIPE, environment=environment) as looking:
            assert looking.stdout is not None
            assert looking.stdout.readline() == b"looking\n"
            with start_process(
                python(two, ANNOUNCE, "two", "2"), stdin=PIPE, stdout=PIPE, environment=environment
            ) as newer:
                assert newer.stdout is not None
                assert newer.stdout.readline() == b"announced\n"
                found = looking.stdout.readline().decode().strip()
                assert found == f"root two at {two.address}:7474 (epoch 2, generation 1)"
                with start_process(
                    python(one, ANNOUNCE, "one", "1"), stdin=PIPE, stdout=PIPE, environment=environment
                ) as older:
                    assert older.stdout is not None
                    assert older.stdout.readline() == b"announced\n"
                    again = run(look, environment=environment, timeout_s=TIMEOUT_S).stdout
                    assert again.splitlines()[-1] == found


def test_a_room_without_a_root_says_where_it_looked() -> None:
    with start_network("mdns", "10.78.0.0/24") as network:
        blade = network.add_host("blade")
        said = run(
            python(blade, LOOK.format(timeout_s=2)),
            environment={"PYTHONPATH": str(REPOSITORY)},
            timeout_s=TIMEOUT_S,
        ).stdout.splitlines()[-1]
    assert said.startswith("31 no root of cluster 00000000… found in 2 s on eth0 (10.78.0.1); heard nobody")
