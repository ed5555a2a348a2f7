"""Which kernel of a tree is booted: the newest that is complete, whatever its distribution calls it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bladeroot.core.bootplan import KernelFiles
from bladeroot.errors import SnapshotError
from bladeroot.host import kernels
from bladeroot.host.kernels import find_kernels


def add_kernel(root: Path, version: str, initrd: str | None = "initrd.img-{}") -> None:
    (root / "boot").mkdir(exist_ok=True)
    (root / f"boot/vmlinuz-{version}").write_bytes(b"k")
    if initrd:
        (root / "boot" / initrd.format(version)).write_bytes(b"i")


class TestPathsInside:
    def test_links_stay_inside(self, tmp_path: Path) -> None:
        (tmp_path / "usr/bin").mkdir(parents=True)
        (tmp_path / "bin").symlink_to("/usr/bin")
        (tmp_path / "usr/bin/python3").symlink_to("../../../../../usr/bin/python3.11")
        assert kernels.resolve_inside(tmp_path, "/bin/python3") == tmp_path / "usr/bin/python3.11"

    def test_a_loop_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "a").symlink_to("b")
        (tmp_path / "b").symlink_to("a")
        with pytest.raises(SnapshotError, match="loop"):
            kernels.resolve_inside(tmp_path, "a/c")


class TestVersions:
    @pytest.mark.parametrize(
        ("older", "newer"),
        [
            ("6.1.0-9-amd64", "6.1.0-31-amd64"),
            ("6.1.0-31-amd64", "6.10.0-1-amd64"),
            ("6.12~rc1", "6.12"),
            ("6.12~rc1", "6.12~rc2"),
            ("6.12", "6.12.1"),
            ("6.1-amd64", "6.1.2-amd64"),
            ("5.14.0-70.el9", "5.14.0-427.el9"),
            ("6.1a", "6.1+"),
        ],
    )
    def test_order(self, older: str, newer: str) -> None:
        assert kernels.version_key(older) < kernels.version_key(newer)


class TestBootFiles:
    def test_the_newest_that_is_complete(self, tmp_path: Path) -> None:
        add_kernel(tmp_path, "6.1.0-9-amd64")
        add_kernel(tmp_path, "6.1.0-31-amd64")
        add_kernel(tmp_path, "6.1.0-40-amd64", initrd=None)
        (tmp_path / "boot/vmlinuz-6.1.0-50-amd64.old").write_bytes(b"k")
        (tmp_path / "boot/initrd.img-6.1.0-50-amd64.old").write_bytes(b"i")
        kernel, initrd = kernels.find_boot_files(tmp_path)
        assert (kernel.name, initrd.name) == ("vmlinuz-6.1.0-31-amd64", "initrd.img-6.1.0-31-amd64")

    @pytest.mark.parametrize(
        ("kernel", "initrd"),
        [
            ("boot/vmlinuz-5.14.0-427.el9.x86_64", "boot/initramfs-5.14.0-427.el9.x86_64.img"),
            ("boot/vmlinuz-6.4.0-default", "boot/initrd-6.4.0-default"),
            ("boot/vmlinuz-linux", "boot/initramfs-linux.img"),
            ("usr/lib/modules/6.9.1/vmlinuz", "usr/lib/modules/6.9.1/initramfs.img"),
            ("boot/vmlinuz", "boot/initrd.img"),
        ],
    )
    def test_other_distributions(self, tmp_path: Path, kernel: str, initrd: str) -> None:
        for name in (kernel, initrd):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"x")
        assert kernels.find_boot_files(tmp_path) == (tmp_path / kernel, tmp_path / initrd)

    def test_what_is_missing_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SnapshotError, match="no kernel"):
            kernels.find_boot_files(tmp_path)
        add_kernel(tmp_path, "6.1", initrd=None)
        (tmp_path / "boot/initrd.img-6.1").touch()  # a file of no bytes is none
        with pytest.raises(SnapshotError, match=r"no initrd in /boot for vmlinuz-6\.1"):
            kernels.find_boot_files(tmp_path)

    def test_a_link_to_a_kernel_does_not_hide_its_version(self, tmp_path: Path) -> None:
        for version in ("6.4.0-default", "6.5.0-default"):
            add_kernel(tmp_path, version, "initrd-{}")
        (tmp_path / "boot/vmlinuz").symlink_to("vmlinuz-6.5.0-default")
        assert [version for version, _ in kernels.find_kernel_images(tmp_path)] == [
            "6.5.0-default",
            "6.4.0-default",
        ]


class TestWhatGrubTries:
    def test_links_first_then_the_newest(self, tmp_path: Path) -> None:
        for version in ("6.9.3", "6.10.1", "5.10.0"):
            add_kernel(tmp_path, version)
        add_kernel(tmp_path, "6.11.0", initrd=None)  # it is not made yet
        newest = KernelFiles(kernel="/boot/vmlinuz-6.10.1", initramfs="/boot/initrd.img-6.10.1")
        assert find_kernels(tmp_path) == (newest,)
        (tmp_path / "vmlinuz").symlink_to("boot/vmlinuz-6.9.3")
        assert find_kernels(tmp_path) == (newest,)
        (tmp_path / "initrd.img").symlink_to("/boot/initrd.img-6.9.3")
        assert find_kernels(tmp_path) == (KernelFiles(kernel="/vmlinuz", initramfs="/initrd.img"), newest)

    @pytest.mark.parametrize(
        ("kernel", "initramfs"),
        [
            ("/boot/vmlinuz-6.5.6-300.fc39", "/boot/initramfs-6.5.6-300.fc39.img"),
            ("/boot/vmlinuz-linux", "/boot/initramfs-linux.img"),
            ("/boot/vmlinuz-lts", "/boot/initramfs-lts"),
            ("/boot/vmlinuz-5.14.21-default", "/boot/initrd-5.14.21-default"),
            ("/usr/lib/modules/6.9.1/vmlinuz", "/boot/initramfs-6.9.1.img"),
        ],
    )
    def test_other_distributions(self, tmp_path: Path, kernel: str, initramfs: str) -> None:
        for name in (kernel, initramfs):
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
        assert find_kernels(tmp_path) == (KernelFiles(kernel=kernel, initramfs=initramfs),)

    def test_links_never_lead_out_of_the_tree(self, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        tree.mkdir()
        (tmp_path / "secret").write_bytes(b"x")
        for name in ("vmlinuz", "initrd.img"):
            (tree / name).symlink_to("../secret")
        with pytest.raises(SnapshotError, match="has no kernel"):
            find_kernels(tree)
