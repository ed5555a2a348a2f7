"""A whole Debian through the pipeline: what was published is what is installed, and what tar unpacks."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

import pytest

from bladeroot.core.cluster import GIB, MIB, Blade, Layout
from bladeroot.core.manifest import ArtefactKind
from bladeroot.core.splitting import Part
from bladeroot.host.mounts import mounted
from bladeroot.host.run import PIPE, run, start_process
from bladeroot.ops.identity import write_host_keys
from bladeroot.ops.publish import plan_publish
from tests.system.test_install import install_blade, look_into
from tests.toycluster import ToyCluster, make_cluster
from tests.treecompare import find_tree_differences

pytestmark = pytest.mark.system

LAYOUT = Layout(esp_size_bytes=64 * MIB, slot_size_bytes=3 * GIB, data_min_size_bytes=1 * GIB)
DISK_SIZE_BYTES = 5 * GIB


@pytest.fixture(scope="module")
def cluster(debian_snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> ToyCluster:
    directory = tmp_path_factory.mktemp("debian")
    return make_cluster(
        directory, debian_snapshot, [Blade(name="web01", role="web")], layout=LAYOUT, zstd_level=1
    )


@pytest.fixture(scope="module")
def left_out(cluster: ToyCluster) -> frozenset[bytes]:
    plan = plan_publish(cluster.folder, cluster.snapshot)
    return frozenset(member.path for member in plan.parts[Part.LEFT_OUT])


def find_differences(cluster: ToyCluster, tree: Path, ignore: frozenset[bytes]) -> list[str]:
    """But for times of directories that have something of a blade's own, or lack what was left out."""
    parents = {os.path.dirname(path) for path in ignore}
    times = {rb"%s/?(: mtime.*)?" % re.escape(parent) for parent in parents} | {rb"\./", rb"\.: mtime.*"}
    harmless = re.compile(rb"(rsync: \.d\.\.t\S* )?(%s)" % b"|".join(sorted(times)))
    lines = find_tree_differences(cluster.snapshot, tree, ignore=ignore)
    return [line for line in lines if not harmless.fullmatch(os.fsencode(line))]


def test_the_exported_tarballs_unpack_to_the_snapshot(
    cluster: ToyCluster, left_out: frozenset[bytes], tmp_path: Path
) -> None:
    for kind in (ArtefactKind.RUNTIME, ArtefactKind.EXTRAS):
        artefact = cluster.manifest.artefact(kind)
        export = ["cat", *map(str, cluster.depot.artefact_files(artefact.info_hash))]
        with start_process(export, stdout=PIPE) as source:
            unpack = ["--zstd", "--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf", "-"]
            with start_process(["tar", "-C", tmp_path, *unpack], stdin=source.stdout) as tar:
                assert tar.wait() == 0
            assert source.wait() == 0
    assert find_differences(cluster, tmp_path, left_out) == []


def test_an_installed_blade_is_the_snapshot_and_its_overlay(
    cluster: ToyCluster, left_out: frozenset[bytes], tmp_path: Path
) -> None:
    disk = cluster.make_disk(tmp_path / "disk", DISK_SIZE_BYTES)
    install_blade(cluster, disk)
    own = {
        b"etc/bladeroot",
        b"etc/fstab",
        b"etc/hosts",
        b"etc/hostname",
        b"etc/machine-id",
        b"etc/toyos-says",
        b"lost+found",
    }
    with look_into(disk, tmp_path) as slot:
        host_keys = {os.fsencode(path.relative_to(slot)) for path in slot.glob("etc/ssh/ssh_host_*")}
        assert len(host_keys) >= 4
        ignore = left_out | own | host_keys | {b"var/lib/bladeroot"}
        assert find_differences(cluster, slot, ignore) == []
        assert (slot / "etc/hostname").read_text() == "web01\n"
        assert run(["chroot", slot, "/usr/bin/dpkg", "--audit"]).stdout == ""


def test_publishing_it_again_gives_the_same_artefacts(cluster: ToyCluster) -> None:
    assert cluster.publish() == cluster.manifest


def test_host_keys_are_made_in_a_tree_without_devices_and_kept_afterwards(
    debian_snapshot: Path, tmp_path: Path
) -> None:
    upper, tree, identity = tmp_path / "upper", tmp_path / "tree", tmp_path / "identity"
    for directory in (upper, tmp_path / "work", identity):
        directory.mkdir()
    layers = [f"lowerdir={debian_snapshot}", f"upperdir={upper}", f"workdir={tmp_path / 'work'}"]
    with mounted(Path("overlay"), tree, filesystem="overlay", options=layers):
        for device in (tree / "dev").iterdir():  # as in a captured tree
            run(["rm", "-rf", device])
        assert write_host_keys(tree, identity)
        made = {path.name: path.read_bytes() for path in tree.glob("etc/ssh/ssh_host_*")}
        assert len(made) >= 4
        assert not list((tree / "dev").iterdir())
        run(["rm", "-rf", *tree.glob("etc/ssh/ssh_host_*")])
        assert write_host_keys(tree, identity)
        assert {path.name: path.read_bytes() for path in tree.glob("etc/ssh/ssh_host_*")} == made
        modes = {stat.S_IMODE(path.stat().st_mode) for path in tree.glob("etc/ssh/ssh_host_*_key")}
        assert modes == {0o600}
