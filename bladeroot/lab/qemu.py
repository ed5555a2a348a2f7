"""Boot a disk in QEMU, alone: no network card, emulated CPU, and (by default) without changing the disk."""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from bladeroot.errors import ClaimNotHeldError, MissingToolError, ToolError
from bladeroot.host.run import STDOUT, Process, find_tool, start_process

Firmware = Literal["bios", "uefi"]

_OVMF_FOLDER = Path("/usr/share/OVMF")
_OVMF_CODE = _OVMF_FOLDER / "OVMF_CODE_4M.fd"
_OVMF_VARS = _OVMF_FOLDER / "OVMF_VARS_4M.fd"
_POLL_S = 0.1
_LOG_TAIL_LINES = 5


class VirtualMachine:
    """A running QEMU; what it writes to its serial console is in `log`."""

    def __init__(self, process: Process, log: Path, error_log: Path) -> None:
        self.log = log
        self._process = process
        self._error_log = error_log

    def read_console(self) -> str:
        """Everything on the serial console so far, without terminal control sequences."""
        text = self.log.read_bytes().decode(errors="replace") if self.log.exists() else ""
        return re.sub(r"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>c])", "", text).replace("\r", "")

    def wait_for(self, pattern: str, timeout_s: float = 180.0) -> re.Match[str]:
        """The first match of a regular expression on the console.

        Raises ClaimNotHeldError with the console's last lines when the time is over, or as soon as the
        machine has ended without it.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self.has_ended()  # before reading: what it wrote last must count
            match = re.search(pattern, self.read_console(), re.MULTILINE)
            if match:
                return match
            if ended:
                raise ClaimNotHeldError(
                    f"the machine ended without {pattern!r}: {self._tail()}", self._hint()
                )
            if time.monotonic() > deadline:
                raise ClaimNotHeldError(f"no {pattern!r} after {timeout_s:g} s: {self._tail()}", self._hint())
            time.sleep(_POLL_S)

    def wait_until_ended(self, timeout_s: float = 60.0) -> int:
        """The exit code of QEMU, when the machine has switched itself off. Raises ClaimNotHeldError."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended():
            if time.monotonic() > deadline:
                raise ClaimNotHeldError(f"still on after {timeout_s:g} s: {self._tail()}", self._hint())
            time.sleep(_POLL_S)
        return self._process.wait()

    def has_ended(self) -> bool:
        """QEMU is no longer running."""
        return self._process.poll() is not None

    def cut_power(self) -> None:
        """SIGKILL: as if the plug were pulled, but what the machine has written is in the disk's file."""
        self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        lines = [line.strip() for line in self.read_console().splitlines() if line.strip()]
        said = self._error_log.read_text(errors="replace").splitlines() if self._error_log.exists() else []
        return " | ".join([*lines[-_LOG_TAIL_LINES:], *said[-_LOG_TAIL_LINES:]]) or "nothing on the console"

    def _hint(self) -> str:
        return f"the whole console: {self.log}"


@contextmanager
def boot(
    disk: Path,
    firmware: Firmware,
    *,
    log: Path,
    snapshot: bool = True,
    memory_mib: int = 512,
    extra_arguments: Sequence[str] = (),
) -> Iterator[VirtualMachine]:
    """Switch on a machine whose only device to boot from is `disk` (a raw file), until the block ends.

    `snapshot` throws away what the machine writes. The console goes to `log`. Raises MissingToolError.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="bladeroot-vm-") as folder:
        argv = plan_qemu(
            disk,
            _copy_firmware(firmware, Path(folder)),
            log=log,
            snapshot=snapshot,
            memory_mib=memory_mib,
        )
        error_log = Path(folder) / "stderr"
        # QEMU's temporary overlay for `snapshot` goes to TMPDIR, and with the folder.
        environment = {"TMPDIR": folder}
        with (
            error_log.open("wb") as errors,
            start_process(
                [*argv, *extra_arguments],
                stdout=errors,
                stderr=STDOUT,
                environment=environment,
                ends_with_parent=True,
            ) as process,
        ):
            try:
                yield VirtualMachine(process, log, error_log)
            finally:
                process.kill()


def plan_qemu(
    disk: Path, firmware_variables: Path | None, *, log: Path, snapshot: bool, memory_mib: int
) -> list[str]:
    """QEMU's argv; with a file of variables the firmware is UEFI, else BIOS."""
    argv = [
        *("qemu-system-x86_64", "-display", "none", "-no-reboot", "-nic", "none"),
        *("-m", str(memory_mib), "-accel", "tcg,thread=multi", "-smp", "1"),
        *(
            "-chardev",
            f"file,id=console,path={_escape(log)}",
            "-serial",
            "chardev:console",
            "-monitor",
            "none",
        ),
        *("-device", "virtio-rng-pci"),
    ]
    if firmware_variables:
        pflash = "if=pflash,format=raw"
        argv += ["-M", "q35", "-drive", f"{pflash},unit=0,readonly=on,file={_OVMF_CODE}"]
        argv += ["-drive", f"{pflash},unit=1,file={_escape(firmware_variables)}"]
    caching = "snapshot=on" if snapshot else "cache=unsafe"
    return [
        *argv,
        *("-drive", f"if=none,id=disk,file={_escape(disk)},format=raw,{caching},discard=unmap"),
        *("-device", "virtio-blk-pci,drive=disk,bootindex=1"),
    ]


def _copy_firmware(firmware: Firmware, folder: Path) -> Path | None:
    """A copy of UEFI's variables for one machine alone; None for BIOS."""
    find_tool("qemu-system-x86_64")
    if firmware == "bios":
        return None
    if not _OVMF_CODE.is_file() or not _OVMF_VARS.is_file():
        raise MissingToolError(f"there is no UEFI firmware {_OVMF_CODE}", "apt install ovmf")
    try:
        return Path(shutil.copyfile(_OVMF_VARS, folder / "variables.fd"))
    except OSError as error:
        raise ToolError(f"cannot copy {_OVMF_VARS}: {error.strerror}") from error


def _escape(path: Path) -> str:
    """A path inside a QEMU option: a comma is written twice."""
    return str(path.resolve()).replace(",", ",,")
