from __future__ import annotations

import io
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import zstandard

from bladeroot.core.cluster import Blade, Cluster, Network, Role
from bladeroot.core.overlaytree import EntryKind
from bladeroot.errors import OverlayError, SnapshotError
from bladeroot.host.run import run
from bladeroot.ops.folder import find_shipped_overlays
from bladeroot.ops.overlays import (
    BuiltOverlay,
    OverlayBuilder,
    build_overlay,
    find_switched_services,
    read_layer,
)

WANTED = "[Install]\nWantedBy=multi-user.target\n"
UNITS = "usr/lib/systemd/system"
HOST_UNITS = Path("/usr/lib/systemd/system")


def write_tree(root: Path, content: Mapping[str, str | None]) -> Path:
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if text is None:
            path.mkdir(exist_ok=True)
        elif text.startswith("-> "):
            path.symlink_to(text[3:])
        else:
            path.write_text(text)
    return root


def make_cluster(**blade: object) -> Cluster:
    one = Blade(name="web01", role="web", **blade)  # type: ignore[arg-type]
    return Cluster(
        name="room",
        id="1" * 32,
        roles={"web": Role(name="web"), "cache": Role(name="cache")},
        network=Network(domain="room.lan", gateway="10.0.0.254", nameservers=("10.0.0.53",)),
        blades={"web01": one, "cache01": Blade(name="cache01", role="cache", address="10.0.0.2/24")},
    )


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    return write_tree(
        tmp_path / "snapshot",
        {
            "etc/passwd": "root:x:0:0::/root:/bin/sh\n",
            "etc/group": "root:x:0:\n",
            "etc/hostname": "golden\n",
            "lib": "-> usr/lib",
            f"{UNITS}/nginx.service": WANTED,
            f"{UNITS}/memcached.service": WANTED,
            f"{UNITS}/systemd-networkd.service": WANTED + "Also=systemd-networkd-wait-online.service\n",
            f"{UNITS}/systemd-networkd-wait-online.service": WANTED,
            "etc/systemd/system/multi-user.target.wants/memcached.service": f"-> /{UNITS}/memcached.service",
        },
    )


@pytest.fixture
def layers(tmp_path: Path) -> Path:
    return tmp_path / "overlays"


def build(cluster: Cluster, layers: Path, snapshot: Path, blade: str = "web01") -> BuiltOverlay:
    keys = {"operator.pub": b"the key\n"}
    return build_overlay(cluster, layers, keys, "# cluster.toml\n", snapshot, cluster.blades[blade])


def members(built: BuiltOverlay) -> dict[str, tuple[tarfile.TarInfo, bytes]]:
    raw = zstandard.ZstdDecompressor().decompress(built.tar_zst)
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        found = {}
        for info in archive:
            file = archive.extractfile(info) if info.isreg() else None
            found[info.name] = (info, file.read() if file else b"")
        return found


def texts(built: BuiltOverlay) -> dict[str, str]:
    return {name: data.decode() for name, (info, data) in members(built).items() if info.isreg()}


# bladeroot's own layer


def test_a_blade_gets_its_name_and_what_it_takes_to_be_root(layers: Path, snapshot: Path) -> None:
    found = texts(build(make_cluster(), layers, snapshot))
    assert found["etc/hostname"] == "web01\n"
    assert "127.0.1.1\tweb01.room.lan web01\n" in found["etc/hosts"]
    assert "10.0.0.2\tcache01.room.lan cache01\n" in found["etc/hosts"]
    assert found["etc/bladeroot/cluster.toml"] == "# cluster.toml\n"
    assert found["etc/bladeroot/keys/trusted/operator.pub"] == "the key\n"


