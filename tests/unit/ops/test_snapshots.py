from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bladeroot.core.capturerules import CaptureRules, parse_capture_rules
from bladeroot.errors import SnapshotError, UsageError
from bladeroot.ops.snapshots import debian, selfcopy, tree
from bladeroot.ops.snapshots.adopt import check_snapshot, require_ready
from bladeroot.ops.snapshots.capture import choose_mounts
from bladeroot.ops.snapshots.source import Source, parse_source
from bladeroot.ui.cli import main

NO_RULES = CaptureRules(())


def make_tree(root: Path, os_release: str = 'ID=debian\nPRETTY_NAME="Debian 12"\n') -> Path:
    for name in ("etc", "usr/bin", "usr/lib/systemd", "boot"):
        (root / name).mkdir(parents=True)
    (root / "etc/os-release").write_text(os_release)
    return root


def add_program(root: Path, name: str, data: bytes = b"#!/bin/sh\n") -> Path:
    path = root / "usr/bin" / name
    path.write_bytes(data)
    path.chmod(0o755)
    return path


def add_kernel(root: Path, version: str, initrd: str | None = "initrd.img-{}") -> None:
    (root / f"boot/vmlinuz-{version}").write_bytes(b"k")
    if initrd:
        (root / "boot" / initrd.format(version)).write_bytes(b"i")


class TestWhatIsASnapshot:
    @pytest.mark.parametrize("made", ["nothing", "file", "empty"])
    def test_what_is_no_snapshot(self, tmp_path: Path, made: str) -> None:
        path = tmp_path / "x"
        if made == "file":
            path.touch()
        elif made == "empty":
            path.mkdir()
        with pytest.raises(SnapshotError, match=str(path)):
            tree.require_tree(path)

    def test_the_running_system_is_no_snapshot(self) -> None:
        with pytest.raises(SnapshotError, match="running system"):
            tree.require_tree(Path("/"))


