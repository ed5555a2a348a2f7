"""What dnsmasq's log is to a person."""

from __future__ import annotations

import pytest

from bladeroot.events import Note, Warned
from bladeroot.host.dnsmasq import Dnsmasq, parse_line


@pytest.mark.parametrize(
    ("line", "event"),
    [
        (
            "dnsmasq-dhcp[812]: 2839 DHCPACK(br0) 10.77.0.11 52:54:00:77:00:01 web01",
            Note(text="dnsmasq: DHCPACK(br0) 10.77.0.11 52:54:00:77:00:01 web01"),
        ),
        (
            "dnsmasq-tftp: sent /tmp/x/undionly.kpxe to 10.77.0.11",
            Note(text="dnsmasq: sent /tmp/x/undionly.kpxe to 10.77.0.11"),
        ),
        (
            "dnsmasq-dhcp: 17 DHCPDISCOVER(br0) 52:54:00:77:00:99 no address available",
            Warned(text="dnsmasq: DHCPDISCOVER(br0) 52:54:00:77:00:99 no address available"),
        ),
        (
            "dnsmasq-tftp: failed sending /tmp/x/snponly.efi to 10.77.0.11",
            Warned(text="dnsmasq: failed sending /tmp/x/snponly.efi to 10.77.0.11"),
        ),
        ("dnsmasq-dhcp: 17 DHCPDISCOVER(br0) 52:54:00:77:00:01", None),
        ("", None),
    ],
)
def test_what_matters_is_an_event(line: str, event: Note | Warned | None) -> None:
    assert parse_line(line) == event


def test_firmware_that_only_asks_for_a_size_is_no_trouble() -> None:
    line = "dnsmasq-tftp: error 8 User aborted the transfer received from 10.77.0.11"
    assert parse_line(line) is None
    assert parse_line("dnsmasq-tftp: error 1 File not found received from 10.77.0.11") is not None


def test_a_warning_is_not_given_again_and_again() -> None:
    dnsmasq = Dnsmasq("", lambda _event: None)
    warned, other = Warned(text="no address available"), Warned(text="duplicate")
    assert [dnsmasq._was_told(event) for event in (warned, warned, other, warned)] == [
        False,
        True,
        False,
        True,
    ]
    for number in range(1000):
        dnsmasq._was_told(Warned(text=f"no address for machine {number}"))
    assert len(dnsmasq._warned_at) <= 256
