"""cluster.toml is read, and what is wrong in it is said with file, line, key and what was expected."""

from __future__ import annotations

import pytest

from bladeroot.core.clusterfile import parse_cluster
from bladeroot.core.tomllines import find_lines, line_of
from bladeroot.errors import ConfigError, InventoryError

GOOD = """\
[cluster]
name = "lab"
id = "0123456789abcdef0123456789abcdef"
zstd_level = 3

[network]
port = 7474
nameservers = ["10.77.0.1"]
roots = ["10.2.0.5:7474"]

[roles.web]
description = "in front"

[disks.only]
min_size = "8G"

[layouts.default]
slot_size = 17179869184

[blades.web01]
macs = [
    "52:54:00:00:00:01",  # the first [port]
]
role = "web"
address = "10.77.0.11/24"

[blades.web02]
macs = ["52-54-00-00-00-02"]
role = "web"
facts = { colour = "blue" }
"""


def test_a_good_file() -> None:
    cluster = parse_cluster(GOOD)

    assert (cluster.name, cluster.zstd_level, cluster.arch) == ("lab", 3, "x86_64")
    assert cluster.network.roots == ("10.2.0.5:7474",)
    assert cluster.roles["web"].description == "in front"
    assert cluster.disks["only"].min_size_bytes == 8 << 30
    assert cluster.layouts["default"].slot_size_bytes == 16 << 30
    assert list(cluster.blades) == ["web01", "web02"]
    assert cluster.blades["web01"].macs == ("52:54:00:00:00:01",)
    assert cluster.blades["web02"].macs == ("52:54:00:00:00:02",)
    assert cluster.blades["web02"].facts == {"colour": "blue"}


