"""Which of a kernel's modules the agent gets."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path

import pytest

from bladeroot.host.kernelmodules import find_modules, read_firmware_names, read_module
from bladeroot.host.run import run

RELEASE = "6.1.0-test"


def module(depends: str = "", *firmware: str) -> bytes:
    info = [f"depends={depends}", *(f"firmware={name}" for name in firmware)]
    return b"\x7fELF\0" + b"\0".join(line.encode() for line in info) + b"\0"


MODULES = {
    "kernel/drivers/net/ethernet/acme/acme.ko": module("mii,acme-core", "acme/fw.bin"),
    "kernel/drivers/net/mii.ko": module(),
    "kernel/drivers/misc/acme_core.ko": module(),
    "kernel/drivers/net/wireless/air.ko": module("", "air.bin"),
    "kernel/drivers/nvme/host/nvme.ko": module(),
    "kernel/fs/ext4/ext4.ko": module("crc16"),
    "kernel/lib/crc16.ko": module(),
    "kernel/crypto/crc32c_generic.ko": module(),
    "kernel/sound/beep.ko": module(),
    "kernel/drivers/scsi/scsi_debug.ko": module(),
}


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    folder = tmp_path / "usr/lib/modules" / RELEASE
    for name, data in MODULES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (tmp_path / "lib").symlink_to("usr/lib")
    return tmp_path


def names(snapshot: Path) -> set[str]:
    return {path.name.partition(".")[0] for path in find_modules(snapshot, RELEASE).paths}


def test_drivers_of_networks_and_disks_come_with_what_they_need(snapshot: Path) -> None:
    assert names(snapshot) >= {"acme", "mii", "acme_core", "nvme", "ext4", "crc16", "crc32c_generic"}


def test_what_no_install_needs_stays_away(snapshot: Path) -> None:
    assert not names(snapshot) & {"air", "beep", "scsi_debug"}


def test_the_kernels_own_list_of_needs_is_believed(snapshot: Path) -> None:
    folder = snapshot / "lib/modules" / RELEASE
    (folder / "modules.dep").write_text(
        "kernel/fs/ext4/ext4.ko: kernel/sound/beep.ko\nkernel/sound/beep.ko:\n"
    )
    (folder / "modules.softdep").write_text("# soft\nsoftdep nvme pre: air post: nothing\n")
    assert {"beep", "air"} <= names(snapshot)


def test_a_compressed_module_is_read(snapshot: Path) -> None:
    folder = snapshot / "lib/modules" / RELEASE / "kernel/drivers/net/ethernet/acme"
    plain = folder / "acme.ko"
    (folder / "acme.ko.xz").write_bytes(lzma.compress(plain.read_bytes()))
    run(["zstd", "-q", plain, "-o", folder / "two.ko.zst"])
    (folder / "acme.ko.gz").write_bytes(gzip.compress(plain.read_bytes()))
    for name in ("acme.ko.xz", "two.ko.zst", "acme.ko.gz"):
        assert read_module(folder / name) == plain.read_bytes()
    plain.unlink()
    assert {"acme", "two", "mii", "acme_core"} <= names(snapshot)


def test_firmware_is_what_chosen_modules_name(snapshot: Path) -> None:
    assert read_firmware_names(find_modules(snapshot, RELEASE).paths) == {"acme/fw.bin"}


def test_a_kernel_without_modules_has_none(tmp_path: Path) -> None:
    assert find_modules(tmp_path, RELEASE).paths == ()