def test_an_address_is_given_by_mac_and_does_not_wait_for_a_network(layers: Path, snapshot: Path) -> None:
    cluster = make_cluster(address="10.0.0.1/24", macs=("52-54-00-00-00-0A", "52-54-00-00-00-0B"))
    built = build(cluster, layers, snapshot)
    found = members(built)
    text = texts(built)["etc/systemd/network/10-bladeroot.network"]
    assert text.splitlines() == [
        "[Match]",
        "MACAddress=52:54:00:00:00:0a",
        "",
        "[Network]",
        "Address=10.0.0.1/24",
        "Gateway=10.0.0.254",
        "DNS=10.0.0.53",
        "Domains=room.lan",
        "ConfigureWithoutCarrier=yes",
    ]
    wants = "etc/systemd/system/multi-user.target.wants"
    assert f"{wants}/systemd-networkd.service" in found
    assert not any("wait-online" in name for name in found)
    assert texts(built)["etc/resolv.conf"] == "search room.lan\nnameserver 10.0.0.53\n"


def test_network_manager_gets_a_file_that_only_root_reads(layers: Path, snapshot: Path) -> None:
    write_tree(snapshot, {f"{UNITS}/NetworkManager.service": WANTED})
    built = build(make_cluster(address="10.0.0.1/24", macs=("525400000001",)), layers, snapshot)
    info, content = members(built)["etc/NetworkManager/system-connections/bladeroot.nmconnection"]
    assert info.mode == 0o600
    assert b"address1=10.0.0.1/24\n" in content
    assert b"mac-address=52:54:00:00:00:01\n" in content
    assert not any("networkd" in entry.path for entry in built.entries)


def test_an_address_that_cannot_be_set_is_noted(layers: Path, tmp_path: Path, snapshot: Path) -> None:
    bare = write_tree(tmp_path / "bare", {"etc/passwd": ""})
    with_mac = make_cluster(address="10.0.0.1/24", macs=("525400000001",))
    assert "neither systemd-networkd nor NetworkManager" in build(with_mac, layers, bare).plan.notes[0]
    assert "no MAC address" in build(make_cluster(address="10.0.0.1/24"), layers, snapshot).plan.notes[0]


def test_any_layer_replaces_what_bladeroot_makes(layers: Path, snapshot: Path) -> None:
    write_tree(layers, {"role/web/files/etc/hosts.j2": "127.0.0.1 {{ blade.name }}\n"})
    built = build(make_cluster(), layers, snapshot)
    assert texts(built)["etc/hosts"] == "127.0.0.1 web01\n"
    (entry,) = (entry for entry in built.entries if entry.path == "etc/hosts")
    assert (entry.layer, entry.overrides) == ("role/web", ("bladeroot",))


# Layers from a folder


def test_layers_are_cluster_role_blade(layers: Path, snapshot: Path) -> None:
    files = ("cluster", "role/web", "role/cache", "blade/web01", "blade/cache01")
    write_tree(layers, {f"{name}/files/opt/{number}": name for number, name in enumerate(files)})
    write_tree(layers, {f"{name}/files/opt/x": name for name in files})
    found = texts(build(make_cluster(), layers, snapshot))
    assert {name: text for name, text in found.items() if name.startswith("opt")} == {
        "opt/0": "cluster",
        "opt/1": "role/web",
        "opt/3": "blade/web01",
        "opt/x": "blade/web01",
    }


def test_links_and_modes_are_kept_but_not_what_umask_gives(layers: Path, snapshot: Path) -> None:
    write_tree(
        layers, {"cluster/files/opt/a": "1", "cluster/files/opt/b": "2", "cluster/files/opt/l": "-> ../gone"}
    )
    (layers / "cluster/files/opt/a").chmod(0o775)
    (layers / "cluster/files/opt/b").chmod(0o600)
    (layers / "cluster/files/opt").chmod(0o700)
    found = members(build(make_cluster(), layers, snapshot))
    assert found["opt"][0].mode == 0o755
    assert found["opt/a"][0].mode == 0o755
    assert found["opt/b"][0].mode == 0o600
    assert found["opt/l"][0].linkname == "../gone"
    assert {info.uid for info, _ in found.values()} | {info.gid for info, _ in found.values()} == {0}


