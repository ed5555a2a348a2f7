from __future__ import annotations

import attrs
import pytest

from bladeroot.core.cluster import Blade
from bladeroot.core.inventoryfiles import parse_blades, render_csv, render_dnsmasq, render_hosts
from bladeroot.errors import ConfigError

BLADES = [
    Blade(
        name="web01",
        role="web",
        macs=("52:54:00:00:00:01", "52:54:00:00:00:02"),
        address="10.77.0.11/24",
        uuid="11111111-1111-1111-1111-111111111111",
        rack="r1, left",
        facts={"colour": "blue"},
    ),
    Blade(name="web02", role="web", address="fd77::2/64", macs=("52:54:00:00:00:03",)),
    Blade(name="db1", role="db", priority=3, facts={"x": "1"}),
]


def test_csv_reads_back() -> None:
    assert [Blade(**entry) for entry in parse_blades(render_csv(BLADES), "room.csv")] == BLADES


def test_csv_with_other_names_an_order_of_its_own_and_holes() -> None:
    text = "\ufeff# made by hand\nMAC;Host\n".replace(";", ",") + "52-54-00-00-00-01,web01\n,web02\n\n"

    found = parse_blades(text, "room.csv", role="web")

    assert found == [
        {"name": "web01", "macs": ("52-54-00-00-00-01",), "role": "web"},
        {"name": "web02", "role": "web"},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,rol\n", "room.csv:1: unknown column 'rol'"),
        ("role\nweb\n", "room.csv:1: no column `name`"),
        ("name,macs\nweb01,foo\n", "room.csv:2: not a MAC address: 'foo'"),
        ("name\nWeb_01\n", "room.csv:2: not a usable name"),
        ("name,macs\n,525400000001\n", "room.csv:2: no name"),
        ("name\nweb01\nweb01\n", "room.csv:3: web01 is there twice (line 2 too)"),
        ("name,address\nweb01,10.0.0.1\n", "room.csv:2: the address 10.0.0.1 has no prefix length"),
        ("name\nweb01,web\n", "room.csv:2: 2 columns, but the header has 1"),
        ("name,priority\nweb01,high\n", "room.csv:2: priority is a whole number"),
        ("name\n", "room.csv: no blades in it"),
        ("", "room.csv: no blades in it"),
        ("dhcp-host=52:54:00:00:00:01,10.0.0.1\n", "room.csv:1: dhcp-host without a name"),
    ],
)
def test_errors_have_file_and_line(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_blades(text, "room.csv")

    assert str(caught.value).startswith(said)


def test_dnsmasq() -> None:
    text = """\
# dhcp-host=52:54:00:00:00:99,old
dhcp-range=10.0.0.1,10.0.0.9
dhcp-host=52:54:00:00:00:01,52:54:00:00:00:02,10.77.0.11,web01,12h  # two cards
 dhcp-host = 52:54:00:00:00:03,set:blades,web02,[fd77::2],infinite
"""
    assert parse_blades(text, "x", role="web", prefix_length=24) == [
        {
            "name": "web01",
            "macs": ("52:54:00:00:00:01", "52:54:00:00:00:02"),
            "address": "10.77.0.11/24",
            "role": "web",
        },
        {"name": "web02", "macs": ("52:54:00:00:00:03",), "address": "fd77::2/24", "role": "web"},
    ]


def test_dhcpd() -> None:
    text = """
# host old { hardware ethernet 00:00:00:00:00:00; }
host web01 {
  hardware ethernet 52:54:00:00:00:01;   # eth0
  fixed-address 10.77.0.11;
}
host web02 { hardware ethernet 52:54:00:00:00:02; fixed-address web02.example.org; }
"""
    assert parse_blades(text, "x", prefix_length=24) == [
        {"name": "web01", "macs": ("52:54:00:00:00:01",), "address": "10.77.0.11/24"},
        {"name": "web02", "macs": ("52:54:00:00:00:02",)},
    ]


def test_what_other_programs_get() -> None:
    assert render_hosts(BLADES, "example.org") == (
        "10.77.0.11\tweb01.example.org web01\nfd77::2\tweb02.example.org web02\n"
    )
    assert render_dnsmasq(BLADES) == (
        "dhcp-host=52:54:00:00:00:01,52:54:00:00:00:02,10.77.0.11,web01\n"
        "dhcp-host=52:54:00:00:00:03,[fd77::2],web02\n"
    )
    back = parse_blades(render_dnsmasq(BLADES[:1]), "x", prefix_length=24)
    assert back == [
        attrs.asdict(BLADES[0], filter=lambda field, _: field.name in ("name", "macs", "address"))
    ]
