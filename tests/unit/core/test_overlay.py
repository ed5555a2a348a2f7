from __future__ import annotations

from collections.abc import Mapping

import pytest

from bladeroot.core.cluster import Blade, Cluster, Role
from bladeroot.core.overlay import Layer, LayerFile, MergedOverlay, merge_layers
from bladeroot.core.overlaysettings import parse_layer_settings
from bladeroot.core.overlaytree import EntryKind, OverlayEntry
from bladeroot.core.templates import TemplateFacts, make_template_facts
from bladeroot.errors import OverlayError
from tests.unit.core.overlay_snapshot import MemorySnapshot

CLUSTER = Cluster(
    name="room",
    id="0" * 32,
    roles={"web": Role(name="web")},
    blades={
        "web01": Blade(name="web01", role="web", address="10.0.0.1/24", facts={"color": "red"}),
        "web02": Blade(name="web02", role="web"),
    },
)
FACTS = make_template_facts(CLUSTER, CLUSTER.blades["web01"], ("nginx.service",))
WANTED = "[Install]\nWantedBy=multi-user.target\n"
UNITS = "usr/lib/systemd/system"
WANTS = "etc/systemd/system/multi-user.target.wants"


def layer(name: str, files: Mapping[str, str | None] | None = None, settings: str = "") -> Layer:
    source = f"{name}/overlay.toml"
    made = tuple(make_file(name, path, text) for path, text in (files or {}).items())
    return Layer(name, made, parse_layer_settings(settings, source), source)


def make_file(name: str, path: str, text: str | None) -> LayerFile:
    source = f"{name}/files/{path}"
    if text is None:
        return LayerFile(path, EntryKind.DIRECTORY, source, mode=0o755)
    if text.startswith("-> "):
        return LayerFile(path, EntryKind.SYMLINK, source, target=text[3:])
    return LayerFile(
        path, EntryKind.FILE, source, content=text.encode(), is_template=path.endswith(".j2"), mode=0o644
    )


def merge(
    snapshot: Mapping[str, str | None] | MemorySnapshot, *layers: Layer, facts: TemplateFacts = FACTS
) -> MergedOverlay:
    view = snapshot if isinstance(snapshot, MemorySnapshot) else MemorySnapshot(snapshot)
    return merge_layers(layers, facts, view)


def by_path(merged: MergedOverlay) -> dict[str, OverlayEntry]:
    return {entry.path: entry for entry in merged.entries if entry.kind is not EntryKind.DELETION}


def deleted(merged: MergedOverlay) -> list[str]:
    return [entry.path for entry in merged.entries if entry.kind is EntryKind.DELETION]


# Files


def test_the_later_layer_wins_and_says_what_it_replaced() -> None:
    merged = merge({"etc/x": "0"}, layer("cluster", {"etc/x": "1"}), layer("role", {"etc/x": "2"}))
    (entry,) = merged.entries
    assert (entry.content, entry.layer, entry.overrides) == (b"2", "role", ("snapshot", "cluster"))


def test_directories_that_are_there_stay_and_new_ones_come_with_their_parents() -> None:
    merged = merge({"etc": None}, layer("cluster", {"etc": None, "opt/a/b": "x"}))
    assert [(entry.path, entry.kind, entry.mode) for entry in merged.entries] == [
        ("opt", EntryKind.DIRECTORY, 0o755),
        ("opt/a", EntryKind.DIRECTORY, 0o755),
        ("opt/a/b", EntryKind.FILE, 0o644),
    ]


@pytest.mark.parametrize("target", ["usr/lib", "/usr/lib", "./usr/../usr/lib", "../../usr/lib"])
def test_files_land_where_the_snapshots_links_lead(target: str) -> None:
    snapshot = {"usr/lib": None, "lib": f"-> {target}"}
    merged = merge(snapshot, layer("cluster", {"lib": None, "lib/modules": None, "lib/modules/x": "1"}))
    assert list(by_path(merged)) == ["usr/lib/modules", "usr/lib/modules/x"]


