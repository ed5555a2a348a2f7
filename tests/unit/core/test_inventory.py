from __future__ import annotations

import attrs
import pytest

from bladeroot.core import inventory
from bladeroot.core.cluster import Blade, Cluster, Role
from bladeroot.errors import ConfigError, InventoryError, UsageError

CLUSTER = Cluster(
    name="lab",
    id="0" * 32,
    roles={"web": Role(name="web"), "db": Role(name="db")},
    blades={
        "web01": Blade(name="web01", role="web", macs=("52:54:00:00:00:01",), uuid="1" * 32),
        "web02": Blade(name="web02", role="web", facts={"colour": "blue"}),
    },
)


def test_one_blade_takes_all_macs_and_each_of_a_set_takes_one() -> None:
    (single,) = inventory.make_blades(["a"], macs=["525400000001", "525400000002"], role="web")
    first, second = inventory.make_blades(["a", "b"], macs=["525400000001", "525400000002"], role="web")

    assert single.macs == ("52:54:00:00:00:01", "52:54:00:00:00:02")
    assert (first.macs, second.macs) == (("52:54:00:00:00:01",), ("52:54:00:00:00:02",))
    with pytest.raises(InventoryError, match="1 MAC addresses for 2 blades"):
        inventory.make_blades(["a", "b"], macs=["525400000001"], role="web")


def test_addresses_count_up_and_stay_within_their_network() -> None:
    assert inventory.count_addresses("10.0.0.254/23", 3) == ["10.0.0.254/23", "10.0.0.255/23", "10.0.1.0/23"]
    assert inventory.count_addresses("fd77::fffe/64", 2) == ["fd77::fffe/64", "fd77::ffff/64"]
    with pytest.raises(InventoryError, match=r"10\.0\.0\.0/24 has 2 left"):
        inventory.count_addresses("10.0.0.253/24", 3)
    with pytest.raises(InventoryError, match="not an address"):
        inventory.count_addresses("10.0.0", 3)


def test_a_name_that_is_taken_is_not_added_again() -> None:
    with pytest.raises(InventoryError, match=r"already in cluster lab: web\[01-02\]"):
        inventory.add_blades(CLUSTER, inventory.make_blades(["web01", "web02"], role="web"))


def test_settings() -> None:
    changed = inventory.set_blades(
        CLUSTER,
        ["web01", "web02"],
        {"address": "10.0.0.1/24", "rack": "r1", "priority": "5", "fact.colour": "red", "fact.x": "1"},
    )

    assert changed.blades["web01"].address == "10.0.0.1/24"
    assert changed.blades["web02"].address == "10.0.0.2/24"
    assert {(blade.rack, blade.priority) for blade in changed.blades.values()} == {("r1", 5)}
    assert changed.blades["web02"].facts == {"colour": "red", "x": "1"}


def test_an_empty_value_puts_back_the_default() -> None:
    changed = inventory.set_blades(CLUSTER, ["web01"], {"macs": "", "uuid": ""})
    changed = inventory.set_blades(changed, ["web02"], {"fact.colour": ""})

    assert (changed.blades["web01"].macs, changed.blades["web01"].uuid) == ((), None)
    assert changed.blades["web02"].facts == {}


@pytest.mark.parametrize(
    ("key", "value", "error", "said"),
    [
        ("rol", "web", UsageError, "no key 'rol'"),
        ("name", "x", UsageError, "no key 'name'"),
        ("priority", "high", UsageError, "whole number"),
        ("macs", "foo", ConfigError, "not a MAC address"),
        ("macs", "52:54:00:00:00:01", InventoryError, "web01 and web02"),
        ("role", "wbe", InventoryError, "no role 'wbe'"),
        ("disk", "fast", InventoryError, "no disk rule 'fast'"),
    ],
)
def test_settings_that_make_no_sense(key: str, value: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        inventory.set_blades(CLUSTER, ["web02"], {key: value})


def test_a_replaced_machine_takes_nothing_of_the_old_one() -> None:
    changed = inventory.replace_blade(CLUSTER, "web01", ["525400000099"])

    assert changed.blades["web01"].macs == ("52:54:00:00:00:99",)
    assert changed.blades["web01"].uuid is None
    with pytest.raises(InventoryError, match="no blade 'nope'"):
        inventory.replace_blade(CLUSTER, "nope", ["525400000099"])


def test_comparing() -> None:
    after = inventory.remove_blades(CLUSTER, ["web01"])
    after = inventory.merge_blades(
        after, [{"name": "web02", "rack": "r1", "facts": {"x": "1"}}, {"name": "db1", "role": "db"}]
    )

    change = inventory.compare_blades(CLUSTER, after)

    assert [blade.name for blade in change.added] == ["db1"]
    assert [blade.name for blade in change.removed] == ["web01"]
    assert change.changed == {
        "web02": {"rack": (None, "r1"), "facts": ({"colour": "blue"}, {"colour": "blue", "x": "1"})}
    }
    assert not inventory.compare_blades(CLUSTER, attrs.evolve(CLUSTER))
