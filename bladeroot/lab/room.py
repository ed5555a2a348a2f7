"""A room of process blades: each is the real command, in a network namespace with a disk file of its own.

What happens in the room is what the root says: blades report to it over the network, and its event stream
(`bladeroot promote --json`) is read here.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bladeroot.errors import ClaimNotHeldError, InventoryError
from bladeroot.events import Event, Finished, Reporter
from bladeroot.host.run import DEVNULL, PIPE, start_process, stop_process
from bladeroot.lab.blade import BladeParts, ProcessBlade
from bladeroot.lab.network import LabHost, LabNetwork
from bladeroot.lab.roomprocess import ENDED_UNSEEN_S, RoomProcess
from bladeroot.ops.folder import ClusterFolder

ROOT_HOST = "root"
_FIRST_BLADE = 11
"""The first blade's address is the subnet's eleventh: whoever comes without one has room below."""
_CHECK_S = 1.0


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
        self.machines: dict[str, ProcessBlade] = {}

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

    def add_blade(
        self,
        name: str,
        disk_size_bytes: int,
        address: str | None = None,
        *,
        root: str | None = None,
        segment: str = "",
    ) -> ProcessBlade:
        """A machine that is switched off, with the disk of that blade as it is, or an empty one.

        Without `address` it has the one that goes with its place in the inventory, however often that is
        asked for. It follows no other root than `root`, where one is given. `segment` is one
        of the network's, which the address is in. Its power is cut with the block.
        """
        chosen = address or self._address_of(name)
        host = self._network.add_host(name, chosen, rate_bits=self._link_bits, segment=segment)
        parts = BladeParts(
            name=name,
            network=self._network,
            host=host,
            cluster=self._cluster,
            folder=self._work / "machines" / name,
            disk=self.disk(name),
            disk_size_bytes=disk_size_bytes,
            root=root,
        )
        blade = self.machines[name] = ProcessBlade(parts, self._reporter)
        self._stack.callback(blade.cut_power)
        return blade

    def wait_for_blades(self, root: RoomProcess, timeout_s: float) -> dict[str, dict[str, Any]]:
        """The facts that each blade reported to the root when it was installed.

        Raises ClaimNotHeldError as soon as one failed or the root is gone, or when the time is over.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while missing := self.blades.keys() - self._finished.keys():
                for name in sorted(missing):
                    if self.blades[name].has_ended:
                        self.blades[name].wait(ENDED_UNSEEN_S)
                        raise ClaimNotHeldError(f"{name} ended, and the root did not hear that it was done")
                if root.has_ended:
                    root.wait(ENDED_UNSEEN_S)
                    raise ClaimNotHeldError("the root ended while blades were installing")
                if time.monotonic() > deadline:
                    names = ", ".join(sorted(missing))
                    raise ClaimNotHeldError(f"not installed after {timeout_s:g} s: {names}")
                self._changed.wait(_CHECK_S)
            return dict(self._finished)

    def _address_of(self, name: str) -> str:
        names = list(ClusterFolder.open(self._cluster).cluster.blades)
        if name not in names:
            raise InventoryError(f"the room's cluster has no blade {name!r}", "give it an address")
        return str(self._network.subnet[_FIRST_BLADE + names.index(name)])

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
