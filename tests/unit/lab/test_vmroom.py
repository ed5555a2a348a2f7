from __future__ import annotations

from ipaddress import ip_interface

import pytest

from bladeroot.core.cluster import Cluster
from bladeroot.errors import InventoryError
from bladeroot.lab.demo import ROLES
from bladeroot.lab.vmcluster import plan_blades
from bladeroot.lab.vmroom import choose_buses, choose_firmwares, plan_blade


def test_blades_of_a_room_have_what_an_inventory_wants() -> None:
    blades = plan_blades(199, ROLES)
    cluster = Cluster(name="lab", id="0" * 32, roles=ROLES, blades={one.name: one for one in blades})
    assert list(cluster.blades)[:3] == ["web01", "cache01", "web02"]
    assert all(ip_interface(one.address or "").network.prefixlen == 24 for one in blades)


@pytest.mark.parametrize("number", [0, 200])
def test_a_room_has_its_limits(number: int) -> None:
    with pytest.raises(InventoryError, match="a room has blades 1 to 199"):
        plan_blade(number, "web01")


def test_a_mixed_room_has_every_firmware() -> None:
    assert choose_firmwares("mixed", 4) == ["bios", "uefi", "uefi-http", "bios"]
    assert choose_firmwares("uefi", 2) == ["uefi", "uefi"]


def test_a_mixed_room_has_every_kind_of_disk() -> None:
    assert choose_buses("mixed", 4) == ["virtio", "sata", "nvme", "virtio"]
    assert choose_buses("nvme", 2) == ["nvme", "nvme"]
