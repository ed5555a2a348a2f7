"""Where a measurement takes place: a root and blades with shaped links, and a disk for each of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from attrs import frozen

from benchmarks.payload import Payload, blade_name
from bladeroot.core.cluster import MIB
from bladeroot.host.blockdev import open_disk
from bladeroot.host.files import scratch_folder
from bladeroot.host.interrupts import check
from bladeroot.host.mounts import mounted
from bladeroot.host.run import run
from bladeroot.lab.network import INTERFACE, LabHost, start_network

TREE = "tree"
"""Where on its disk a blade extracts."""
_SUBNET = "10.77.0.0/22"
_SHOW_LINK = ("-s", "-j", "link", "show", "dev", INTERFACE)
_JOURNAL_MIB = 8
_SPARE_MIB = 96


@frozen
class Spot:
    """A blade: its place in the network, and the directory that is its disk."""

    name: str
    host: LabHost
    disk: Path


@frozen(kw_only=True)
class Stage:
    """Everything that a contender is given for one measurement."""

    payload: Payload
    root: LabHost
    blades: Sequence[Spot]
    rate_bits: int
    folder: Path
    """For configuration and logs; gone afterwards."""

    @property
    def floor_s(self) -> float:
        """One link's time for the image."""
        return self.payload.size_bytes * 8 / self.rate_bits

    @property
    def hosts(self) -> list[LabHost]:
        """The root, then the blades."""
        return [self.root, *(spot.host for spot in self.blades)]


@frozen
class Traffic:
    """What a link has carried, headers and all."""

    sent_bytes: int
    received_bytes: int

    def since(self, before: Traffic) -> Traffic:
        """What came after."""
        return Traffic(self.sent_bytes - before.sent_bytes, self.received_bytes - before.received_bytes)


def read_traffic(host: LabHost) -> Traffic:
    """Of its link so far."""
    return parse_traffic(run(["ip", "-netns", host.namespace, *_SHOW_LINK]).stdout)


def parse_traffic(told: str) -> Traffic:
    """What `ip -s -j link show` says of one link."""
    stats = json.loads(told)[0]["stats64"]
    return Traffic(stats["tx"]["bytes"], stats["rx"]["bytes"])


@contextmanager
def open_stage(payload: Payload, count: int, rate_bits: int, work: Path) -> Iterator[Stage]:
    """A room of so many blades with empty disks. Nothing is left of it."""
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder("stage-", work))
        network = stack.enter_context(start_network("bench", _SUBNET))
        root = network.add_host("root", rate_bits=rate_bits)
        spots = []
        for name in map(blade_name, range(count)):
            check()
            disk = stack.enter_context(_open_disk(folder, name, payload))
            spots.append(Spot(name, network.add_host(name, rate_bits=rate_bits), disk))
        network.introduce()
        yield Stage(payload=payload, root=root, blades=spots, rate_bits=rate_bits, folder=folder)


@contextmanager
def _open_disk(folder: Path, name: str, payload: Payload) -> Iterator[Path]:
    """A filesystem of its own: to sync one blade's is then not to wait for all others'."""
    image = folder / f"{name}.img"
    size_mib = 2 * (payload.raw_bytes + payload.size_bytes) // MIB + _SPARE_MIB
    with image.open("wb") as file:
        file.truncate(size_mib * MIB)
    options = f"-q -N {4 * payload.files + 4 * payload.pieces + 1024} -J size={_JOURNAL_MIB}"
    run(["mkfs.ext4", *options.split(), "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", image])
    with open_disk(image) as opened, mounted(opened.device, folder / name) as directory:
        (directory / "lost+found").rmdir()
        yield directory
