"""The daemon on an installed disk: what it leaves in grubenv is what GRUB and the agent go by."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bladeroot.core.bootfacts import BootFacts
from bladeroot.core.cluster import MIB, Cluster, Layout
from bladeroot.core.disklayout import Use
from bladeroot.core.orders import Order, sign_order
from bladeroot.core.roomstate import BladePhase
from bladeroot.core.signing import SecretKey
from bladeroot.errors import ToolError
from bladeroot.events import ignore
from bladeroot.host.blockdev import OpenDisk, open_disk
from bladeroot.host.bootdisk import find_booted_disk
from bladeroot.host.esp import ensure_grubenv, read_boot_facts, write_boot_facts
from bladeroot.host.espagent import write_agent
from bladeroot.host.mounts import mounted
from bladeroot.net.client import RootClient
from bladeroot.net.control import ControlServer
from bladeroot.ops.duty import Duty
from bladeroot.ops.installed import Installed, RestartLog
from bladeroot.ops.machine import OwnMachine
from tests.blankdisks import cut_disk, make_disk, needs_loop_devices, plan_install
from tests.unit.ui.cli.test_orders_and_machines import Boot
from tests.unit.ui.cli.test_status import CLAIM, View

pytestmark = [pytest.mark.system, needs_loop_devices]

LAYOUT = Layout(esp_size_bytes=40 * MIB, slot_size_bytes=8 * MIB, data_min_size_bytes=4 * MIB)
FACTS = BootFacts(slot=Use.SLOT_A, serial=7, cluster_id=CLAIM.cluster_id, order=4, visits=2, tries=4)
KEY = SecretKey.generate()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[OpenDisk]:
    with open_disk(make_disk(tmp_path / "disk.img", 64 * MIB)) as opened:
        cut_disk(opened, plan_install(opened, LAYOUT))
        ensure_grubenv(opened)
        write_boot_facts(opened, FACTS)
        yield opened


class MachineWith(OwnMachine):
    """This one, with another disk, and never restarted."""

    def __init__(self, slot: Path) -> None:
        super().__init__(slot)
        self.restarted = 0

    def restart(self) -> None:
        self.restarted += 1
        raise ToolError("this one is still needed")


def test_boots_are_noted_and_an_order_arms_the_agent_once(disk: OpenDisk, tmp_path: Path) -> None:
    boot = Boot()
    (tmp_path / "kernel").write_bytes(b"kernel")
    with (
        mounted(disk.partition(3), tmp_path / "root") as slot,
        ControlServer(View(), cluster_id=CLAIM.cluster_id, address="127.0.0.1", port=0, boot=boot) as server,
    ):
        assert find_booted_disk(slot).device == disk.device
        machine = MachineWith(slot)
        daemon = Duty(
            installed=Installed(blade="web02", cluster_id=CLAIM.cluster_id, serial=7),
            cluster=Cluster(name="lab", id=CLAIM.cluster_id),
            trusted_keys=(KEY.public_key,),
            restarts=RestartLog(tmp_path),
            find=lambda: None,
            machine=machine,
            reporter=ignore,
        )
        daemon.note_boot()
        noted = read_boot_facts(disk)
        assert (noted.slot, noted.order, noted.visits, noted.tries) == (Use.SLOT_A, 4, 0, 0)
        assert daemon.last_done == 4

        def follow_for(number: int) -> BladePhase:
            order = Order(cluster_id=CLAIM.cluster_id, number=number, blades=("web02",))
            boot.take_order(sign_order(order, KEY))
            daemon.ask(RootClient("127.0.0.1", server.port))
            return server.room.blades["web02"].phase

        assert follow_for(8) is BladePhase.HELD
        assert server.room.blades["web02"].failure.endswith("keeps no agent")
        assert (machine.restarted, read_boot_facts(disk).next_agent) == (0, False)
        write_agent(disk, [tmp_path / "kernel"], [tmp_path / "kernel"], "")
        assert follow_for(9) is BladePhase.HELD
        assert server.room.blades["web02"].failure.endswith("still needed")
        assert (machine.restarted, read_boot_facts(disk).next_agent) == (1, True)
        daemon.note_boot()
        assert not read_boot_facts(disk).next_agent
