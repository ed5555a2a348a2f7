"""Who else answers DHCP on a segment: a DISCOVER is sent, offers are listened for, none is ever taken.

By packet socket: no port is taken away from a DHCP client or server on this machine.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

from attrs import frozen

from bladeroot.errors import NetworkError

_ETH_P_IP = 0x0800
_UDP = 17
_SERVER_PORT, _CLIENT_PORT = 67, 68
_BOOTREQUEST, _BOOTREPLY, _ETHERNET = 1, 2, 1
_BROADCAST_FLAG = 0x8000
_MAGIC_COOKIE = b"\x63\x82\x53\x63"
_OPTION_END, _OPTION_PAD, _OPTION_TYPE, _OPTION_SERVER = 255, 0, 53, 54
_DISCOVER, _OFFER = 1, 2
"""RFC 2131, figure 1 and 4.3.1; RFC 2132, 9.6 and 9.7."""
_BOOTP = struct.Struct("!BBBBIHH4s4s4s4s16s192x4s")
_REPEAT_S = 1.0
_PATIENCE_S = 5.0
"""dnsmasq sends pings for three seconds before it offers an address, dhcpd for one."""


@frozen(kw_only=True)
class DhcpServer:
    """A server that made an offer."""

    address: str
    mac: str

    def __str__(self) -> str:
        return f"{self.address} ({self.mac})"


def find_dhcp_servers(interface: str, *, timeout_s: float = _PATIENCE_S) -> list[DhcpServer]:
    """Everybody who offers an address on the interface's segment within the time. Raises NetworkError."""
    try:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IP)) as link:
            link.bind((interface, _ETH_P_IP))
            return sorted(set(_ask(link, interface, timeout_s)), key=str)
    except OSError as error:
        hint = "it needs the superuser's rights, and an interface that is up"
        raise NetworkError(
            f"cannot look for DHCP servers on {interface}: {error.strerror or error}", hint
        ) from error


def _ask(link: socket.socket, interface: str, timeout_s: float) -> Iterator[DhcpServer]:
    own = bytes.fromhex(Path(f"/sys/class/net/{interface}/address").read_text().strip().replace(":", ""))
    transaction = secrets.randbits(32)
    packet = build_discover(own, transaction)
    until = time.monotonic() + timeout_s
    again = 0.0
    while (left_s := until - time.monotonic()) > 0:
        if time.monotonic() >= again:
            link.sendto(packet, (interface, _ETH_P_IP, 0, 0, b"\xff" * 6))
            again = time.monotonic() + _REPEAT_S
        link.settimeout(min(left_s, _REPEAT_S))
        try:
            data, sender = link.recvfrom(2048)
        except TimeoutError:
            continue
        address = parse_offer(data, transaction)
        if address is not None:
            yield DhcpServer(address=address, mac=sender[4].hex(":"))


def build_discover(mac: bytes, transaction: int) -> bytes:
    """An IPv4 packet with a DHCPDISCOVER of that MAC address."""
    nothing = bytes(4)
    bootp = _BOOTP.pack(
        _BOOTREQUEST, _ETHERNET, 6, 0, transaction, 0, _BROADCAST_FLAG,
        nothing, nothing, nothing, nothing, mac.ljust(16, b"\0"), _MAGIC_COOKIE,
    )  # fmt: skip
    payload = bootp + bytes([_OPTION_TYPE, 1, _DISCOVER, _OPTION_END])
    # A UDP checksum of zero is "none" (RFC 768).
    udp = struct.pack("!HHHH", _CLIENT_PORT, _SERVER_PORT, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 0, 0, 64, _UDP, 0, nothing, b"\xff" * 4)
    return header[:10] + struct.pack("!H", _checksum(header)) + header[12:] + udp


def parse_offer(packet: bytes, transaction: int) -> str | None:
    """The server's address, if the IPv4 packet is a DHCPOFFER to that transaction."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != _UDP:
        return None
    udp = packet[(packet[0] & 15) * 4 :]
    if len(udp) < 8 + _BOOTP.size or struct.unpack_from("!HH", udp) != (_SERVER_PORT, _CLIENT_PORT):
        return None
    fields = _BOOTP.unpack_from(udp, 8)
    if fields[0] != _BOOTREPLY or fields[4] != transaction or fields[-1] != _MAGIC_COOKIE:
        return None
    options = dict(_read_options(udp[8 + _BOOTP.size :]))
    if options.get(_OPTION_TYPE) != bytes([_OFFER]):
        return None
    server = options.get(_OPTION_SERVER, b"")
    return str(IPv4Address(server if len(server) == 4 else packet[12:16]))


def _read_options(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(data) and data[position] != _OPTION_END:
        if data[position] == _OPTION_PAD:
            position += 1
            continue
        if position + 1 >= len(data):
            return
        length = data[position + 1]
        yield data[position], data[position + 2 : position + 2 + length]
        position += 2 + length


def _checksum(header: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)
