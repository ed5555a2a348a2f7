"""The agent on the ESP: the old one or the new one at every instant, and UEFI never led into a dead end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.core.bootplan import AGENT_CFG, EFI_LOADERS
from bladeroot.core.cluster import MIB, Layout
from bladeroot.core.disklayout import Use
from bladeroot.errors import DiskTooSmallError, ToolError
from bladeroot.host import espagent
from bladeroot.host.blockdev import OpenDisk, open_disk
from bladeroot.host.bootloader import build_boot_payload, commit_slot, install_boot_code, write_slot_config
from bladeroot.host.esp import copy_to_esp, has_esp_file, is_on_esp, read_esp_file, read_esp_room
from bladeroot.host.espagent import find_agent, remove_agent, write_agent
from tests.blankdisks import cut_disk, make_disk, needs_loop_devices, plan_install

pytestmark = [pytest.mark.system, needs_loop_devices]

LAYOUT = Layout(esp_size_bytes=40 * MIB, slot_size_bytes=8 * MIB, data_min_size_bytes=4 * MIB)


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("payload")
    build_boot_payload(None, folder)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OpenDisk]:
    with open_disk(make_disk(tmp_path / "disk.img", 64 * MIB)) as opened:
        cut_disk(opened, plan_install(opened, LAYOUT))
        yield opened


class Agent:
    """An agent of that many MiB, in parts."""

    def __init__(self, folder: Path, name: str, size_mib: int) -> None:
        self.kernel = [folder / f"{name}-kernel"]
        self.initramfs = [folder / f"{name}-{number}" for number in range(size_mib)]
        for number, path in enumerate([*self.kernel, *self.initramfs]):
            path.write_bytes(f"{name} {number} ".encode() * 100 + bytes(MIB))

    def put_on(self, disk: OpenDisk) -> None:
        write_agent(disk, self.kernel, self.initramfs, "console=ttyS0")

    def is_on(self, disk: OpenDisk) -> bool:
        found = find_agent(disk)
        if found is None:
            return False
        return is_on_esp(disk, found[0], self.kernel) and is_on_esp(disk, found[1], self.initramfs)


def loaders(disk: OpenDisk) -> list[bool]:
    return [has_esp_file(disk, path) for path in EFI_LOADERS]


def test_there_changed_and_gone(disk: OpenDisk, tmp_path: Path) -> None:
    one, two = Agent(tmp_path, "one", 3), Agent(tmp_path, "two", 4)
    room = read_esp_room(disk)
    assert find_agent(disk) is None
    one.put_on(disk)
    assert one.is_on(disk)
    assert b"console=ttyS0 bladeroot.from=disk" in (read_esp_file(disk, AGENT_CFG) or b"")
    two.put_on(disk)
    assert two.is_on(disk)
    assert not one.is_on(disk)
    remove_agent(disk)
    assert find_agent(disk) is None
    assert room - read_esp_room(disk) < 64 << 10, "what was removed takes room"


def test_the_same_again_writes_nothing(disk: OpenDisk, tmp_path: Path) -> None:
    agent = Agent(tmp_path, "one", 3)
    agent.put_on(disk)
    before = disk.source.read_bytes()
    agent.put_on(disk)
    assert disk.source.read_bytes() == before


def test_a_damaged_agent_is_written_again(disk: OpenDisk, tmp_path: Path) -> None:
    agent, other = Agent(tmp_path, "one", 3), Agent(tmp_path, "two", 3)
    agent.put_on(disk)
    found = find_agent(disk)
    assert found is not None
    copy_to_esp(disk, found[1], other.initramfs)
    assert not agent.is_on(disk)
    agent.put_on(disk)
    assert agent.is_on(disk)


def test_a_cut_while_a_new_agent_is_written_leaves_the_old_one(
    disk: OpenDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Agent(tmp_path, "one", 3), Agent(tmp_path, "two", 3)
    one.put_on(disk)
    copied = []

    def cut_before(name: str, count: int) -> None:
        def stop(*arguments: object) -> None:
            copied.append(arguments)
            if len(copied) > count:
                raise KeyboardInterrupt
            original(*arguments)

        original = getattr(espagent, name)
        monkeypatch.setattr(espagent, name, stop)

    for name, count in (("copy_to_esp", 0), ("copy_to_esp", 1), ("write_esp_file", 0)):
        copied.clear()
        with monkeypatch.context():
            cut_before(name, count)
            with pytest.raises(KeyboardInterrupt):
                two.put_on(disk)
        monkeypatch.undo()
        assert one.is_on(disk)
    two.put_on(disk)
    assert two.is_on(disk)


def test_without_room_for_two_the_old_one_goes_and_uefi_finds_no_loader_meanwhile(
    disk: OpenDisk, payload: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = Agent(tmp_path, "one", 20), Agent(tmp_path, "two", 21)
    one.put_on(disk)
    install_boot_code(disk, payload)
    assert loaders(disk) == [True, True]
    seen = []

    def look(*arguments: object) -> None:
        seen.append((find_agent(disk), loaders(disk)))
        copy_to_esp(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(espagent, "copy_to_esp", look)
    two.put_on(disk)
    assert seen == [(None, [False, False])] * 2
    assert two.is_on(disk)
    install_boot_code(disk, payload)
    assert loaders(disk) == [True, True]


def test_no_room_for_one_is_said_in_numbers(disk: OpenDisk, tmp_path: Path) -> None:
    with pytest.raises(
        DiskTooSmallError, match=r"has 3\d\.\d MiB free, the agent takes 46\.\d MiB"
    ) as caught:
        Agent(tmp_path, "large", 44).put_on(disk)
    assert "esp_size" in caught.value.hint
    assert find_agent(disk) is None


def test_uefi_finds_a_loader_while_there_is_an_agent_to_start(
    disk: OpenDisk, payload: Path, tmp_path: Path
) -> None:
    install_boot_code(disk, payload)
    assert loaders(disk) == [False, False]
    Agent(tmp_path, "one", 1).put_on(disk)
    install_boot_code(disk, payload)
    assert loaders(disk) == [True, True]
    write_slot_config(
        disk, Use.SLOT_A, partition_number=3, filesystem_uuid="u", kernels=(), kernel_command_line=""
    )
    commit_slot(disk, Use.SLOT_A)
    commit_slot(disk, None)
    assert loaders(disk) == [True, True]
    remove_agent(disk)
    install_boot_code(disk, payload)
    assert loaders(disk) == [False, False]


def test_a_copy_that_fails_says_why(disk: OpenDisk, tmp_path: Path) -> None:
    with pytest.raises(ToolError, match=r"large is not whole on the ESP .*No space left on device"):
        copy_to_esp(disk, "/EFI/bladeroot/large", Agent(tmp_path, "large", 44).initramfs)
