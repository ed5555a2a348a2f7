"""A root as programs see it that know nothing of bladeroot: avahi-browse, on the same network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.core.claims import Claim, ClaimState, parse_txt
from bladeroot.host.run import DEVNULL, PIPE, run, start_process
from bladeroot.lab.network import LabHost, LabNetwork, start_network

pytestmark = pytest.mark.system

_TIMEOUT_S = 90.0
_CLAIM = Claim(
    cluster_id="ab" * 16,
    epoch=3,
    serial=7,
    manifest_hash="0123456789abcdef",
    state=ClaimState.ROOT,
    priority=2,
    blade="web01",
    host="10.77.0.1",
    port=7474,
)
_ANNOUNCE = """
import sys
from bladeroot.core.claims import Claim, ClaimState
from bladeroot.net.discovery import announce
claim = Claim(cluster_id="ab" * 16, epoch=3, serial=7, manifest_hash="0123456789abcdef",
              state=ClaimState.ROOT, priority=2, blade="web01", host="0.0.0.0", port=7474)
with announce(claim):
    sys.stdin.read()
"""
_BUS = """<busconfig>
  <type>system</type><listen>unix:path={folder}/bus</listen><auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/><allow send_type="method_call"/><allow send_destination="*"/><allow receive_sender="*"/>
  </policy>
</busconfig>
"""
_AVAHI = """[server]
use-ipv4=yes
use-ipv6=no
allow-interfaces=eth0
[publish]
disable-publishing=yes
"""
_BROWSE = """
mount -t tmpfs none /run && mkdir /run/avahi-daemon
export DBUS_SYSTEM_BUS_ADDRESS=unix:path={folder}/bus
dbus-daemon --config-file={folder}/bus.conf --nofork --nopidfile 2>/dev/null &
until [ -S {folder}/bus ]; do sleep 0.1; done
avahi-daemon --file={folder}/avahi.conf --no-drop-root --no-chroot --no-rlimits 2>{folder}/avahi.log &
until avahi-browse -rpt _bladeroot._tcp 2>/dev/null | grep '^='; do sleep 0.5; done
"""
"""A bus and an avahi of its own; all of it ends with the first process of its PID namespace."""


@pytest.fixture
def network() -> Iterator[LabNetwork]:
    with start_network("avahi") as network:
        yield network


def browse(host: LabHost, folder: Path) -> list[str]:
    """The fields of the one service that `avahi-browse -rpt` resolves."""
    (folder / "bus.conf").write_text(_BUS.format(folder=folder))
    (folder / "avahi.conf").write_text(_AVAHI)
    script = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", _BROWSE.format(folder=folder)]
    found = run(host.command(script), timeout_s=_TIMEOUT_S).stdout.splitlines()
    assert len(found) == 1
    return found[0].split(";", 9)


def test_avahi_shows_a_root_with_all_that_it_claims(network: LabNetwork, tmp_path: Path) -> None:
    root, stranger = network.add_host("root"), network.add_host("stranger")
    argv = root.command([sys.executable, "-c", _ANNOUNCE])
    with start_process(argv, stdin=PIPE, stdout=DEVNULL, ends_with_parent=True) as process:
        fields = browse(stranger, tmp_path)
        process.kill()
    _sign, interface, protocol, name, kind, domain, host, address, port, txt = fields
    assert (interface, protocol, name, kind, domain) == ("eth0", "IPv4", "web01", "_bladeroot._tcp", "local")
    assert (host, address) == ("web01.local", root.address)
    pairs = [word.strip('"').partition("=") for word in txt.split()]
    properties = {key.encode(): value.encode() for key, _equals, value in pairs}
    assert parse_txt(properties, blade=name, host=address, port=int(port)) == _CLAIM
