"""A room of blades that are processes, or virtual machines: a scenario need not know which."""

from __future__ import annotations

import json
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from bladeroot.core.cluster import GIB
from bladeroot.errors import ClaimNotHeldError
from bladeroot.events import Booted, Event, Failed, Held, Reporter, RootStarted
from bladeroot.host.run import Argument, Completed, run
from bladeroot.lab.network import LabNetwork, start_network
from bladeroot.lab.power import make_disk
from bladeroot.lab.qemu import FAILURES
from bladeroot.lab.room import ROOT_HOST, Room, open_room
from bladeroot.lab.roomprocess import RoomProcess
from bladeroot.lab.vmcluster import VmCluster
from bladeroot.lab.vmroom import VmRoom, open_vm_room
from bladeroot.lab.witness import Witness, watching

BOOTED = r"bladeroot-booted (\{.*?\})"
"""What the shipped overlay has a machine say on its console when all has been started."""
_PROCESS_DISK_SIZE_BYTES = 6 * GIB
_COMMAND_TIMEOUT_S = 900.0
_POLL_S = 0.2


class BladeRoom(ABC):
    """Blades with power switches and disks, and a place in their network for an operator."""

    patience_s: float
    """How long a blade may take for what it does, however busy this machine is."""
    root_within_s: float
    """How soon there must be a root when blades are up: a few seconds, as fast as those blades are."""

    def __init__(self, cluster: VmCluster, work: Path) -> None:
        self.cluster = cluster
        self.work = work

    @property
    def names(self) -> tuple[str, ...]:
        """All blades, in the order of succession."""
        return tuple(sorted(self.cluster.firmwares))

    @abstractmethod
    def command(self, argv: Sequence[str]) -> list[Argument]:
        """What runs `argv` where the operator is."""

    @abstractmethod
    def power_on(self, name: str) -> None:
        """Switch a blade on."""

    @abstractmethod
    def cut_power(self, name: str) -> None:
        """Pull its plug."""

    @abstractmethod
    def replace_disk(self, name: str) -> None:
        """Give a blade that is off an empty disk."""

    @abstractmethod
    def disk(self, name: str) -> Path:
        """The file that is the blade's disk."""

    @abstractmethod
    def has_booted(self, name: str) -> bool:
        """Whether its own disk's system came up since it was switched on.

        Raises ClaimNotHeldError where it goes no further by itself.
        """

    @abstractmethod
    def is_complete(self, name: str) -> bool:
        """Whether a blade that was installed since it was switched on has its extras too, by its own word."""

    def install_disk(self, name: str) -> None:
        """Have the operator install a blade's disk from his own depot. Raises ClaimNotHeldError."""
        words = ["--blade", name, "--disk", str(self.disk(name)), "--from-depot", str(self.cluster.depot)]
        self.operate("install", *words, "--yes")

    def operate(self, *words: str) -> Completed:
        """`bladeroot --json WORDS` as the operator runs it. Raises ClaimNotHeldError where it fails."""
        options = ["--json", "--cluster", str(self.cluster.folder.path), "--depot", str(self.cluster.depot)]
        argv = [sys.executable, "-m", "bladeroot", *options, *words]
        completed = run(self.command(argv), check=False, timeout_s=_COMMAND_TIMEOUT_S, ends_with_parent=True)
        if completed.code != 0:
            said = completed.stderr.strip().splitlines()[-1:]
            raise ClaimNotHeldError(f"bladeroot {' '.join(words)}: {' '.join(said)}")
        return completed

    def watch(self) -> AbstractContextManager[Witness]:
        """Somebody at the operator's place who looks at the room."""
        return watching(self.command, self.cluster.folder.cluster.id)

    def wait_until(self, is_so: Callable[[], bool], what: Callable[[], str], blades: int = 1) -> float:
        """Wait as long as so many blades may take; returns how long it was, in seconds.

        Raises ClaimNotHeldError, with `what` there is instead.
        """
        began_s = time.monotonic()
        until_s = began_s + self.patience_s * (2 + blades)
        while not is_so():
            if time.monotonic() > until_s:
                raise ClaimNotHeldError(
                    f"not done after {until_s - began_s:.0f} s: {what()}", f"see {self.work}"
                )
            time.sleep(_POLL_S)
        return time.monotonic() - began_s


