"""A room of process blades: each is the real command, in a network namespace with a disk file of its own.

What happens in the room is what the root says: blades report to it over the network, and its event stream
(`bladeroot promote --json`) is read here.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Event, Finished, Reporter, from_mapping
from bladeroot.host.run import DEVNULL, PIPE, Process, start_process, stop_process
from bladeroot.lab.network import LabHost, LabNetwork

ROOT_HOST = "root"
_ENDED_UNSEEN_S = 60.0
_CHECK_S = 1.0


class RoomProcess:
    """One bladeroot command in a host of the lab, its events read while it runs."""

    def __init__(self, name: str, process: Process, log: Path, reporter: Reporter) -> None:
        self.name = name
        self._process = process
        self._log = log
        self._reporter = reporter
        self._last_line = ""
        self._finished: dict[str, Any] | None = None
        self._said = threading.Condition()
        assert process.stderr is not None  # noqa: S101 - it was started with a pipe
        self._thread = threading.Thread(target=self._read, args=(process.stderr,), name=f"events-{name}")
        self._thread.start()

    def wait(self, timeout_s: float) -> dict[str, Any]:
        """The facts it finished with. Raises ClaimNotHeldError if it failed, or takes longer."""
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise ClaimNotHeldError(f"{self.name} is not done after {timeout_s:g} s", f"its log: {self._log}")
        code = self._process.wait()
        if code != 0 or self._finished is None:
            raise ClaimNotHeldError(
                f"{self.name} ended with exit code {code}: {self._last_line}", f"its log: {self._log}"
            )
        return self._finished

    def wait_for_finish(self, timeout_s: float) -> dict[str, Any]:
        """The facts that it finished with, though it may linger. Raises ClaimNotHeldError like `wait`."""
        with self._said:
            self._said.wait_for(lambda: self._finished is not None or self.has_ended, timeout_s)
        return self._finished if self._finished is not None else self.wait(_CHECK_S)

    def stop(self) -> dict[str, Any]:
        """Ask it to end, and return the facts it finished with."""
        self._process.terminate()
        return self.wait(_ENDED_UNSEEN_S)

    def kill(self) -> None:
        """As a power cut does: at once, and with no chance to say anything."""
        self._process.kill()
        self._process.wait()
        self._thread.join()

    @property
    def has_ended(self) -> bool:
        """Whether it runs no more."""
        return self._process.poll() is not None

    def _read(self, stream: IO[bytes]) -> None:
        with self._log.open("wb") as log:
            for line in stream:
                log.write(line)
                log.flush()
                event = _parse_line(line)
                if isinstance(event, Finished) and not event.subject:
                    with self._said:
                        self._finished = dict(event.facts)
                        self._said.notify_all()
                if event is not None:
                    self._reporter(event)
                else:
                    self._last_line = line.decode(errors="replace").strip()
        with self._said:
            self._said.notify_all()


class Room:
    """The root and the blades of a lab, all on one network; see `open_room`."""

    def __init__(
        self,
        network: LabNetwork,
        cluster: Path,
        work: Path,
        reporter: Reporter,
        link_bits: int | None,
        stack: ExitStack,
    ) -> None:
        self._network = network
        self._cluster = cluster
        self._work = work
        self._reporter = reporter
        self._link_bits = link_bits
        self._stack = stack
        self._changed = threading.Condition()
        self._finished: dict[str, dict[str, Any]] = {}
        self.blades: dict[str, RoomProcess] = {}

    def disk(self, blade: str) -> Path:
        """The file that is the blade's disk."""
        return self._work / "disks" / f"{blade}.img"

    def start_root(self, depot: Path, extra: Sequence[str] = (), *, name: str = ROOT_HOST) -> RoomProcess:
        """A host that takes the root role with what the depot holds."""
        host = self._network.add_host(name, rate_bits=self._link_bits)
        argv = ["--depot", str(depot), "promote", "--blade", name, *extra]
        return self._start(host, argv, self._hear_root)

    def start_blade(self, name: str, disk_size_bytes: int, extra: Sequence[str] = ()) -> RoomProcess:
        """A host with an empty disk, which finds the root and installs itself."""
        host = self._network.add_host(name, rate_bits=self._link_bits)
        disk = self.disk(name)
        disk.parent.mkdir(parents=True, exist_ok=True)
        with disk.open("wb") as file:
            file.truncate(disk_size_bytes)
        argv = ["install", "--blade", name, "--disk", str(disk), "--yes", *extra]
        # Its progress is what the root hears; of its own stream only the end is needed.
        self.blades[name] = self._start(host, argv, lambda _event: None)
        return self.blades[name]

    def wait_for_blades(self, root: RoomProcess, timeout_s: float) -> dict[str, dict[str, Any]]:
        """The facts that each blade reported to the root when it was installed.

        Raises ClaimNotHeldError as soon as one failed or the root is gone, or when the time is over.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while missing := self.blades.keys() - self._finished.keys():
                for name in sorted(missing):
                    if self.blades[name].has_ended:
                        self.blades[name].wait(_ENDED_UNSEEN_S)
                        raise ClaimNotHeldError(f"{name} ended, and the root did not hear that it was done")
                if root.has_ended:
                    root.wait(_ENDED_UNSEEN_S)
                    raise ClaimNotHeldError("the root ended while blades were installing")
                if time.monotonic() > deadline:
                    names = ", ".join(sorted(missing))
                    raise ClaimNotHeldError(f"not installed after {timeout_s:g} s: {names}")
                self._changed.wait(_CHECK_S)
            return dict(self._finished)

    def _hear_root(self, event: Event) -> None:
        if isinstance(event, Finished) and event.subject:
            with self._changed:
                self._finished[event.subject] = dict(event.facts)
                self._changed.notify_all()
        self._reporter(event)

    def _start(self, host: LabHost, argv: Sequence[str], reporter: Reporter) -> RoomProcess:
        command = [sys.executable, "-m", "bladeroot", "--json", "--cluster", str(self._cluster), *argv]
        starting = start_process(host.command(command), stdout=DEVNULL, stderr=PIPE, ends_with_parent=True)
        process = self._stack.enter_context(starting)
        room_process = RoomProcess(host.name, process, self._work / "logs" / f"{host.name}.jsonl", reporter)
        self._stack.callback(stop_process, process)
        return room_process


@contextmanager
def open_room(
    network: LabNetwork, cluster: Path, work: Path, reporter: Reporter, link_bits: int | None = None
) -> Iterator[Room]:
    """A room whose processes end with the block. Files go below `work`; `link_bits` shapes every link."""
    (work / "logs").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        yield Room(network, cluster, work, reporter, link_bits, stack)


def _parse_line(line: bytes) -> Event | None:
    try:
        return from_mapping(json.loads(line))
    except (ValueError, AttributeError):
        return None
