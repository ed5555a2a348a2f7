from __future__ import annotations

import hashlib
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bladeroot import __version__, events
from bladeroot.core.capturerules import DEFAULT_CAPTURE_RULES, parse_capture_rules
from bladeroot.errors import NetworkError, SnapshotError, ToolError
from bladeroot.host.kernels import find_boot_files
from bladeroot.host.mounts import find_mounts, mounted, mounted_chroot
from bladeroot.host.run import run, start_process
from bladeroot.ops.owndaemon import SERVICE, runs_daemon
from bladeroot.ops.snapshots.adopt import adopt_snapshot, check_snapshot
from bladeroot.ops.snapshots.capture import capture_snapshot, marker_path, read_marker
from bladeroot.ops.snapshots.debian import build_debian, clone_snapshot
from bladeroot.ops.snapshots.selfcopy import DIRECTORY, copy_self
from bladeroot.ops.snapshots.source import parse_source

pytestmark = pytest.mark.system

RULES = parse_capture_rules(DEFAULT_CAPTURE_RULES)


def describe(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything about every file that a copy must keep."""
    found: dict[str, tuple[object, ...]] = {}
    for parent, directories, names in os.walk(root):
        for name in [*directories, *names]:
            path = os.path.join(parent, name)
            facts = os.lstat(path)
            content: object = None
            if stat.S_ISLNK(facts.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(facts.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False)
                for key in os.listxattr(path, follow_symlinks=False)
            }
            key = os.path.relpath(path, root)
            found[key] = (
                facts.st_mode,
                facts.st_uid,
                facts.st_gid,
                facts.st_mtime_ns,
                facts.st_rdev,
                content,
                attributes,
            )
    return found


@pytest.fixture
def golden(tmp_path: Path) -> Path:
    root = tmp_path / "golden"
    for name in (
        "etc/ssh",
        "var/log/app",
        "var/cache/apt/archives",
        "proc",
        "tmp",
        "usr/bin",
        "dev",
        "srv",
        "boot",
    ):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    (root / "etc/ssh/ssh_host_ed25519_key").write_text("secret")
    (root / "etc/ssh/sshd_config").write_text("UsePAM yes\n")
    (root / "var/log/app/today").write_text("noise")
    (root / "var/cache/apt/archives/a.deb").write_text("x")
    (root / "proc/version").write_text("not a file")
    (root / "tmp/t").write_text("t")
    (root / "usr/bin/a").write_bytes(b"a" * 5000)
    (root / "usr/bin/a").chmod(0o4755)
    os.chown(root / "usr/bin/a", 12, 345)
    os.chmod(root / "usr/bin/a", 0o4755)
    os.link(root / "usr/bin/a", root / "usr/bin/hard")
    (root / "usr/bin/soft").symlink_to("/nowhere")
    os.setxattr(root / "usr/bin/a", "user.note", b"\x00\xff")
    run(["setcap", "cap_net_raw+ep", root / "usr/bin/a"])
    run(["setfacl", "-m", "u:7:rw", root / "srv"])
    os.mkfifo(root / "srv/fifo")
    os.mknod(root / "srv/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (root / "srv" / os.fsdecode(b"latin-\xe9")).write_text("bytes")
    with (root / "srv/sparse").open("wb") as stream:
        stream.truncate(8 << 20)
    os.utime(root / "srv", ns=(1, 1234567890123456789))
    return root


class TestCapture:
    def test_what_belongs_is_there_as_it_was_and_the_rest_is_not(self, golden: Path, tmp_path: Path) -> None:
        target = tmp_path / "snap"
        before = describe(golden)
        heard: list[events.Event] = []
        result = capture_snapshot(parse_source(str(golden)), target, rules=RULES, reporter=heard.append)
        after = describe(target)
        left_out = {
            "etc/ssh/ssh_host_ed25519_key",
            "var/log/app/today",
            "var/cache/apt/archives/a.deb",
            "proc/version",
            "tmp/t",
        }
        assert set(before) - set(after) == left_out
        assert set(after) <= set(before)
        changed = {name: (before[name], after[name]) for name in after if after[name] != before[name]}
        assert set(changed) == {"etc/machine-id"}, changed
        assert (target / "etc/machine-id").read_bytes() == b""
        assert (target / "usr/bin/a").samefile(target / "usr/bin/hard")
        assert (target / "srv/sparse").stat().st_blocks == 0
        assert result.filesystems == ("/",)
        assert result.files == len(after)  # the top counts, the emptied machine-id does not
        progress = [event for event in heard if isinstance(event, events.Progress)]
        assert progress
        assert progress[-1].done == progress[-1].total
        assert describe(golden) == before

    def test_a_second_capture_moves_only_what_changed(self, golden: Path, tmp_path: Path) -> None:
        target = tmp_path / "snap"
        capture_snapshot(parse_source(str(golden)), target, rules=RULES)
        first = describe(target)
        again = capture_snapshot(parse_source(str(golden)), target, rules=RULES)
        assert (again.transferred_files, again.deleted_files) == (0, 0)
        assert describe(target) == first

        (golden / "etc/new").write_text("new")
        (golden / "usr/bin/soft").unlink()
        planned = capture_snapshot(parse_source(str(golden)), target, rules=RULES, dry_run=True)
        assert describe(target) == first
        done = capture_snapshot(parse_source(str(golden)), target, rules=RULES)
        for result in (planned, done):
            assert (result.transferred_files, result.deleted_files) == (1, 1)
        assert (target / "etc/new").read_text() == "new"
        assert not (target / "usr/bin/soft").is_symlink()

    def test_a_rule_that_comes_later_removes_what_was_taken(self, golden: Path, tmp_path: Path) -> None:
        target = tmp_path / "snap"
        capture_snapshot(parse_source(str(golden)), target, rules=RULES)
        stricter = parse_capture_rules(DEFAULT_CAPTURE_RULES + "/srv/*\n")
        capture_snapshot(parse_source(str(golden)), target, rules=stricter)
        assert list((target / "srv").iterdir()) == []

    def test_mounted_filesystems_belong_to_it(self, golden: Path, tmp_path: Path) -> None:
        image = tmp_path / "boot.img"
        with image.open("wb") as stream:
            stream.truncate(16 << 20)
        run(["mkfs.ext4", "-q", image])
        with ExitStack() as stack:
            stack.enter_context(mounted(image, golden / "boot", options=["loop"]))
            (golden / "boot/vmlinuz-1").write_text("k")
            (golden / "mnt/usb").mkdir(parents=True)
            stack.enter_context(mounted(Path("none"), golden / "mnt/usb", filesystem="tmpfs"))
            (golden / "var/www").mkdir()
            stack.enter_context(mounted(golden / "usr", golden / "var/www", options=["bind"]))
            result = capture_snapshot(parse_source(str(golden)), tmp_path / "snap", rules=RULES)
            assert result.filesystems == ("/", "/boot")
            assert (tmp_path / "snap/boot/vmlinuz-1").read_text() == "k"
            assert list((tmp_path / "snap/var/www").iterdir()) == []
            (golden / "boot/vmlinuz-1").unlink()
            capture_snapshot(parse_source(str(golden)), tmp_path / "snap", rules=RULES)
            assert not (tmp_path / "snap/boot/vmlinuz-1").exists()

    def test_a_target_inside_the_source_does_not_copy_itself(self, golden: Path) -> None:
        target = golden / "srv/snapshots/mine"
        for _ in range(2):
            capture_snapshot(parse_source(str(golden)), target, rules=RULES)
            assert (target / "usr/bin/a").exists()
            assert list((target / "srv/snapshots").iterdir()) == []

    def test_what_is_in_the_way_is_not_deleted(self, golden: Path, tmp_path: Path) -> None:
        target = tmp_path / "precious"
        target.mkdir()
        (target / "file").write_text("mine")
        with pytest.raises(SnapshotError, match="not made by a capture"):
            capture_snapshot(parse_source(str(golden)), target, rules=RULES)
        with pytest.raises(SnapshotError, match="is inside"):
            capture_snapshot(parse_source(str(golden / "etc")), golden, rules=RULES)
        assert (target / "file").read_text() == "mine"

    def test_another_source_is_refused(self, golden: Path, tmp_path: Path) -> None:
        target = tmp_path / "snap"
        capture_snapshot(parse_source(str(golden)), target, rules=RULES)
        with pytest.raises(SnapshotError, match="is a capture of"):
            capture_snapshot(parse_source(str(golden / "etc")), target, rules=RULES)
        # A marker does not speak for another directory of the same name.
        target.rename(tmp_path / "elsewhere")
        target.mkdir()
        (target / "file").touch()
        with pytest.raises(SnapshotError, match="not made by a capture"):
            capture_snapshot(parse_source(str(golden)), target, rules=RULES)

    def test_an_unfinished_capture_is_known_as_one(self, golden: Path, tmp_path: Path) -> None:
        target = tmp_path / "snap"
        capture_snapshot(parse_source(str(golden)), target, rules=RULES)
        image = tmp_path / "small.img"
        with image.open("wb") as stream:
            stream.truncate(8 << 20)
        run(["mkfs.ext4", "-q", image])
        (golden / "srv/big").write_bytes(os.urandom(12 << 20))
        with mounted(image, tmp_path / "small", options=["loop"]):
            full = tmp_path / "small/snap"
            with pytest.raises(ToolError, match="No space left"):
                capture_snapshot(parse_source(str(golden)), full, rules=RULES)
            noted = read_marker(full)
            assert noted is not None
            assert noted["complete"] is False
            assert any("unfinished" in found.text for found in check_snapshot(full).problems)
            (golden / "srv/big").unlink()
            capture_snapshot(parse_source(str(golden)), full, rules=RULES)
            assert not any("unfinished" in found.text for found in check_snapshot(full).problems)

    def test_ssh_that_does_not_get_there_is_one_line(self, tmp_path: Path) -> None:
        with pytest.raises(NetworkError, match=r"^me@127\.0\.0\.9: ") as caught:
            capture_snapshot(parse_source("me@127.0.0.9:"), tmp_path / "snap", rules=RULES)
        assert "must work first" in caught.value.hint
        assert not (tmp_path / "snap").exists()
        assert not marker_path(tmp_path / "snap").exists()


@contextmanager
def sshd_in(root: Path, folder: Path) -> Iterator[int]:
    """The snapshot's own sshd, on a port of loopback, for a key in `folder`; yields the port."""
    for name in ("host", "user"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name])
    (root / "root/.ssh").mkdir(mode=0o700, exist_ok=True)
    (root / "root/.ssh/authorized_keys").write_bytes((folder / "user.pub").read_bytes())
    (root / "etc/ssh/ssh_host_ed25519_key").write_bytes((folder / "host").read_bytes())
    (root / "etc/ssh/ssh_host_ed25519_key").chmod(0o600)
    (root / "run/sshd").mkdir(exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    argv = ["chroot", str(root), "/usr/sbin/sshd", "-D", "-e", "-p", str(port)]
    with (
        mounted_chroot(root),
        (folder / "sshd.log").open("wb") as log,
        start_process([*argv, "-o", "ListenAddress=127.0.0.1", "-o", "UsePAM=no"], stderr=log) as daemon,
    ):
        deadline = time.monotonic() + 30
        while True:
            assert daemon.poll() is None, (folder / "sshd.log").read_text()
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        yield port


def test_a_clone_is_the_same(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "clone").mkdir()
    clone_snapshot(golden, tmp_path / "clone")
    assert describe(tmp_path / "clone") == describe(golden)
    assert (tmp_path / "clone/usr/bin/a").samefile(tmp_path / "clone/usr/bin/hard")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clone", "golden"]
    with pytest.raises(SnapshotError, match="not empty"):
        clone_snapshot(golden, tmp_path / "clone")


class TestDebian:
    @pytest.fixture
    def snapshot(self, debian_snapshot: Path, tmp_path: Path) -> Iterator[Path]:
        """A Debian to change: the cached one with a layer over it, which costs nothing."""
        for name in ("upper", "work"):
            (tmp_path / "layer" / name).mkdir(parents=True)
        layer = tmp_path / "layer"
        options = [f"lowerdir={debian_snapshot}", f"upperdir={layer}/upper", f"workdir={layer}/work"]
        with mounted(Path("overlay"), tmp_path / "debian", filesystem="overlay", options=options) as path:
            yield path

    def test_it_has_what_a_blade_needs_and_no_identity(self, debian_snapshot: Path) -> None:
        report = check_snapshot(debian_snapshot)
        assert report.problems == ()
        assert [found.text.split(":")[0] for found in report.warnings] == ["nobody can log in"]
        kernel, initrd = find_boot_files(debian_snapshot)
        assert kernel.name.removeprefix("vmlinuz-") == initrd.name.removeprefix("initrd.img-")
        names = run(["chroot", debian_snapshot, "lsinitramfs", f"/boot/{initrd.name}"])
        for module in ("virtio_blk.ko", "nvme.ko", "ahci.ko", "megaraid_sas.ko", "ext4.ko"):
            assert module in names.stdout
        for name in ("etc/hostname", "etc/resolv.conf", "etc/apt/apt.conf.d/99mmdebstrap"):
            assert not (debian_snapshot / name).exists(), name
        assert list((debian_snapshot / "etc/ssh").glob("ssh_host_*")) == []
        assert (debian_snapshot / "etc/machine-id").read_bytes() == b""
        assert "\nroot:*:" in "\n" + (debian_snapshot / "etc/shadow").read_text()
        assert not [mount for mount in find_mounts() if mount.target.is_relative_to(debian_snapshot)]

    def test_bladeroot_runs_in_it(self, snapshot: Path) -> None:
        parents = {name: (snapshot / name).stat().st_mtime_ns for name in ("usr/lib", "usr/bin")}
        report = adopt_snapshot(snapshot)
        assert report.bladeroot
        said = run(["chroot", snapshot, "bladeroot", "--version"]).stdout
        assert said == f"bladeroot {__version__}\n"
        imports = "import libtorrent, zeroconf, nacl.signing, zstandard, aiohttp, ClusterShell.NodeSet, rich"
        program = f"import sys; sys.path.insert(0, '/{DIRECTORY}'); {imports}"
        run(["chroot", snapshot, "python3", "-IS", "-c", program])
        assert {name: (snapshot / name).stat().st_mtime_ns for name in parents} == parents
        assert (snapshot / DIRECTORY / "bladeroot/__pycache__").is_dir()

    def test_its_daemon_is_known_to_run_unless_somebody_keeps_it_from_that(self, snapshot: Path) -> None:
        copy_self(snapshot)
        assert not runs_daemon(snapshot), "a snapshot itself is no blade"
        (snapshot / "etc/bladeroot").mkdir(exist_ok=True)
        (snapshot / "etc/bladeroot/cluster.toml").touch()
        assert runs_daemon(snapshot)
        for there, back in (("mask", "unmask"), ("disable", "enable")):
            run(["systemctl", "--root", snapshot, there, SERVICE])
            assert not runs_daemon(snapshot), there
            run(["systemctl", "--root", snapshot, back, SERVICE])
            assert runs_daemon(snapshot), back

    def test_copies_are_the_same_bytes(self, snapshot: Path) -> None:
        """Also one that is made by a copy: a blade can make snapshots that hold the same bladeroot."""
        first = copy_self(snapshot)
        described = describe(snapshot / DIRECTORY)
        units = describe(snapshot / "usr/lib/systemd/system")
        enabled = snapshot / "etc/systemd/system/multi-user.target.wants" / SERVICE
        assert os.readlink(enabled) == f"/usr/lib/systemd/system/{SERVICE}"
        assert run(["systemctl", "--root", snapshot, "is-enabled", SERVICE]).stdout == "enabled\n"
        run(["chroot", snapshot, "systemd-analyze", "verify", "--man=no", SERVICE])
        run(["systemctl", "--root", snapshot, "disable", SERVICE])
        assert copy_self(snapshot) == first
        assert describe(snapshot / DIRECTORY) == described
        assert describe(snapshot / "usr/lib/systemd/system") == units
        assert not enabled.is_symlink(), "who disables the daemon in a snapshot means it"
        assert not [name for name in described if name.startswith(("pytest", "mypy", "ruff"))]
        program = (
            f"import sys; sys.path.insert(0, '/{DIRECTORY}')\n"
            "from pathlib import Path\n"
            "from bladeroot.ops.snapshots import selfcopy as s\n"
            "s.write_library(Path('/copy'), s.find_runtime_distributions())\n"
        )
        run(["chroot", snapshot, "python3", "-IS", "-c", program])
        assert describe(snapshot / "copy") == described

    def test_a_golden_blade_over_ssh(
        self, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with sshd_in(snapshot, tmp_path) as port:
            home = tmp_path / "bin"
            home.mkdir()
            # ssh takes its user's configuration from passwd's home, not from HOME: so an ssh with options.
            wrapper = home / "ssh"
            options = (
                f"-p {port} -i {tmp_path}/user -o BatchMode=yes -o IdentitiesOnly=yes"
                f" -o StrictHostKeyChecking=no -o UserKnownHostsFile={tmp_path}/known"
            )
            wrapper.write_text(f'#!/bin/sh\nexec /usr/bin/ssh {options} "$@"\n')
            wrapper.chmod(0o755)
            monkeypatch.setattr("bladeroot.host.run._SEARCH_PATH", f"{home}:/usr/sbin:/usr/bin:/sbin:/bin")
            target = tmp_path / "captured"
            result = capture_snapshot(parse_source("root@127.0.0.1:/etc"), target, rules=RULES)
            assert result.transferred_files > 150
            captured, source = describe(target), describe(snapshot / "etc")
            assert captured == source
            again = capture_snapshot(parse_source("root@127.0.0.1:/etc"), target, rules=RULES)
            assert (again.transferred_files, again.deleted_files) == (0, 0)
            with pytest.raises(ToolError, match="absent"):
                capture_snapshot(parse_source("root@127.0.0.1:/absent"), tmp_path / "other", rules=RULES)

    def test_a_failed_build_leaves_nothing(self, tmp_path: Path) -> None:
        with pytest.raises(ToolError, match="mmdebstrap"):
            build_debian(tmp_path / "snap", mirror="http://127.0.0.1:9/debian")
        assert list(tmp_path.iterdir()) == []