def test_the_usual_disk_rule_and_layout_need_not_stand_there() -> None:
    cluster = parse_cluster('[cluster]\nname = "a"\nid = "0123456789abcdef0123456789abcdef"\n')

    assert set(cluster.disks) == {"only"}
    assert set(cluster.layouts) == {"default"}


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "expected"),
    [
        ('["52-54-00-00-00-02"]', '["foo"]', 28, "blades.web02.macs", "not a MAC address: 'foo'"),
        ('["52-54-00-00-00-02"]', '"foo"', 28, "blades.web02.macs", "expected a list of MAC addresses"),
        ('["52-54-00-00-00-02"]', "[1]", 28, "blades.web02.macs", "expected a list of MAC addresses"),
        ("zstd_level = 3", "zstd_level = 20", 4, "cluster.zstd_level", "expected a whole number, 1 to 19"),
        ("zstd_level = 3", "zstd_level = true", 4, "cluster.zstd_level", "found true"),
        ("port = 7474", "port = 70000", 7, "network.port", "not a port: 70000"),
        ("port = 7474", 'port = "7474"', 7, "network.port", "expected a whole number"),
        ('"10.2.0.5:7474"', '"10.2.0.5"', 9, "network.roots", "not a root's address"),
        ('["10.77.0.1"]', '["10.77.0"]', 8, "network.nameservers", "not an IP address"),
        ('"8G"', '"8X"', 15, "disks.only.min_size", "not a size: '8X'"),
        ('"8G"', "8.5", 15, "disks.only.min_size", "expected a size"),
        ('"10.77.0.11/24"', '"10.77.0.300/24"', 25, "blades.web01.address", "not an address"),
        ('{ colour = "blue" }', "{ colour = 3 }", 30, "blades.web02.facts", "expected a table of strings"),
        ("[blades.web02]", "[blades.Web_02]", 27, "blades.Web_02", "not a usable name"),
        ('name = "lab"', 'name = "The Lab"', 2, "cluster.name", "not a usable name"),
        ("id = ", "# id = ", 1, "cluster.id", "is missing"),
        ('id = "0', 'id = "', 3, "cluster.id", "not a cluster id"),
        (
            '["52-54-00-00-00-02"]',
            '["01:00:5e:00:00:01"]',
            28,
            "blades.web02.macs",
            "not the MAC address",
        ),
        ('"10.77.0.11/24"', '"10.77.0.0/24"', 25, "blades.web01.address", "is the address of the network"),
        ('"8G"', '"8G"\ntransport = "pci"', 16, "disks.only.transport", "no such transport: 'pci'"),
        ('"8G"', '"8G"\nmax_size = "4G"', 14, "disks.only", "no disk is larger than min_size and smaller"),
        ("port = 7474", 'domain = "a b"', 7, "network.domain", "not a domain: 'a b'"),
        ("port = 7474", 'interface = "eth0 eth1"', 7, "network.interface", "not the name of an interface"),
        (
            "[roles.web]",
            '[strangers]\npolicy = "assign"\n[roles.web]',
            11,
            "strangers.pool",
            "'' is no blade",
        ),
        (
            "[roles.web]",
            '[strangers]\npolicy = "assign"\npool = "spare[01-"\n[roles.web]',
            13,
            "strangers.pool",
            "not a set of blades: 'spare[01-'",
        ),
        ("[layouts.default]", "[layouts]\ndefault = 3\n[layouts.other]", 18, "layouts.default", "a table"),
    ],
)
def test_errors_name_line_key_and_what_was_expected(
    old: str, new: str, line: int, key: str, expected: str
) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse_cluster(GOOD.replace(old, new), "/etc/bladeroot/cluster.toml")

    assert str(caught.value).startswith(f"/etc/bladeroot/cluster.toml:{line}: {key}: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "line", "what", "hint"),
    [
        ("macs = [\n", "mac = [\n", 21, "blades.web01.mac: unknown key", "did you mean 'macs'?"),
        ("[disks.only]", "[disk.only]", 14, "disk: no such section", "did you mean 'disks'?"),
        ("slot_size", "slotsize", 18, "layouts.default.slotsize: unknown key", "did you mean 'slot_size'?"),
        (
            'role = "web"\nfacts',
            'role = "wbe"\nfacts',
            29,
            "blades.web02.role: there is no [roles.wbe]",
            "did you mean 'web'?",
        ),
    ],
)
def test_slips_of_the_finger_get_a_suggestion(old: str, new: str, line: int, what: str, hint: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError) as caught:
        parse_cluster(GOOD.replace(old, new))

    assert str(caught.value) == f"cluster.toml:{line}: {what}"
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '["52-54-00-00-00-02"]',
            '["52:54:00:00:00:01"]',
            "cluster.toml:28: blades.web02.macs: MAC address 52:54:00:00:00:01 is also web01's (line 21)",
        ),
        (
            'facts = { colour = "blue" }',
            'address = "10.77.0.11/16"',
            "cluster.toml:30: blades.web02.address: address 10.77.0.11 is also web01's (line 25)",
        ),
        (
            '["52-54-00-00-00-02"]',
            '["52:54:00:00:00:02", "525400000002"]',
            "cluster.toml:28: blades.web02.macs: MAC address 52:54:00:00:00:02 is given twice",
        ),
    ],
)
def test_what_two_blades_may_not_share_names_both_and_both_lines(old: str, new: str, message: str) -> None:
    with pytest.raises(InventoryError) as caught:
        parse_cluster(GOOD.replace(old, new))

    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("old", "new", "where"),
    [
        ('name = "lab"', "name = lab", "cluster.toml:2: not TOML: "),
        ("[roles.web]", "[roles.web", "cluster.toml:11: not TOML: "),
        ("[blades.web02]", "[blades.web01]", "cluster.toml:27: [blades.web01] is there twice"),
        ('colour = "blue" }\n', 'colour = "blue"', "cluster.toml: not TOML: "),
    ],
)
def test_syntax_errors_have_the_line(old: str, new: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_cluster(GOOD.replace(old, new))

    assert str(caught.value).startswith(where)


ODD = '''\
# [not.a.table]
top = """
[neither]
x = 1 \\""" # still a string
"""   # a comment with a quote "
"quoted key".'sub' = [ "]", # ]
  { a = "}" } ]
a.b.c = '[x]'
[ spaced . "out" ]
key = \'\'\'
key = 2\'\'\'
last = 1979-05-27T07:32:00Z
[[array]]
inside = 1
[dotted]
one.two = { three = 3 }'''


def test_lines_are_found_in_odd_but_legal_toml() -> None:
    lines = find_lines(ODD)

    assert {key: line for key, line in lines.items() if len(key) != 1 or key[0] in ("top", "array")} == {
        ("top",): 2,
        ("quoted key", "sub"): 6,
        ("a", "b"): 8,
        ("a", "b", "c"): 8,
        ("spaced", "out"): 9,
        ("spaced", "out", "key"): 10,
        ("spaced", "out", "last"): 12,
        ("array",): 13,
        ("array", "inside"): 14,
        ("dotted", "one"): 16,
        ("dotted", "one", "two"): 16,
    }


def test_a_key_inside_of_an_inline_table_is_where_that_stands() -> None:
    assert line_of(find_lines(ODD), ("dotted", "one", "two", "three")) == 16
    assert line_of(find_lines(ODD), ("nowhere",)) == 1
