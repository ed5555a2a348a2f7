"""Which blade a machine is: by MAC address or UUID, and never by guessing."""

from __future__ import annotations

import pytest

from bladeroot.core.cluster import Blade, StrangerPolicy, Strangers
from bladeroot.core.hardware import Hardware, Nic
from bladeroot.core.machines import check_assigned, find_blade
from bladeroot.errors import InventoryError

UUID = "12345678-1234-4234-8234-123456789abc"
WEB = Blade(name="web01", macs=("52:54:00:00:00:01", "52:54:00:00:00:02"))
DB = Blade(name="db1", uuid=UUID)
CACHE = Blade(name="cache1", macs=("52:54:00:00:00:03",), uuid=UUID.replace("1", "2"))
SPARE = Blade(name="spare1")


def machine(*macs: str, uuid: str = "") -> Hardware:
    return Hardware(uuid=uuid, nics=tuple(Nic(name=f"eth{n}", mac=mac) for n, mac in enumerate(macs)))


@pytest.mark.parametrize(
    ("hardware", "name"),
    [
        (machine("02:00:00:00:00:09", "52:54:00:00:00:02"), "web01"),
        (machine("52:54:00:00:00:01", "52:54:00:00:00:02"), "web01"),
        (machine("02:00:00:00:00:09", uuid=UUID), "db1"),
        (machine("52:54:00:00:00:03", uuid="another"), "cache1"),
    ],
)
def test_a_machine_is_known_by_any_of_its_keys(hardware: Hardware, name: str) -> None:
    found = find_blade([SPARE, WEB, DB, CACHE], hardware)
    assert found is not None
    assert found.name == name


def test_a_uuid_says_nothing_of_a_blade_that_is_known_by_its_cards() -> None:
    """Some makers give many boards the same."""
    assert CACHE.uuid is not None
    assert find_blade([SPARE, WEB, DB, CACHE], machine("02:00:00:00:00:09", uuid=CACHE.uuid)) is None


def test_a_machine_without_uuid_is_no_blade_without_uuid() -> None:
    assert find_blade([SPARE, WEB, DB], machine("02:00:00:00:00:09")) is None


def test_a_machine_that_fits_two_blades_is_refused_with_both() -> None:
    with pytest.raises(InventoryError, match=r"db1 has 1234.*; web01 has 52:54:00:00:00:01"):
        find_blade([WEB, DB], machine("52:54:00:00:00:01", uuid=UUID))


ASSIGN = Strangers(policy=StrangerPolicy.ASSIGN, pool="spare[1-2],db1")
POOL = ["spare1", "spare2", "db1"]


def test_a_stranger_becomes_a_free_blade_of_the_pool() -> None:
    assert check_assigned("spare1", [WEB, DB, SPARE], ASSIGN, POOL) is SPARE


@pytest.mark.parametrize(
    ("name", "strangers", "what"),
    [
        ("spare1", Strangers(pool="spare1"), "strangers do not become blades"),
        ("web01", ASSIGN, "no blade of the pool"),
        ("spare2", ASSIGN, "no blade of the pool"),
        ("db1", ASSIGN, "another machine already"),
    ],
)
def test_a_stranger_becomes_nothing_else(name: str, strangers: Strangers, what: str) -> None:
    with pytest.raises(InventoryError, match=what):
        check_assigned(name, [WEB, DB, SPARE], strangers, POOL)