class TestAdopt:
    def test_says_the_command_that_helps(self, tmp_path: Path) -> None:
        report = check_snapshot(make_tree(tmp_path, 'ID="rocky"\nID_LIKE="rhel centos fedora"\nNAME=Rocky\n'))
        assert not report.is_ready
        assert report.distribution == "Rocky"
        assert report.install_command.startswith(f"chroot {tmp_path} dnf install --assumeyes systemd kernel ")
        for package in ("python3", "openssh-server", "dnsmasq", "util-linux", "iproute"):
            assert package in report.install_command.split()
        with pytest.raises(SnapshotError, match="no init") as caught:
            require_ready(report)
        assert caught.value.hint == report.install_command

    @pytest.mark.parametrize(
        ("identity", "package"),
        [("ubuntu\nID_LIKE=debian", "linux-image-generic"), ("debian", "linux-image-amd64")],
    )
    def test_knows_relatives(self, tmp_path: Path, identity: str, package: str) -> None:
        report = check_snapshot(make_tree(tmp_path, f"ID={identity}\n"))
        assert f" {package} " in report.install_command
        assert " apt-get install " in report.install_command

    def test_an_unknown_distribution_gets_no_command(self, tmp_path: Path) -> None:
        report = check_snapshot(make_tree(tmp_path, "ID=nobody\n"))
        assert report.problems
        assert report.install_command == ""

    def test_a_complete_tree(self, tmp_path: Path) -> None:
        make_tree(tmp_path)
        add_kernel(tmp_path, "6.1")
        add_program(tmp_path, "init")
        python = f"python3.{sys.version_info.minor}"
        add_program(tmp_path, python)
        (tmp_path / "usr/bin/python3").symlink_to(python)
        report = check_snapshot(tmp_path)
        assert report.problems == ()
        assert report.kernel_version == "6.1"
        require_ready(report)

    def test_python_matters_only_for_bladeroot(self, tmp_path: Path) -> None:
        make_tree(tmp_path)
        add_kernel(tmp_path, "6.1")
        add_program(tmp_path, "init")
        add_program(tmp_path, "python3.4")
        (tmp_path / "usr/bin/python3").symlink_to("python3.4")
        assert "is 3.4" in check_snapshot(tmp_path).problems[0].text
        assert check_snapshot(tmp_path, with_self=False).is_ready

    def test_what_clones_would_share(self, tmp_path: Path) -> None:
        make_tree(tmp_path)
        (tmp_path / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        (tmp_path / "etc/ssh").mkdir()
        (tmp_path / "etc/ssh/ssh_host_rsa_key").touch()
        (tmp_path / "etc/network").mkdir()
        (tmp_path / "etc/network/interfaces").write_text("iface eth0 inet static\n  address 10.0.0.7/24\n")
        said = " ".join(finding.text for finding in check_snapshot(tmp_path).warnings)
        for part in ("machine-id", "ssh_host_rsa_key", "/etc/network/interfaces has a fixed address"):
            assert part in said


class TestSelfCopy:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("attrs>=23.2", selfcopy.Requirement("attrs", frozenset(), "")),
            (
                "aiohttp[speedups, x] (>=3) ; os_name=='posix'",
                selfcopy.Requirement("aiohttp", frozenset({"speedups", "x"}), "os_name=='posix'"),
            ),
            ("ruff>=0.6; extra == 'dev'", selfcopy.Requirement("ruff", frozenset(), "extra == 'dev'")),
        ],
    )
    def test_requirements(self, text: str, expected: selfcopy.Requirement) -> None:
        assert selfcopy.parse_requirement(text) == expected

    def test_the_closure_has_what_runs_and_no_more(self) -> None:
        names = {item.name.lower() for item in selfcopy.find_runtime_distributions()}
        assert {"bladeroot", "attrs", "libtorrent", "cffi", "yarl"} <= names
        assert not names & {"pytest", "mypy", "ruff", "pip", "hypothesis"}

    def test_another_machine(self, tmp_path: Path) -> None:
        make_tree(tmp_path)
        ours = Path(sys.executable).resolve().read_bytes()
        aarch64 = ours[:18] + b"\xb7\x00" + ours[20:]
        name = f"python3.{sys.version_info.minor}"
        add_program(tmp_path, name, aarch64)
        (tmp_path / "usr/bin/python3").symlink_to(name)
        problem = selfcopy.find_python_problem(tmp_path)
        assert problem is not None
        assert "aarch64" in problem[0]

    def test_another_c_library(self, tmp_path: Path) -> None:
        make_tree(tmp_path)
        ours = Path(sys.executable).resolve()
        facts = tree.read_elf(ours)
        assert facts is not None
        loader = facts.interpreter.encode()
        other = ours.read_bytes().replace(loader, b"/lib/ld-musl".ljust(len(loader), b"x"), 1)
        name = f"python3.{sys.version_info.minor}"
        add_program(tmp_path, name, other)
        (tmp_path / "usr/bin/python3").symlink_to(name)
        problem = selfcopy.find_python_problem(tmp_path)
        assert problem is not None
        assert "C library" in problem[0]


class TestSources:
    def test_deb822(self) -> None:
        text = """\
# main
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /k.gpg

Enabled: no
Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main
"""
        assert debian.parse_deb822_sources(text) == [
            "deb http://mirror.example/debian bookworm main contrib",
            "deb http://mirror.example/debian bookworm-updates main contrib",
        ]

    def test_only_what_is_for_the_suite(self) -> None:
        sources = [
            "deb [arch=amd64 signed-by=/k] http://mirror.example/debian bookworm main contrib",
            "deb http://mirror.example/security bookworm-security main",
            "deb http://mirror.example/other bookworm thirdparty",
            "deb http://mirror.example/debian trixie main",
            "# deb http://mirror.example/debian bookworm main",
        ]
        assert debian.plan_mirrors("bookworm", sources) == [
            "deb http://mirror.example/debian bookworm main",
            "deb http://mirror.example/security bookworm-security main",
        ]
        assert debian.plan_mirrors("sid", sources) == []
        assert debian.plan_mirrors("bookworm", sources[1:]) == []


