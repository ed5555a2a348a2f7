"""GRUB's files: what is written is what GRUB reads, and a value cannot become a command."""

from __future__ import annotations

import shutil
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bladeroot.core.bootplan import (
    GRUBENV_BYTES,
    KernelFiles,
    Platform,
    Serial,
    parse_agent_cfg,
    parse_grubenv,
    parse_serial_console,
    plan_local_mkimage,
    plan_mkimage,
    render_agent_cfg,
    render_fstab,
    render_grub_cfg,
    render_grubenv,
    render_local_cfg,
    render_slot_cfg,
    split_command_line,
)
from bladeroot.core.disklayout import Use
from bladeroot.errors import ConfigError, DiskError

KERNELS = (
    KernelFiles(kernel="/vmlinuz", initramfs="/initrd.img"),
    KernelFiles(kernel="/boot/vmlinuz-6.1.0", initramfs="/boot/initrd.img-6.1.0"),
)


def render(command_line: str) -> str:
    return render_slot_cfg(
        Use.SLOT_A,
        partition_number=3,
        filesystem_uuid="1b4e28ba-2fa1-11d2-883f-0016d3cca427",
        kernels=KERNELS,
        kernel_command_line=command_line,
    )


def test_grubenv_is_a_block_that_changes_in_its_first_sector_only() -> None:
    empty, committed = render_grubenv({}), render_grubenv({"bladeroot_slot": "a", "bladeroot_serial": "12"})
    assert committed.startswith(b"# GRUB Environment Block\nbladeroot_serial=12\nbladeroot_slot=a\n####")
    assert len(empty) == len(committed) == GRUBENV_BYTES
    assert empty[512:] == committed[512:] == b"#" * 512


@pytest.mark.parametrize(
    "values", [{"a": "x" * 500}, {"a": "line\nbreak"}, {"a b": "c"}, {"a=": "c"}, {"a": "ü"}]
)
def test_grubenv_refuses_what_grub_would_not_read(values: dict[str, str]) -> None:
    with pytest.raises(DiskError):
        render_grubenv(values)


@given(
    st.dictionaries(
        st.text("abc_", min_size=1, max_size=8),
        st.text(string.digits + string.ascii_letters + string.punctuation + " ", max_size=40),
        max_size=5,
    )
)
def test_grubenv_there_and_back(values: dict[str, str]) -> None:
    assert parse_grubenv(render_grubenv(values)) == values


@pytest.mark.parametrize("block", [b"", b"#" * 1024, render_grubenv({"a": "b"})[:-1]])
def test_damaged_grubenv_is_empty(block: bytes) -> None:
    assert parse_grubenv(block) == {}


@pytest.mark.skipif(shutil.which("grub-editenv") is None, reason="grub-common is not installed")
def test_grubs_own_tool_reads_grubenv(tmp_path: Path) -> None:
    values = {"bladeroot_slot": "b", "odd": "back\\slash # and = sign"}
    (tmp_path / "grubenv").write_bytes(render_grubenv(values))
    listed = subprocess.run(
        ["grub-editenv", tmp_path / "grubenv", "list"], check=True, capture_output=True, text=True
    ).stdout
    assert dict(line.split("=", 1) for line in listed.splitlines()) == values


@pytest.mark.parametrize(
    ("line", "serial"),
    [
        ("console=ttyS0", Serial(unit=0, speed=115200)),
        ("quiet console=tty0 console=ttyS1,57600n8", Serial(unit=1, speed=57600)),
        ("console=ttyS0,9600 console=ttyS2", Serial(unit=2, speed=115200)),
        ("xconsole=ttyS0 console=tty1", None),
        ("", None),
    ],
)
def test_grub_speaks_where_the_kernel_does(line: str, serial: Serial | None) -> None:
    assert parse_serial_console(line) == serial
    text = render_grub_cfg(line)
    assert ("terminal_output console serial" in text) == (serial is not None)
    if serial:
        assert f"serial --unit={serial.unit} --speed={serial.speed}" in text


def test_kernel_command_line_is_words_not_commands() -> None:
    assert split_command_line('quiet dyndbg="file a +p" it\'s') == ["quiet", "dyndbg=file a +p", "it's"]
    text = render("""panic=10 x=';reboot;' y=$z it's""")
    assert r"x=\'" not in text
    assert """'x='\\'';reboot;'\\'''""" in text
    assert "'y=$z'" in text
    with pytest.raises(ConfigError, match="quote that is not closed"):
        render('x="y')
    with pytest.raises(ConfigError, match="more than one line"):
        render("a\nreboot")