class ProcessBladeRoom(BladeRoom):
    """Process blades in network namespaces."""

    patience_s = 120.0
    root_within_s = 60.0

    def __init__(self, cluster: VmCluster, work: Path, network: LabNetwork, reporter: Reporter) -> None:
        super().__init__(cluster, work)
        self._network = network
        self._reporter = reporter
        self._booted: set[str] = set()
        self._bad: dict[str, str] = {}
        self._root_is_up = threading.Event()
        self._room: Room | None = None

    @contextmanager
    def furnished(self) -> Iterator[ProcessBladeRoom]:
        """With the blades in it, off, for the length of the block."""
        with open_room(self._network, self.cluster.folder.path, self.work, self._hear) as room:
            self._room = room
            for name in self.names:
                address = self.cluster.folder.cluster.blade(name).address
                room.add_blade(name, _PROCESS_DISK_SIZE_BYTES, (address or "").partition("/")[0] or None)
            yield self

    def start_root(self) -> RoomProcess:
        """The operator's own root, serving when this returns."""
        root = self._furniture.start_root(self.cluster.depot)
        self.wait_until(self._root_is_up.is_set, lambda: "the operator's root is not up")
        return root

    def command(self, argv: Sequence[str]) -> list[Argument]:
        """See `BladeRoom`."""
        return self._network.host(ROOT_HOST).command(argv)

    def power_on(self, name: str) -> None:
        """See `BladeRoom`."""
        self._booted.discard(name)
        self._furniture.machines[name].power_on()

    def cut_power(self, name: str) -> None:
        """See `BladeRoom`."""
        self._furniture.machines[name].cut_power()

    def replace_disk(self, name: str) -> None:
        """See `BladeRoom`."""
        self._furniture.machines[name].replace_disk()

    def disk(self, name: str) -> Path:
        """See `BladeRoom`."""
        return self._furniture.machines[name].disk

    def has_booted(self, name: str) -> bool:
        """See `BladeRoom`."""
        if name in self._bad:
            raise ClaimNotHeldError(self._bad[name], f"its log: {self._furniture.machines[name].log}")
        return name in self._booted

    def is_complete(self, name: str) -> bool:
        """See `BladeRoom`."""
        return self._furniture.machines[name].installed().get("extras") is True

    @property
    def _furniture(self) -> Room:
        assert self._room is not None, "not furnished"  # noqa: S101
        return self._room

    def _hear(self, event: Event) -> None:
        match event:
            case Booted() if event.subject:
                self._booted.add(event.subject)
            case RootStarted() if not event.subject:
                self._root_is_up.set()
            case Failed() if event.subject:
                self._bad[event.subject] = f"{event.subject} failed: {event.text}"
            case Held() if event.subject:
                self._bad[event.subject] = f"{event.subject} is held: {event.reason}"
        self._reporter(event)


class VmBladeRoom(BladeRoom):
    """Virtual machines; their firmware tries the disk first, as an install has it do, then the network."""

    patience_s = 300.0
    root_within_s = 180.0

    def __init__(self, cluster: VmCluster, work: Path, room: VmRoom) -> None:
        super().__init__(cluster, work)
        self._room = room
        cluster.furnish(room)

    def command(self, argv: Sequence[str]) -> list[Argument]:
        """See `BladeRoom`."""
        return self._room.segment.command(argv)

    def power_on(self, name: str) -> None:
        """See `BladeRoom`."""
        self._room.blade(name).power_on("disk")

    def cut_power(self, name: str) -> None:
        """See `BladeRoom`."""
        self._room.blade(name).cut_power()

    def replace_disk(self, name: str) -> None:
        """See `BladeRoom`."""
        make_disk(self.disk(name), self.cluster.disk_size_bytes)

    def disk(self, name: str) -> Path:
        """See `BladeRoom`."""
        return self._room.blade(name).disk

    def has_booted(self, name: str) -> bool:
        """See `BladeRoom`."""
        machine = self._room.blade(name).machine
        found = machine.look_for(BOOTED, fails_on=FAILURES)
        if found is None:
            return False
        told = json.loads(found[1])
        if told["blade"] != name or told.get("failed"):
            raise ClaimNotHeldError(f"{name} came up as {found[1]}", f"console: {machine.log}")
        return True

    def is_complete(self, name: str) -> bool:
        """See `BladeRoom`. Its daemon's journal is on its console."""
        said = rf"bladeroot\[\d+\]: {name} has all of generation {self.cluster.manifest.serial}"
        return self._room.blade(name).machine.look_for(said, fails_on=FAILURES) is not None


@contextmanager
def open_blade_room(
    cluster: VmCluster, work: Path, *, is_vm: bool, reporter: Reporter
) -> Iterator[BladeRoom]:
    """A room with the cluster's blades, all off and with empty disks; everything ends with the block."""
    with ExitStack() as stack:
        if is_vm:
            yield VmBladeRoom(cluster, work, stack.enter_context(open_vm_room(work, reporter)))
        else:
            network = stack.enter_context(start_network("room"))
            room = ProcessBladeRoom(cluster, work, network, reporter)
            yield stack.enter_context(room.furnished())
