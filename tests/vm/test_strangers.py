"""Machines that no inventory knows: one that a person adopts, and one that takes the next blade of a pool."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import attrs

from bladeroot.core.cluster import Blade, Netboot, Network, StrangerPolicy, Strangers
from bladeroot.events import HardwareFound, Held
from bladeroot.host.run import run
from bladeroot.lab.power import VmBlade
from bladeroot.lab.vmroom import VmRoom
from bladeroot.ops.folder import ClusterFolder
from tests.toycluster import DISK_SIZE_BYTES, LAYOUT, ToyCluster, make_cluster
from tests.vm.harness import BLADES, TIMEOUT_S, Heard, needs_room, prepare_agent, read_booted

pytestmark = needs_room

INVENTORY = [Blade(name="web01", role="web"), Blade(name="spare01", role="web")]
STRANGERS = [f"stranger-{blade.macs[0].replace(':', '')}" for blade in BLADES[:2]]


def make_unknowing_cluster(toys: ToyCluster, directory: Path) -> ToyCluster:
    """A cluster of blades that have no machine yet."""
    snapshot = directory / "snapshot"
    shutil.copytree(toys.snapshot, snapshot, symlinks=True)
    network = Network(netboot=Netboot.DHCP, dhcp_range=("10.77.0.200", "10.77.0.220"))
    return make_cluster(directory, snapshot, INVENTORY, layout=LAYOUT, network=network)


def operate(room: VmRoom, toy: ToyCluster, *words: str) -> object:
    """`bladeroot WORDS` at a terminal beside the root."""
    options = ["--json", "--depot", str(toy.depot.path), "--key", str(toy.key_path)]
    argv = room.command(toy.folder.path, [*options, *words])
    return json.loads(run(argv, timeout_s=TIMEOUT_S).stdout)


def let_strangers_take(pool: str, folder: Path) -> None:
    opened = ClusterFolder.open(folder)
    strangers = Strangers(policy=StrangerPolicy.ASSIGN, pool=pool)
    opened.save(attrs.evolve(opened.cluster, strangers=strangers))


def check_installed(blade: VmBlade, name: str) -> None:
    blade.machine.wait_for(f"{name} is installed on /dev/vda", TIMEOUT_S)
    blade.machine.wait_until_ended(TIMEOUT_S)
    assert read_booted(blade.power_on("alone"))["hostname"] == name


def test_strangers_wait_and_then_become_blades(
    toys: ToyCluster, room: VmRoom, heard: Heard, tmp_path: Path
) -> None:
    toy = make_unknowing_cluster(toys, tmp_path)
    room.wait_for_root(room.start_root(toy.folder.path, toy.depot.path))
    machines = [room.add_blade(blade, disk_size_bytes=DISK_SIZE_BYTES) for blade in BLADES[:2]]
    agent = prepare_agent(toy, tmp_path, "bladeroot.then=poweroff")
    for machine in machines:
        machine.power_on(kernel=agent)
    for stranger, blade in zip(STRANGERS, BLADES, strict=False):
        held = heard.wait_for(Held, stranger)
        assert f"blades adopt {blade.macs[0]} NAME" in held.hint
        hardware = heard.wait_for(HardwareFound, stranger).hardware
        assert [nic["mac"] for nic in hardware["nics"]] == [blade.macs[0]]
        assert [disk["size_bytes"] for disk in hardware["disks"]] == [DISK_SIZE_BYTES]

    operate(room, toy, "blades", "adopt", STRANGERS[0], "web01")
    let_strangers_take("spare01", toy.folder.path)
    operate(room, toy, "publish", str(toy.snapshot))
    for machine, name in zip(machines, ("web01", "spare01"), strict=True):
        check_installed(machine, name)
    adopted = ClusterFolder.open(toy.folder.path).cluster.blade("web01")
    assert adopted.macs == BLADES[0].macs
    assert adopted.uuid == BLADES[0].uuid
