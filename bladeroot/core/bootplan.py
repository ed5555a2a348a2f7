"""How an installed disk boots: GRUB's files and argv, fstab. No I/O.

GRUB reads everything from the ESP of the very disk it was started from. `grub.cfg` loads `grubenv`, whose
`bladeroot_slot` names the slot to boot, and runs that slot's own `slot-<a|b>.cfg`. Without the variable
nothing is installed: GRUB starts the agent where the ESP has it, so that an install that was cut off goes on
without any network boot; else the firmware goes on to its next device. So writing grubenv is the commit.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from attrs import frozen

from bladeroot.core.agentfiles import KERNEL_ARGUMENT
from bladeroot.core.bootfacts import NEXT_AGENT, NEXT_VARIABLE, SLOT_VARIABLE
from bladeroot.core.disklayout import ESP_LABEL, Use
from bladeroot.errors import ConfigError, DiskError

BIOS_BOOT_NUMBER = 1
ESP_NUMBER = 2
"""core.img's prefix names it, so the ESP is always the second partition."""

GRUB_FOLDER = "/EFI/bladeroot"
GRUB_CFG = f"{GRUB_FOLDER}/grub.cfg"
GRUBENV = f"{GRUB_FOLDER}/grubenv"
EFI_LOADERS = (f"{GRUB_FOLDER}/grubx64.efi", "/EFI/BOOT/BOOTX64.EFI")
_DATA_TIMEOUT_S = 180
"""Nothing but bladeroot's daemon waits for `data`; after a power cut a room's disks may spin up by turns."""
_LOCAL_FOLDER = "boot/grub"
LOCAL_CFG = f"{_LOCAL_FOLDER}/grub.cfg"
"""Where local.efi's own archive has its configuration."""
AGENT_CFG = f"{GRUB_FOLDER}/agent.cfg"
"""How to start the agent; it is there exactly while the agent's kernel and initramfs are there and whole."""
FROM_DISK = "bladeroot.from=disk"
"""On the kernel's command line: the disk's own GRUB started the agent."""
NEW_SUFFIX = ".new"
"""A file on the ESP is written under this name first; GRUB takes it where the old name has just gone."""

GRUBENV_BYTES = 1024
"""GRUB 2.06, include/grub/lib/envblk.h: DEFAULT_ENVBLK_SIZE; load_env refuses other contents."""
GRUBENV_SECTOR_BYTES = 512
_GRUBENV_HEADER = "# GRUB Environment Block\n"

_COMMON_MODULES = (
    *("part_gpt", "part_msdos", "fat", "ext2", "xfs", "btrfs"),
    *("normal", "configfile", "linux", "gzio", "search", "search_fs_uuid", "search_label", "loadenv"),
    *(
        "echo",
        "test",
        "true",
        "regexp",
        "sleep",
        "serial",
        "terminal",
        "minicmd",
        "ls",
        "cat",
        "reboot",
        "halt",
    ),
)


class Platform(StrEnum):
    """GRUB's names of its platforms."""

    BIOS = "i386-pc"
    UEFI = "x86_64-efi"


_PLATFORM_MODULES = {
    Platform.BIOS: ("biosdisk",),
    Platform.UEFI: ("all_video", "efi_gop", "efi_uga"),
}
_LOCAL_MODULES = (
    *("part_gpt", "part_msdos", "fat", "search", "search_label", "search_fs_file"),
    *("chain", "echo", "test", "true", "normal", "configfile", "minicmd", "memdisk", "tar"),
)
_PREFIXES = {
    Platform.BIOS: f"(,gpt{ESP_NUMBER}){GRUB_FOLDER}",
    # Without a device GRUB takes the one that the firmware loaded it from (kern/main.c).
    Platform.UEFI: GRUB_FOLDER,
}


@frozen(kw_only=True)
class KernelFiles:
    """A kernel and its initramfs, as absolute paths in the slot."""

    kernel: str
    initramfs: str


@frozen(kw_only=True)
class Serial:
    """A serial console."""

    unit: int
    speed: int


def plan_mkimage(platform: Platform, modules_folder: Path, output: Path) -> list[str]:
    """The argv that makes core.img or grubx64.efi."""
    argv = ["grub-mkimage", "-O", platform, "-d", str(modules_folder), "-o", str(output)]
    return [*argv, "-p", _PREFIXES[platform], *_PLATFORM_MODULES[platform], *_COMMON_MODULES]


def plan_local_mkimage(modules_folder: Path, memdisk: Path, output: Path) -> list[str]:
    """The argv that makes local.efi; `memdisk` is a tar archive with `render_local_cfg` as `LOCAL_CFG` in it.

    (A config that is embedded as such is read before there is a shell: it may not have an `if`.)
    """
    argv = ["grub-mkimage", "-O", Platform.UEFI, "-d", str(modules_folder), "-o", str(output)]
    # In this order: -m comes with a prefix of its own. A prefix without a folder would be completed with
    # the path that the firmware, or iPXE by HTTP, started the loader from.
    return [*argv, "-m", str(memdisk), "-p", f"(memdisk)/{_LOCAL_FOLDER}", *_LOCAL_MODULES]


