"""dnsmasq under care: a real one that is given other configurations, and one that cannot start."""

from __future__ import annotations

import socket
from contextlib import closing

import pytest

from bladeroot.errors import NetworkError
from bladeroot.events import Event, Warned
from bladeroot.host.dnsmasq import Dnsmasq
from bladeroot.host.run import run

pytestmark = pytest.mark.system


@pytest.fixture
def port() -> int:
    """A free one."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configure(port: int, address: str) -> str:
    lines = [f"port={port}", "listen-address=127.0.0.1", "bind-interfaces", "no-hosts", "no-resolv"]
    return "\n".join([*lines, f"host-record=web01.toy.lan,{address}"]) + "\n"


def look_up(port: int) -> str:
    argv = ["busybox", "nslookup", "-type=a", "web01.toy.lan", f"127.0.0.1:{port}"]
    return run(argv, check=False, timeout_s=60).stdout


def test_another_configuration_is_in_force_and_no_end_of_it(port: int) -> None:
    heard: list[Event] = []
    with Dnsmasq(configure(port, "10.1.0.1"), heard.append) as dnsmasq:
        assert "10.1.0.1" in look_up(port)
        for number in range(2, 8):
            dnsmasq.reconfigure(configure(port, f"10.1.0.{number}"))
        while "10.1.0.7" not in (said := look_up(port)):
            assert "can't" in said or "refused" in said or not said, said  # it is starting
        with pytest.raises(NetworkError, match="bad option"):
            dnsmasq.reconfigure("no-such-option\n")
        assert "10.1.0.7" in look_up(port), "what it had goes on"
    assert not any(isinstance(event, Warned) for event in heard)
    assert "10.1.0.7" not in look_up(port)


def test_a_configuration_that_cannot_run_is_given_up(port: int) -> None:
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as other,
        Dnsmasq(configure(port, "10.1.0.1"), lambda _event: None) as dnsmasq,
    ):
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(NetworkError, match="Address already in use"):
            dnsmasq.reconfigure(configure(other.getsockname()[1], "10.1.0.2"))
        while "10.1.0.1" not in (said := look_up(port)):
            assert "can't" in said or "refused" in said or not said, said  # it is starting


def test_a_port_that_is_taken_is_one_line(port: int) -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        with (
            pytest.raises(NetworkError, match="Address already in use") as caught,
            Dnsmasq(configure(port, "10.1.0.1"), lambda _event: None),
        ):
            pass
    assert "stop it" in caught.value.hint