def test_deletions_are_whiteouts(layers: Path, snapshot: Path) -> None:
    write_tree(layers, {"cluster/overlay.toml": '[services]\ndisable = ["memcached"]\n'})
    found = members(build(make_cluster(), layers, snapshot))
    info, content = found["etc/systemd/system/multi-user.target.wants/.wh.memcached.service"]
    assert (info.size, content) == (0, b"")


def test_the_archive_is_the_same_whenever_and_wherever_it_is_made(
    layers: Path, snapshot: Path, tmp_path: Path
) -> None:
    content = {
        "cluster/files/opt/a": "1",
        "role/web/files/etc/y.j2": "{{ blade.name }}",
        "cluster/files/l": "-> x",
    }
    first = build(make_cluster(), write_tree(layers, content), snapshot)
    other = write_tree(tmp_path / "elsewhere", dict(reversed(content.items())))
    os.utime(other / "cluster/files/opt/a", (1, 1))
    os.utime(snapshot / "etc", (5, 5))
    assert build(make_cluster(), other, snapshot).tar_zst == first.tar_zst


def test_times_change_with_the_content(layers: Path, snapshot: Path) -> None:
    def time_of(text: str) -> float:
        (layers / "cluster/files/opt").mkdir(parents=True, exist_ok=True)
        (layers / "cluster/files/opt/a").write_text(text)
        return members(build(make_cluster(), layers, snapshot))["opt/a"][0].mtime

    assert time_of("1") == time_of("1")
    assert time_of("1") != time_of("2")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"cluster/etc/x": "1"}, "cluster/etc: does not belong into a layer"),
        ({"cluster/overlay.toml": "x = 1"}, "cluster/overlay.toml:1: x: no such key"),
        ({"role/web/files/a.j2": "\n{{ x }}"}, "role/web/files/a.j2:2: 'x' is undefined"),
    ],
)
def test_errors_name_the_layers_file(
    layers: Path, snapshot: Path, content: Mapping[str, str], said: str
) -> None:
    write_tree(layers, content)
    with pytest.raises(OverlayError, match=said):
        build(make_cluster(), layers, snapshot)


def test_what_is_no_file_is_refused(layers: Path) -> None:
    (layers / "cluster/files").mkdir(parents=True)
    os.mkfifo(layers / "cluster/files/pipe")
    with pytest.raises(OverlayError, match="files/pipe: neither a file"):
        read_layer(layers / "cluster", "cluster")