def render_grub_cfg(kernel_command_line: str) -> str:
    """The file that both firmwares' GRUB starts with. It speaks where the kernel will (console=ttyS…)."""
    serial = parse_serial_console(kernel_command_line)
    lines = ["# Written by bladeroot at each install."]
    if serial:
        lines += [
            f"if serial --unit={serial.unit} --speed={serial.speed}; then",
            "  terminal_input console serial",
            "  terminal_output console serial",
            "fi",
        ]
    lines += [
        f"set {SLOT_VARIABLE}=",
        f"set {NEXT_VARIABLE}=",
        f"load_env --file $prefix/grubenv {SLOT_VARIABLE} {NEXT_VARIABLE}",
        'regexp --set=1:bladeroot_disk "^([^,]+)" "$root"',
        *_START_AGENT,
        *_START_AGENT_ONCE,
        f'if [ -n "${SLOT_VARIABLE}" ]; then',
        f"  set bladeroot_file=$prefix/slot-${SLOT_VARIABLE}.cfg",
        f"  if [ ! -s $bladeroot_file ]; then set bladeroot_file=$bladeroot_file{NEW_SUFFIX}; fi",
        "  source $bladeroot_file",
        f'  echo "bladeroot: slot ${SLOT_VARIABLE} does not boot; going on to the next boot device"',
        "else",
        "  bladeroot_start_agent",
        '  echo "bladeroot: nothing is installed on this disk; going on to the next boot device"',
        "fi",
        "sleep 3",
        "exit",
    ]
    return "\n".join(lines) + "\n"


_START_AGENT = (
    "function bladeroot_start_agent {",
    "  set bladeroot_file=$prefix/agent.cfg",
    f"  if [ ! -s $bladeroot_file ]; then set bladeroot_file=$bladeroot_file{NEW_SUFFIX}; fi",
    "  if [ -s $bladeroot_file ]; then source $bladeroot_file; fi",
    "}",
)
_START_AGENT_ONCE = (
    f'if [ "${NEXT_VARIABLE}" = {NEXT_AGENT} ]; then',
    f"  set {NEXT_VARIABLE}=",
    f"  save_env --file $prefix/grubenv {NEXT_VARIABLE}",
    # What counts is what the disk has now: were it still there, the agent would start at each boot.
    f"  set {NEXT_VARIABLE}=unknown",
    f"  load_env --file $prefix/grubenv {NEXT_VARIABLE}",
    f'  if [ -z "${NEXT_VARIABLE}" ]; then',
    "    bladeroot_start_agent",
    '    echo "bladeroot: the agent on this disk does not start"',
    "  else",
    '    echo "bladeroot: the disk cannot be written: the agent is not started"',
    "  fi",
    "fi",
)