def test_files_follow_links_of_earlier_layers() -> None:
    merged = merge({"srv": None}, layer("a", {"srv/www": "-> /data"}), layer("b", {"srv/www/x": "1"}))
    assert list(by_path(merged)) == ["data", "data/x", "srv/www"]


def test_a_file_replaces_a_link_and_does_not_go_through_it() -> None:
    merged = merge({"etc/resolv.conf": "-> ../run/resolv.conf"}, layer("a", {"etc/resolv.conf": "x"}))
    assert [(entry.path, entry.content) for entry in merged.entries] == [("etc/resolv.conf", b"x")]


def test_links_in_a_circle_are_an_error() -> None:
    with pytest.raises(OverlayError, match="circle"):
        merge({"a": "-> b", "b": "-> a"}, layer("x", {"a/f": "1"}))


def test_a_file_over_a_directory_needs_a_deletion() -> None:
    snapshot = {"etc/x/old": "1"}
    with pytest.raises(OverlayError, match=r"a/files/etc/x: /etc/x is a directory in the snapshot"):
        merge(snapshot, layer("a", {"etc/x": "2"}))
    merged = merge(snapshot, layer("a", {"etc/x": "2"}, 'delete = ["/etc/x"]'))
    assert [(entry.path, entry.kind) for entry in merged.entries] == [
        ("etc/x", EntryKind.DELETION),
        ("etc/x", EntryKind.FILE),
    ]


def test_a_directory_over_a_file_needs_a_deletion() -> None:
    snapshot = {"etc/x": "1"}
    with pytest.raises(OverlayError, match=r"/etc/x is not a directory in the snapshot"):
        merge(snapshot, layer("a", {"etc/x/y": "2"}))
    merged = merge(snapshot, layer("a", {"etc/x/y": "2"}, 'delete = ["/etc/x"]'))
    assert deleted(merged) == ["etc/x"]
    assert list(by_path(merged)) == ["etc/x", "etc/x/y"]


def test_names_that_mark_deletions_are_refused() -> None:
    with pytest.raises(OverlayError, match=r"\.wh\. mark deletions"):
        merge({}, layer("a", {"etc/.wh.x": ""}))


# Deletions


def test_globs_are_evaluated_against_the_snapshot_and_earlier_layers() -> None:
    snapshot = {"etc/a.conf": "", "etc/b.conf": "", "etc/c": "", "etc/d/e.conf": ""}
    merged = merge(
        snapshot, layer("a", {"etc/mine.conf": "1"}), layer("b", settings='delete = ["/etc/*.conf"]')
    )
    assert deleted(merged) == ["etc/a.conf", "etc/b.conf"]
    assert by_path(merged) == {}


def test_two_stars_are_any_directories() -> None:
    snapshot = {"etc/a.conf": "", "etc/d/e.conf": "", "etc/d/f/g.conf": "", "etc/x": ""}
    merged = merge(snapshot, layer("a", settings='delete = ["/etc/**/*.conf"]'))
    assert deleted(merged) == ["etc/a.conf", "etc/d/e.conf", "etc/d/f/g.conf"]


def test_a_deletion_goes_through_linked_directories_only() -> None:
    snapshot = {"usr/lib/x": "", "lib": "-> usr/lib", "etc/l": "-> ../usr/lib"}
    assert deleted(merge(snapshot, layer("a", settings='delete = ["/lib/x", "/etc/l"]'))) == [
        "etc/l",
        "usr/lib/x",
    ]


def test_a_later_layer_brings_back_what_an_earlier_deletes() -> None:
    merged = merge({"etc/x": "0"}, layer("a", settings='delete = ["/etc/x"]'), layer("b", {"etc/x": "1"}))
    (entry,) = merged.entries
    assert (entry.kind, entry.content, entry.overrides) == (EntryKind.FILE, b"1", ("snapshot", "a"))


def test_a_later_layer_deletes_what_an_earlier_brings() -> None:
    merged = merge({"etc": None}, layer("a", {"etc/x/y": "1"}), layer("b", settings='delete = ["/etc/x"]'))
    assert merged.entries == ()


