"""A room of virtual blades on a network segment of their own, and the root process that they netboot from."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bladeroot.core.cluster import GIB, Blade, Cluster
from bladeroot.errors import ClaimNotHeldError, InventoryError
from bladeroot.events import Event, Reporter, RootStarted, ignore
from bladeroot.host.run import DEVNULL, PIPE, Argument, start_process, stop_process
from bladeroot.lab.power import VmBlade, make_disk
from bladeroot.lab.qemuplan import Bus, Firmware, MachineSpec
from bladeroot.lab.roomprocess import RoomProcess
from bladeroot.lab.segment import Segment, start_segment

ROOT_NAME = "root"
_ROOT_TIMEOUT_S = 180.0
"""It listens for other roots and DHCP servers first."""
_LOOK_S = 0.2
FIRMWARE_MIXES: dict[str, tuple[Firmware, ...]] = {
    "bios": ("bios",),
    "uefi": ("uefi",),
    "uefi-http": ("uefi-http",),
    "mixed": ("bios", "uefi", "uefi-http"),
}
"""What the blades of a room have, in turn."""
DISK_MIXES: dict[str, tuple[Bus, ...]] = {
    "virtio": ("virtio",),
    "sata": ("sata",),
    "nvme": ("nvme",),
    "mixed": ("virtio", "sata", "nvme"),
}
"""What their disks are attached to, in turn: `/dev/vda`, `/dev/sda`, `/dev/nvme0n1`."""
DEFAULT_DISK_SIZE_BYTES = 6 * GIB


def plan_blade(number: int, name: str, role: str = "blade") -> Blade:
    """The inventory's entry of a room's `number`th blade, from 1: its MAC address, UUID and address."""
    if not 0 < number < 200:
        raise InventoryError(f"a room has blades 1 to 199, not {number}")
    return Blade(
        name=name,
        role=role,
        macs=(f"52:54:00:77:00:{number:02x}",),
        uuid=f"b1ade000-0000-4000-8000-{number:012d}",
        address=f"10.77.0.{number + 10}/24",
    )


class VmRoom:
    """Blades and a root on one segment. Make it with `open_vm_room`; to be used from one thread."""

    def __init__(self, segment: Segment, work: Path, reporter: Reporter, stack: ExitStack) -> None:
        self.segment = segment
        self.work = work
        self.blades: dict[str, VmBlade] = {}
        self._reporter = reporter
        self._stack = stack
        self._roots = 0
        self._root_is_up = threading.Event()

    def add_blade(
        self,
        blade: Blade,
        *,
        firmware: Firmware = "bios",
        bus: Bus = "virtio",
        disk_size_bytes: int = DEFAULT_DISK_SIZE_BYTES,
        memory_mib: int = 512,
        disk: Path | None = None,
    ) -> VmBlade:
        """A new machine, off, with the blade's first MAC address and an empty disk, or `disk`, a file."""
        if blade.name in self.blades:
            raise InventoryError(f"the room has a blade {blade.name!r} already")
        folder = self.work / "blades" / blade.name
        folder.mkdir(parents=True, exist_ok=True)
        spec = MachineSpec(
            name=blade.name,
            disk=disk or make_disk(folder / "disk.img", disk_size_bytes),
            firmware=firmware,
            bus=bus,
            mac=blade.macs[0],
            tap=self.segment.add_tap(f"tap{len(self.blades)}"),
            uuid=blade.uuid or "",
            memory_mib=memory_mib,
        )
        machine = VmBlade(spec, folder, self.segment)
        self._stack.callback(machine.cut_power)
        self.blades[blade.name] = machine
        return machine

    def blade(self, name: str) -> VmBlade:
        """The blade of that name. Raises InventoryError."""
        try:
            return self.blades[name]
        except KeyError:
            known = ", ".join(sorted(self.blades)) or "none"
            raise InventoryError(f"the room has no blade {name!r}", f"there is: {known}") from None

    def start_root(
        self, cluster: Path, depot: Path, extra: Sequence[str] = (), *, reporter: Reporter | None = None
    ) -> RoomProcess:
        """`bladeroot promote` in the room, answering netboot as the inventory says; ends with the room.

        It takes a while to be up: firmware that is to netboot from it is switched on after `wait_for_root`.
        """
        self._roots += 1
        is_up = self._root_is_up = threading.Event()
        report = reporter or self._reporter

        def hear(event: Event) -> None:
            if isinstance(event, RootStarted) and not event.subject:
                is_up.set()
            report(event)

        log = self.work / "logs" / f"{ROOT_NAME}-{self._roots}.jsonl"
        scratch = self.work / "tmp"
        for folder in (log.parent, scratch):
            folder.mkdir(parents=True, exist_ok=True)
        command = ["--json", "--depot", str(depot), "promote", "--blade", ROOT_NAME, *extra]
        argv = self.command(cluster, command)
        # One that is killed leaves its scratch folders: in the room's folder, not in everybody's.
        environment = {"TMPDIR": str(scratch)}
        starting = start_process(
            argv, stdout=DEVNULL, stderr=PIPE, environment=environment, ends_with_parent=True
        )
        process = self._stack.enter_context(starting)
        root = RoomProcess(ROOT_NAME, process, log, hear)
        self._stack.callback(stop_process, process)
        return root

    def wait_for_root(self, root: RoomProcess, timeout_s: float = _ROOT_TIMEOUT_S) -> None:
        """Wait until the root that was started last answers netboot. Raises ClaimNotHeldError.

        Firmware asks for an address for some seconds only; one that got none stands still until somebody
        comes.
        """
        deadline = time.monotonic() + timeout_s
        while not self._root_is_up.wait(_LOOK_S):
            if root.has_ended:
                root.wait(timeout_s)  # raises with what it said, unless it was told to end
                raise ClaimNotHeldError("the root ended before it was up")
            if time.monotonic() > deadline:
                raise ClaimNotHeldError(f"the root is not up after {timeout_s:g} s")

    def command(self, cluster: Path, argv: Sequence[str]) -> list[Argument]:
        """`bladeroot ARGV` as it is run inside the room."""
        return self.segment.command([sys.executable, "-m", "bladeroot", "--cluster", str(cluster), *argv])


@contextmanager
def open_vm_room(work: Path, reporter: Reporter = ignore) -> Iterator[VmRoom]:
    """A room whose machines, processes and network end with the block. Files go below `work`."""
    with ExitStack() as stack:
        segment = stack.enter_context(start_segment())
        yield VmRoom(segment, work, reporter, stack)


def choose_firmwares(mix: str, count: int) -> list[Firmware]:
    """What each of so many blades has."""
    kinds = FIRMWARE_MIXES[mix]
    return [kinds[number % len(kinds)] for number in range(count)]


def choose_buses(mix: str, count: int) -> list[Bus]:
    """What the disk of each of so many blades is attached to."""
    kinds = DISK_MIXES[mix]
    return [kinds[number % len(kinds)] for number in range(count)]


def list_blades(cluster: Cluster) -> list[Blade]:
    """The inventory's blades that a room can have: those with a MAC address."""
    return [blade for blade in cluster.blades.values() if blade.macs]
