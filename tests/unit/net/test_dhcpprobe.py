"""DHCP packets, made and read."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from bladeroot.net.dhcpprobe import build_discover, parse_offer

MAC = bytes.fromhex("525400000001")
SERVER = bytes([10, 77, 0, 3])


def offer(transaction: int, options: bytes, *, ports: tuple[int, int] = (67, 68)) -> bytes:
    bootp = struct.pack("!BBBBI", 2, 1, 6, 0, transaction) + bytes(228) + b"\x63\x82\x53\x63" + options
    udp = struct.pack("!HHHH", *ports, 8 + len(bootp), 0) + bootp
    return struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0, SERVER, b"\xff" * 4) + udp


def test_an_offer_names_its_server() -> None:
    named = b"\x35\x01\x02\x36\x04" + bytes([192, 168, 0, 9]) + b"\xff"
    assert parse_offer(offer(5, named), 5) == "192.168.0.9"
    assert parse_offer(offer(5, b"\x00\x35\x01\x02\xff"), 5) == "10.77.0.3"


def test_what_is_no_offer_for_us_is_passed_over() -> None:
    assert parse_offer(offer(6, b"\x35\x01\x02\xff"), 5) is None
    assert parse_offer(offer(5, b"\x35\x01\x05\xff"), 5) is None
    assert parse_offer(offer(5, b"\x35\x01\x02\xff", ports=(68, 67)), 5) is None
    assert parse_offer(build_discover(MAC, 5), 5) is None


@given(st.binary(max_size=600))
def test_any_bytes_are_read(data: bytes) -> None:
    assert parse_offer(data, 5) is None


@given(st.binary(max_size=80))
def test_any_options_are_read(options: bytes) -> None:
    parse_offer(offer(5, options), 5)


def test_the_header_of_a_discover_is_sound() -> None:
    packet = build_discover(MAC, 5)
    total = sum(struct.unpack("!10H", packet[:20]))
    assert (total & 0xFFFF) + (total >> 16) == 0xFFFF
    assert struct.unpack("!H", packet[2:4]) == (len(packet),)