def test_slot_config_tries_kernels_in_order_on_its_own_disk_first() -> None:
    text = render("quiet")
    assert '--hint="$bladeroot_disk,gpt3" 1b4e28ba-2fa1-11d2-883f-0016d3cca427' in text
    assert text.index("linux /vmlinuz root=UUID=1b4e28ba") < text.index(
        "linux /boot/vmlinuz-6.1.0 root=UUID="
    )
    assert "if [ -f /vmlinuz -a -f /initrd.img ]; then" in text
    assert text.count("  boot\n") == 2


@pytest.mark.skipif(shutil.which("grub-script-check") is None, reason="grub-common is not installed")
@pytest.mark.parametrize("line", ["console=ttyS0 quiet", "x=';}{' y=\"a b\"", ""])
def test_grub_takes_the_files(line: str, tmp_path: Path) -> None:
    for name, text in (
        ("grub.cfg", render_grub_cfg(line)),
        ("slot-a.cfg", render(line)),
        ("agent.cfg", render_agent_cfg("agent-vmlinuz", "agent-initramfs", line)),
        ("local.cfg", render_local_cfg()),
    ):
        (tmp_path / name).write_text(text)
        subprocess.run(["grub-script-check", tmp_path / name], check=True)


def test_agent_config_names_its_files_and_says_that_the_disk_started_it() -> None:
    text = render_agent_cfg("agent-vmlinuz", "agent-initramfs", "console=ttyS0 x=$(reboot)")
    assert (
        "$prefix/agent-vmlinuz console=ttyS0 'x=$(reboot)' bladeroot.from=disk rootfstype=ramfs; then" in text
    )
    assert parse_agent_cfg(text) == ("agent-vmlinuz", "agent-initramfs")


@pytest.mark.parametrize("cut", range(0, 200, 7))
def test_half_an_agent_config_is_none(cut: int) -> None:
    text = render_agent_cfg("agent-vmlinuz", "agent-initramfs", "quiet")
    assert parse_agent_cfg(text[: min(cut, len(text) - 1)]) is None


def test_the_agent_is_started_only_when_the_disk_has_forgotten_that_it_should() -> None:
    text = render_grub_cfg("quiet")
    save, load = text.index("save_env"), text.rindex("load_env --file $prefix/grubenv bladeroot_next")
    assert save < load < text.index("    bladeroot_start_agent")


def test_the_local_loader_brings_its_config_and_looks_for_ours_first() -> None:
    argv = plan_local_mkimage(Path("/m"), Path("/o/memdisk.tar"), Path("/o/local.efi"))
    assert argv.index("-m") < argv.index("-p"), "-m has a prefix of its own, the last one counts"
    assert argv[argv.index("-p") + 1] == "(memdisk)/boot/grub", "without a folder GRUB adds its own path"
    text = render_local_cfg()
    assert text.index("--label BR-ESP") < text.index("--file /EFI/BOOT/BOOTX64.EFI")


def test_images_look_for_their_files_on_the_esp_they_were_started_from() -> None:
    bios = plan_mkimage(Platform.BIOS, Path("/m"), Path("/o/core.img"))
    uefi = plan_mkimage(Platform.UEFI, Path("/m"), Path("/o/grubx64.efi"))
    assert bios[bios.index("-p") + 1] == "(,gpt2)/EFI/bladeroot"
    assert uefi[uefi.index("-p") + 1] == "/EFI/bladeroot"
    assert "biosdisk" in bios
    assert "biosdisk" not in uefi


def test_fstab() -> None:
    text = render_fstab(
        root_uuid="r",
        filesystem="xfs",
        data_uuid="d",
        data_filesystem="ext4",
        esp_uuid="AAAA-BBBB",
        depot=Path("/var/lib/bladeroot"),
    )
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    assert rows[0] == ["UUID=r", "/", "xfs", "defaults", "0", "0"]
    assert rows[1][:3] == ["UUID=d", "/var/lib/bladeroot", "ext4"]
    assert "nofail" in rows[1][3]
    assert "noauto" in rows[2][3]
