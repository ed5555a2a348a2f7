from __future__ import annotations

from typing import Any

import attrs
import pytest

from bladeroot.core.cluster import Blade, Cluster, Layout, Network, Role, parse_mac
from bladeroot.errors import ConfigError, InventoryError


def make_cluster(*blades: Blade, **changes: Any) -> Cluster:
    fields: dict[str, Any] = {
        "name": "lab",
        "id": "0f" * 16,
        "roles": {"web": Role(name="web")},
        "blades": {blade.name: blade for blade in blades},
    }
    return Cluster(**{**fields, **changes})


@pytest.mark.parametrize(
    "text", ["52:54:00:AA:bb:0c", "52-54-00-aa-bb-0c", "5254.00aa.bb0c", " 525400aabb0c "]
)
def test_a_mac_address_in_any_spelling(text: str) -> None:
    assert parse_mac(text) == "52:54:00:aa:bb:0c"


@pytest.mark.parametrize("text", ["", "52:54:00:aa:bb", "52:54:00:aa:bb:0g", "5254-00aa-bb0c-11"])
def test_what_is_no_mac_address(text: str) -> None:
    with pytest.raises(ConfigError, match="not a MAC address"):
        parse_mac(text)


def test_two_blades_with_one_mac_are_both_named() -> None:
    one, two = (
        Blade(name=name, role="web", macs=[mac])
        for name, mac in (("a", "525400000001"), ("b", "52:54:00:00:00:01"))
    )
    with pytest.raises(InventoryError, match="52:54:00:00:00:01 is given to two blades: a and b"):
        make_cluster(one, two)


def test_two_blades_with_one_address_or_uuid() -> None:
    uuid = "5f2b1c04-9d0d-4d51-8a33-6f1ac2f1a001"
    with pytest.raises(InventoryError, match=r"address 10\.0\.0\.1"):
        make_cluster(
            Blade(name="a", role="web", address="10.0.0.1/24"),
            Blade(name="b", role="web", address="10.0.0.1/16"),
        )
    with pytest.raises(InventoryError, match="UUID"):
        make_cluster(Blade(name="a", role="web", uuid=uuid), Blade(name="b", role="web", uuid=uuid.upper()))


@pytest.mark.parametrize(
    ("field", "what"), [("role", "role 'nope'"), ("disk", "disk rule 'nope'"), ("layout", "layout 'nope'")]
)
def test_a_name_that_nothing_has(field: str, what: str) -> None:
    changes: dict[str, Any] = {field: "nope"}
    with pytest.raises(InventoryError, match=f"blade a: no {what}"):
        make_cluster(attrs.evolve(Blade(name="a", role="web"), **changes))


@pytest.mark.parametrize("name", ["", "-a", "a-", "Web01", "a.b", "a_b", "x" * 64, "web01\n"])
def test_what_is_no_host_name(name: str) -> None:
    with pytest.raises(ConfigError, match="not a usable name"):
        Blade(name=name)


def test_values_out_of_range() -> None:
    with pytest.raises(ConfigError, match="not a port"):
        Network(port=70000)
    with pytest.raises(ConfigError, match="1 or 2 slots"):
        Layout(slots=3)
    with pytest.raises(ConfigError, match="no such filesystem"):
        Layout(filesystem="zfs")
    with pytest.raises(ConfigError, match="not an address"):
        Blade(name="a", address="10.0.0.300")
    with pytest.raises(ConfigError, match="not a cluster id"):
        make_cluster(id="xyz")


def test_an_unknown_blade() -> None:
    with pytest.raises(InventoryError, match="no blade 'b' in cluster lab"):
        make_cluster(Blade(name="a", role="web")).blade("b")
