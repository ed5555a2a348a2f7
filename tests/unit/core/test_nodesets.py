from __future__ import annotations

import pytest

from bladeroot.core.cluster import Blade, Cluster, Role
from bladeroot.core.nodesets import expand_names, find_blades, fold_names, sort_names
from bladeroot.errors import InventoryError

NAMES = [*(f"web{number:02}" for number in range(1, 11)), "db1", "db2", "db10"]
CLUSTER = Cluster(
    name="lab",
    id="0" * 32,
    roles={name: Role(name=name) for name in ("web", "db", "spare")},
    blades={name: Blade(name=name, role=name.rstrip("0123456789")) for name in NAMES},
)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("web01", "web01"),
        ("web[01-03]", "web[01-03]"),
        ("@web", "web[01-10]"),
        ("@all", "db[1-2,10],web[01-10]"),
        ("@*", "db[1-2,10],web[01-10]"),
        ("*", "db[1-2,10],web[01-10]"),
        ("@web!web[02-09]", "web[01,10]"),
        ("web[01-10]!web07", "web[01-06,08-10]"),
        ("web[01-10,!07]", "web[01-06,08-10]"),
        ("web[01-10,!02-09]", "web[01,10]"),
        ("db1,web[01-03,!02]", "db1,web[01,03]"),
        ("web02,web[01-03,!02]", "web[01-03]"),
        ("@web&web[09-20]", "web[09-10]"),
        ("db[1-2], web01", "db[1-2],web01"),
        ("@db^db[2,10]", "db1"),
    ],
)
def test_sets_are_clustershells_with_roles_as_groups(text: str, folded: str) -> None:
    assert fold_names(blade.name for blade in find_blades(text, CLUSTER)) == folded


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("web11", "no blade web11 in cluster lab"),
        ("web[09-12]", "no blade web[11-12] in cluster lab"),
        ("@wbe", "no role 'wbe'"),
        ("@web:01", "not a set of blades"),
        ("web[", "not a set of blades"),
        ("web[01-", "not a set of blades"),
        ("web[05-01]", "not a set of blades"),
        ("web[1,!]", "not a set of blades"),
        ("", "no blade at all"),
        ("@spare", "no blade at all"),
        ("web01!web01", "no blade at all"),
        ("web[1-999999999]", "more than 100000 blades"),
    ],
)
def test_what_is_no_set_is_one_clear_error(text: str, said: str) -> None:
    with pytest.raises(InventoryError) as caught:
        find_blades(text, CLUSTER)

    assert said in str(caught.value)


def test_new_names_need_no_inventory() -> None:
    assert expand_names("x[8-10]") == ["x8", "x9", "x10"]


def test_names_are_sorted_as_people_count() -> None:
    assert sort_names(["db10", "web01", "db2", "db1"]) == ["db1", "db2", "db10", "web01"]