class TestCaptureSource:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("/", Source("/")),
            ("root@gold:", Source("/", "root@gold")),
            ("gold:/srv/tree/", Source("/srv/tree", "gold")),
            ("root@[fe80::1%eth0]:/", Source("/", "root@[fe80::1%eth0]")),
            ("/a:b", Source("/a:b")),
        ],
    )
    def test_read(self, text: str, expected: Source) -> None:
        assert parse_source(text) == expected

    @pytest.mark.parametrize("text", ["", "-oProxyCommand=x", "-oX@gold:/", "me@-oX:/", "gold:tree"])
    def test_refused(self, text: str) -> None:
        with pytest.raises(UsageError):
            parse_source(text)


MOUNTS = """\
22 27 0:21 / /proc rw - proc proc rw
27 1 254:0 / / rw - ext4 /dev/vda rw
30 27 254:1 / /boot rw - ext4 /dev/vda1 rw
31 30 254:2 / /boot/efi rw - vfat /dev/vda2 rw
32 27 254:3 / /srv rw - xfs /dev/vdb rw
33 27 254:0 /srv/www /var/www rw - ext4 /dev/vda rw
34 27 254:4 / /mnt/usb rw - ext4 /dev/sdb1 rw
35 27 0:40 / /home rw - nfs4 server:/home rw
36 27 0:50 / /var/lib/docker/overlay2/x/merged rw - overlay overlay rw
37 27 0:51 / /tmp rw - tmpfs tmpfs rw
38 27 254:5 / /srv/with\\040blank rw - btrfs /dev/vdc rw
"""


class TestMounts:
    def test_the_whole_system(self) -> None:
        choice = choose_mounts("/", MOUNTS, parse_capture_rules("/mnt/*\n"))
        assert choice.taken == ("/boot", "/srv", "/srv/with blank")
        assert choice.left_out == ("/boot/efi", "/home")
        assert choice.duplicates == ("/var/www",)

    def test_a_part_of_it(self) -> None:
        choice = choose_mounts("/srv", MOUNTS, NO_RULES)
        assert (choice.taken, choice.left_out, choice.duplicates) == (("/with blank",), (), ())

    def test_what_is_mounted_on_the_target(self) -> None:
        assert "/srv" not in choose_mounts("/", MOUNTS, NO_RULES, target="/srv").taken
        assert "/srv" in choose_mounts("/", MOUNTS, NO_RULES, target="/srv/snapshots/gold").taken


class TestCommand:
    def test_adopt_reports_what_is_missing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_tree(tmp_path)
        assert main(["snapshot", "adopt", "--check", "--json", str(tmp_path)]) == SnapshotError.exit_code
        said = json.loads(capsys.readouterr().out)
        assert said["ready"] is False
        assert {"text": "no kernel in /boot or /usr/lib/modules", "hint": ""} in said["problems"]
        assert main(["snapshot", "adopt", "--check", str(tmp_path)]) == SnapshotError.exit_code
        assert said["install_command"] in capsys.readouterr().out

    def test_no_snapshot_is_one_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["snapshot", "adopt", str(tmp_path)]) == SnapshotError.exit_code
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert f"{tmp_path} is not a snapshot" in captured.err

    @pytest.mark.skipif(os.geteuid() != 0, reason="asks for root first")
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--include", "nginx light"], "not the name of a Debian package"),
            (["--suite", "../x"], "not the name of a suite"),
        ],
    )
    def test_debian_refuses_odd_names(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
    ) -> None:
        assert main(["snapshot", "debian", str(tmp_path / "x"), *arguments]) == UsageError.exit_code
        assert says in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() != 0, reason="asks for root first")
    def test_debian_refuses_what_is_there(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "file").write_text("mine")
        assert main(["snapshot", "debian", str(tmp_path)]) == SnapshotError.exit_code
        assert "is not empty" in capsys.readouterr().err
        assert (tmp_path / "file").read_text() == "mine"
