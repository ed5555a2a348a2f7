"""Boot code on a disk: the same from the same, never torn, and committed by one sector."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.core.bootplan import EFI_LOADERS, GRUBENV, KernelFiles
from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import Use
from bladeroot.errors import ArtefactError, DiskError
from bladeroot.host.blockdev import OpenDisk, apply_partitions, format_partition, open_disk, read_table
from bladeroot.host.bootloader import (
    BOOT_FILES,
    build_boot_payload,
    commit_slot,
    install_boot_code,
    read_committed,
    release_slot,
    write_slot_config,
)
from bladeroot.host.esp import has_esp_file, read_esp_file, read_grubenv, write_esp_file
from tests.blankdisks import cut_disk, make_disk, needs_loop_devices, plan_install

pytestmark = [pytest.mark.system, needs_loop_devices]

LAYOUT = Layout(esp_size_bytes=40 * MIB, slot_size_bytes=8 * MIB, slots=2, data_min_size_bytes=4 * MIB)
KERNELS = (KernelFiles(kernel="/boot/vmlinuz-1", initramfs="/boot/initrd.img-1"),)
UUID = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("payload")
    build_boot_payload(None, folder)
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return make_disk(tmp_path / "disk.img", 80 * MIB)


@pytest.fixture
def disk(image: Path) -> Iterator[OpenDisk]:
    with open_disk(image) as opened:
        plan = plan_install(opened, LAYOUT)
        apply_partitions(opened, plan)
        format_partition(opened, plan, plan.partition(Use.ESP))
        yield opened


def write_config(disk: OpenDisk, slot: Use) -> None:
    write_slot_config(
        disk, slot, partition_number=3, filesystem_uuid=UUID, kernels=KERNELS, kernel_command_line="quiet"
    )


def core_sector(image: Path) -> int:
    (sector,) = struct.unpack_from("<Q", image.read_bytes()[:512], 0x5C)
    return int(sector)


def differing_sectors(before: bytes, after: bytes) -> list[int]:
    assert len(before) == len(after)
    return [
        start // 512
        for start in range(0, len(after), 512)
        if before[start : start + 512] != after[start : start + 512]
    ]


def test_payload_is_the_same_from_the_same(payload: Path, tmp_path: Path) -> None:
    build_boot_payload(None, tmp_path)
    for name in BOOT_FILES:
        assert (tmp_path / name).read_bytes() == (payload / name).read_bytes()
    assert (payload / "grubx64.efi").read_bytes()[:2] == b"MZ"


def test_payload_is_of_the_snapshots_grub_if_its_version_fits(payload: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    for platform in ("i386-pc", "x86_64-efi"):
        folder = snapshot / "usr/lib/grub" / platform
        folder.mkdir(parents=True)
        for file in (Path("/usr/lib/grub") / platform).iterdir():
            if file.is_file():
                (folder / file.name).write_bytes(file.read_bytes())
    boot_image = snapshot / "usr/lib/grub/i386-pc/boot.img"
    boot_image.write_bytes(boot_image.read_bytes()[:-2] + b"!!")
    build_boot_payload(snapshot, tmp_path / "own")
    assert (tmp_path / "own/boot.img").read_bytes()[-2:] == b"!!"
    for platform in ("i386-pc", "x86_64-efi"):
        information = snapshot / "usr/lib/grub" / platform / "modinfo.sh"
        information.write_text('grub_version="1.99"\n')
    build_boot_payload(snapshot, tmp_path / "hosts")
    assert (tmp_path / "hosts/boot.img").read_bytes() == (payload / "boot.img").read_bytes()


def test_boot_code_keeps_the_protective_mbr(disk: OpenDisk, image: Path, payload: Path) -> None:
    before = image.read_bytes()[:512]
    install_boot_code(disk, payload)
    after = image.read_bytes()[:512]
    assert after[440:] == before[440:]
    assert after[:0x5C] == (payload / "boot.img").read_bytes()[:0x5C]
    assert core_sector(image) in (2048, 3072)
    core = image.read_bytes()[core_sector(image) * 512 :][: (payload / "core.img").stat().st_size]
    assert core[512:] == (payload / "core.img").read_bytes()[512:]
    assert struct.unpack_from("<QHH", core, 500) == (
        core_sector(image) + 1,
        -(-len(core) // 512) - 1,
        0x820,
    )
    table = read_table(disk)
    assert table is not None
    assert len(table.partitions) == 5


def test_the_same_boot_code_again_writes_nothing(disk: OpenDisk, image: Path, payload: Path) -> None:
    install_boot_code(disk, payload, kernel_command_line="console=ttyS0")
    before = image.read_bytes()
    install_boot_code(disk, payload, kernel_command_line="console=ttyS0")
    assert image.read_bytes() == before


def test_other_boot_code_goes_beside_the_one_in_use(
    disk: OpenDisk, image: Path, payload: Path, tmp_path: Path
) -> None:
    install_boot_code(disk, payload)
    first, before = core_sector(image), image.read_bytes()
    for name in BOOT_FILES:
        (tmp_path / name).write_bytes((payload / name).read_bytes())
    with (tmp_path / "core.img").open("ab") as stream:
        stream.write(b"newer")
    install_boot_code(disk, tmp_path)
    second, after = core_sector(image), image.read_bytes()
    assert {first, second} == {2048, 3072}
    changed = differing_sectors(before, after)
    old_core = range(first, first + (payload / "core.img").stat().st_size // 512 + 1)
    assert not set(changed) & set(old_core)
    install_boot_code(disk, payload)
    assert core_sector(image) == first


def test_a_commit_is_one_sector(disk: OpenDisk, image: Path, payload: Path) -> None:
    install_boot_code(disk, payload)
    write_config(disk, Use.SLOT_A)
    write_config(disk, Use.SLOT_B)
    assert read_committed(disk) is None
    commit_slot(disk, Use.SLOT_A)
    before = image.read_bytes()
    commit_slot(disk, Use.SLOT_B, serial=7)
    assert len(differing_sectors(before, image.read_bytes())) == 1
    assert read_committed(disk) is Use.SLOT_B
    assert read_grubenv(disk) == {"bladeroot_slot": "b", "bladeroot_serial": "7"}
    commit_slot(disk, Use.SLOT_A)
    assert image.read_bytes() == before


def test_uefi_finds_a_loader_only_while_something_is_committed(disk: OpenDisk, payload: Path) -> None:
    def loaders() -> list[bool]:
        return [read_esp_file(disk, path) == (payload / "grubx64.efi").read_bytes() for path in EFI_LOADERS]

    install_boot_code(disk, payload)
    assert [has_esp_file(disk, path) for path in EFI_LOADERS] == [False, False]
    write_config(disk, Use.SLOT_A)
    commit_slot(disk, Use.SLOT_A)
    assert loaders() == [True, True]
    install_boot_code(disk, payload)
    assert loaders() == [True, True]
    commit_slot(disk, None)
    assert read_committed(disk) is None
    assert [has_esp_file(disk, path) for path in EFI_LOADERS] == [False, False]
    commit_slot(disk, Use.SLOT_A)
    assert loaders() == [True, True]


def test_a_slot_that_would_be_overwritten_is_released_first(disk: OpenDisk, payload: Path) -> None:
    cut_disk(disk, plan_install(disk, LAYOUT))
    install_boot_code(disk, payload)
    write_config(disk, Use.SLOT_A)
    commit_slot(disk, Use.SLOT_A)

    in_turn = plan_install(disk, LAYOUT, committed=Use.SLOT_A)
    assert not release_slot(disk, in_turn)
    assert read_committed(disk) is Use.SLOT_A
    over = plan_install(disk, LAYOUT)
    assert release_slot(disk, over)
    assert read_committed(disk) is None
    assert not release_slot(disk, over)


def test_nothing_to_commit(disk: OpenDisk, payload: Path) -> None:
    with pytest.raises(DiskError, match="slot a has no /EFI/bladeroot/slot-a"):
        commit_slot(disk, Use.SLOT_A)
    write_config(disk, Use.SLOT_A)
    with pytest.raises(DiskError, match=r"grubx64\.efi on the ESP"):
        commit_slot(disk, Use.SLOT_A)
    install_boot_code(disk, payload)
    write_esp_file(disk, GRUBENV, b"torn")
    with pytest.raises(DiskError, match="no /EFI/bladeroot/grubenv"):
        commit_slot(disk, Use.SLOT_A)
    assert read_committed(disk) is None
    install_boot_code(disk, payload)
    commit_slot(disk, Use.SLOT_A)
    assert read_committed(disk) is Use.SLOT_A


def test_a_disk_without_an_esp_has_nothing_committed(image: Path) -> None:
    with open_disk(image) as opened:
        assert read_committed(opened) is None


@pytest.mark.parametrize("name", BOOT_FILES)
def test_a_torn_payload_is_found_before_anything_is_written(
    name: str, disk: OpenDisk, image: Path, payload: Path, tmp_path: Path
) -> None:
    for each in BOOT_FILES:
        (tmp_path / each).write_bytes((payload / each).read_bytes() if each != name else b"")
    before = image.read_bytes()
    with pytest.raises(ArtefactError, match=name):
        install_boot_code(disk, tmp_path)
    assert image.read_bytes() == before


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(100_000)])
def test_files_on_the_esp(data: bytes, disk: OpenDisk) -> None:
    path = "/EFI/bladeroot/some-longer-name.cfg"
    assert read_esp_file(disk, path) is None
    assert write_esp_file(disk, path, b"before")
    assert write_esp_file(disk, path, data)
    assert not write_esp_file(disk, path, data)
    assert read_esp_file(disk, path) == data
    assert not has_esp_file(disk, path + ".new")