def test_a_directory_that_is_made_anew_has_nothing_of_the_old() -> None:
    merged = merge(
        {"etc/d/old": "", "etc/d/s": "-> old"},
        layer("a", settings='delete = ["/etc/d"]'),
        layer("b", {"etc/d/new": "1"}),
        layer("c", settings='delete = ["/etc/d/old"]'),
    )
    assert deleted(merged) == ["etc/d"]
    assert list(by_path(merged)) == ["etc/d", "etc/d/new"]
    assert merged.notes == ("c/overlay.toml: delete: nothing is at /etc/d/old",)


# Modes


def test_modes_and_owners_are_those_of_the_snapshots_databases() -> None:
    snapshot = {"etc/passwd": "root:x:0:0::/:\nwww:x:33:33::/:\n", "etc/group": "root:x:0:\nshadow:x:42:\n"}
    settings = '[modes]\n"/etc/x" = { mode = "0640", owner = "www", group = "shadow" }\n'
    entry = by_path(merge(snapshot, layer("a", {"etc/x": ""}, settings)))["etc/x"]
    assert (entry.mode, entry.uid, entry.gid) == (0o640, 33, 42)


def test_a_mode_stays_when_a_later_layer_brings_the_file_again() -> None:
    first = layer("a", {"etc/x": "1"}, '[modes]\n"/etc/x" = { mode = "0600" }\n')
    later = layer("c", settings='[modes]\n"/etc/x" = { owner = "7" }\n')
    entry = by_path(merge({}, first, layer("b", {"etc/x": "2"}), later))["etc/x"]
    assert (entry.content, entry.mode, entry.uid) == (b"2", 0o600, 7)


def test_a_mode_of_the_snapshots_own_file_brings_it_along() -> None:
    snapshot = MemorySnapshot({"etc/x": "kept", "var/d": None}, {"etc/x": (0o644, 5, 6)})
    settings = '[modes]\n"/etc/x" = { mode = "0600" }\n"/var/d" = { mode = "1777" }\n'
    entries = by_path(merge(snapshot, layer("a", settings=settings)))
    assert (entries["etc/x"].content, entries["etc/x"].mode) == (b"kept", 0o600)
    assert (entries["etc/x"].uid, entries["etc/x"].gid) == (5, 6)
    assert (entries["var/d"].kind, entries["var/d"].mode) == (EntryKind.DIRECTORY, 0o1777)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('"/etc/no" = { mode = "0600" }', "a/overlay.toml:2: there is no /etc/no"),
        ('"/etc/l" = { mode = "0600" }', "a/overlay.toml:2: /etc/l is a symbolic link"),
        ('"/etc/x" = { owner = "nobody-here" }', "no user 'nobody-here' in the snapshot's /etc/passwd"),
        ('"/etc/x" = { group = "none" }', "no group 'none' in the snapshot's /etc/group"),
    ],
)
def test_modes_that_cannot_be(setting: str, said: str) -> None:
    with pytest.raises(OverlayError, match=said):
        merge({"etc/x": "", "etc/l": "-> x"}, layer("a", settings=f"[modes]\n{setting}\n"))


# Services


def test_a_later_layer_enables_what_an_earlier_disables_and_the_other_way_round() -> None:
    snapshot = {
        f"{UNITS}/a.service": WANTED,
        f"{UNITS}/b.service": WANTED,
        f"{WANTS}/b.service": "-> /lib/systemd/system/b.service",
        "lib": "-> usr/lib",
    }
    merged = merge(
        snapshot,
        layer("cluster", settings='[services]\ndisable = ["a"]\nenable = ["b"]\n'),
        layer("role", settings='[services]\nenable = ["a"]\ndisable = ["b"]\n'),
    )
    assert deleted(merged) == [f"{WANTS}/b.service"]
    assert by_path(merged)[f"{WANTS}/a.service"].target == f"/{UNITS}/a.service"
    assert [(one.unit, one.action, one.layer, one.overrides) for one in merged.switches] == [
        ("a.service", "enable", "role", ("cluster",)),
        ("b.service", "disable", "role", ("cluster",)),
    ]