def render_agent_cfg(kernel: str, initramfs: str, kernel_command_line: str) -> str:
    """The file that starts the agent; `kernel` and `initramfs` are names of files beside it.

    Raises ConfigError for a kernel command line whose quotes do not match.
    """
    words = " ".join(
        _quote(word) for word in (*split_command_line(kernel_command_line), FROM_DISK, KERNEL_ARGUMENT)
    )
    lines = [
        "# Written by bladeroot at each install.",
        "echo bladeroot: the agent",
        f"if linux $prefix/{kernel} {words}; then",
        f"  if initrd $prefix/{initramfs}; then boot; fi",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def parse_agent_cfg(text: str) -> tuple[str, str] | None:
    """The names of kernel and initramfs that it starts; None where it is not whole."""
    found = re.search(r"^if linux \$prefix/(\S+) .*\n  if initrd \$prefix/(\S+); then.*\nfi\n\Z", text, re.M)
    return (found.group(1), found.group(2)) if found else None


def render_local_cfg() -> str:
    """What `local.efi` does: start the disk's own loader, bladeroot's before any other.

    It is for UEFI machines that were told over the network to boot their disk. Where no loader is found, or
    the loader gives up, whoever started it goes on.
    """
    candidates = [
        (f"--label {ESP_LABEL}", EFI_LOADERS[0]),
        (f"--file {EFI_LOADERS[0]}", EFI_LOADERS[0]),
        (f"--file {EFI_LOADERS[1]}", EFI_LOADERS[1]),
    ]
    lines = []
    for search, loader in candidates:
        lines += [
            "set bladeroot_esp=",
            f"search --no-floppy --set=bladeroot_esp {search}",
            f'if [ -n "$bladeroot_esp" -a -f "($bladeroot_esp){loader}" ]; then',
            f'  echo "bladeroot: ($bladeroot_esp){loader}"',
            # The loader is told that this is the device it comes from.
            "  set root=$bladeroot_esp",
            f"  if chainloader {loader}; then boot; fi",
            "  exit",
            "fi",
        ]
    lines += ['echo "bladeroot: no disk has a boot loader"', "exit"]
    return "\n".join(lines) + "\n"


def slot_cfg_path(slot: Use) -> str:
    """Where a slot's file is on the ESP."""
    return f"{GRUB_FOLDER}/slot-{slot}.cfg"


def render_slot_cfg(
    slot: Use,
    *,
    partition_number: int,
    filesystem_uuid: str,
    kernels: Sequence[KernelFiles],
    kernel_command_line: str,
) -> str:
    """The file that boots a slot: the first of `kernels` that is there.

    The filesystem is looked for on GRUB's own disk first: a cloned disk beside it has the same UUID.
    Raises ConfigError for a kernel command line whose quotes do not match.
    """
    words = [f"root=UUID={filesystem_uuid}", "ro", *split_command_line(kernel_command_line)]
    arguments = " ".join(_quote(word) for word in words)
    hint = f'--hint="$bladeroot_disk,gpt{partition_number}"'
    lines = [
        f"# Written by bladeroot at each install into slot {slot}.",
        f"search --no-floppy --fs-uuid --set=root {hint} {filesystem_uuid}",
    ]
    for files in kernels:
        kernel, initramfs = _quote(files.kernel), _quote(files.initramfs)
        lines += [
            f"if [ -f {kernel} -a -f {initramfs} ]; then",
            f"  echo bladeroot: slot {slot}, {kernel}",
            f"  linux {kernel} {arguments}",
            f"  initrd {initramfs}",
            "  boot",
            "fi",
        ]
    return "\n".join(lines) + "\n"


def render_grubenv(values: Mapping[str, str]) -> bytes:
    """GRUB's environment block. Raises DiskError for more than a sector of it can hold.

    Everything that ever changes is in the first 512 bytes, so that a disk writes it all or not at all.
    """
    lines = [_GRUBENV_HEADER]
    for name, value in sorted(values.items()):
        if not re.fullmatch(r"[a-z_][a-z0-9_]*", name) or not value.isprintable() or not value.isascii():
            raise DiskError(f"not a value for grubenv: {name}={value!r}")
        lines.append(f"{name}={value}\n".replace("\\", "\\\\"))
    text = "".join(lines).encode()
    if len(text) > GRUBENV_SECTOR_BYTES:
        raise DiskError(f"grubenv would have {len(text)} bytes, more than {GRUBENV_SECTOR_BYTES}")
    return text.ljust(GRUBENV_BYTES, b"#")


def parse_grubenv(block: bytes) -> dict[str, str]:
    """The inverse of `render_grubenv`; empty for what is not an environment block."""
    if len(block) != GRUBENV_BYTES or not block.startswith(_GRUBENV_HEADER.encode()):
        return {}
    values: dict[str, str] = {}
    for line in block.decode("ascii", errors="replace").split("\n"):
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            values[name] = value.replace("\\\\", "\\")
    return values


def render_fstab(
    *, root_uuid: str, filesystem: str, data_uuid: str, data_filesystem: str, esp_uuid: str, depot: Path
) -> str:
    """An installed blade's /etc/fstab.

    The blade comes up without `data`. The ESP is not mounted, so that nobody else writes it at a commit.
    """
    check = 0 if filesystem in ("xfs", "btrfs") else 1
    rows = [
        (f"UUID={root_uuid}", "/", filesystem, "defaults", "0", str(check)),
        (
            f"UUID={data_uuid}",
            str(depot),
            data_filesystem,
            f"defaults,nofail,x-systemd.device-timeout={_DATA_TIMEOUT_S}s",
            "0",
            "2" if data_filesystem == "ext4" else "0",
        ),
        (f"UUID={esp_uuid}", "/boot/efi", "vfat", "umask=0077,noauto,nofail", "0", "0"),
    ]
    lines = ["# Written by bladeroot at each install.", *("\t".join(row) for row in rows)]
    return "\n".join(lines) + "\n"


def parse_serial_console(kernel_command_line: str) -> Serial | None:
    """The serial console that the kernel is told to use, the last one if there are several."""
    found = re.findall(r"(?:^|\s)console=ttyS(\d)(?:,(\d+)\S*)?(?=\s|$)", kernel_command_line)
    if not found:
        return None
    unit, speed = found[-1]
    return Serial(unit=int(unit), speed=int(speed or 115200))


def split_command_line(kernel_command_line: str) -> list[str]:
    """The kernel's arguments as words; one with blanks stands in double quotes. Raises ConfigError."""
    if "\n" in kernel_command_line:
        raise ConfigError("kernel_command_line has more than one line", "write it as one")
    try:
        lexer = shlex.shlex(kernel_command_line, posix=True, punctuation_chars=False)
        lexer.whitespace_split, lexer.commenters, lexer.escape, lexer.quotes = True, "", "", '"'
        return list(lexer)
    except ValueError:
        raise ConfigError(
            f"kernel_command_line has a quote that is not closed: {kernel_command_line}"
        ) from None


def _quote(word: str) -> str:
    """A word for GRUB's shell; nothing is special between single quotes."""
    if re.fullmatch(r"[A-Za-z0-9_./:=,@%+-]+", word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"