def test_a_path_that_is_no_snapshot(layers: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(SnapshotError, match="is not a snapshot"):
            build(make_cluster(), layers, path)


def test_links_of_the_snapshot_never_lead_out_of_it(layers: Path, snapshot: Path, tmp_path: Path) -> None:
    outside = write_tree(tmp_path / "outside", {"passwd": "evil:x:99:\n"})
    (snapshot / "etc/passwd").unlink()
    (snapshot / "etc/passwd").symlink_to(outside / "passwd")
    (snapshot / "srv").symlink_to(outside)
    write_tree(layers, {"cluster/files/srv/x": "1", "cluster/overlay.toml": 'delete = ["/srv/passwd"]\n'})
    built = build(make_cluster(), layers, snapshot)
    assert str(outside)[1:] + "/x" in members(built)
    assert not any(entry.kind is EntryKind.DELETION for entry in built.entries)
    write_tree(layers, {"role/web/overlay.toml": '[modes]\n"/srv/x" = { owner = "evil" }\n'})
    with pytest.raises(OverlayError, match="no user 'evil'"):
        build(make_cluster(), layers, snapshot)


# What ships


def test_what_ships_says_on_the_console_what_runs(snapshot: Path, tmp_path: Path) -> None:
    shipped = find_shipped_overlays()
    assert shipped is not None
    assert find_switched_services(shipped) == ("memcached.service", "nginx.service")
    cluster = make_cluster()
    builder = OverlayBuilder(cluster, shipped, {}, "", snapshot)
    web, cache = builder.build(cluster.blades["web01"]), builder.build(cluster.blades["cache01"])
    wants = "etc/systemd/system/multi-user.target.wants"
    assert f"{wants}/bladeroot-booted.service" in members(web)
    assert f"{wants}/nginx.service" in members(web)
    assert f"{wants}/.wh.memcached.service" in members(web)
    assert f"{wants}/nginx.service" not in members(cache)
    assert f"{wants}/.wh.memcached.service" not in members(cache)
    assert "web01" in texts(web)["var/www/html/index.html"]

    line = run_booted_script(texts(web)["usr/local/lib/bladeroot/booted.sh"], tmp_path)
    assert line == (
        'bladeroot-booted {"blade": "web01", "hostname": "h", "role": "web", "serial": 42, '
        '"active": ["nginx.service"], "inactive": ["memcached.service"], "failed": []}'
    )


def run_booted_script(script: str, scratch: Path) -> str:
    """Run the script with commands and files of our own in place of a booted machine's."""
    tools = scratch / "tools"
    tools.mkdir()
    for name, text in (
        ("systemctl", "case $2 in nginx.service) echo active ;; *) echo inactive; exit 3 ;; esac"),
        ("uname", "echo h"),
    ):
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    (scratch / "installed.json").write_text('{\n  "blade": "web01",\n  "serial": 42,\n  "x": 1\n}\n')
    console = scratch / "console"
    script = script.replace("/dev/console", str(console))
    script = script.replace("/etc/bladeroot/installed.json", str(scratch / "installed.json"))
    run(["sh", "-c", f"PATH={tools}:$PATH; {script}"])
    (empty, line) = console.read_text().splitlines()
    assert empty == ""
    return line


# Against systemctl itself

SWITCHABLE = (
    "systemd-networkd.service",
    "systemd-timesyncd.service",
    "getty@tty2.service",
    "getty@.service",
    "fstrim.timer",
    "systemd-pstore.service",
    "remote-fs.target",
    "reboot.target",
    "debug-shell.service",
)


@pytest.fixture
def real_units(tmp_path: Path) -> Path:
    if shutil.which("systemctl") is None or not HOST_UNITS.is_dir():
        pytest.skip("needs systemctl and systemd's units")
    root = tmp_path / "real"
    shutil.copytree(HOST_UNITS, root / UNITS, symlinks=True)
    return write_tree(root, {"etc/passwd": "", "lib": "-> usr/lib", "etc/systemd/system": None})


def read_links(root: Path) -> Iterator[tuple[str, str]]:
    """Every link below etc/systemd/system with its target's file name: /lib or /usr/lib is the same here."""
    top = root / "etc/systemd/system"
    for path in sorted(top.rglob("*")):
        if path.is_symlink():
            yield str(path.relative_to(root)), os.path.basename(os.readlink(path))


@pytest.mark.parametrize("unit", SWITCHABLE)
def test_links_are_those_that_systemctl_makes(
    unit: str, real_units: Path, layers: Path, tmp_path: Path
) -> None:
    template = re.sub(r"@[^.]+", "@", unit)
    if not any((real_units / UNITS / name).exists() for name in (unit, template)):
        pytest.skip(f"this machine has no {unit}")
    enabled = tmp_path / "enabled"
    shutil.copytree(real_units, enabled, symlinks=True)
    run(["systemctl", f"--root={enabled}", "enable", unit])
    theirs = dict(read_links(enabled))
    assert theirs

    write_tree(layers, {"cluster/overlay.toml": f'[services]\nenable = ["{unit}"]\n'})
    built = build(make_cluster(), layers, real_units)
    ours = {entry.path: os.path.basename(entry.target) for entry in built.entries if entry.target}
    assert ours == theirs

    (layers / "cluster/overlay.toml").write_text(f'[services]\ndisable = ["{unit}"]\n')
    gone = {e.path for e in build(make_cluster(), layers, enabled).entries if e.kind is EntryKind.DELETION}
    run(["systemctl", f"--root={enabled}", "disable", unit])
    assert gone == theirs.keys() - dict(read_links(enabled)).keys()