def test_what_is_enabled_already_is_not_linked_again() -> None:
    snapshot = {
        f"{UNITS}/a.service": WANTED,
        f"{WANTS}/a.service": "-> /lib/systemd/system/a.service",
        "lib": "-> usr/lib",
    }
    merged = merge(snapshot, layer("a", settings='[services]\nenable = ["a"]\n'))
    assert merged.entries == ()
    assert merged.switches[0].changes == ()


def test_units_of_a_later_layer_are_found() -> None:
    merged = merge(
        {"etc": None},
        layer("cluster", settings='[services]\nenable = ["mine"]\n'),
        layer("role", {"etc/systemd/system/mine.service": WANTED}),
    )
    assert by_path(merged)[f"{WANTS}/mine.service"].target == "/etc/systemd/system/mine.service"


def test_a_unit_goes_by_any_of_its_names() -> None:
    snapshot = {
        f"{UNITS}/ssh.service": "[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n",
        "etc/systemd/system/sshd.service": f"-> /{UNITS}/ssh.service",
        f"{WANTS}/ssh.service": f"-> /{UNITS}/ssh.service",
    }
    merged = merge(snapshot, layer("a", settings='[services]\ndisable = ["sshd"]\n'))
    assert deleted(merged) == [f"{WANTS}/ssh.service", "etc/systemd/system/sshd.service"]
    both = merge(
        snapshot,
        layer("a", settings='[services]\ndisable = ["ssh"]\n'),
        layer("b", settings='[services]\nenable = ["sshd"]\n'),
    )
    assert both.entries == ()


def test_mask_and_unmask() -> None:
    snapshot = {f"{UNITS}/a.service": WANTED, f"{WANTS}/a.service": f"-> /{UNITS}/a.service"}
    mask = layer("cluster", settings='[services]\nmask = ["a"]\n')
    masked = merge(snapshot, mask)
    assert by_path(masked)["etc/systemd/system/a.service"].target == "/dev/null"
    assert merge(snapshot, mask, layer("role", settings='[services]\nenable = ["a"]\n')).entries == ()
    in_snapshot = {**snapshot, "etc/systemd/system/a.service": "-> /dev/null"}
    unmasked = merge(in_snapshot, layer("role", settings='[services]\nenable = ["a"]\n'))
    assert deleted(unmasked) == ["etc/systemd/system/a.service"]


def test_links_in_files_win_over_switches_of_the_same_and_earlier_layers() -> None:
    snapshot = {f"{UNITS}/a.service": WANTED, f"{UNITS}/other.service": WANTED}
    mine = {f"{WANTS}/a.service": f"-> /{UNITS}/other.service"}
    switch = '[services]\nenable = ["a"]\n'
    for layers in ([layer("x", mine, switch)], [layer("w", settings=switch), layer("x", mine)]):
        assert by_path(merge(snapshot, *layers))[f"{WANTS}/a.service"].target == f"/{UNITS}/other.service"
    later = merge(snapshot, layer("x", mine), layer("y", settings=switch))
    assert by_path(later)[f"{WANTS}/a.service"].target == f"/{UNITS}/a.service"


def test_an_unknown_unit_names_the_layer_and_where_it_was_looked_for() -> None:
    with pytest.raises(
        OverlayError, match=r"b/overlay.toml:2: layer b: there is no unit x\.service"
    ) as caught:
        merge({}, layer("a"), layer("b", settings='[services]\nenable = ["x"]\n'))
    assert f"/{UNITS}" in str(caught.value)
    assert '"-x.service"' in caught.value.hint


def test_an_optional_unit_is_passed_over_with_a_note() -> None:
    merged = merge({}, layer("a", settings='[services]\ndisable = ["-x"]\n'))
    assert merged.switches == ()
    assert merged.notes == ("a/overlay.toml:2: x.service is not in the snapshot; passed over",)


def test_a_switch_of_its_own_beats_also() -> None:
    snapshot = {
        f"{UNITS}/a.service": WANTED + "Also=b.service\n",
        f"{UNITS}/b.service": WANTED,
        f"{WANTS}/b.service": f"-> /{UNITS}/b.service",
    }
    merged = merge(snapshot, layer("x", settings='[services]\nenable = ["a"]\ndisable = ["b"]\n'))
    assert deleted(merged) == [f"{WANTS}/b.service"]
    assert list(by_path(merged)) == [f"{WANTS}/a.service"]


