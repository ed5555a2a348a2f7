"""Which interface comes first, and what is written for the resolver."""

from __future__ import annotations

from bladeroot.core.hardware import Nic
from bladeroot.host.links import choose_order, render_resolv_conf

SLOW = Nic(name="eth0", mac="02:00:00:00:00:00", has_link=True, speed_mbits=1000)
FAST = Nic(name="eth1", mac="02:00:00:00:00:01", has_link=True, speed_mbits=25000)
DARK = Nic(name="eth2", mac="02:00:00:00:00:02")


def test_links_first_then_the_preferred_then_the_fastest() -> None:
    assert choose_order([DARK, SLOW, FAST], "") == [FAST, SLOW, DARK]
    assert choose_order([DARK, SLOW, FAST], SLOW.mac) == [SLOW, FAST, DARK]
    assert choose_order([DARK, SLOW, FAST], DARK.mac) == [FAST, SLOW, DARK]


def test_resolv_conf_has_a_line_a_server() -> None:
    assert render_resolv_conf(["10.0.0.1", "10.0.0.2"]) == "nameserver 10.0.0.1\nnameserver 10.0.0.2\n"
