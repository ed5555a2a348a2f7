"""A virtual blade: a folder with its disk, firmware variables and console, and a power switch."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import attrs

from bladeroot.errors import ClaimNotHeldError, ToolError
from bladeroot.host.localsocket import connected_socket
from bladeroot.lab.qemu import VirtualMachine, provide_variables, start_machine
from bladeroot.lab.qemuplan import Kernel, MachineSpec, Start, plan_qemu
from bladeroot.lab.segment import Segment

CONSOLE_SOCKET = "console.sock"
CONSOLE_LOG = "console.log"
_MONITOR_SOCKET = "monitor.sock"
_LISTENING_TIMEOUT_S = 20.0
_POLL_S = 0.05


class VmBlade:
    """One virtual blade; what it is made of is in `spec`. Off until it is switched on.

    QEMU ends with the thread that switched it on.
    """

    def __init__(self, spec: MachineSpec, folder: Path, segment: Segment) -> None:
        self.spec = spec
        self.folder = folder
        self._segment = segment
        self._running = ExitStack()
        self._machine: VirtualMachine | None = None
        self._starts = 0

    @property
    def name(self) -> str:
        """The blade's."""
        return self.spec.name

    @property
    def disk(self) -> Path:
        """The file that is its disk."""
        return self.spec.disk

    @property
    def log(self) -> Path:
        """What it wrote to its serial console, of all the times that it was on."""
        return self.folder / CONSOLE_LOG

    @property
    def is_on(self) -> bool:
        """Whether it runs."""
        return self._machine is not None and not self._machine.has_ended()

    @property
    def machine(self) -> VirtualMachine:
        """What runs, or ran last. Raises ClaimNotHeldError for a blade that was never on."""
        if self._machine is None:
            raise ClaimNotHeldError(f"{self.name} was never switched on")
        return self._machine

    def power_on(
        self,
        start: Start = "network",
        *,
        kernel: Kernel | None = None,
        reboots: bool = True,
        drive: Mapping[str, str] | None = None,
    ) -> VirtualMachine:
        """Switch it on; nothing happens where it is on.

        `kernel` is started in place of its firmware's boot. Without `reboots` it ends where it would restart.
        `drive` is what is wrong with its disk this time, as in `MachineSpec`.
        """
        if self.is_on:
            return self.machine
        self._running.close()
        self._starts += 1
        with self.log.open("a") as log:
            log.write(f"\n--- switched on ({self._starts}), {start}\n")
        spec = attrs.evolve(self.spec, start=start, kernel=kernel, reboots=reboots, drive=drive or {})
        argv = plan_qemu(
            spec,
            variables=provide_variables(spec.firmware, self.folder),
            log=self.log,
            # Names without folders: the path of a socket has a limit of 108 bytes (unix(7)).
            console=CONSOLE_SOCKET,
            monitor=_MONITOR_SOCKET,
        )
        for name in (CONSOLE_SOCKET, _MONITOR_SOCKET):
            (self.folder / name).unlink(missing_ok=True)
        command = self._segment.command(argv, self.folder)
        self._machine = self._running.enter_context(start_machine(command, self.folder, log=self.log))
        # The last of the two: the console listens by then.
        self._wait_until(lambda: (self.folder / _MONITOR_SOCKET).exists(), _LISTENING_TIMEOUT_S)
        return self._machine

    def cut_power(self) -> None:
        """Pull the plug."""
        if self._machine is not None and self.is_on:
            self._machine.cut_power()
        self._running.close()

    def press_power(self, timeout_s: float = 60.0) -> bool:
        """Press the power button, and wait until the machine has switched itself off; then cut its power.

        False where it was not done in time, as with an operating system that does not listen.
        """
        if not self.is_on:
            return True
        with contextlib.suppress(OSError, ValueError):
            _press_button(self.folder)
        self._wait_until(lambda: False, timeout_s)
        obeyed = not self.is_on
        self.cut_power()
        return obeyed

    def _wait_until(self, is_so: Callable[[], bool], timeout_s: float) -> None:
        """Until it is so, or the machine has ended, or the time is over."""
        deadline = time.monotonic() + timeout_s
        while self.is_on and not is_so() and time.monotonic() < deadline:
            time.sleep(_POLL_S)


def make_disk(path: Path, size_bytes: int) -> Path:
    """An empty, sparse file, in place of any that is there. Raises ToolError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with path.open("wb") as file:
            file.truncate(size_bytes)
    except OSError as error:
        raise ToolError(f"cannot make {path}: {error.strerror}") from error
    return path


def _press_button(folder: Path) -> None:
    """QMP: greeting, capabilities, then the command."""
    with connected_socket(folder, _MONITOR_SOCKET) as stream, stream.makefile("rw") as lines:
        lines.readline()
        for command in ("qmp_capabilities", "system_powerdown"):
            lines.write(json.dumps({"execute": command}) + "\n")
            lines.flush()
            lines.readline()