def test_what_systemd_masks_itself_cannot_be_enabled() -> None:
    with pytest.raises(OverlayError, match=r"a/overlay.toml:2: layer a: x\.service is masked"):
        merge({f"{UNITS}/x.service": "-> /dev/null"}, layer("a", settings='[services]\nenable = ["x"]\n'))


def test_without_a_snapshot_services_stay_switches() -> None:
    settings = 'delete = ["/etc/a*"]\n[services]\nenable = ["nginx"]\n[modes]\n"/etc/m" = { mode = "0600" }\n'
    merged = merge_layers([layer("a", {"etc/x": "1"}, settings)], FACTS, None)
    assert [(entry.path, entry.kind) for entry in merged.entries] == [
        ("etc/a*", EntryKind.DELETION),
        ("etc", EntryKind.DIRECTORY),
        ("etc/x", EntryKind.FILE),
    ]
    assert [(one.unit, one.changes) for one in merged.switches] == [("nginx.service", ())]
    assert merged.notes == ("a/overlay.toml:5: the mode of /etc/m shows with a snapshot only",)


# Templates


def test_templates_know_blade_role_cluster_and_all_blades() -> None:
    text = (
        "{{ blade.name }} {{ blade.ip }}/{{ blade.prefix_length }} {{ blade.facts.color }} {{ role.name }} "
        "{{ cluster.name }} {{ blades | map(attribute='name') | join('+') }} {{ switched_services[0] }} "
        "{{ blade.rack | default('none') }}\n"
    )
    entry = by_path(merge({"etc": None}, layer("a", {"etc/x.j2": text})))["etc/x"]
    assert entry.content == b"web01 10.0.0.1/24 red web room web01+web02 nginx.service none\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1\n{{ nope }}\n", "files/etc/x.j2:2: 'nope' is undefined"),
        ("1\n\n{{ blade.rack }}\n", "files/etc/x.j2:3: blade web01 has no 'rack'"),
        ("{% for b in blades %}\n{{ b.ip }}\n{% endfor %}", "files/etc/x.j2:2: blade web02 has no 'ip'"),
        ("1\n{% if %}\n", "files/etc/x.j2:2: "),
        ("1\n{{ 1 / 0 }}\n", "files/etc/x.j2:2: ZeroDivisionError"),
        ("1\n2\n{{ blade.name | nope }}\n", "files/etc/x.j2:3: No filter named 'nope'"),
    ],
)
def test_errors_in_templates_name_file_and_line(text: str, said: str) -> None:
    with pytest.raises(OverlayError, match=said):
        merge({}, layer("a", {"etc/x.j2": text}))


# overlay.toml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("delete = [", "o.toml: "),
        ("\ndelet = []", "o.toml:2: delet: no such key here; there is delete, modes, services"),
        ('delete = ["etc/x"]', "o.toml:1: delete: expected an absolute path, found 'etc/x'"),
        ('delete = ["/"]', "o.toml:1: delete: expected an absolute path"),
        ('delete = ["/etc/../x"]', "o.toml:1: delete: expected an absolute path"),
        ("delete = 3", "o.toml:1: delete: expected a list of strings"),
        ('[modes]\n"/x" = "0644"', "o.toml:2: modes./x: expected a table"),
        ('[modes]\n"/x" = { mode = 420 }', "o.toml:2: modes./x.mode: expected octal digits in quotes"),
        ('[modes]\n"/x" = { mod = "0644" }', "o.toml:2: modes./x.mod: no such key here"),
        ('[services]\nstart = ["x"]', "o.toml:2: services.start: no such key here"),
        ('[services]\nenable = ["x"]\ndisable = ["x.service"]', "o.toml:3: .*x.service is already in enable"),
        ('[services]\nenable = ["a/b"]', "o.toml:2: services.enable: not a unit's name: 'a/b'"),
    ],
)
def test_errors_in_settings_name_file_line_and_key(text: str, said: str) -> None:
    with pytest.raises(OverlayError, match=said):
        parse_layer_settings(text, "o.toml")
