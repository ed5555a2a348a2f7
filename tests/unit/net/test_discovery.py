"""Discovery on the loopback alone; between machines it is tested in namespaces."""

from __future__ import annotations

import threading
import time

import attrs
import pytest
import zeroconf

from bladeroot.core.claims import Claim, ClaimState
from bladeroot.errors import NetworkError, NoRootFoundError
from bladeroot.net import discovery
from bladeroot.net.discovery import Ear, Interface, announce, find_claims, find_interfaces, wait_for_root

LOOPBACK = [Interface("lo", "127.0.0.1", 8)]
OURS, OTHERS = "0" * 32, "f" * 32
CLAIM = Claim(cluster_id=OURS, epoch=1, serial=1, blade="bladeroot-test", host="127.0.0.1", port=7474)
TIMEOUT_S = 30.0


def test_there_is_always_an_interface_with_its_subnet() -> None:
    interfaces = find_interfaces()
    assert interfaces
    assert all(interface.reaches(interface.address) for interface in interfaces)
    names = {interface.name for interface in interfaces}
    assert names == {"lo"} or "lo" not in names


def test_a_root_is_heard_with_what_it_claims_and_followed_when_it_changes() -> None:
    with announce(CLAIM, LOOPBACK) as announcement:
        assert wait_for_root(OURS, timeout_s=TIMEOUT_S, interfaces=LOOPBACK) == CLAIM
        newer = attrs.evolve(CLAIM, serial=2)
        announcement.update(newer)
        assert find_claims(OURS, timeout_s=2.0, interfaces=LOOPBACK).claims == (newer,)


def test_a_root_that_is_started_later_is_found() -> None:
    found: list[Claim] = []
    looking = threading.Event()

    def look() -> None:
        looking.set()
        found.append(wait_for_root(OURS, timeout_s=TIMEOUT_S, interfaces=LOOPBACK))

    thread = threading.Thread(target=look)
    thread.start()
    assert looking.wait(TIMEOUT_S)
    with announce(CLAIM, LOOPBACK):
        thread.join(TIMEOUT_S)
    assert found == [CLAIM]


def test_finding_none_says_how_long_where_and_what_was_heard_instead() -> None:
    candidate = attrs.evolve(CLAIM, state=ClaimState.CANDIDATE)
    stranger = attrs.evolve(CLAIM, cluster_id=OTHERS, blade="bladeroot-stranger")
    began = time.monotonic()
    with (
        announce(candidate, LOOPBACK),
        announce(stranger, LOOPBACK),
        pytest.raises(NoRootFoundError) as caught,
    ):
        wait_for_root(OURS, timeout_s=3.0, interfaces=LOOPBACK)
    assert time.monotonic() - began >= 3.0
    said = str(caught.value)
    for part in (
        "found in 3 s on lo (127.0.0.1)",
        "candidate bladeroot-test at 127.0.0.1:7474",
        "root bladeroot-stranger at 127.0.0.1:7474 (epoch 1, generation 1) of another cluster, ffffffff",
    ):
        assert part in said


def test_a_root_that_was_tried_in_vain_is_not_offered_again() -> None:
    with announce(CLAIM, LOOPBACK), pytest.raises(NoRootFoundError, match="which does not answer"):
        wait_for_root(OURS, timeout_s=2.0, interfaces=LOOPBACK, avoid=[CLAIM.where])


def test_two_machines_of_one_name_are_an_error() -> None:
    # At an address of its own: of two sockets on one the kernel chooses who hears the answer (SO_REUSEPORT).
    again = announce(CLAIM, [Interface("lo", "127.0.0.2", 8)])
    with announce(CLAIM, LOOPBACK), pytest.raises(NetworkError, match="another machine"), again:
        pass


def test_names_that_take_long_to_look_up_do_not_hold_the_listener_up(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up: list[str] = []

    def take_long(_ear: Ear, name: str) -> None:
        looked_up.append(name)
        time.sleep(0.1)

    monkeypatch.setattr(Ear, "_take_in", take_long)
    with Ear(OURS, LOOPBACK) as ear:
        for number in range(100):
            ear._changed.put((f"nobody{number}", True))
        ear.listen(0.2)
        assert 1 <= len(looked_up) < 10
        ear.listen(0.2)
        assert looked_up[1] == "nobody1"


def test_only_so_many_names_wait_to_be_looked_up() -> None:
    ear = Ear(OURS, LOOPBACK)
    for number in range(3 * discovery._MOST_CHANGED):
        ear._on_change(None, "", f"nobody{number}", zeroconf.ServiceStateChange.Added)  # type: ignore[arg-type]
    assert ear._changed.qsize() == discovery._MOST_CHANGED
    ear._on_change(None, "", "gone", zeroconf.ServiceStateChange.Removed)  # type: ignore[arg-type]
    assert ear._changed.qsize() == discovery._MOST_CHANGED + 1


def test_wake_ends_listening() -> None:
    with Ear(OURS, LOOPBACK) as ear:
        timer = threading.Timer(0.05, ear.wake)
        timer.start()
        began = time.monotonic()
        while timer.is_alive():
            ear.listen(TIMEOUT_S)
        assert time.monotonic() - began < TIMEOUT_S / 2
