"""cluster.toml is written so that it explains itself, and edited so that nothing of a person's is lost."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bladeroot.core.cluster import Blade, Cluster, DiskRule, Layout, Network, Role
from bladeroot.core.clusteredit import render_edited, render_new_cluster
from bladeroot.core.clusterfile import parse_cluster

ID = "0123456789abcdef0123456789abcdef"
TEXT = f"""\
# mine
[cluster]
name = "lab"  # ours
id = "{ID}"

[roles.web]

# the first rack
[blades.web01]  # noisy
macs = ["52:54:00:00:00:01"]  # eth0
role = "web"

# the second rack
[blades.web02]
role = "web"

# the third rack
[blades.web03]
role = "web"

# the end
"""


def blade(number: int, **fields: object) -> Blade:
    return Blade(name=f"web{number:02}", role="web", **fields)  # type: ignore[arg-type]


def with_blades(cluster: Cluster, *blades: Blade) -> Cluster:
    return attrs.evolve(cluster, blades={blade.name: blade for blade in blades})


def test_a_new_file_reads_back_and_says_what_its_parts_are() -> None:
    cluster = Cluster(
        name="lab",
        id=ID,
        kernel_command_line='quiet "x"',
        network=Network(port=1234, domain="example.org", nameservers=("10.0.0.1",)),
        roles={"web": Role(name="web", description='the "front"'), "db": Role(name="db")},
        disks={"only": DiskRule(min_size_bytes=8 << 30), "fast": DiskRule(name="fast", rotational=False)},
        layouts={"default": Layout(slots=2, slot_size_bytes=20 << 30)},
        blades={"web01": blade(1, macs=("52:54:00:00:00:01",), facts={"a": "b"})},
    )

    text = render_new_cluster(cluster)

    assert parse_cluster(text) == cluster
    assert '\nslot_size = "20G"\n' in text
    assert "Which disk to install on" in text
    assert max(len(line) for line in text.splitlines()) <= 110


def test_no_change_changes_nothing() -> None:
    assert render_edited(TEXT, parse_cluster(TEXT)) == TEXT


def test_an_added_blade_comes_last_as_a_table_of_its_own() -> None:
    before = parse_cluster(TEXT)
    after = with_blades(before, *before.blades.values(), blade(4, address="10.0.0.4/24"))

    text = render_edited(TEXT, after)

    assert text == TEXT + '\n[blades.web04]\nrole = "web"\naddress = "10.0.0.4/24"\n'


def test_a_removed_blade_takes_no_comment_with_it() -> None:
    before = parse_cluster(TEXT)
    after = with_blades(before, before.blades["web01"], before.blades["web03"])

    text = render_edited(TEXT, after)

    assert text == TEXT.replace('[blades.web02]\nrole = "web"\n\n', "")


def test_all_blades_can_go() -> None:
    text = render_edited(TEXT, with_blades(parse_cluster(TEXT)))

    assert "[blades" not in text
    for remark in ("# mine", "# ours", "# the first rack", "# the third rack", "# the end"):
        assert remark in text


def test_a_new_key_stands_with_the_others() -> None:
    before = parse_cluster(TEXT)
    changed = attrs.evolve(before.blades["web02"], rack="r2", facts={"colour": "blue"})
    after = with_blades(before, before.blades["web01"], changed, before.blades["web03"])

    text = render_edited(TEXT, after)

    assert (
        '[blades.web02]\nrole = "web"\nrack = "r2"\nfacts = {colour = "blue"}\n\n# the third rack\n' in text
    )


def test_a_changed_key_keeps_its_comment_and_a_default_one_goes() -> None:
    before = parse_cluster(TEXT)
    first = attrs.evolve(before.blades["web01"], macs=("52:54:00:00:00:09",))
    text = render_edited(TEXT, with_blades(before, first, before.blades["web02"], before.blades["web03"]))
    assert 'macs = ["52:54:00:00:00:09"]  # eth0\n' in text

    none = attrs.evolve(first, macs=())
    text = render_edited(text, with_blades(before, none, before.blades["web02"], before.blades["web03"]))
    assert "[blades.web01]  # noisy\nrole" in text


ODD = f"""\
cluster = {{ name = "lab", id = "{ID}" }}
[roles.web]
[blades.a]
role = "web"
[blades.a.facts]
x = "1"  # one
# behind a

[layouts.big]
slots = 2
[blades.b]
role = "web"
# behind b
[disks.x]
[blades]
c = {{ role = "web" }}  # c
d.role = "web"
"""


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_tables_that_are_scattered_inline_or_dotted_can_be_edited(name: str) -> None:
    before = parse_cluster(ODD)
    without = with_blades(before, *(other for other in before.blades.values() if other.name != name))
    changed = attrs.evolve(before.blades[name], rack="r1", facts={"y": "2"})
    blades = {**before.blades, name: changed, "new": Blade(name="new", role="web")}

    # that the result reads back as what was wanted is checked by render_edited itself
    removed = render_edited(ODD, without)
    edited = render_edited(ODD, attrs.evolve(before, blades=blades))

    for remark in ("# behind a", "# behind b"):
        assert remark in removed
        assert remark in edited
    assert "[blades.new]" in edited


def test_sections_that_are_not_there_are_made() -> None:
    text = f'[cluster]\nname = "lab"\nid = "{ID}"\n'
    after = attrs.evolve(
        parse_cluster(text),
        zstd_level=9,
        network=Network(domain="example.org"),
        roles={"web": Role(name="web")},
        blades={"web01": blade(1)},
        layouts={"default": Layout(esp_size_bytes=256 << 20)},
    )

    assert parse_cluster(render_edited(text, after)) == after


_BLADES = st.dictionaries(
    st.sampled_from([f"web{number:02}" for number in range(1, 7)]),
    st.fixed_dictionaries(
        {},
        optional={
            "rack": st.text(max_size=8),
            "priority": st.integers(-5, 5),
            "facts": st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=2),
        },
    ),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(_BLADES, min_size=1, max_size=4))
def test_any_run_of_edits_reads_back_and_keeps_the_head(states: list[dict[str, dict[str, object]]]) -> None:
    text = TEXT
    for state in states:
        blades = [Blade(name=name, role="web", **fields) for name, fields in state.items()]  # type: ignore[arg-type]
        after = with_blades(parse_cluster(text), *blades)
        text = render_edited(text, after)
        assert parse_cluster(text) == after
    assert text.startswith("# mine\n[cluster]\n")
    assert "# the end" in text
