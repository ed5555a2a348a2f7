"""The firmware's variables, through efivarfs (Documentation/filesystems/efivarfs.rst)."""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bladeroot.errors import FirmwareError
from bladeroot.host.run import run

EFI_FOLDER = Path("/sys/firmware/efi")
_GLOBAL_GUID = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""UEFI 2.10, 3.3: EFI_GLOBAL_VARIABLE."""
_ATTRIBUTES = (0x1 | 0x2 | 0x4).to_bytes(4, "little")
"""UEFI 2.10, 8.2: non-volatile, for boot services and at run time; a file's first four bytes."""
# linux/fs.h; efivarfs makes most variables immutable, so that `rm -r` does not brick machines.
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FS_IMMUTABLE_FL = 0x10
_HINT = "see `efibootmgr -v`, or set the boot order in the firmware's own setup"


def find_efivars(folder: Path = EFI_FOLDER) -> Path | None:
    """Where the variables are, mounted if they were not; None on a machine that a BIOS started.

    Raises FirmwareError where they cannot be had.
    """
    if not folder.is_dir():
        return None
    variables = folder / "efivars"
    if not variables.is_dir():
        raise FirmwareError("the kernel has no access to the firmware's variables", _HINT)
    if folder == EFI_FOLDER and not os.path.ismount(variables):
        completed = run(["mount", "-t", "efivarfs", "efivarfs", variables], check=False)
        if completed.code != 0:
            raise FirmwareError(f"the firmware's variables: {completed.stderr.strip()[:200]}", _HINT)
    return variables


def read_variables(folder: Path) -> dict[str, bytes]:
    """Every global variable that has to do with booting, by its name, without its attributes."""
    found = {}
    for path in folder.glob(f"Boot*-{_GLOBAL_GUID}"):
        with _explained(path):
            found[path.name.removesuffix(f"-{_GLOBAL_GUID}")] = path.read_bytes()[len(_ATTRIBUTES) :]
    return found


def write_variable(folder: Path, name: str, data: bytes) -> None:
    """Set a variable. Raises FirmwareError: some firmwares are full, or refuse."""
    path = _path(folder, name)
    _make_mutable(path)
    with _explained(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            payload = _ATTRIBUTES + data
            os.write(descriptor, payload)  # efivarfs takes a variable in one write or not at all
            if os.fstat(descriptor).st_size > len(payload):
                os.ftruncate(descriptor, len(payload))  # only where it is not efivarfs
        finally:
            os.close(descriptor)


def delete_variable(folder: Path, name: str) -> None:
    """Let there be no such variable. Raises FirmwareError."""
    path = _path(folder, name)
    _make_mutable(path)
    with _explained(path), contextlib.suppress(FileNotFoundError):
        path.unlink()


def apply_variables(folder: Path, writes: Mapping[str, bytes], deletes: tuple[str, ...]) -> None:
    """Write, then delete, then read back. Raises FirmwareError where the firmware has not taken it."""
    for name, data in writes.items():
        write_variable(folder, name, data)
    for name in deletes:
        delete_variable(folder, name)
    found = read_variables(folder)
    for name, data in writes.items():
        if found.get(name) != data:
            raise FirmwareError(f"the firmware has not taken the variable {name}", _HINT)
    for name in deletes:
        if name in found:
            raise FirmwareError(f"the firmware still has the variable {name}", _HINT)


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}-{_GLOBAL_GUID}"


def _make_mutable(path: Path) -> None:
    with contextlib.suppress(OSError):  # there is no such file, or no such flag
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            flags = array.array("i", [0])
            fcntl.ioctl(descriptor, _FS_IOC_GETFLAGS, flags)
            if flags[0] & _FS_IMMUTABLE_FL:
                flags[0] &= ~_FS_IMMUTABLE_FL
                fcntl.ioctl(descriptor, _FS_IOC_SETFLAGS, flags)
        finally:
            os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = path.name.removesuffix(f"-{_GLOBAL_GUID}")
        raise FirmwareError(f"the firmware's variable {name}: {error.strerror}", _HINT) from error
