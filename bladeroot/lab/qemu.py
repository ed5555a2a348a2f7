"""Machines in QEMU, with emulated CPUs: switched on, watched on their serial console, switched off."""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bladeroot.errors import ClaimNotHeldError, MissingToolError, ToolError
from bladeroot.host.files import scratch_folder
from bladeroot.host.run import STDOUT, Argument, Process, find_tool, start_process
from bladeroot.lab.qemuplan import OVMF_CODE, OVMF_VARIABLES, MachineSpec, plan_qemu
from bladeroot.lab.qemuplan import Firmware as Firmware

_POLL_S = 0.1
_LOG_TAIL_LINES = 5
_TERMINAL_SEQUENCE = re.compile(r"\x1b(\[[0-9;?=]*[A-Za-z]|[()][A-Z0-9]|[=>c])")
FAILURES = r"^.*(?:Kernel panic|bladeroot: FAILED|bladeroot: HELD).*$"
"""What a machine says that goes no further by itself."""


class VirtualMachine:
    """A running QEMU; what it writes to its serial console is in `log`, from `offset` bytes on."""

    def __init__(self, process: Process, log: Path, error_log: Path, offset: int = 0) -> None:
        self.log = log
        self._process = process
        self._error_log = error_log
        self._offset = offset

    @property
    def pid(self) -> int:
        """QEMU's process."""
        return self._process.pid

    def read_console(self) -> str:
        """Everything on the serial console since it was switched on, without terminal control sequences."""
        with contextlib.suppress(FileNotFoundError), self.log.open("rb") as stream:
            stream.seek(self._offset)
            text = stream.read().decode(errors="replace")
            return _TERMINAL_SEQUENCE.sub("", text).replace("\r", "")
        return ""

    def look_for(self, pattern: str, *, fails_on: str = "") -> re.Match[str] | None:
        """The first match of a regular expression on the console so far, None if there is none yet.

        Raises ClaimNotHeldError when there is none and the machine has ended, or has said what `fails_on`
        matches.
        """
        ended = self.has_ended()  # before reading: what it wrote last must count
        text = self.read_console()
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            return match
        failure = re.search(fails_on, text, re.MULTILINE) if fails_on else None
        if failure:
            raise ClaimNotHeldError(f"instead of {pattern!r}: {failure[0].strip()}", self._hint())
        if ended:
            raise ClaimNotHeldError(f"the machine ended without {pattern!r}: {self._tail()}", self._hint())
        return None

    def wait_for(self, pattern: str, timeout_s: float = 180.0, *, fails_on: str = "") -> re.Match[str]:
        """The first match of a regular expression on the console.

        Raises ClaimNotHeldError with the console's last lines when the time is over, and as soon as the
        machine has ended without it, or has said what `fails_on` matches.
        """
        deadline = time.monotonic() + timeout_s
        while (match := self.look_for(pattern, fails_on=fails_on)) is None:
            if time.monotonic() > deadline:
                raise ClaimNotHeldError(f"no {pattern!r} after {timeout_s:g} s: {self._tail()}", self._hint())
            time.sleep(_POLL_S)
        return match

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


def wait_for_all(
    machines: Iterable[VirtualMachine], pattern: str, timeout_s: float, *, fails_on: str = ""
) -> list[re.Match[str]]:
    """`wait_for` on several machines at once: the first that cannot fulfil it ends the waiting."""
    waiting = list(machines)
    deadline = time.monotonic() + timeout_s
    while True:
        matches = [machine.look_for(pattern, fails_on=fails_on) for machine in waiting]
        found = [match for match in matches if match is not None]
        if len(found) == len(waiting):
            return found
        if time.monotonic() > deadline:
            late = next(machine for machine, match in zip(waiting, matches, strict=True) if match is None)
            return [late.wait_for(pattern, 0.0, fails_on=fails_on)]
        time.sleep(_POLL_S)


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

    `snapshot` throws away what the machine writes. The console goes to `log`. A machine that restarts ends.
    Raises MissingToolError.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    drive = {"snapshot": "on"} if snapshot else {}
    spec = MachineSpec(disk=disk, firmware=firmware, memory_mib=memory_mib, drive=drive, reboots=False)
    with scratch_folder("bladeroot-vm-") as folder:
        argv = plan_qemu(spec, variables=provide_variables(firmware, folder), log=log)
        # A BIOS that talks to the serial console would write between GRUB's letters there.
        argv += ["-machine", "graphics=on"]
        with start_machine([*argv, *extra_arguments], folder, log=log) as machine:
            yield machine


@contextmanager
def start_machine(argv: Sequence[Argument], folder: Path, *, log: Path) -> Iterator[VirtualMachine]:
    """Run a planned QEMU with `folder` as its current directory; its power is cut when the block ends."""
    error_log = folder / "qemu.log"
    offset = log.stat().st_size if log.exists() else 0
    with (
        error_log.open("wb") as errors,
        start_process(
            argv,
            stdout=errors,
            stderr=STDOUT,
            cwd=folder,
            # QEMU's temporary overlay for `snapshot` goes to TMPDIR, and with the folder.
            environment={"TMPDIR": str(folder)},
            ends_with_parent=True,
        ) as process,
    ):
        try:
            yield VirtualMachine(process, log, error_log, offset)
        finally:
            process.kill()


def provide_variables(firmware: Firmware, folder: Path) -> Path | None:
    """The file of a UEFI's variables in `folder`, fresh ones where there is none yet; None for BIOS.

    Raises MissingToolError without QEMU or its UEFI firmware.
    """
    find_tool("qemu-system-x86_64")
    if firmware == "bios":
        return None
    if not OVMF_CODE.is_file() or not OVMF_VARIABLES.is_file():
        raise MissingToolError(f"there is no UEFI firmware {OVMF_CODE}", "apt install ovmf")
    variables = folder / "variables.fd"
    if not variables.exists():
        try:
            shutil.copyfile(OVMF_VARIABLES, variables)
        except OSError as error:
            raise ToolError(f"cannot copy {OVMF_VARIABLES}: {error.strerror}") from error
    return variables
