"""Rooms of toy blades for tests: what the root heard, the agent started directly, who came up."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any, TypeVar

import attrs
import pytest

from bladeroot.core.agentfiles import INITRAMFS, KERNEL, KERNEL_ARGUMENT
from bladeroot.core.cluster import Netboot, Network
from bladeroot.core.manifest import ArtefactKind
from bladeroot.events import Event
from bladeroot.host.agentpayload import read_agent_file
from bladeroot.host.depot import Depot
from bladeroot.lab.qemu import VirtualMachine
from bladeroot.lab.qemuplan import Kernel
from bladeroot.lab.vmroom import plan_blade
from tests.blankdisks import needs_loop_devices
from tests.toycluster import LAYOUT, ToyCluster, make_cluster
from tests.toyos import build_toy_os

E = TypeVar("E", bound=Event)
TIMEOUT_S = 240.0
BLADES = tuple(plan_blade(number, f"vm{number:02d}", "web") for number in range(1, 9))
BOOTED = r"bladeroot-booted (\{.*?\})"
ROOT_ADDRESS = "10.77.0.1:7474"

needs_room = [
    pytest.mark.vm,
    needs_loop_devices,
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
    pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq is not installed"),
]


def needs_time(config: pytest.Config) -> None:
    """For tests of a quarter of an hour, whose parts others show."""
    if not config.getoption("every_step"):
        pytest.skip("a quarter of an hour: with --every-step")


class Heard:
    """A reporter that keeps what a root was told; to be asked from another thread."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._changed = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._changed:
            self._events.append(event)
            self._changed.notify_all()

    def of(self, event_class: type[E], blade: str = "") -> list[E]:
        """The events of that class about a blade (or the root itself), in order."""
        with self._changed:
            return self._of(event_class, blade)

    def wait_for(
        self, event_class: type[E], blade: str, *, count: int = 1, timeout_s: float = TIMEOUT_S
    ) -> E:
        """The `count`th event of that class about that blade."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while len(found := self._of(event_class, blade)) < count:
                left_s = deadline - time.monotonic()
                assert left_s > 0, f"{event_class.__name__} of {blade}: {len(found)} of {count} heard"
                self._changed.wait(left_s)
            return found[count - 1]

    def _of(self, event_class: type[E], blade: str) -> list[E]:
        return [one for one in self._events if isinstance(one, event_class) and one.subject == blade]


def make_toys(directory: Path) -> ToyCluster:
    """Generation 1 of a toy OS for `BLADES`, to be netbooted."""
    snapshot = directory / "snapshot"
    build_toy_os(snapshot)
    network = Network(netboot=Netboot.DHCP)
    return make_cluster(directory, snapshot, BLADES, layout=LAYOUT, network=network)


def with_own_depot(toys: ToyCluster, path: Path) -> ToyCluster:
    """The same cluster with a depot for one test alone: its files are hard links."""
    shutil.copytree(toys.depot.path, path, copy_function=os.link)
    return attrs.evolve(toys, depot=Depot.open(path))


def prepare_agent(toy: ToyCluster, folder: Path, *arguments: str, root: str = ROOT_ADDRESS) -> Kernel:
    """The generation's agent, for QEMU to start without any firmware's netboot; without `root` it looks."""
    info_hash = toy.manifest.artefact(ArtefactKind.AGENT).info_hash
    for name in (KERNEL, INITRAMFS):
        if not (folder / name).exists():
            (folder / name).write_bytes(b"".join(read_agent_file(toy.depot, info_hash, name)))
    words = [toy.manifest.kernel_command_line, KERNEL_ARGUMENT, *arguments]
    if root:
        words.append(f"bladeroot.root={root}")
    return Kernel(image=folder / KERNEL, initramfs=folder / INITRAMFS, command_line=" ".join(words))


def read_booted(
    machine: VirtualMachine, *, fails_on: str = "", timeout_s: float = TIMEOUT_S
) -> dict[str, Any]:
    """Who the installed system on the machine says it is, once it is up."""
    told: dict[str, Any] = json.loads(machine.wait_for(BOOTED, timeout_s, fails_on=fails_on)[1])
    return told
