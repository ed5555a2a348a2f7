"""Bring up a network interface of a bare machine: link, then DHCP by busybox, or a fixed address."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_interface
from pathlib import Path

from attrs import frozen

from bladeroot.core.hardware import Nic
from bladeroot.errors import NetworkError
from bladeroot.host.files import write_atomically
from bladeroot.host.hardware import find_nics
from bladeroot.host.run import DEVNULL, run, start_process

_POLL_S = 0.1
_LINK_WAIT_S = 8.0
"""Gigabit Ethernet negotiates for some 3 s, and switches with spanning tree hold back what follows."""
_DHCP_WAIT_S = 20.0
_STATE_FOLDER = Path("/run/bladeroot")
_UDHCPC_SCRIPT = """#!/bin/sh
# Written by bladeroot. busybox udhcpc calls it with what it learnt, in the environment.
ip() {{ busybox ip "$@"; }}
case "$1" in
deconfig)
  ip -4 address flush dev "$interface"; ip link set "$interface" up ;;
bound|renew)
  if ! ip -4 address show dev "$interface" | busybox grep -q " $ip/"; then
    ip -4 address flush dev "$interface"
    ip address add "$ip/${{mask:-24}}" brd + dev "$interface"
  fi
  for gateway in $router; do ip route replace default via "$gateway" dev "$interface"; break; done
  if [ -n "$dns" ]; then
    : >{resolv}.new
    [ -z "$domain" ] || echo "search $domain" >>{resolv}.new
    for server in $dns; do echo "nameserver $server" >>{resolv}.new; done
    busybox mv {resolv}.new {resolv}
  fi
  echo "$ip/${{mask:-24}} $serverid" >{lease}.new; busybox mv {lease}.new {lease} ;;
esac
exit 0
"""


@frozen(kw_only=True)
class StaticAddress:
    """What to use where no DHCP server answers; `address` has its prefix: `10.77.0.11/24`."""

    address: str
    gateway: str | None = None
    nameservers: tuple[str, ...] = ()


@frozen(kw_only=True)
class Connection:
    """An interface that is up, and how it came to its address."""

    nic: Nic
    address: str
    by: str
    """In words: from which DHCP server, or the inventory."""

    def __str__(self) -> str:
        return f"{self.nic.name} ({self.nic.mac}) has {self.address} {self.by}"


@contextmanager
def connected(
    *,
    preferred_mac: str = "",
    static: StaticAddress | None = None,
    dhcp_wait_s: float = _DHCP_WAIT_S,
    resolv: Path = Path("/etc/resolv.conf"),
) -> Iterator[Connection]:
    """Be on the network for the length of the block, by the first interface that gets an address.

    Those with a link come first, and of them the one with `preferred_mac`. The address of the inventory
    is for where DHCP gives none. Raises NetworkError, which says what was tried.
    """
    nics = _wait_for_link(_set_up(find_nics()), preferred_mac)
    if not nics:
        raise NetworkError(
            "this machine shows no network card",
            "is its driver in the initramfs? `bladeroot.debug` gives a shell",
        )
    linked = [nic for nic in nics if nic.has_link]
    if not linked:
        names = ", ".join(f"{nic.name} ({nic.mac})" for nic in nics)
        raise NetworkError(f"no network card has a link: {names}", "is the cable plugged in at both ends?")
    for nic in linked:
        with _dhcp(nic, dhcp_wait_s, resolv) as connection:
            if connection is not None:
                yield connection
                return
    if static is not None:
        yield _use_static(linked[0], static, resolv)
        return
    names = ", ".join(nic.name for nic in linked)
    raise NetworkError(
        f"no DHCP server answers on {names}, and the inventory has no address for this machine",
        "is a root or the site's DHCP server up on this segment?",
    )


def choose_order(nics: Sequence[Nic], preferred_mac: str) -> list[Nic]:
    """Those with a link first, the preferred one before others of its kind, faster before slower."""
    return sorted(
        nics, key=lambda nic: (not nic.has_link, nic.mac != preferred_mac, -nic.speed_mbits, nic.name)
    )


def render_resolv_conf(nameservers: Sequence[str]) -> str:
    """What resolv.conf(5) says then."""
    return "".join(f"nameserver {server}\n" for server in nameservers)


def _set_up(nics: Sequence[Nic]) -> Sequence[Nic]:
    run(["busybox", "ip", "link", "set", "lo", "up"], check=False)
    for nic in nics:
        # What is left of an attempt by another socket would route into nowhere.
        run(["busybox", "ip", "-4", "address", "flush", "dev", nic.name], check=False)
        run(["busybox", "ip", "link", "set", nic.name, "up"], check=False)
    return nics


def _wait_for_link(nics: Sequence[Nic], preferred_mac: str) -> list[Nic]:
    """The interfaces as they are when the preferred one has a link, or when some time has passed."""
    deadline = time.monotonic() + _LINK_WAIT_S
    is_there = any(nic.mac == preferred_mac for nic in nics)
    while nics:
        nics = find_nics()
        linked = [nic for nic in nics if nic.has_link]
        if any(nic.mac == preferred_mac for nic in linked) or (linked and not is_there):
            break
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    return choose_order(nics, preferred_mac)


@contextmanager
def _dhcp(nic: Nic, wait_s: float, resolv: Path) -> Iterator[Connection | None]:
    """Keep a DHCP client for the length of the block, which renews the lease; None where nobody answers."""
    lease = _STATE_FOLDER / f"lease-{nic.name}"
    lease.unlink(missing_ok=True)
    script = _write_script(nic, lease, resolv)
    argv = ["busybox", "udhcpc", "-f", "-i", nic.name, "-s", str(script), *("-t", "4", "-T", "2", "-A", "5")]
    with start_process(argv, stdout=DEVNULL, stderr=DEVNULL) as client:
        deadline = time.monotonic() + wait_s
        while not lease.exists() and time.monotonic() < deadline and client.poll() is None:
            time.sleep(_POLL_S)
        if not lease.exists():
            yield None
            return
        address, _, server = lease.read_text().strip().partition(" ")
        yield Connection(nic=nic, address=address, by=f"from DHCP server {server or '(without a name)'}")


def _write_script(nic: Nic, lease: Path, resolv: Path) -> Path:
    _STATE_FOLDER.mkdir(parents=True, exist_ok=True)
    script = _STATE_FOLDER / f"udhcpc-{nic.name}"
    script.write_text(_UDHCPC_SCRIPT.format(resolv=resolv, lease=lease))
    os.chmod(script, 0o755)  # noqa: S103 - udhcpc runs it
    return script


def _use_static(nic: Nic, static: StaticAddress, resolv: Path) -> Connection:
    address = str(ip_interface(static.address))
    run(["busybox", "ip", "-4", "address", "flush", "dev", nic.name], check=False)
    run(["busybox", "ip", "address", "add", address, "brd", "+", "dev", nic.name])
    if static.gateway:
        run(
            ["busybox", "ip", "route", "replace", "default", "via", static.gateway, "dev", nic.name],
            check=False,
        )
    if static.nameservers:
        write_atomically(resolv, render_resolv_conf(static.nameservers))
    return Connection(nic=nic, address=address, by="from the inventory: no DHCP server answered")
